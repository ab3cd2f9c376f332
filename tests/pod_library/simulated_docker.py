"""A Docker daemon, simulated, as far as its real client asks: simulated_docker.py --host=unix://SOCKET --group=NUMBER [IGNORED...]"""

import base64
import json
import os
import signal
import socketserver
import sys
import threading
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler
from pathlib import Path


class SimulatedDocker:
    """Its socket: it lives, has containers, and asks a registry whether a login is right."""

    def __init__(self, path: Path):
        self.containers: "list[str]" = []
        self.is_away = False
        self.calls: "list[str]" = []
        docker = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _serve(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                status, answer = docker.answer(self.command, self.path.split("?")[0], body)
                data = b"" if status == 204 or self.command == "HEAD" else json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Api-Version", "1.41")
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_DELETE = do_HEAD = _serve

            def log_message(self, *_):
                pass

            def address_string(self):
                return "socket"

        class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
            daemon_threads = True

        self.server = Server(str(path), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, method: str, path: str, body: bytes) -> "tuple[int, object]":
        self.calls.append(f"{method} {path}")
        if self.is_away:
            return 500, {"message": "simulated: no daemon"}
        words = path.strip("/").split("/")
        what = words[1:] if words[0].startswith("v1.") else words
        if what == ["auth"]:
            return self._login(json.loads(body))
        if what == ["containers", "json"]:
            return 200, [{"Id": name, "Names": [f"/{name}"], "Image": "x", "State": "exited"} for name in self.containers]
        if method == "DELETE" and what[0] == "containers":
            self.containers.remove(what[1])
            return 204, None
        if what == ["version"]:
            return 200, {"Version": "20.10.24", "ApiVersion": "1.41", "Os": "linux", "Arch": "amd64"}
        return 200, {} if what != ["_ping"] else "OK"

    @staticmethod
    def _login(auth: dict) -> "tuple[int, object]":
        basic = base64.b64encode(f"{auth['username']}:{auth['password']}".encode()).decode()
        request = urllib.request.Request(f"http://{auth['serveraddress']}/v2/", headers={"Authorization": f"Basic {basic}"})
        try:
            with urllib.request.urlopen(request, timeout=5):
                return 200, {"Status": "Login Succeeded", "IdentityToken": ""}
        except urllib.error.HTTPError as error:
            return 401, {"message": f"unauthorized: the registry answered {error.code}"}

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def main() -> None:
    flags = dict(word.split("=", 1) for word in sys.argv[1:] if "=" in word)
    path = Path(flags["--host"].removeprefix("unix://"))
    path.unlink(missing_ok=True)
    signals = {signal.SIGTERM, signal.SIGINT}
    # Before there are threads, so that none of them takes the signal.
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    docker = SimulatedDocker(path)
    os.chown(path, -1, int(flags["--group"]))
    path.chmod(0o660)
    signal.sigwait(signals)
    docker.close()


if __name__ == "__main__":
    main()
