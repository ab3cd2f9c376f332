//! Real agents: the pods of a case run the real buildkite-agent, which gets real jobs from the simulated Buildkite that the
//! controller asks for its load.

use std::{
    collections::BTreeMap,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use kitepool::clock::Clock;
use kitepool_world::{
    Token, World,
    buildkite::{Buildkite, Connection, End, JobId, JobRecord, NewJob, NumbersAge, PickUp, Serving, Settings},
};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{
    Case, eventually, library,
    pools::DEFINITION,
    processes::is_alive,
    simulated_buildkite::{SECOND_TOKEN, TOKEN},
};
use crate::process_kubelet::{
    ProcessKubelet,
    ledger::{Ending, What, Why, is_signal},
    settings::Settings as KubeletSettings,
};

pub(crate) const CLUSTER: &str = "11111111-1111-4111-8111-111111111111";
pub(crate) const QUEUE: &str = "linux";
/// The container of the agent.
pub(crate) const AGENT: &str = "agent";

/// The image of pod-library/basic.yaml.
const IMAGE: &str = "buildkite/agent:3.137.2-ubuntu-24.04";
/// The name of its entrypoint there, and where it is found here.
const ENTRYPOINT: &str = "/image/buildkite-agent-entrypoint";
const PATH: &str = "/image:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Kitepool's own image, with nothing in it but the first process; and another version of it.
pub(crate) const FIRST_IMAGE: &str = "kitepool:1";
pub(crate) const NEXT_FIRST_IMAGE: &str = "kitepool:2";

/// An agent has a handler for SIGTERM so long after it has connected.
const HANDLES_SIGNALS: SignedDuration = SignedDuration::from_millis(200);

/// How often it is looked for events: a tenth of what they are on their way.
const EVENTS_EVERY: Duration = Duration::from_millis(50);

/// How an agent ends that gets SIGTERM before it has registered. Elsewhere it dies of the signal, which the first process of a
/// container cannot; Go then ends with this (measured with the same binary).
const UNHANDLED: Ending = Ending::Exit(2);
/// The same where it is not the first process.
const UNHANDLED_BEHIND_FIRST: Ending = Ending::Exit(143);

/// The binary of the real agent. Blocks for minutes where it was never built.
pub(crate) fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| built("tests/agent/build"))
}

/// The first process as it is shipped.
fn first_process() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| built("crates/first/build"))
}

/// What a script builds and names.
fn built(script: &str) -> PathBuf {
    let path = super::control_plane::repository().join(script);
    let built = Command::new(path).stderr(Stdio::inherit()).output().expect("the script can be run");
    assert!(built.status.success(), "{script}: {}", built.status);
    PathBuf::from(String::from_utf8(built.stdout).expect("a path").trim())
}

/// What a case with real agents works with.
pub(crate) struct Agents<'a> {
    case: &'a Case,
    pub(crate) world: World,
    serving: Serving,
    pub(crate) kubelet: ProcessKubelet,
    /// Where each job leaves a line when it has come to its end by itself.
    markers: PathBuf,
}

/// A definition of the pod library for the nodes of a case, with a folder for the marks of jobs.
fn definition(case: &Case, markers: &Path, library: &str) -> Value {
    let mut definition: Value = serde_saphyr::from_str(library).expect("a definition");
    let mut template = definition["template"].take();
    let spec = &mut template["spec"];
    let volume = json!({ "name": "markers", "hostPath": { "path": markers } });
    spec["volumes"].as_array_mut().expect("volumes").push(volume);
    let mount = json!({ "name": "markers", "mountPath": "/markers" });
    spec["containers"][0]["volumeMounts"].as_array_mut().expect("mounts").push(mount);
    case.on_processes(template)
}

impl<'a> Agents<'a> {
    /// A Buildkite whose numbers are at most a second old and whose agents ask for work every second, and so many nodes.
    pub(crate) async fn start(case: &'a Case, nodes: usize, change: impl FnOnce(&mut Settings)) -> Self {
        Self::start_on(case, nodes, change, |_| {}).await
    }

    /// The same, with a kubelet that is told something of its own.
    pub(crate) async fn start_on(
        case: &'a Case,
        nodes: usize,
        change: impl FnOnce(&mut Settings),
        tell: impl FnOnce(&mut KubeletSettings),
    ) -> Self {
        let clock = Clock::machine();
        let second = Duration::from_secs(1);
        let mut settings = Settings {
            pick_up: PickUp::Polling { interval: second },
            numbers: NumbersAge { refresh: second, lag: Duration::ZERO },
            heartbeat: Duration::from_secs(5),
            ..Settings::default()
        };
        change(&mut settings);
        let world = World::from(Buildkite::new(settings, 1, clock.now()));
        world.set_clock(move || clock.now());
        for token in [TOKEN, SECOND_TOKEN] {
            world.set_token(token, Some(Token::new("simulated", Some(CLUSTER))));
        }
        let serving = Serving::start(world.clone()).await.expect("a loopback port");
        let markers = case.folder().join("markers");
        std::fs::create_dir_all(&markers).expect("a folder");
        std::fs::set_permissions(&markers, PermissionsExt::from_mode(0o777)).expect("a folder of ours");
        let binary = tokio::task::spawn_blocking(binary).await.expect("the agent's binary");
        let first = tokio::task::spawn_blocking(first_process).await.expect("the first process");
        let kitepool = json!({ "files": { "/kitepool-first": first } });
        let mut images = library::images(binary);
        let files = json!({ ENTRYPOINT: binary, "/etc/passwd": library::ubuntu_users(case) });
        images[IMAGE] = json!({ "entrypoint": [binary], "files": files, "env": { "PATH": PATH } });
        images[FIRST_IMAGE] = kitepool.clone();
        images[NEXT_FIRST_IMAGE] = kitepool;
        images["elsewhere/sleep"] = json!({ "entrypoint": ["sleep"] });
        let images = json!({ "images": images });
        let kubelet = case.process_kubelet(nodes, &images.to_string(), tell).await;
        let agents = Self { case, world, serving, kubelet, markers };
        case.define(DEFINITION, agents.definition()).await;
        agents
    }

    /// The definition that the pools of the case have, to be changed.
    pub(crate) fn definition(&self) -> Value {
        self.definition_of(include_str!("../../../pod-library/basic.yaml"))
    }

    /// Another one, by the text of its file.
    pub(crate) fn definition_of(&self, library: &str) -> Value {
        definition(self.case, &self.markers, library)
    }

    /// Submits a job with a command of its own.
    pub(crate) fn submit_command(&self, command: &str) -> JobId {
        self.submit_with(command, &[])
    }

    /// The same, after a checkout of this repository.
    pub(crate) fn submit_checkout(&self, repository: &str, command: &str) -> JobId {
        self.submit_with(command, &[("BUILDKITE_REPO", repository), ("BUILDKITE_SKIP_CHECKOUT", "false")])
    }

    fn submit_with(&self, command: &str, env: &[(&str, &str)]) -> JobId {
        self.world.with(|buildkite| {
            let job = NewJob {
                command: Some(command.to_owned()),
                env: env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
                ..NewJob::new(CLUSTER, QUEUE, Duration::ZERO)
            };
            buildkite.submit(job, buildkite.now())
        })
    }

    /// What a job has printed.
    pub(crate) fn log(&self, job: JobId) -> String {
        self.world.with(|buildkite| buildkite.job(job).expect("a job of ours").outcome.log.text())
    }

    /// Waits until a job has ended, and answers with its exit status.
    pub(crate) async fn exit_status(&self, job: JobId, within: Duration) -> String {
        eventually("the job ends", within, async || {
            let record = self.record(job);
            record.exit_status.filter(|_| record.end.is_some()).ok_or_else(|| record.state.to_string())
        })
        .await
    }

    /// Where the controller finds this Buildkite.
    pub(crate) fn endpoint(&self) -> String {
        self.serving.endpoint()
    }

    /// Submits jobs that sleep and then leave their mark.
    pub(crate) fn submit(&self, number: usize, seconds: u32) -> Vec<JobId> {
        (0..number).map(|_| self.submit_to(QUEUE, seconds)).collect()
    }

    /// The same of one job, on any queue.
    pub(crate) fn submit_to(&self, queue: &str, seconds: u32) -> JobId {
        self.world.with(|buildkite| {
            let mark = buildkite.jobs().len().to_string();
            let job = NewJob {
                command: Some(format!("sleep {seconds} && echo $BUILDKITE_JOB_ID >>/markers/$MARK")),
                env: BTreeMap::from([("MARK".to_owned(), mark)]),
                ..NewJob::new(CLUSTER, queue, Duration::ZERO)
            };
            buildkite.submit(job, buildkite.now())
        })
    }

    /// Stores a hint for each event as it arrives, as the Lambda and the webhook do. Never ends.
    pub(crate) async fn carry_events(&self) {
        self.case.takes_hints().await;
        loop {
            sleep(EVENTS_EVERY).await;
            let events = self.world.with(|buildkite| buildkite.take_events(buildkite.now()));
            for event in events {
                let stored = self.case.hint(&event.queue, &event.uuid, event.runnable_at).await;
                // Those that find the quota full are lost, as events may be.
                if let Err(error) = stored {
                    println!("{}: no hint of job {}: {error}", self.case.namespace, event.uuid);
                }
            }
        }
    }

    /// All jobs in the order in which they were submitted.
    pub(crate) fn records(&self) -> Vec<JobRecord> {
        self.world.with(|buildkite| buildkite.jobs().map(|job| buildkite.record(job)).collect())
    }

    pub(crate) fn record(&self, job: JobId) -> JobRecord {
        self.world.with(|buildkite| buildkite.record(buildkite.job(job).expect("a job of ours")))
    }

    pub(crate) fn connections(&self) -> Vec<Connection> {
        self.world.with(|buildkite| buildkite.connections().cloned().collect())
    }

    /// Whether a job has come to its end by itself: the lines that it left.
    pub(crate) fn marks(&self, number: usize) -> usize {
        let left = std::fs::read_to_string(self.markers.join(number.to_string()));
        left.map_or(0, |left| left.lines().count())
    }

    /// Waits until so many jobs run.
    pub(crate) async fn run(&self, number: usize, within: Duration) {
        eventually(&format!("{number} jobs run"), within, async || {
            let running = self.records().iter().filter(|record| record.state == "running").count();
            if running == number { Ok(()) } else { Err(format!("{running} run")) }
        })
        .await;
    }

    /// Waits until every job has ended.
    pub(crate) async fn all_end(&self, within: Duration) {
        eventually("all jobs end", within, async || {
            let left = self.world.with(|buildkite| buildkite.jobs().filter(|job| job.end().is_none()).count());
            if left == 0 { Ok(()) } else { Err(format!("{left} have not")) }
        })
        .await;
    }

    /// Each job of these was taken by one agent, ran once, and came to its end.
    pub(crate) fn ran_once(&self, which: impl Fn(usize, &JobRecord) -> bool) {
        for (number, record) in self.records().iter().enumerate().filter(|(number, record)| which(*number, record)) {
            assert_eq!(record.end, Some(End::Passed), "job {number}: {record:#?}");
            assert_eq!(record.exit_status.as_deref(), Some("0"), "job {number}: {record:#?}");
            assert_eq!(self.marks(number), 1, "job {number} came to its end once: {record:#?}");
        }
    }

    /// The jobs whose agent got its signal while it had them.
    pub(crate) fn signalled_during(&self) -> Vec<JobRecord> {
        let by_pod = self.kubelet.ledger().by_pod();
        let was_signalled = |record: &JobRecord| {
            let pod = record.attempts.last().and_then(|last| last.hostname.as_ref());
            let told = pod.and_then(|pod| by_pod.get(pod)).into_iter().flatten();
            let had = record.accepted_at.zip(record.finished_at);
            had.is_some_and(|(from, to)| {
                told.filter(|entry| is_signal(entry)).any(|told| (from..to).contains(&told.at))
            })
        };
        self.records().into_iter().filter(was_signalled).collect()
    }

    /// No agent got more than one signal, none was killed, and each that was asked to leave left well.
    pub(crate) fn left_in_peace(&self) {
        let connected: BTreeMap<String, Timestamp> =
            self.connections().into_iter().filter_map(|agent| Some((agent.hostname, agent.connected_at?))).collect();
        for (pod, told) in self.kubelet.ledger().by_pod() {
            assert!(told.iter().filter(|entry| is_signal(entry)).count() <= 1, "{told:#?}");
            let signalled = told.iter().find(|entry| is_signal(entry));
            // It has a handler by then.
            let was_connected = connected
                .get(&pod)
                .zip(signalled)
                .is_some_and(|(connected, signal)| *connected + HANDLES_SIGNALS < signal.at);
            let unhandled =
                if told.iter().any(|entry| entry.container != AGENT) { UNHANDLED_BEHIND_FIRST } else { UNHANDLED };
            let ends = told.iter().filter(|entry| entry.container == AGENT && matches!(entry.what, What::Ended(_)));
            for end in ends {
                let expected = if was_connected { Ending::Exit(0) } else { unhandled };
                let is_well = end.what == What::Ended(expected) || end.what == What::Ended(Ending::Exit(0));
                assert!(is_well, "{end}, expected {expected:?}: {told:#?}");
                assert_eq!(signalled.map(|entry| &entry.what), Some(&What::Signalled(15, Why::Deleted)), "{told:#?}");
            }
        }
    }

    /// Waits until no agent is there any more, by its process and for Buildkite.
    pub(crate) async fn all_leave(&self, within: Duration) {
        eventually("all agents leave", within, async || {
            let entries = self.kubelet.ledger().entries();
            // Within half an hour the machine gives the numbers of processes that have ended to others.
            let ended: std::collections::BTreeSet<(&str, Option<i32>)> = entries
                .iter()
                .filter(|entry| matches!(entry.what, What::Ended(_)))
                .map(|entry| (entry.pod.as_str(), entry.pid))
                .collect();
            let alive = entries.iter().filter(|entry| entry.what == What::Started);
            let alive = alive.filter(|entry| !ended.contains(&(entry.pod.as_str(), entry.pid)));
            let alive = alive.filter_map(|entry| entry.pid).filter(|pid| is_alive(*pid)).count();
            let connected = self.world.with(|buildkite| buildkite.agents());
            if alive + connected == 0 { Ok(()) } else { Err(format!("{alive} alive, {connected} connected")) }
        })
        .await;
    }

    /// How long jobs waited for the beginning of their command: median and longest, in seconds.
    pub(crate) fn waits(&self) -> (f64, f64) {
        let records = self.records();
        let wait = |record: &JobRecord| Some(record.started_at?.duration_since(record.scheduled_at?).as_secs_f64());
        let mut waits: Vec<f64> = records.iter().filter_map(wait).collect();
        waits.sort_by(f64::total_cmp);
        (waits.get(waits.len() / 2).copied().unwrap_or_default(), waits.last().copied().unwrap_or_default())
    }

    /// For whoever reads how long things take.
    pub(crate) fn tell(&self, what: &str) {
        let (median, longest) = self.waits();
        let records = self.records();
        let again = records.iter().filter(|record| record.assignments > 1).count();
        println!(
            "{}: {what}; {} jobs waited {median:.1} s (median), {longest:.1} s (longest); {again} were given to a second agent; \
             {} agents",
            self.case.namespace,
            records.len(),
            self.connections().len(),
        );
    }
}
