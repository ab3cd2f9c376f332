//! One agent and its Buildkite: a real process by the machine's clock, or a simulated one in virtual time, played the same way.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use jiff::Timestamp;
use kitepool::clock::Clock;
use kitepool_world::{
    Fault, Route, Token, World,
    buildkite::{AgentPod, Buildkite, JobId, JobRecord, NewJob, PodExit, Serving, Settings},
};
use rustix::process::Signal;

use crate::real_agent::{self, Exit, Launch, RealAgent, own_address};

pub(crate) const CLUSTER: &str = "uuid-1";
pub(crate) const QUEUE: &str = "q";
const TOKEN: &str = "bkct_1";
const POD: &str = "pod-1";
const START: Timestamp = Timestamp::UNIX_EPOCH;
/// How finely both are looked at.
const STEP: Duration = Duration::from_millis(5);

/// Which of the two it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Column {
    Real,
    Simulated { seed: u64 },
}

/// How slow the calls of an agent are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slow {
    pub(crate) registering: Option<Duration>,
    pub(crate) accepting: Option<Duration>,
    pub(crate) starting: Option<Duration>,
}

impl Slow {
    pub(crate) const NONE: Self = Self { registering: None, accepting: None, starting: None };
}

pub(crate) struct Stage {
    pub(crate) world: World,
    body: Body,
    pub(crate) started_at: Timestamp,
}

enum Body {
    Real { clock: Clock, serving: Serving, folder: tempfile::TempDir, agent: Option<RealAgent> },
    Simulated { now: Arc<Mutex<Timestamp>>, exit: Option<Exit> },
}

impl Stage {
    pub(crate) async fn new(column: Column, settings: Settings, slow: Slow) -> Self {
        match column {
            Column::Real => Self::real(settings, slow).await,
            Column::Simulated { seed } => Self::simulated(settings, slow, seed),
        }
    }

    async fn real(settings: Settings, slow: Slow) -> Self {
        let clock = Clock::machine();
        let world = World::from(Buildkite::new(settings, 1, clock.now()));
        let (reading, started_at) = (clock.clone(), clock.now());
        world.set_clock(move || reading.now());
        world.set_token(TOKEN, Some(Token::new("acme", Some(CLUSTER))));
        let Slow { registering, accepting, starting } = slow;
        for (route, delay) in [(Route::Register, registering), (Route::Accept, accepting), (Route::Start, starting)] {
            let fault = |delay: Duration| Fault { delay_ms: delay.as_millis().try_into().unwrap(), ..Fault::default() };
            world.set_fault(route, delay.map(fault));
        }
        let serving = Serving::start(world.clone()).await.expect("a loopback port");
        let folder = tempfile::tempdir().expect("a temporary folder");
        Self { world, body: Body::Real { clock, serving, folder, agent: None }, started_at }
    }

    fn simulated(mut settings: Settings, slow: Slow, seed: u64) -> Self {
        if let Some(delay) = slow.registering {
            settings.registration = kitepool_world::buildkite::Spread::Exactly(delay);
        }
        settings.accepting = slow.accepting.unwrap_or(settings.accepting);
        settings.starting = slow.starting.unwrap_or(settings.starting);
        let world = World::from(Buildkite::new(settings, seed, START));
        let now = Arc::new(Mutex::new(START));
        let reading = Arc::clone(&now);
        world.set_clock(move || *reading.lock().unwrap());
        world.set_token(TOKEN, Some(Token::new("acme", Some(CLUSTER))));
        Self { world, body: Body::Simulated { now, exit: None }, started_at: START }
    }

    pub(crate) fn now(&self) -> Timestamp {
        match &self.body {
            Body::Real { clock, .. } => clock.now(),
            Body::Simulated { now, .. } => *now.lock().unwrap(),
        }
    }

    /// Lets time go by.
    pub(crate) async fn pass(&mut self, wait: Duration) {
        match &mut self.body {
            Body::Real { .. } => tokio::time::sleep(wait).await,
            Body::Simulated { now, .. } => *now.lock().unwrap() += wait,
        }
        self.look();
    }

    /// What has happened in virtual time by now.
    fn look(&mut self) {
        let Body::Simulated { exit, .. } = &mut self.body else { return };
        for PodExit { at, exit_code, .. } in self.world.with(Buildkite::take_exits) {
            *exit = Some(Exit { at, code: exit_code });
        }
    }

    /// Waits until this holds; says whether it did within so long.
    pub(crate) async fn comes_to(&mut self, within: Duration, mut holds: impl FnMut(&mut Self) -> bool) -> bool {
        let deadline = self.now() + within;
        while !holds(self) {
            if self.now() > deadline {
                return false;
            }
            self.pass(STEP).await;
        }
        true
    }

    /// As [`Self::comes_to`], where it has to.
    pub(crate) async fn until(&mut self, what: &str, holds: impl FnMut(&mut Self) -> bool) {
        const PATIENCE: Duration = Duration::from_secs(40);
        assert!(self.comes_to(PATIENCE, holds).await, "{what}: not within {PATIENCE:?}\n{}", self.report());
    }

    /// Waits until so many workers are connected and the health server answers, which is a moment later.
    pub(crate) async fn until_up(&mut self, workers: usize) {
        self.until("all are connected", |stage| stage.world.with(|buildkite| buildkite.agents()) == workers).await;
        let deadline = self.now() + Duration::from_secs(10);
        while self.status().await == "refused" {
            assert!(self.now() < deadline, "no health server\n{}", self.report());
            self.pass(STEP).await;
        }
    }

    pub(crate) fn start(&mut self, spawn: u32) {
        self.started_at = self.now();
        match &mut self.body {
            Body::Real { clock, serving, folder, agent } => {
                let launch = Launch {
                    endpoint: serving.endpoint(),
                    token: TOKEN.to_owned(),
                    tags: format!("queue={QUEUE}"),
                    name: "real-%spawn".to_owned(),
                    health: own_address(),
                    folder: PathBuf::from(folder.path()),
                    more: vec![
                        ("BUILDKITE_AGENT_SPAWN".to_owned(), spawn.to_string()),
                        // As the simulated ones are set. In `auto` its first ping waits for the stream to be refused.
                        ("BUILDKITE_AGENT_PING_MODE".to_owned(), "poll-only".to_owned()),
                    ],
                };
                *agent = Some(RealAgent::start(&launch, clock));
            }
            Body::Simulated { .. } => {
                let pod = AgentPod { spawn, ..AgentPod::new(POD, TOKEN, QUEUE) };
                self.world.with(|buildkite| buildkite.pod_started(pod, buildkite.now()));
            }
        }
    }

    /// One SIGTERM.
    pub(crate) fn term(&mut self) {
        match &self.body {
            Body::Real { agent, .. } => agent.as_ref().expect("it was started").signal(Signal::TERM),
            Body::Simulated { .. } => self.world.with(|buildkite| buildkite.pod_told(POD, buildkite.now())),
        }
        self.look();
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        match &self.body {
            Body::Real { agent, .. } => agent.as_ref().expect("it was started").signal(Signal::KILL),
            Body::Simulated { .. } => self.world.with(|buildkite| buildkite.pod_killed(POD, buildkite.now())),
        }
        self.look();
    }

    pub(crate) fn exit(&self) -> Option<Exit> {
        match &self.body {
            Body::Real { agent, .. } => agent.as_ref().and_then(RealAgent::exit),
            Body::Simulated { exit, .. } => *exit,
        }
    }

    /// What `/status.json` says of the process, and of each worker if there are several: `idle`, `busy`, `refused`.
    pub(crate) async fn status(&self) -> String {
        let body = match &self.body {
            Body::Real { agent, .. } => match agent {
                Some(agent) => real_agent::status(agent.health).await,
                None => None,
            },
            Body::Simulated { .. } => self
                .world
                .with(|buildkite| buildkite.status(POD))
                .map(|status| serde_json::to_value(status).expect("a plain value")),
        };
        let Some(body) = body else { return "refused".to_owned() };
        let workers = body["workers"].as_array().expect("workers");
        // The job stands there while the worker is busy, and not else.
        for worker in workers {
            assert_eq!(worker["status"] == "busy", worker["current_job_id"].is_string(), "{body}");
        }
        let words: Vec<&str> = workers.iter().map(|worker| worker["status"].as_str().expect("a word")).collect();
        let all = if words.contains(&"busy") { "busy" } else { "idle" };
        assert_eq!(body["aggregate_status"], all, "{body}");
        // Which of several workers is given a job is chance: they register side by side.
        let sorted = || words.iter().copied().collect::<std::collections::BinaryHeap<_>>().into_sorted_vec();
        if words.len() == 1 { all.to_owned() } else { sorted().join("+") }
    }

    /// The agents' UUIDs in the order in which they were spawned.
    pub(crate) fn agent(&self) -> String {
        self.world.with(|buildkite| match &self.body {
            Body::Real { .. } => buildkite.connections().next().expect("a real agent").uuid.clone(),
            Body::Simulated { .. } => buildkite.status(POD).expect("an agent").workers[0].id.clone(),
        })
    }

    pub(crate) fn submit(&self, duration: Duration) -> JobId {
        let job = NewJob::new(CLUSTER, QUEUE, duration);
        self.world.with(|buildkite| buildkite.submit(job, buildkite.now()))
    }

    pub(crate) fn record(&self, job: JobId) -> JobRecord {
        self.world.with(|buildkite| buildkite.record(buildkite.job(job).expect("a job of ours")))
    }

    /// Breaks these routes, or mends them.
    pub(crate) fn set_faults(&self, routes: &[Route], fault: Option<Fault>) {
        for route in routes {
            self.world.set_fault(*route, fault);
        }
    }

    /// Everything there is to know, for the report of a failed case.
    pub(crate) fn report(&self) -> String {
        let records = self.world.with(|buildkite| {
            let jobs: Vec<JobRecord> = buildkite.jobs().map(|job| buildkite.record(job)).collect();
            format!("{jobs:#?}\n{:#?}", buildkite.connections().collect::<Vec<_>>())
        });
        let log = match &self.body {
            Body::Real { agent: Some(agent), .. } => agent.logged(),
            Body::Real { agent: None, .. } | Body::Simulated { .. } => String::new(),
        };
        format!("{records}\n{log}")
    }
}
