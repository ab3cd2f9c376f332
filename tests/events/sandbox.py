"""Simulated: Lambda around the real `bootstrap`. The Runtime API, and a function's environment."""

import json
import os
import queue
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Sandbox:
    """A running function. Its times are in milliseconds."""

    def __init__(self, command: "list[str]", environment: "dict[str, str]", timeout: float):
        self.invocations: "queue.Queue[bytes]" = queue.Queue()
        self.ended: "queue.Queue[tuple[str, object]]" = queue.Queue()
        self.asked = threading.Event()
        self.timeout = timeout
        sandbox = self

        class Handler(_Handler):
            pass

        Handler.sandbox = sandbox
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        environment = {**environment, "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{self.server.server_port}"}
        began = time.perf_counter()
        self.process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        if not self.asked.wait(30):
            raise SystemExit("the function did not ask for an invocation")
        self.init = (time.perf_counter() - began) * 1000
        self.lines: "queue.Queue[str]" = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.put(line)

    def invoke(self, event: object) -> "tuple[object, dict, float]":
        """The answer, or the error; the line of log; the time that it took."""
        began = time.perf_counter()
        self.invocations.put(json.dumps(event).encode())
        end, answer = self.ended.get(timeout=self.timeout + 5)
        took = (time.perf_counter() - began) * 1000
        line = self.lines.get(timeout=5)
        return (answer if end == "response" else {"failed": answer}), json.loads(line), took

    def memory(self) -> int:
        """Of the process, the most that it had, in KiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])

    def close(self):
        self.process.kill()
        self.process.wait()
        self.server.shutdown()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    sandbox: Sandbox

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.sandbox.asked.set()
        body = self.sandbox.invocations.get()
        self.send_response(200)
        self.send_header("Lambda-Runtime-Aws-Request-Id", "8476a536-e9f4-11e8-9739-2dfe598c3fcd")
        self.send_header("Lambda-Runtime-Deadline-Ms", str(int((time.time() + self.sandbox.timeout) * 1000)))
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(202)
        self.send_header("Content-Length", "0")
        self.end_headers()
        self.sandbox.ended.put((self.path.rsplit("/", 1)[1], body))


def environment(variables: "dict[str, str]", key_id: str, secret: str, session: str) -> "dict[str, str]":
    """What Lambda sets, with the template's variables."""
    lambdas = {"AWS_REGION": "eu-west-1", "AWS_ACCESS_KEY_ID": key_id, "AWS_SECRET_ACCESS_KEY": secret}
    return {**lambdas, "AWS_SESSION_TOKEN": session, "PATH": os.environ["PATH"], **variables}
