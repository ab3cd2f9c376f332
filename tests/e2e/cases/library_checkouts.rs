//! Checkouts of a private repository by a pod of `basic`, in each way that its comments promise: by a git-credentials file, and by
//! ssh with a key, the host's own key given or taken on trust.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use kitepool_world::buildkite::JobId;
use serde_json::json;

use super::{SHRINKS, SOON};
use crate::harness::{
    Case,
    agents::{AGENT, Agents, QUEUE},
    pools::{pool, with},
    private_repository::{FILE, PrivateRepository},
    processes::process_case,
};

const DEADLINE: Duration = Duration::from_mins(6);
/// A checkout that waits for somebody to type a password waits longer.
const JOB: Duration = Duration::from_mins(1);
/// From a change of a Secret to the pods: a minute or two in a real kubelet.
const SECRETS_EVERY: Duration = Duration::from_millis(500);

/// The Secret that basic.yaml names, and a key of it that no definition knows: by that a job sees which one its pod has.
const SECRET: &str = "buildkite-git";
const VERSION: &str = "version";

/// What git says when a helper would write into a Secret.
const CANNOT_STORE: &str = "credential storage lock";

/// A pod that stays, so that what one job leaves is there for the next.
struct Checkouts<'a> {
    case: &'a Case,
    agents: Agents<'a>,
    repository: PrivateRepository,
}

impl<'a> Checkouts<'a> {
    async fn start(case: &'a Case) -> Self {
        let agents = Agents::start_on(case, 1, |_| {}, |kubelet| kubelet.volumes_every = SECRETS_EVERY).await;
        // An agent tries a checkout six times, which takes half a minute where it fails.
        let env = json!([{ "name": "BUILDKITE_CHECKOUT_ATTEMPTS", "value": "1" }]);
        let spec = json!({ "scaling": { "min": 1, "max": 1 }, "overrides": { "env": env } });
        case.create_pool(with(pool(QUEUE), json!({ "spec": spec }))).await;
        Self { case, agents, repository: PrivateRepository::make(case.folder()) }
    }

    /// Replaces the Secret, and waits until a job finds it so. Without entries there is none.
    async fn give(&self, version: &str, entries: &[(&str, &str)]) {
        let named = [entries, &[(VERSION, version)]].concat();
        let (entries, wanted) = if entries.is_empty() { (entries, "") } else { (named.as_slice(), version) };
        self.case.replace_secret(SECRET, entries).await;
        let is_so = format!("[ \"$(cat /secrets/git/{VERSION} 2>/dev/null)\" = '{wanted}' ]");
        let job = self
            .agents
            .submit_command(&format!("for _ in $(seq 300); do ! {is_so} || exit 0; sleep 0.1; done; exit 1"));
        assert_eq!(self.agents.exit_status(job, JOB).await, "0", "the pod has the Secret `{version}`");
    }

    /// A job whose checkout ends for this reason, and which therefore comes to nothing.
    async fn is_refused(&self, url: &str, reason: &str) {
        let job = self.agents.submit_checkout(url, &format!("cat {FILE}"));
        assert_ne!(self.agents.exit_status(job, JOB).await, "0", "{}", self.agents.log(job));
        let log = self.agents.log(job);
        assert!(log.contains(reason), "{reason}: {log}");
        assert!(!log.contains(&self.repository.word), "{log}");
        assert!(!log.contains(CANNOT_STORE), "{log}");
    }

    /// A job that has the repository, and runs this besides.
    async fn succeeds(&self, url: &str, and: &str) -> JobId {
        let job = self.agents.submit_checkout(url, &format!("cat {FILE} && {and}"));
        assert_eq!(self.agents.exit_status(job, JOB).await, "0", "{}", self.agents.log(job));
        let log = self.agents.log(job);
        assert!(log.contains(&self.repository.word), "{log}");
        assert!(!log.contains(CANNOT_STORE), "{log}");
        job
    }

    /// No job and no program of this case has written any of these.
    fn nobody_tells(&self, traces: &[String]) {
        let jobs = self.agents.world.with(|buildkite| {
            buildkite.jobs().map(|job| (format!("job {}", job.uuid), job.outcome.log.text())).collect::<Vec<_>>()
        });
        let mut files = Vec::new();
        logs_below(self.case.folder(), &mut files);
        let of_agent = format!("{AGENT}.0.log");
        assert!(files.iter().any(|file| file.ends_with(&of_agent)), "the agent's is among them: {files:?}");
        let read = |file: PathBuf| {
            let text = String::from_utf8_lossy(&fs::read(&file).expect("a log")).into_owned();
            (file.display().to_string(), text)
        };
        for (whose, text) in jobs.into_iter().chain(files.into_iter().map(read)) {
            for trace in traces {
                assert!(!text.contains(trace), "a secret stands in the output of {whose}");
            }
        }
    }

    async fn end(&self) {
        self.case.change_pool(QUEUE, json!({ "spec": { "scaling": { "min": 0 } } })).await;
        self.case.reaches(QUEUE, 0, SHRINKS).await;
        self.agents.all_leave(SOON).await;
        self.agents.left_in_peace();
    }
}

fn logs_below(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of the case").flatten() {
        let (path, kind) = (entry.path(), entry.file_type().expect("a kind"));
        if kind.is_dir() {
            logs_below(&path, found);
        } else if kind.is_file() && path.extension().is_some_and(|extension| extension == "log") {
            found.push(path);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane and the real agent: tests/e2e/run"]
async fn library_basic_checks_out_over_http_by_the_git_credentials_of_its_secret() {
    process_case("library-http", 1, DEADLINE, async |case| {
        let checkouts = Checkouts::start(case).await;
        let site = checkouts.repository.over_http().await;
        let _replica = case.replica_against(&checkouts.agents.endpoint()).await;

        checkouts.is_refused(&site.url(), "could not read Username").await;
        checkouts.give("wrong", &[("git-credentials", &site.credentials("wrong"))]).await;
        checkouts.is_refused(&site.url(), "Authentication failed").await;
        assert!(site.refused() > 0, "the server wanted a password");

        // Another host's line stands first, and is not taken.
        let lines = format!("https://somebody:else@git.example.invalid\n{}", site.credentials(&site.password));
        checkouts.give("right", &[("git-credentials", &lines)]).await;
        checkouts.succeeds(&site.url(), "git fetch origin main").await;
        // By then there is a checkout, which is brought up to date.
        checkouts.succeeds(&site.url(), "git log --oneline").await;

        checkouts.nobody_tells(&site.traces());
        checkouts.end().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane and the real agent: tests/e2e/run"]
async fn library_basic_checks_out_over_ssh_by_the_key_of_its_secret() {
    process_case("library-ssh", 1, DEADLINE, async |case| {
        let checkouts = Checkouts::start(case).await;
        let site = checkouts.repository.over_ssh().await;
        let _replica = case.replica_against(&checkouts.agents.endpoint()).await;
        let key = ("private_ssh_key", site.private_key.as_str());
        let is_trusted = "test -s \"$HOME/known_hosts\"";

        checkouts.give("wrong host", &[key, ("known_hosts", &site.wrong_known_hosts)]).await;
        checkouts.is_refused(&site.url(), "Host key verification failed").await;
        checkouts.give("known host", &[key, ("known_hosts", &site.known_hosts)]).await;
        checkouts.succeeds(&site.url(), &format!("! {is_trusted}")).await;

        // The server would rather ask for a password, and nobody is there to be asked.
        checkouts.give("none", &[]).await;
        checkouts.is_refused(&site.url(), "Permission denied (publickey").await;
        checkouts.give("unknown host", &[key]).await;
        checkouts.succeeds(&site.url(), is_trusted).await;

        let lines = site.private_key.lines().filter(|line| !line.starts_with("-----"));
        checkouts.nobody_tells(&lines.map(ToOwned::to_owned).collect::<Vec<_>>());
        checkouts.end().await;
    })
    .await;
}
