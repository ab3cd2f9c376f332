"""From an event on the bus to a JobHint in a real API server, through the real function: end_to_end.py COMMAND...

The command is the function's program, with an emulator before it where it is for another processor.

Real: the function's program, the rule and queues of the template, a Kubernetes API server with the chart in it (rights, quota,
schema), TLS. Simulated: EventBridge, SQS and the poller (aws.py), Lambda's sandbox (sandbox.py), and what finds out the role
behind a token (front.py, authenticator.py).
"""

import base64
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.request
import uuid
from datetime import datetime, timezone
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from authenticator import PREFIX, Authenticator, Refused  # noqa: E402
from aws import REGION, SOURCE, Aws  # noqa: E402
from botocore.auth import SigV4QueryAuth  # noqa: E402
from botocore.awsrequest import AWSRequest  # noqa: E402
from botocore.credentials import Credentials  # noqa: E402
from front import CertificateFront, Front, certificates  # noqa: E402
from kubernetes_api import Api, ControlPlane, Refused as ApiRefused, eventually  # noqa: E402
from sandbox import Sandbox, environment  # noqa: E402
from template import Stack  # noqa: E402

NAMESPACE, CLUSTER = "buildkite", "ci"
# A session token has all of these in it.
KEY_ID, SECRET, SESSION = "ASIAEXAMPLE", "topsecret/key+", "IQoJb3JpZ2luX2VjE+/+Q==" + "x/+=" * 200
ROLE = "arn:aws:sts::123456789012:assumed-role/Role/kitepool"
HINTS = f"/apis/kitepool.dev/v1alpha1/namespaces/{NAMESPACE}/jobhints"


def event(job: str, **changes) -> dict:
    """The detail of a job that just became runnable."""
    detail = json.loads((ROOT / "crates/api/src/events/samples/job_scheduled.json").read_text())["detail"]
    now = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
    detail["job"] |= {"uuid": job, "agent_query_rules": ["os=linux", "queue=linux"], "runnable_at": now, **changes}
    return detail


def stack_of(**parameters: str) -> Stack:
    return Stack(EventSourceName=SOURCE, ClusterName=CLUSTER, **parameters)


def helm(*arguments: str):
    chart = ["--set", "hints.writers.groups={kitepool-hint-writers}"]
    command = ["helm", *arguments[:2], str(ROOT / "deploy/helm/kitepool"), "--namespace", NAMESPACE, *chart, *arguments[2:]]
    done = subprocess.run(command, env={**os.environ, "KUBECONFIG": WORLD.kubeconfig}, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"helm {' '.join(arguments)}: {done.stderr}")


class World:
    """Everything that the cases share."""

    def __init__(self):
        self.sandboxes: "list[Sandbox]" = []
        self.aws = self.control_plane = None

    def start(self, folder: Path, command: "list[str]"):
        self.command = command
        self.control_plane = ControlPlane(f"{folder}/control-plane")
        self.kubeconfig = self.control_plane.__enter__()
        self.api = Api(self.kubeconfig)
        self.api.post("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        helm("install", "kitepool")
        eventually(lambda: self.api.exists(HINTS))
        stack = stack_of(QueueRules="queue=linux,queue=gpu", JobsWithoutRulesToo="false")
        self.aws = Aws(folder, stack)
        groups = {ROLE: self.aws.resources["AccessEntry"]["KubernetesGroups"]}
        self.front = Front(folder, self.api, Authenticator(CLUSTER, REGION, {KEY_ID: (SECRET, SESSION, ROLE)}), groups)

    def sandbox(self, **changes: str) -> Sandbox:
        variables = dict(self.aws.resources["Function"]["Environment"]["Variables"])
        variables["KITEPOOL_CLUSTER_ENDPOINT"] = self.front.address
        variables["KITEPOOL_CLUSTER_CA"] = base64.b64encode(self.front.authority).decode()
        secret = changes.pop("secret", SECRET)
        variables = environment({**variables, **changes}, KEY_ID, secret, SESSION)
        sandbox = Sandbox(self.command, variables, self.aws.resources["Function"]["Timeout"])
        self.sandboxes.append(sandbox)
        return sandbox

    def quota(self, size: int):
        """Sets it, and waits until it is counted: a new kind within 30 s, a quota whenever it changes."""
        path = f"/api/v1/namespaces/{NAMESPACE}/resourcequotas/kitepool-hints"
        resource = "count/jobhints.kitepool.dev"

        def counted():
            for value in (size + 1, size):
                helm("upgrade", "kitepool", "--set", f"hints.quota={value}")
                time.sleep(1)
            status = self.api.get(path).get("status", {})
            return status.get("hard", {}).get(resource) == str(size) and resource in status.get("used", {})

        assert eventually(counted, 120), self.api.get(path)

    def jobs(self) -> "dict[str, dict]":
        return {job["id"]: job for hint in self.api.get(HINTS)["items"] for job in hint["spec"]["jobs"]}

    def clear(self):
        self.api.call("DELETE", HINTS)
        self.aws.purge()
        self.front.is_away = False

    def stop(self):
        for sandbox in self.sandboxes:
            sandbox.close()
        if self.aws:
            self.aws.close()
        if self.control_plane:
            self.control_plane.__exit__()


WORLD = World()


def identities(count: int) -> "list[str]":
    return [str(uuid.uuid4()) for _ in range(count)]


class EndToEnd(unittest.TestCase):
    """In the order of their names: the first one needs a quota that nobody has counted yet."""

    def setUp(self):
        WORLD.clear()

    def test_0_a_quota_that_is_not_counted_yet_makes_events_come_again(self):
        (job,) = identities(1)
        WORLD.aws.put(event(job))
        sandbox = WORLD.sandbox()
        (line,) = WORLD.aws.poll(sandbox)
        self.assertEqual((line["created"], line["redelivered"]), (0, 1), line)
        self.assertIn("status unknown for quota", line["detail"])
        WORLD.quota(200)
        WORLD.aws.again()
        (line,) = WORLD.aws.poll(sandbox)
        self.assertEqual((line["created"], line["redelivered"]), (1, 0), line)
        self.assertEqual(set(WORLD.jobs()), {job})

    def test_1_events_of_the_wanted_jobs_become_hints_and_no_others_get_as_far_as_the_queue(self):
        wanted = identities(25)
        WORLD.aws.put(*[event(job) for job in wanted])
        other = identities(3)
        WORLD.aws.put(event(other[0], type="manual"), event(other[1], agent_query_rules=["queue=mac"]))
        WORLD.aws.put(event(other[2]), kind="Job Finished")
        self.assertEqual(WORLD.aws.depth("Queue"), len(wanted))
        lines = WORLD.aws.poll(WORLD.sandbox())
        self.assertEqual(len(lines), 3, "batches of ten")
        jobs = WORLD.jobs()
        self.assertEqual(set(jobs), set(wanted))
        job = jobs[wanted[0]]
        self.assertEqual((job["queue"], job["rules"], job["organization"]), ("linux", ["os=linux"], "my-org"))
        self.assertEqual(sum(line["created"] for line in lines), len(wanted))
        self.assertTrue(all(line["calls"] == 1 for line in lines), lines)
        self.assertEqual((WORLD.aws.depth("Queue"), WORLD.aws.depth("DeadLetters")), (0, 0))

    def test_the_rule_lets_through_what_its_parameters_say(self):
        self.addCleanup(WORLD.aws.set_rule, stack_of(QueueRules="queue=linux,queue=gpu", JobsWithoutRulesToo="false"))
        named, other, none = (event(job) for job in identities(3))
        other["job"]["agent_query_rules"] = ["os=mac", "queue=mac"]
        # AWS takes an empty list for no field; moto does not, so here there is none.
        del none["job"]["agent_query_rules"]
        for parameters, expected in (
            ({}, 3),
            ({"QueueRules": "queue=linux,queue=gpu"}, 2),
            ({"QueueRules": "queue=linux,queue=gpu", "JobsWithoutRulesToo": "false"}, 1),
        ):
            WORLD.aws.purge()
            WORLD.aws.set_rule(stack_of(**parameters))
            WORLD.aws.put(named, other, none)
            self.assertEqual(WORLD.aws.depth("Queue"), expected, parameters)

    def test_2_a_batch_that_is_delivered_twice_changes_nothing(self):
        details = [event(job) for job in identities(5)]
        sandbox = WORLD.sandbox()
        for _ in range(2):
            WORLD.aws.put(*details)
            lines = WORLD.aws.poll(sandbox)
            self.assertEqual(sum(line["created"] for line in lines), 5)
        self.assertEqual(WORLD.front.answers[-1][0], 409)
        self.assertIn("AlreadyExists", WORLD.front.answers[-1][1])
        self.assertEqual(len(WORLD.api.get(HINTS)["items"]), 1)

    def test_3_a_malformed_event_is_dropped_and_the_rest_of_its_batch_is_not(self):
        (job,) = identities(1)
        WORLD.aws.put(event(""), event(job), event("x", agent_query_rules=["queue=linux", "queue=gpu"]))
        (line,) = WORLD.aws.poll(WORLD.sandbox())
        self.assertEqual((line["created"], line["dropped"]["malformed"], line["redelivered"]), (1, 2, 0), line)
        self.assertEqual(set(WORLD.jobs()), {job})

    def test_4_events_wait_while_the_api_server_is_away(self):
        jobs = identities(3)
        WORLD.aws.put(*[event(job) for job in jobs])
        sandbox = WORLD.sandbox()
        WORLD.front.is_away = True
        (line,) = WORLD.aws.poll(sandbox)
        self.assertEqual((line["redelivered"], line["trouble"], line["calls"]), (3, "server_error", 3), line)
        WORLD.front.is_away = False
        WORLD.aws.again()
        WORLD.aws.poll(sandbox)
        self.assertEqual(set(WORLD.jobs()), set(jobs))

    def test_what_fails_for_good_ends_among_the_dead_letters(self):
        binding = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{NAMESPACE}/rolebindings/kitepool-hint-writer"
        self.addCleanup(helm, "upgrade", "kitepool", "--set", "hints.quota=200")
        WORLD.api.call("DELETE", binding)
        WORLD.aws.put(*[event(job) for job in identities(2)])
        sandbox = WORLD.sandbox()
        for _ in range(WORLD.aws.resources["Queue"]["RedrivePolicy"]["maxReceiveCount"]):
            (line,) = WORLD.aws.poll(sandbox)
            self.assertEqual((line["redelivered"], line["trouble"]), (2, "forbidden"), line)
            WORLD.aws.again()
        self.assertEqual(WORLD.aws.poll(sandbox), [])
        self.assertEqual((WORLD.aws.depth("Queue"), WORLD.aws.depth("DeadLetters")), (0, 2))

    def test_a_full_quota_drops_what_is_new_and_what_is_there_already(self):
        WORLD.quota(1)
        sandbox = WORLD.sandbox()
        there, more = [event(job) for job in identities(2)]
        for detail, expected in ((there, (1, 0)), (more, (0, 1)), (there, (0, 1))):
            WORLD.aws.put(detail)
            (line,) = WORLD.aws.poll(sandbox)
            self.assertEqual((line["created"], line["dropped"]["quota"]), expected, line)
        self.assertIn("exceeded quota", WORLD.front.answers[-1][1], "said of a name that exists, too")
        self.assertEqual(WORLD.aws.depth("Queue"), 0)
        WORLD.quota(200)

    def test_a_writer_may_create_hints_and_nothing_else(self):
        def may(verb: str, group: str, resource: str, namespace: str = NAMESPACE) -> bool:
            attributes = {"namespace": namespace, "group": group, "resource": resource, "verb": verb}
            groups = [*WORLD.front.groups[ROLE], "system:authenticated"]
            spec = {"user": ROLE, "groups": groups, "resourceAttributes": attributes}
            review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
            return WORLD.api.post("/apis/authorization.k8s.io/v1/subjectaccessreviews", review)["status"]["allowed"]

        self.assertTrue(may("create", "kitepool.dev", "jobhints"))
        self.assertFalse(may("create", "kitepool.dev", "jobhints", "default"))
        for verb in ("get", "list", "watch", "update", "patch", "delete", "deletecollection"):
            self.assertFalse(may(verb, "kitepool.dev", "jobhints"), verb)
        others = [("batch", "jobs"), ("", "pods"), ("", "secrets"), ("apps", "deployments"), ("kitepool.dev", "agentpools")]
        for group, resource in others:
            for verb in ("create", "get", "list", "patch"):
                self.assertFalse(may(verb, group, resource), f"{verb} {resource}")

    def test_a_token_for_another_cluster_or_by_another_key_is_refused(self):
        others = ({"KITEPOOL_CLUSTER_NAME": "other"}, {"secret": "another"}, {"KITEPOOL_CLUSTER_REGION": "us-east-1"})
        for changes in others:
            WORLD.clear()
            WORLD.front.refused.clear()
            WORLD.aws.put(event(identities(1)[0]))
            (line,) = WORLD.aws.poll(WORLD.sandbox(**changes))
            self.assertEqual((line["redelivered"], line["trouble"]), (1, "unauthorized"), line)
            self.assertEqual(len(WORLD.front.refused), 2, "made afresh once")

    def test_an_endpoint_that_another_authority_vouches_for_gets_no_token(self):
        with tempfile.TemporaryDirectory() as folder:
            _, foreign = certificates(Path(folder))
        WORLD.aws.put(event(identities(1)[0]))
        before = len(WORLD.front.answers)
        (line,) = WORLD.aws.poll(WORLD.sandbox(KITEPOOL_CLUSTER_CA=base64.b64encode(foreign).decode()))
        self.assertEqual((line["redelivered"], line["trouble"]), (1, "unreachable"), line)
        self.assertEqual(len(WORLD.front.answers), before)

    def test_the_authenticator_knows_a_good_token_from_a_bad_one(self):
        regional = f"sts.{REGION}.amazonaws.com"

        # By botocore, so that neither the function nor the authenticator judges itself.
        def token(cluster=CLUSTER, secret=SECRET, host=regional, more="", expires=60, change=None) -> str:
            url = f"https://{host}/?Action=GetCallerIdentity&Version=2011-06-15{more}"
            request = AWSRequest(method="GET", url=url, headers={"x-k8s-aws-id": cluster})
            SigV4QueryAuth(Credentials(KEY_ID, secret, SESSION), "sts", REGION, expires=expires).add_auth(request)
            address = change(request.url) if change else request.url
            return PREFIX + base64.urlsafe_b64encode(address.encode()).decode().rstrip("=")

        authenticator = WORLD.front.authenticator
        self.assertEqual(authenticator.principal(token()), ROLE)
        with self.assertRaises(Refused):
            authenticator.principal(token(), time.time() + 16 * 60)
        for bad in (
            token(cluster="other"),
            token(secret="another"),
            token(host="sts.amazonaws.com"),
            token(host="evil.example"),
            token(more="&x-id=GetCallerIdentity"),
            token(expires=901),
            token(change=lambda url: url.replace("%2B", "+")),
            token(change=lambda url: url.replace("Action=GetCallerIdentity", "Action=AssumeRole")),
            token(change=lambda url: url + "&Version=2011-06-15"),
            token(change=lambda url: url[:-1] + ("0" if url[-1] != "0" else "1")),
            token() + "=",
            token().replace("v1", "v2"),
        ):
            with self.assertRaises(Refused):
                authenticator.principal(bad)

    def test_the_credentials_of_an_assumed_role_sign_the_token(self):
        arn = "arn:aws:iam::210987654321:role/hints"
        sandbox = WORLD.sandbox(KITEPOOL_ASSUME_ROLE_ARN=arn, AWS_ENDPOINT_URL_STS=WORLD.aws.address)
        WORLD.aws.put(event(identities(1)[0]))
        (line,) = WORLD.aws.poll(sandbox)
        # Nobody has told the cluster of that role's keys yet.
        self.assertEqual((line["redelivered"], line["trouble"]), (1, "unauthorized"), line)
        with urllib.request.urlopen(f"{WORLD.aws.address}/moto-api/data.json") as answer:
            assumed = json.load(answer)["sts"]["AssumedRole"]
        # It was assumed once for the invocation, and again after the first refusal.
        self.assertEqual([role["role_arn"] for role in assumed], [arn, arn])
        principal = "arn:aws:sts::210987654321:assumed-role/hints/kitepool-lambda"
        for role in assumed:
            key = (role["secret_access_key"], role["session_token"], principal)
            WORLD.front.authenticator.keys[role["access_key_id"]] = key
        WORLD.front.groups[principal] = WORLD.front.groups[ROLE]
        WORLD.aws.again()
        (line,) = WORLD.aws.poll(sandbox)
        self.assertEqual(line["created"], 1, line)

    def lines(self, kubeconfig: Path, *details: dict) -> "list[dict]":
        """The program without Lambda."""
        text = "".join(json.dumps(envelope(detail)) + "\n" for detail in details)
        variables = {"KUBECONFIG": str(kubeconfig), "KITEPOOL_NAMESPACE": NAMESPACE}
        done = subprocess.run(WORLD.command, input=text, env=variables, capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stdout)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def test_without_lambda_a_kubeconfig_leads_to_the_api_server(self):
        jobs = identities(2)
        lines = self.lines(Path(WORLD.kubeconfig), *[event(job) for job in jobs])
        self.assertEqual([line["created"] for line in lines], [1, 1])
        self.assertEqual(set(WORLD.jobs()), set(jobs))

    def test_without_lambda_a_client_certificate_is_shown(self):
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            front = CertificateFront(folder)
            (folder / "authority.pem").write_bytes(front.authority)
            (folder / "kubeconfig").write_text(
                "current-context: here\n"
                "contexts: [{ name: here, context: { cluster: c, user: u } }]\n"
                f"clusters: [{{ name: c, cluster: {{ server: '{front.address}', certificate-authority: authority.pem }} }}]\n"
                "users: [{ name: u, user: { client-certificate: client.pem, client-key: client.pem } }]\n"
            )
            (line,) = self.lines(folder / "kubeconfig", event(identities(1)[0]))
            self.assertEqual((line["created"], front.users), (1, ["relay"]))

    def test_z_one_connection_serves_every_invocation_and_what_they_take_is_printed(self):
        inits = []
        for _ in range(10):
            sandbox = WORLD.sandbox()
            inits.append(sandbox.init)

        def batch() -> dict:
            return {"Records": [{"messageId": "1", "body": json.dumps(envelope(event(identities(1)[0])))}]}

        handshakes = WORLD.front.handshakes
        _, line, cold = sandbox.invoke(batch())
        self.assertEqual(line["created"], 1, line)
        warm = [sandbox.invoke(batch()) for _ in range(50)]
        self.assertEqual(WORLD.front.handshakes, handshakes + 1)
        without = [sandbox.invoke({"Records": [{"messageId": "1", "body": "{}"}]})[2] for _ in range(50)]
        whole = statistics.median(took for _, _, took in warm)
        calls = statistics.median(line["milliseconds"] for _, line, _ in warm)
        print(
            f"medians in ms: start to first request for work {statistics.median(inits):.1f}, first invocation with its "
            f"handshake {cold:.1f}, later ones {whole:.1f}, of which {calls:.0f} for the call by way of the simulated front; "
            f"one without a call {statistics.median(without):.1f}; {sandbox.memory()} KiB at most",
            flush=True,
        )


def envelope(detail: dict) -> dict:
    """As EventBridge wraps it."""
    now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    known = {"version": "0", "id": "1", "account": "123456789012", "time": now, "region": REGION, "resources": []}
    return {**known, "detail-type": "Job Scheduled", "source": SOURCE, "detail": detail}


def main() -> int:
    command = [str(Path(sys.argv[1]).resolve()), *sys.argv[2:]]
    with tempfile.TemporaryDirectory() as folder:
        try:
            WORLD.start(Path(folder), command)
            suite = unittest.defaultTestLoader.loadTestsFromTestCase(EndToEnd)
            result = unittest.TextTestRunner(verbosity=2).run(suite)
        finally:
            WORLD.stop()
    return 0 if result.wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main())
