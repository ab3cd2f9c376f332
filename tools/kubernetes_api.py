"""A Kubernetes API server, its control plane and its objects, with Python's standard library alone."""

import base64
import json
import re
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


class Refused(Exception):
    """An answer of 400 or above."""

    def __init__(self, code: int, message: str):
        super().__init__(f"{code}: {message}")
        self.code = code


class Api:
    """The API server, as the administrator."""

    def __init__(self, kubeconfig: str):
        text = Path(kubeconfig).read_text()

        def value(key: str) -> str:
            return re.search(rf"^\s*{key}: (.+)$", text, re.MULTILINE).group(1).strip().strip('"')

        self.server, self.token = value("server"), value("token")
        authority = base64.b64decode(value("certificate-authority-data")).decode()
        self.tls = ssl.create_default_context(cadata=authority)

    def call(self, method: str, path: str, body: "dict | str | None" = None) -> dict:
        is_yaml = isinstance(body, str)
        data = None if body is None else (body if is_yaml else json.dumps(body)).encode()
        request = urllib.request.Request(self.server + path, data=data, method=method)
        request.add_header("Authorization", f"Bearer {self.token}")
        request.add_header("Content-Type", "application/yaml" if is_yaml else "application/json")
        request.add_header("Accept", "application/json")
        try:
            with urllib.request.urlopen(request, context=self.tls, timeout=20) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            status = json.loads(error.read() or b"{}")
            raise Refused(error.code, status.get("message", "")) from None

    def get(self, path: str) -> dict:
        return self.call("GET", path)

    def post(self, path: str, body: "dict | str") -> dict:
        # Strict: a misspelt field is an error, as it is for a person with a recent kubectl.
        return self.call("POST", f"{path}?fieldValidation=Strict", body)

    def exists(self, path: str) -> bool:
        try:
            self.get(path)
        except Refused as refused:
            if refused.code == 404:
                return False
            raise
        return True

    def may(self, user: str, what: tuple) -> bool:
        """Whether a service account may do (namespace, group, resource, subresource, name, verb)."""
        namespace, group, resource, subresource, name, verb = what
        attributes = {"namespace": namespace, "group": group, "resource": resource, "subresource": subresource}
        spec = {"user": user, "resourceAttributes": {**attributes, "name": name, "verb": verb}}
        spec["groups"] = ["system:serviceaccounts", "system:authenticated"]
        review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
        return self.post("/apis/authorization.k8s.io/v1/subjectaccessreviews", review)["status"]["allowed"]


def eventually(question, seconds: float = 20):
    """The first answer that is true, or the last one."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            answer = question()
        except Refused as refused:
            # A new resource answers 429 until its storage is there.
            if refused.code != 429:
                raise
            answer = None
        if answer or time.monotonic() > deadline:
            return answer
        time.sleep(0.2)


class ControlPlane:
    """The one of tests/control-plane, for a `with` statement. It ends when its standard input does, so also with this process."""

    def __init__(self, folder: str):
        self.folder = folder

    def __enter__(self) -> str:
        """Starts it and answers the administrator's kubeconfig."""
        command = [REPOSITORY / "tests/control-plane/run", "--dir", self.folder, "--stop-on-stdin-eof"]
        pipe = subprocess.PIPE
        # A group of its own: Ctrl-C ends this process, and it ends the control plane in good order.
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, start_new_session=True)
        ready = json.loads(self.process.stdout.readline() or "{}")
        if not ready.get("ready"):
            self.__exit__()
            raise SystemExit(f"the control plane did not come up: {ready}")
        return ready["kubeconfig"]

    def __exit__(self, *_reason) -> None:
        self.process.stdin.close()
        self.process.wait(timeout=60)
