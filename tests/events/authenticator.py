"""Simulated: the cluster's side of an EKS token, by the rules of aws-iam-authenticator, with the signature worked out anew.

Written from the rules and from AWS's description of signature version 4, and sharing nothing with what is tested. A real
cluster asks STS whose signature it is; here the secret keys are known, so the signature itself can be looked at.
"""

import base64
import hashlib
import hmac
import re
import time
from datetime import datetime, timezone
from urllib.parse import parse_qsl, quote, urlsplit

PREFIX = "k8s-aws-v1."
LENGTH_MAX = 4096
ALLOWED = {
    "action", "version", "x-amz-algorithm", "x-amz-credential", "x-amz-date", "x-amz-expires", "x-amz-security-token",
    "x-amz-signature", "x-amz-signedheaders",
}  # fmt: skip
# From its date, whatever X-Amz-Expires says.
GOOD_FOR = 15 * 60
# A clock may be ahead.
AHEAD = 60


class Refused(Exception):
    """Why a token is none."""


class Authenticator:
    """Of one cluster. `keys` are secret key, session token and principal by access key id; more may be added."""

    def __init__(self, cluster: str, region: str, keys: "dict[str, tuple[str, str | None, str]]"):
        self.cluster, self.region, self.keys = cluster, region, keys

    def principal(self, token: str, now: "float | None" = None) -> str:
        """Who signed it."""
        now = time.time() if now is None else now
        if len(token) > LENGTH_MAX:
            raise Refused("too long")
        if not token.startswith(PREFIX):
            raise Refused("not its prefix")
        encoded = token[len(PREFIX) :]
        if "=" in encoded or not re.fullmatch(r"[A-Za-z0-9_-]+", encoded):
            raise Refused("not unpadded base64 of the kind for addresses")
        address = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode()
        url = urlsplit(address)
        if url.scheme != "https" or url.netloc != f"sts.{self.region}.amazonaws.com":
            raise Refused(f"not the STS of this region: {url.netloc}")
        if url.path != "/" or url.fragment:
            raise Refused("a path")
        if "+" in url.query:
            # It would be a space to STS.
            raise Refused("a plus that is not encoded")
        pairs = parse_qsl(url.query, keep_blank_values=True, strict_parsing=True)
        values = {name.lower(): value for name, value in pairs}
        if len(values) != len(pairs):
            raise Refused("a parameter twice")
        if set(values) - ALLOWED:
            raise Refused(f"unknown parameters: {set(values) - ALLOWED}")
        if values.get("action") != "GetCallerIdentity":
            raise Refused("another action")
        if values["x-amz-signedheaders"].split(";") != ["host", "x-k8s-aws-id"]:
            raise Refused(f"signed headers: {values['x-amz-signedheaders']}")
        if not 0 < int(values["x-amz-expires"]) <= 900:
            raise Refused("X-Amz-Expires")
        signed_at = datetime.strptime(values["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=timezone.utc).timestamp()
        if not signed_at - AHEAD <= now <= signed_at + GOOD_FOR:
            raise Refused("too old, or from the future")
        return self._signer(url.netloc, pairs, values)

    def _signer(self, host: str, pairs: "list[tuple[str, str]]", values: "dict[str, str]") -> str:
        key_id, day, region, service, end = values["x-amz-credential"].split("/")
        if (day, region, service, end) != (values["x-amz-date"][:8], self.region, "sts", "aws4_request"):
            raise Refused("the scope")
        if key_id not in self.keys:
            raise Refused("nobody's key")
        secret, session, principal = self.keys[key_id]
        if values.get("x-amz-security-token") != session:
            raise Refused("not the session's token")
        if not hmac.compare_digest(self._signature(host, pairs, values, secret), values["x-amz-signature"]):
            raise Refused("the signature")
        return principal

    def _signature(self, host: str, pairs: "list[tuple[str, str]]", values: "dict[str, str]", secret: str) -> str:
        scope = values["x-amz-credential"].split("/", 1)[1]
        unsigned = [(name, value) for name, value in pairs if name.lower() != "x-amz-signature"]
        query = "&".join(f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in sorted(unsigned))
        headers = f"host:{host}\nx-k8s-aws-id:{self.cluster}\n"
        empty = hashlib.sha256(b"").hexdigest()
        request = f"GET\n/\n{query}\n{headers}\nhost;x-k8s-aws-id\n{empty}"
        digest = hashlib.sha256(request.encode()).hexdigest()
        text = f"AWS4-HMAC-SHA256\n{values['x-amz-date']}\n{scope}\n{digest}"
        key = f"AWS4{secret}".encode()
        for part in scope.split("/"):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
