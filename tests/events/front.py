"""Simulated: the front of an EKS cluster, before a real API server. It ends TLS, finds out by the token who asks, and hands
the request on in that one's name, so that rights, quota and validation are the real API server's own."""

import http.client
import ipaddress
import ssl
import threading
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from authenticator import Authenticator, Refused
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def certificates(folder: Path) -> "tuple[Path, bytes]":
    """A chain file with key for 127.0.0.1, and the authority's certificate in PEM. Beside it `client.pem`, of the same one."""
    now = datetime.now(timezone.utc)

    def certificate(name, key, issuer, issuer_key, *extensions):
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(issuer).public_key(key.public_key())
        builder = builder.serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(days=1))
        for extension, is_critical in extensions:
            builder = builder.add_extension(extension, is_critical)
        return builder.sign(issuer_key, hashes.SHA256())

    def named(text):
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority_name = named("authority of a simulated EKS")
    basic = (x509.BasicConstraints(ca=True, path_length=None), True)
    authority = certificate(authority_name, authority_key, authority_name, authority_key, basic)
    alternative = (x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
    served = certificate(named("simulated EKS"), key, authority_name, authority_key, alternative)
    shown = certificate(named("relay"), key, authority_name, authority_key)
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = folder / "front.pem"
    path.write_bytes(private + served.public_bytes(pem))
    (folder / "client.pem").write_bytes(private + shown.public_bytes(pem))
    return path, authority.public_bytes(pem)


class CertificateFront:
    """Simulated: an API server that knows its users by their certificates alone, and takes everything."""

    def __init__(self, folder: Path):
        chain, self.authority = certificates(folder)
        self.users: "list[str]" = []
        users = self.users

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                assert "Authorization" not in self.headers
                users.append(dict(pair[0] for pair in self.connection.getpeercert()["subject"])["commonName"])
                self.send_response(201)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain)
        context.load_verify_locations(cadata=self.authority.decode())
        context.verify_mode = ssl.CERT_REQUIRED
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.address = f"https://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


class Front:
    """Serves until its process ends. `groups` are a principal's, as its access entry says."""

    def __init__(self, folder: Path, api, authenticator: Authenticator, groups: "dict[str, list[str]]"):
        self.api, self.authenticator, self.groups = api, authenticator, groups
        self.refused: "list[str]" = []
        self.answers: "list[tuple[int, str]]" = []
        self.handshakes = 0
        self.is_away = False
        chain, self.authority = certificates(folder)
        front = self

        class Handler(_Handler):
            pass

        Handler.front = front
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.address = f"https://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    front: Front

    def setup(self):
        super().setup()
        self.front.handshakes += 1
        url = urlsplit(self.front.api.server)
        self.upstream = http.client.HTTPSConnection(url.hostname, url.port, context=self.front.api.tls, timeout=20)

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.front.is_away:
            return self.answer(503, b"<html>away</html>")
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        try:
            if scheme != "Bearer":
                raise Refused("no token")
            principal = self.front.authenticator.principal(token)
        except Refused as refused:
            self.front.refused.append(str(refused))
            return self.answer(401, b'{"kind":"Status","reason":"Unauthorized","message":"Unauthorized","code":401}')
        self.upstream.putrequest("POST", self.path, skip_accept_encoding=True)
        self.upstream.putheader("Authorization", f"Bearer {self.front.api.token}")
        self.upstream.putheader("Content-Type", self.headers["Content-Type"])
        self.upstream.putheader("Content-Length", str(len(body)))
        self.upstream.putheader("Impersonate-User", principal)
        for group in [*self.front.groups.get(principal, []), "system:authenticated"]:
            self.upstream.putheader("Impersonate-Group", group)
        self.upstream.endheaders(body)
        answer = self.upstream.getresponse()
        self.answer(answer.status, answer.read())

    def answer(self, status: int, body: bytes):
        self.front.answers.append((status, body.decode()))
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
