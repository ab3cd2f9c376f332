"""As much of Buildkite's agent API as the real agent needs to run jobs, simulated: one agent, one job after another."""

import gzip
import json
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# A second, so that nothing waits for long.
INTERVAL = 1
# More than any log of the suite has.
LOG_BYTES = 1 << 20


class Job:
    """What an agent is given, and what came back."""

    def __init__(self, number: int, command: str, **env: str):
        self.id = f"00000000-0000-4000-8000-{number:012d}"
        self.env = {
            "BUILDKITE_JOB_ID": self.id,
            "BUILDKITE_COMMAND": command,
            "BUILDKITE_REPO": "git@example.invalid:acme/web.git",
            "BUILDKITE_COMMIT": "HEAD",
            "BUILDKITE_BRANCH": "main",
            "BUILDKITE_AGENT_NAME": "agent-1",
            "BUILDKITE_AGENT_ID": "11111111-1111-4111-8111-111111111111",
            "BUILDKITE_ORGANIZATION_SLUG": "acme",
            "BUILDKITE_PIPELINE_SLUG": "web",
            "BUILDKITE_PIPELINE_PROVIDER": "git",
            "BUILDKITE_BUILD_URL": "https://example.invalid/builds/1",
            "BUILDKITE_SKIP_CHECKOUT": "true",
            **env,
        }
        self.chunks: "dict[int, bytes]" = {}
        self.exit_status: "str | None" = None
        self.finished = threading.Event()

    @property
    def log(self) -> str:
        """Without the times that the agent puts at the beginning of each line."""
        text = b"".join(chunk for _, chunk in sorted(self.chunks.items())).decode(errors="replace")
        return re.sub("\x1b_bk;t=[0-9]+\x07", "", text).replace("\r", "")


class _Server(ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        # An agent that ends closes its connections as it likes.
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class AgentApi:
    """Serves on a loopback port until it is closed."""

    def __init__(self):
        self.jobs: "dict[str, Job]" = {}
        self.waiting: "list[Job]" = []
        handler = type("Handler", (_Handler,), {"api": self})
        self.server = _Server(("127.0.0.1", 0), handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/v3"

    def run(self, command: str, within: float = 90, **env: str) -> Job:
        """A job, to its end."""
        job = Job(len(self.jobs) + 1, command, **env)
        self.jobs[job.id] = job
        self.waiting.append(job)
        if not job.finished.wait(within):
            raise TimeoutError(f"the job did not end within {within} s:\n{job.log}")
        return job

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def answer(self, method: str, path: str, query: str, body: bytes) -> "tuple[int, dict]":
        words = path.removeprefix("/v3/").split("/")
        if words == ["register"]:
            asked = json.loads(body)
            agent = {"id": "11111111-1111-4111-8111-111111111111", "name": asked["name"], "access_token": "session"}
            times = {"ping_interval": INTERVAL, "job_status_interval": INTERVAL, "heartbeat_interval": 60}
            return 200, {**agent, **times, "endpoint": "", "meta_data": asked["meta_data"]}
        if words == ["ping"]:
            return 200, {"job": {"id": self.waiting[0].id}} if self.waiting else {}
        if words[0] == "jobs" and words[1] in self.jobs:
            return self._job(self.jobs[words[1]], words[2] if len(words) > 2 else "", query, body)
        # connect, heartbeat, disconnect; streams are not spoken here, so the agent polls.
        return (200, {}) if words[0] in ("connect", "heartbeat", "disconnect") else (404, {"message": "not here"})

    def _job(self, job: Job, what: str, query: str, body: bytes) -> "tuple[int, dict]":
        if what == "accept":
            self.waiting.remove(job)
            limits = {"chunks_max_size_bytes": 102400, "chunks_interval_seconds": 1, "log_max_size_bytes": LOG_BYTES}
            return 200, {"id": job.id, "state": "accepted", "env": job.env, "step": {}, "token": "job", **limits}
        if what == "chunks":
            values = dict(pair.split("=", 1) for pair in query.split("&"))
            job.chunks[int(values["sequence"])] = gzip.decompress(body)
        elif what == "finish":
            job.exit_status = json.loads(body)["exit_status"]
            job.finished.set()
        elif what == "":
            return 200, {"state": "running"}
        return 200, {}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    api: AgentApi

    def _serve(self) -> None:
        path, _, query = self.path.partition("?")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status, answer = self.api.answer(self.command, path, query, body)
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_PUT = _serve

    def log_message(self, *_: object) -> None:
        pass
