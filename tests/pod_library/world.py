"""What the hooks meet: the real agent, Amazon's services by moto, and the distribution's registry."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import boto3
from agent_api import AgentApi, Job
from botocore.config import Config
from simulated_docker import SimulatedDocker

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ROOT / "pod-library/images"
ACCOUNT, OTHER_ACCOUNT = "111122223333", "444455556666"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/linux"
REGIONS = ["us-east-1", "eu-west-1", "ap-southeast-2"]
BUCKET = "acme-secrets"


def eventually(what: str, holds, within: float = 60):
    """What it answers as soon as that is true."""
    until = time.monotonic() + within
    while time.monotonic() < until:
        found = holds()
        if found:
            return found
        time.sleep(0.1)
    raise TimeoutError(f"{what}: not within {within} s")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


class Processes:
    """Started here, ended here, each with a log."""

    def __init__(self, folder: Path):
        self.folder, self.started = folder, []

    def start(self, name: str, command: list, **options) -> subprocess.Popen:
        with (self.folder / f"{name}.log").open("a") as log:
            process = subprocess.Popen(list(map(str, command)), stdout=log, stderr=subprocess.STDOUT, **options)
        self.started.append(process)
        return process

    def end(self) -> None:
        for process in reversed(self.started):
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class Aws:
    """moto as a proxy for Amazon's own names: so whatever speaks to AWS does it as it would there, with TLS and signatures."""

    def __init__(self, folder: Path, processes: Processes):
        self.port = free_port()
        self.authority = Path(sys.prefix, "lib").glob("python3*/site-packages/moto/moto_proxy/ca.crt").__next__()
        self.proxy = f"http://127.0.0.1:{self.port}"
        processes.start("moto", [Path(sys.prefix, "bin/moto_proxy"), "-H", "127.0.0.1", "-p", self.port], cwd=folder)
        eventually("moto listens", lambda: listens(self.port))

    def client(self, service: str, region: str = "us-east-1"):
        # The account is the one of the role that the hooks have.
        proxies = Config(proxies={"https": self.proxy})
        keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
        sts = boto3.client("sts", region_name=region, verify=str(self.authority), config=proxies, **keys)
        got = sts.assume_role(RoleArn=ROLE, RoleSessionName="test")["Credentials"]
        keys = {"aws_access_key_id": got["AccessKeyId"], "aws_secret_access_key": got["SecretAccessKey"]}
        keys["aws_session_token"] = got["SessionToken"]
        return boto3.client(service, region_name=region, verify=str(self.authority), config=proxies, **keys)


class Registry:
    """docker-registry of the distribution, with a password."""

    USER = "builder"

    def __init__(self, folder: Path, processes: Processes, password: str):
        self.port = free_port()
        hashed = subprocess.run(["htpasswd", "-niB", self.USER], input=password, capture_output=True, text=True, check=True)
        (folder / "htpasswd").write_text(hashed.stdout)
        configuration = {
            "version": 0.1,
            "log": {"accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": str(folder / "registry")}},
            "http": {"addr": self.address},
            "auth": {"htpasswd": {"realm": "test", "path": str(folder / "htpasswd")}},
        }
        (folder / "registry.json").write_text(json.dumps(configuration))
        processes.start("registry", ["docker-registry", "serve", folder / "registry.json"])
        eventually("the registry listens", lambda: listens(self.port))

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


def install(image: str, folder: Path) -> Path:
    """Hooks and their library, laid out as the Dockerfile does it."""
    place = folder / "etc/buildkite-agent"
    shutil.copytree(IMAGES / "lib", place / "lib")
    if (IMAGES / image / "lib").exists():
        shutil.copytree(IMAGES / image / "lib", place / "lib", dirs_exist_ok=True)
    shutil.copytree(IMAGES / image / "hooks", place / "hooks")
    return place


class Agent:
    """The real agent in folders of its own."""

    def __init__(self, folder: Path, processes: Processes, command: list, image: str, **env: str):
        self.home, self.tmp = folder / "home", folder / "tmp"
        for place in (self.home, self.tmp, self.home / "bin"):
            place.mkdir(parents=True)
        shutil.copy(os.environ["KITEPOOL_AGENT"], self.home / "bin/buildkite-agent")
        self.api = AgentApi()
        token = folder / "token"
        token.write_text("simulated")
        hooks = install(image, folder) / "hooks"
        path = f"{Path(sys.prefix, 'bin')}:{self.home / 'bin'}:/usr/local/bin:/usr/bin:/bin"
        self.env = {
            "PATH": path,
            "HOME": str(self.home),
            "TMPDIR": str(self.tmp),
            "BUILDKITE_AGENT_TOKEN": f"file://{token}",
            "BUILDKITE_AGENT_ENDPOINT": self.api.endpoint,
            "BUILDKITE_AGENT_NAME": "agent-%spawn",
            "BUILDKITE_AGENT_TAGS": "queue=linux",
            "BUILDKITE_AGENT_SPAWN": "1",
            "BUILDKITE_BUILD_PATH": str(self.home / "builds"),
            "BUILDKITE_PLUGINS_PATH": str(self.home / "plugins"),
            "BUILDKITE_HOOKS_PATH": str(hooks),
            "BUILDKITE_NO_SSH_KEYSCAN": "true",
            **env,
        }
        self.process = processes.start("agent", command, env=self.env, cwd=self.home)

    def run(self, command: str, within: float = 90, **env: str) -> Job:
        if self.process.poll() is not None:
            raise RuntimeError(f"the agent has ended with {self.process.returncode}")
        return self.api.run(command, within, **env)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


__all__ = ["ACCOUNT", "Agent", "Aws", "BUCKET", "OTHER_ACCOUNT", "Processes", "REGIONS", "ROLE", "Registry", "SimulatedDocker"]
__all__ += ["eventually", "free_port", "is_alive", "listens"]
