"""The hooks of the elastic-ci-stack image, run by the real agent: hooks.py FOLDER CANARY

Real: agent, hooks, AWS CLI, credential helper, docker's client, ssh-agent, git, a registry with a password. Simulated: Buildkite
(agent_api.py), AWS (moto), and the Docker daemon (world.py).

Every secret contains the canary. What is compared are digests, so that no secret is in any output; the script that started this
searches all of it.
"""

import hashlib
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

from world import ACCOUNT, BUCKET, OTHER_ACCOUNT, REGIONS, ROLE, Agent, Aws, Processes, Registry, SimulatedDocker, is_alive

FOLDER, CANARY = Path(sys.argv[1]), Path(sys.argv[2]).read_text().strip()
# Folders where a job of another pipeline looks for what the job before it left.
SEARCH = 'grep -r -l -a -s -f "$PATTERN" "$(dirname "$BUILDKITE_BUILD_PATH")" "$CLEARED" /proc/[0-9]*/environ'


def secret(name: str) -> str:
    """One with the characters that shells, URLs and JSON trip over."""
    return f"{CANARY}-{name}-'$x\" \\"


def quoted(value: str) -> str:
    """As a shell reads it."""
    return shlex.quote(value)


def digest(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()[:16]


# To be evaluated by jobs: prints the digest of a variable, never its value.
DIGEST = 'digest() { printf "%s=" "$1"; printf "%s" "${!1-unset}" | sha256sum | cut -c 1-16; }; '


class World:
    """Everything that the cases share."""

    def start(self) -> None:
        self.processes = Processes(FOLDER)
        self.aws = Aws(FOLDER, self.processes)
        self.registry = Registry(FOLDER, self.processes, secret("registry"))
        self.docker = SimulatedDocker(FOLDER / "docker.sock")
        self.s3 = self.aws.client("s3", "eu-west-1")
        self.s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
        self.fingerprints = {}
        self.fill()
        (FOLDER / "pattern").write_text(CANARY + "\n")
        (FOLDER / "identity").write_text("a token that Kubernetes would sign")
        (FOLDER / "credentials").write_text("")
        self.agent = Agent(
            FOLDER / "agent",
            self.processes,
            [Path(__file__).resolve().parents[2] / "pod-library/images/elastic-ci-stack/bin/elastic-ci-stack-agent", "start"],
            "elastic-ci-stack",
            # As the webhook of IRSA sets them.
            AWS_ROLE_ARN=ROLE,
            AWS_WEB_IDENTITY_TOKEN_FILE=str(FOLDER / "identity"),
            AWS_REGION="eu-west-1",
            AWS_DEFAULT_REGION="eu-west-1",
            HTTPS_PROXY=self.aws.proxy,
            AWS_CA_BUNDLE=str(self.aws.authority),
            DOCKER_HOST=f"unix://{FOLDER / 'docker.sock'}",
            KITEPOOL_CLEARED_FOLDERS=f"{FOLDER / 'agent/home'}:{FOLDER / 'agent/tmp'}",
            BUILDKITE_SECRETS_BUCKET=BUCKET,
            BUILDKITE_SECRETS_BUCKET_REGION="eu-west-1",
            BUILDKITE_STACK_NAME="kitepool",
            BUILDKITE_ECR_POLICY="readonly",
            AWS_ECR_LOGIN_REGISTRY_IDS=f"{ACCOUNT},{OTHER_ACCOUNT}",
            KITEPOOL_ECR_REGIONS=",".join(REGIONS),
            BUILDKITE_ENV_FILE_URL=f"s3://{BUCKET}/agent/env-file",
            BUILDKITE_ELASTIC_BOOTSTRAP_SCRIPT=f"s3://{BUCKET}/agent/bootstrap",
            PATTERN=str(FOLDER / "pattern"),
            CLEARED=str(FOLDER / "agent/tmp"),
            BOOTSTRAPPED=str(FOLDER / "bootstrapped"),
        )

    def put(self, key: str, text: str) -> None:
        self.s3.put_object(Bucket=BUCKET, Key=key, Body=text.encode(), ServerSideEncryption="aws:kms")

    def fill(self) -> None:
        self.put("env", f"ROOT_ENV={quoted(secret('ROOT_ENV'))}\nWHO=everybody\n")
        self.put("environment", f"ROOT_ENVIRONMENT={quoted(secret('ROOT_ENVIRONMENT'))}\n")
        # Without a last line's end.
        self.put("web/env", f"WEB_ENV={quoted(secret('WEB_ENV'))}\nWHO=web")
        self.put("web/environment", f"export WEB_ENVIRONMENT={quoted(secret('WEB_ENVIRONMENT'))}\n")
        self.put("web-admin/secret-files/ADMIN_TOKEN", secret("admin"))
        self.put("web/secret-files/NPM_TOKEN", secret("npm"))
        self.put("web/DEPLOY_PASSWORD", secret("deploy"))
        self.put("web/secret-files/README", "no secret by its name")
        for name, key in enumerate(("private_ssh_key", "id_rsa_github", "web/private_ssh_key", "web/id_rsa_github")):
            path = FOLDER / f"key-{name}"
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", key, "-f", path], check=True)
            self.put(key, path.read_text())
            shown = subprocess.run(["ssh-keygen", "-lf", path], capture_output=True, text=True, check=True).stdout
            self.fingerprints[key] = shown.split()[1]
        self.put("git-credentials", f"https://everybody:{CANARY}-git@git.example.invalid\n")
        self.put("web/git-credentials", f"https://web:{CANARY}-git-web@github.example.invalid\n")
        self.put("agent/env-file", f"FROM_ENV_FILE=env file\n# a comment\nnot a line of it\n")
        self.put("agent/bootstrap", 'printf "%s" "${BUILDKITE_AGENT_TOKEN-none} $FROM_ENV_FILE" >"$BOOTSTRAPPED"\n')

    def stop(self) -> None:
        self.processes.end()
        self.docker.close()
        self.agent.api.close()
        # All that jobs wrote, for the search.
        logs = [f"job {number}: exit {job.exit_status}\n{job.log}\n" for number, job in enumerate(self.agent.api.jobs.values(), 1)]
        (FOLDER / "jobs.log").write_text("\n".join(logs))


WORLD = World()


def setUpModule() -> None:
    unittest.addModuleCleanup(WORLD.stop)
    WORLD.start()


class Case(unittest.TestCase):
    def run_job(self, command: str, expected: str = "0", **env: str):
        job = WORLD.agent.run(DIGEST + command, **env)
        self.assertEqual(job.exit_status, expected, job.log)
        return job


class TheSecrets(Case):
    def test_every_place_is_looked_at_where_the_original_looks_and_the_pipelines_own_win(self):
        names = ("ROOT_ENV", "ROOT_ENVIRONMENT", "WEB_ENV", "WEB_ENVIRONMENT", "NPM_TOKEN", "DEPLOY_PASSWORD")
        job = self.run_job("; ".join(f"digest {name}" for name in names) + '; echo "who=$WHO"; ssh-add -l')
        values = {"NPM_TOKEN": secret("npm"), "DEPLOY_PASSWORD": secret("deploy")}
        for name in names:
            self.assertIn(f"{name}={digest(values.get(name, secret(name)))}", job.log)
        self.assertIn("who=web", job.log)
        for key, fingerprint in WORLD.fingerprints.items():
            self.assertIn(fingerprint, job.log, key)

    def test_git_finds_the_credentials_of_everybody_and_of_the_pipeline(self):
        ask = 'P=$(printf "protocol=https\\nhost=%s\\n\\n" {} | git credential fill | sed -n "s/^password=//p"); digest P; '
        job = self.run_job(ask.format("git.example.invalid") + ask.format("github.example.invalid"))
        self.assertIn(f"P={digest(f'{CANARY}-git')}", job.log)
        self.assertIn(f"P={digest(f'{CANARY}-git-web')}", job.log)

    def test_a_pipeline_gets_no_secret_of_one_whose_name_begins_like_its_own(self):
        job = self.run_job("digest ADMIN_TOKEN; digest NPM_TOKEN")
        self.assertIn(f"ADMIN_TOKEN={digest('unset')}", job.log)
        other = self.run_job("digest ADMIN_TOKEN; digest NPM_TOKEN", BUILDKITE_PIPELINE_SLUG="web-admin")
        self.assertIn(f"ADMIN_TOKEN={digest(secret('admin'))}", other.log)
        self.assertIn(f"NPM_TOKEN={digest('unset')}", other.log)

    def test_secrets_that_a_job_prints_are_redacted(self):
        job = self.run_job('echo "token: $NPM_TOKEN"; cat "$KITEPOOL_JOB_FOLDER"/secrets/web/git-credentials')
        self.assertEqual(job.log.count("[REDACTED]"), 2, job.log)

    def test_no_job_runs_without_its_secrets(self):
        WORLD.s3.delete_object(Bucket=BUCKET, Key="web/env")
        self.addCleanup(WORLD.put, "web/env", f"WEB_ENV={quoted(secret('WEB_ENV'))}\nWHO=web")
        # Passed over, as the original does it.
        self.assertIn("who=everybody", self.run_job('echo "who=$WHO"').log)
        WORLD.put("web/DEPLOY_PASSWORD", "x" * 65537)
        self.addCleanup(WORLD.put, "web/DEPLOY_PASSWORD", secret("deploy"))
        job = self.run_job("echo the command ran", "53")
        self.assertIn("secrets are smaller", job.log)
        self.assertNotIn("the command ran", job.log)

    def test_a_step_cannot_name_another_bucket_nor_turn_on_what_the_definition_turned_off(self):
        job = self.run_job('echo "bucket=$BUILDKITE_SECRETS_BUCKET region=$AWS_REGION"', BUILDKITE_SECRETS_BUCKET="theirs",
                           AWS_REGION="us-west-2")
        self.assertIn(f"bucket={BUCKET} region=us-west-2", job.log, "a step may choose its region, as in the original")
        off = self.run_job("digest NPM_TOKEN; echo plugins=$PLUGINS_ENABLED", SECRETS_PLUGIN_ENABLED="false")
        self.assertIn(f"NPM_TOKEN={digest('unset')}", off.log, "a step may do without")
        self.assertIn("plugins=ecr docker-login", off.log)


class TheRegistries(Case):
    def test_a_password_is_had_for_two_accounts_in_three_regions(self):
        job = self.run_job(
            'jq -r ".credHelpers | keys[]" "$DOCKER_CONFIG/config.json" | while read -r R; do '
            'S=$(echo "$R" | docker-credential-ecr-login get | jq -r .Secret); echo "registry=$R"; digest S; done'
        )
        pairs = re.findall(r"^registry=(\S+)\s+S=(\w+)", job.log, re.MULTILINE)
        # What moto gives out for an account.
        expected = {f"{account}.dkr.ecr.{region}.amazonaws.com": digest(f"{account}-auth-token")
                    for account in (ACCOUNT, OTHER_ACCOUNT) for region in REGIONS}
        self.assertEqual(dict(pairs), expected)
        self.assertFalse((WORLD.agent.home / ".ecr").exists(), "the helper's cache goes with the job")

    def test_without_a_list_it_is_the_roles_own_account(self):
        # A space is a list without an entry.
        job = self.run_job('jq -r ".credHelpers | keys[]" "$DOCKER_CONFIG/config.json"', AWS_ECR_LOGIN_REGISTRY_IDS=" ")
        self.assertEqual(set(re.findall(r"(\d{12})\.dkr", job.log)), {ACCOUNT}, job.log)

    def test_a_pipeline_may_do_without_and_may_name_its_accounts_among_its_secrets(self):
        ask = 'jq -r ".credHelpers // {} | keys[]" "$DOCKER_CONFIG/config.json"'
        self.assertNotIn("dkr.ecr.", self.run_job(ask, AWS_ECR_LOGIN="false").log.split("Running commands")[1])
        WORLD.put("other/env", "AWS_ECR_LOGIN_REGISTRY_IDS=999900001111")
        found = re.findall(r"^(\d{12})\.dkr", self.run_job(ask, BUILDKITE_PIPELINE_SLUG="other").log, re.MULTILINE)
        self.assertEqual(set(found), {"999900001111"})

    def test_something_that_is_no_account_is_refused_with_a_sentence(self):
        job = self.run_job("true", "53", AWS_ECR_LOGIN_REGISTRY_IDS="acme")
        self.assertIn("expected numbers of accounts", job.log)

    def test_docker_login_opens_the_registry_and_only_for_this_job(self):
        self.login(secret("registry"))
        check = (
            f'A=$(jq -r ".auths[\\"{WORLD.registry.address}\\"].auth // empty" "$DOCKER_CONFIG/config.json" | base64 -d); '
            f'curl -s -o /dev/null -w "registry=%{{http_code}}\\n" ${{A:+-u "$A"}} http://{WORLD.registry.address}/v2/'
        )
        self.assertIn("registry=200", self.run_job(check).log)
        self.assertIn("registry=401", self.run_job(check, BUILDKITE_PIPELINE_SLUG="other").log)

    def login(self, password: str) -> None:
        lines = [f"DOCKER_LOGIN_USER={Registry.USER}", f"DOCKER_LOGIN_PASSWORD={quoted(password)}"]
        WORLD.put("web/environment", "\n".join([*lines, f"DOCKER_LOGIN_SERVER={WORLD.registry.address}"]))
        self.addCleanup(WORLD.put, "web/environment", f"export WEB_ENVIRONMENT={quoted(secret('WEB_ENVIRONMENT'))}\n")

    def test_a_wrong_password_ends_the_job_after_three_attempts(self):
        self.login(f"{CANARY}-wrong")
        before = len(WORLD.docker.calls)
        job = self.run_job("echo the command ran", "1")
        self.assertNotIn("the command ran", job.log)
        self.assertEqual(sum("/auth" in call for call in WORLD.docker.calls[before:]), 3)


class TheClearing(Case):
    def test_each_job_has_a_docker_config_of_its_own_which_goes_with_it(self):
        tell = 'echo "config=$DOCKER_CONFIG same=$BUILDKITE_DOCKER_CONFIG_TEMP_DIRECTORY"'
        found = [re.search(r"^config=(\S+) same=(\S+)", self.run_job(tell).log, re.MULTILINE) for _ in range(2)]
        self.assertEqual(found[0][1], found[0][2])
        self.assertNotEqual(found[0][1], found[1][1])
        self.assertFalse(any(Path(match[1]).parent.exists() for match in found))

    def test_the_ssh_agent_is_gone_after_the_job(self):
        job = self.run_job('echo "agent=$SSH_AGENT_PID socket=$SSH_AUTH_SOCK"')
        pid, path = re.search(r"^agent=(\d+) socket=(\S+)", job.log, re.MULTILINE).groups()
        self.assertFalse(is_alive(int(pid)))
        self.assertFalse(Path(path).exists())

    def test_a_job_that_leaks_on_purpose_leaves_nothing_to_the_next(self):
        leak = r"""
            put() { mkdir -p "$(dirname "$1")"; printf '%s' "$NPM_TOKEN" >"$1"; touch -d '+1 day' "$1"; }
            base=$(dirname "$BUILDKITE_BUILD_PATH")
            for name in .docker/config.json .aws/credentials .netrc .git-credentials .bashrc .ssh/id_ed25519 .cache/x jobs/kept/x; do
              put "$base/$name"
            done
            put "$base/.buildkite-agent/sockets/x"
            put "$BUILDKITE_BUILD_PATH/agent-1/acme/web/.git/hooks/post-checkout"
            put "$BUILDKITE_PLUGINS_PATH/github-com-x/hooks/environment"
            put "$CLEARED/buildkite-agent-bootstrap-hook-runner-1/x"; put "$CLEARED/job-env-x"
            cp -r "$KITEPOOL_JOB_FOLDER/secrets" "$CLEARED/secrets"
            cat "$base"/jobs/*/secrets/web/git-credentials >"$CLEARED/git"
            KEPT=$NPM_TOKEN setsid sleep 300 >/dev/null 2>&1 </dev/null &
            trap '' TERM; KEPT=$NPM_TOKEN setsid sleep 301 >/dev/null 2>&1 </dev/null &
            eval "$(ssh-agent -s -a "$CLEARED/agent.sock")" >/dev/null
            echo "left=$SSH_AGENT_PID"
        """ + f'{SEARCH} | sed "s/^/leaked=/"'
        WORLD.docker.containers = ["aaaaaaaaaaaa", "bbbbbbbbbbbb"]
        first = self.run_job(leak)
        left = int(re.search(r"^left=(\d+)", first.log, re.MULTILINE)[1])
        self.assertEqual(WORLD.docker.containers, [], "containers hold their environment")
        self.assertFalse(is_alive(left))
        leaked = re.findall(r"^leaked=(\S+)", first.log, re.MULTILINE)
        self.assertGreater(len(leaked), 15, "the search finds what is there")
        self.assertTrue([path for path in leaked if path.startswith("/proc/")])
        second = self.run_job(f'{SEARCH} | sed "s/^/found=/"; ls -A "$CLEARED" | sed "s/^/there=/"', BUILDKITE_PIPELINE_SLUG="other",
                              SECRETS_PLUGIN_ENABLED="false")
        self.assertEqual(re.findall(r"^found=(\S+)", second.log, re.MULTILINE), [])
        self.assertEqual([name for name in re.findall(r"^there=(\S+)", second.log, re.MULTILINE) if "agent.sock" in name], [])

    def test_what_a_killed_job_left_is_cleared_before_the_next(self):
        # Its pre-exit hook does not run to its end either.
        leak = 'printf %s "$NPM_TOKEN" >"$CLEARED/leak"; (trap "" TERM; exec -a left sleep 302) >/dev/null 2>&1 & kill -KILL "$PPID"'
        WORLD.agent.run(DIGEST + leak)
        second = self.run_job(f'{SEARCH} | sed "s/^/found=/"', BUILDKITE_PIPELINE_SLUG="other", SECRETS_PLUGIN_ENABLED="false")
        self.assertEqual(re.findall(r"^found=(\S+)", second.log, re.MULTILINE), [])

    def test_git_mirrors_and_the_agents_program_stay(self):
        mirror = WORLD.agent.home / "git-mirrors/acme/HEAD"
        mirror.parent.mkdir(parents=True, exist_ok=True)
        mirror.write_text("ref")
        self.run_job('test -x "$HOME/bin/buildkite-agent"')
        self.assertTrue(mirror.exists())


class TheStart(Case):
    def test_env_file_and_bootstrap_script_run_before_the_agent_and_see_no_token(self):
        self.assertEqual((FOLDER / "bootstrapped").read_text(), "none env file")
        self.assertIn("from=env file", self.run_job('echo "from=$FROM_ENV_FILE"').log)

    def test_a_daemon_that_does_not_answer_ends_the_job_in_bounded_time(self):
        WORLD.docker.is_away = True
        self.addCleanup(setattr, WORLD.docker, "is_away", False)
        began = time.monotonic()
        job = self.run_job("echo the command ran", "53")
        self.assertIn("look at the log of the pod's container dockerd", job.log)
        self.assertNotIn("the command ran", job.log)
        self.assertLess(time.monotonic() - began, 60)

    def test_one_signal_ends_the_agent_in_peace(self):
        # The last of all, by its name: see load_tests.
        WORLD.agent.process.terminate()
        self.assertEqual(WORLD.agent.process.wait(30), 0)


def load_tests(loader, _tests, _pattern):
    suite = unittest.TestSuite()
    for case in (TheSecrets, TheRegistries, TheClearing, TheStart):
        suite.addTests(loader.loadTestsFromTestCase(case))
    return suite


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["TMPDIR"] = scratch
        unittest.main(argv=sys.argv[:1], verbosity=2)
