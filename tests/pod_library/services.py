"""The hooks of the services image, run by the real agent beside the distribution's Postgres, Redis and Memcached: services.py FOLDER

A job leaves data in all of them and looks whether what it looks by can be found; the next one looks for the same.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from world import Agent, Processes, eventually, free_port, listens

FOLDER = Path(sys.argv[1])
POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1]

# Leaves something wherever a job can, as a superuser of the database.
LEAVE = r"""
    set -eu
    q() { psql -qXtA -v ON_ERROR_STOP=1 "$@"; }
    q -c 'CREATE TABLE left_over (x int); INSERT INTO left_over VALUES (1)'
    q -c 'CREATE SCHEMA other; CREATE TABLE other.left_over ()'
    q -c 'CREATE DATABASE other'
    q -d template1 -c 'CREATE TABLE in_template ()'
    q -c 'CREATE ROLE intruder LOGIN SUPERUSER; GRANT intruder TO postgres'
    q -c "ALTER SYSTEM SET work_mem = '7MB'" -c "ALTER ROLE postgres SET search_path = other"
    redis-cli -u "$REDIS_URL" set left over >/dev/null
    redis-cli -u "${REDIS_URL%/0}/3" set left over >/dev/null
    redis-cli -u "$REDIS_URL" script load 'return 1' >/dev/null
    exec {m}<>"/dev/tcp/${MEMCACHE_SERVERS%:*}/${MEMCACHE_SERVERS#*:}"
    printf 'set left 0 0 4\r\nover\r\nquit\r\n' >&"$m"; cat <&"$m"
"""
# Counts what is there that a new server does not have.
LOOK = r"""
    set -eu
    q() { psql -qXtA -v ON_ERROR_STOP=1 "$@"; }
    echo "tables=$(q -c "SELECT count(*) FROM pg_tables WHERE schemaname !~ '^pg_' AND schemaname <> 'information_schema'")"
    echo "databases=$(q -c 'SELECT count(*) FROM pg_database' | tr -d ' ')"
    echo "template=$(q -d template1 -c "SELECT count(*) FROM pg_tables WHERE tablename = 'in_template'")"
    echo "roles=$(q -c "SELECT count(*) FROM pg_roles WHERE rolname !~ '^pg_'")"
    echo "path=$(q -c 'SHOW search_path') memory=$(q -c 'SHOW work_mem')"
    echo "redis=$(redis-cli -u "$REDIS_URL" info keyspace | grep -c '^db' || true)"
    echo "script=$(redis-cli -u "$REDIS_URL" script exists e0e1f9fabfc9d4800c877a703b823ac0578ff8db)"
    exec {m}<>"/dev/tcp/${MEMCACHE_SERVERS%:*}/${MEMCACHE_SERVERS#*:}"
    printf 'get left\r\nquit\r\n' >&"$m"; echo "memcached=$(grep -c over <&"$m" || true)"
"""
NEW = {"tables": "0", "databases": "3", "template": "0", "roles": "1", "redis": "0", "script": "0", "memcached": "0"}
NEW |= {"path": '"$user", public', "memory": "4MB"}
LEFT = {"tables": "2", "databases": "4", "template": "1", "roles": "2", "redis": "2", "script": "1", "memcached": "1"}


class World:
    def start(self) -> None:
        self.processes = Processes(FOLDER)
        self.ports = {name: free_port() for name in ("POSTGRES", "REDIS", "MEMCACHED")}
        self.start_postgres()
        # As in pod-library/services.yaml.
        redis = ["redis-server", "--bind", "127.0.0.1", "--port", self.ports["REDIS"], "--save", "", "--appendonly", "no"]
        self.redis = self.processes.start("redis", redis, cwd=FOLDER)
        unprivileged = ["-u", "nobody"] if os.getuid() == 0 else []
        self.processes.start("memcached", ["memcached", *unprivileged, "--listen=127.0.0.1", f"--port={self.ports['MEMCACHED']}"])
        for name, port in self.ports.items():
            eventually(f"{name} listens", lambda port=port: listens(port))
        self.agent = self.new_agent("agent")

    def start_postgres(self) -> None:
        # It runs as nobody's superuser, and refuses to be root's.
        data = Path(tempfile.mkdtemp(prefix="postgres-", dir="/tmp"))
        unittest.addModuleCleanup(shutil.rmtree, data, ignore_errors=True)
        become = []
        if os.getuid() == 0:
            shutil.chown(data, "postgres")
            become = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        initdb = [POSTGRES / "initdb", "-D", data / "data", "-U", "postgres", "-A", "trust", "-N", "--locale=C"]
        subprocess.run([*become, *initdb], check=True, stdout=subprocess.DEVNULL, cwd="/")
        settings = [f"port={self.ports['POSTGRES']}", "listen_addresses=127.0.0.1", f"unix_socket_directories={data}", "fsync=off"]
        arguments = [word for setting in settings for word in ("-c", setting)]
        self.processes.start("postgres", [*become, POSTGRES / "postgres", "-D", data / "data", *arguments], cwd="/")

    def new_agent(self, name: str, **env: str) -> Agent:
        address = {key: f"127.0.0.1:{port}" for key, port in self.ports.items()}
        settings = {f"KITEPOOL_{key}": value for key, value in address.items()}
        settings |= {"PGHOST": "127.0.0.1", "PGPORT": str(self.ports["POSTGRES"]), "PGUSER": "postgres"}
        settings |= {"REDIS_URL": f"redis://{address['REDIS']}/0", "MEMCACHE_SERVERS": address["MEMCACHED"], **env}
        agent = FOLDER / name / "home/bin/buildkite-agent"
        return Agent(FOLDER / name, self.processes, [agent, "start"], "services", **settings)

    def stop(self) -> None:
        self.processes.end()
        self.agent.api.close()
        jobs = self.agent.api.jobs.values()
        (FOLDER / "jobs.log").write_text("\n".join(f"exit {job.exit_status}\n{job.log}" for job in jobs))


WORLD = World()


def setUpModule() -> None:
    unittest.addModuleCleanup(WORLD.stop)
    WORLD.start()


class TheServices(unittest.TestCase):
    def run_job(self, command: str, agent: "Agent | None" = None, **env: str):
        job = (agent or WORLD.agent).run(command, **env)
        self.assertEqual(job.exit_status, "0", job.log)
        return job

    def seen(self, **env: str) -> "dict[str, str]":
        log = self.run_job(LOOK, **env).log
        found = dict(re.findall(r"^(\w+)=(\S+)$", log, re.MULTILINE))
        found |= dict(zip(("path", "memory"), re.search(r"^path=(.+) memory=(\S+)$", log, re.MULTILINE).groups()))
        return found

    def test_three_jobs_in_a_row_each_find_services_as_new(self):
        for _ in range(3):
            self.assertEqual(self.seen(), NEW)
            left = self.run_job(LEAVE + LOOK).log
            found = dict(re.findall(r"^(\w+)=(\S+)$", left, re.MULTILINE))
            self.assertEqual({name: found.get(name) for name in LEFT}, LEFT, "what is looked for can be found")

    def test_what_is_emptied_is_not_the_jobs_to_say(self):
        self.run_job(LEAVE)
        nothing = {"KITEPOOL_POSTGRES": "", "KITEPOOL_REDIS": "127.0.0.1:1", "KITEPOOL_MEMCACHED": ""}
        self.run_job(LEAVE, **nothing)
        self.assertEqual(self.seen(**nothing), NEW)
        # Settings of psql that a hook must not take over.
        self.run_job(LEAVE, PGOPTIONS="-c default_transaction_read_only=off", PGDATABASE="postgres")
        self.assertEqual(self.seen(PGOPTIONS="-c statement_timeout=1min"), NEW)

    def test_what_a_killed_job_left_is_gone_before_the_next(self):
        # Its pre-exit hook does not run.
        WORLD.agent.run(LEAVE + 'kill -KILL "$PPID"')
        self.assertEqual(self.seen(), NEW)

    def test_where_services_cannot_be_emptied_no_job_runs_and_the_log_says_why(self):
        self.run_job('redis-cli -u "$REDIS_URL" config set requirepass theirs')
        try:
            job = WORLD.agent.run("echo the command ran")
            self.assertEqual(job.exit_status, "1")
            self.assertRegex(job.log, r"redis at 127.0.0.1:\d+ could not be emptied")
            self.assertNotIn("\nthe command ran", job.log)
        finally:
            address = f"redis://:theirs@127.0.0.1:{WORLD.ports['REDIS']}"
            subprocess.run(["redis-cli", "-u", address, "config", "set", "requirepass", ""], check=True, capture_output=True)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
