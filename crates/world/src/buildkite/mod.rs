//! A simulated Buildkite: its jobs, its agents and who gets what, as a plain state machine; over it the agent API.
//!
//! Its agents are simulated as well, or connected processes that speak the agent API, or some of each: what gives out jobs and
//! counts does not look at that.
//!
//! [`Buildkite`] knows no clock and starts nothing: it is told what happens and what time it is. [`World`] shares
//! one between a driver and the HTTP side.
//!
//! # How it behaves
//!
//! What is measured on the real agent is done as measured; what Buildkite's own side does is done as documented, and where
//! that is silent, as said here.
//!
//! - A job is given to an idle agent at once, and the agent learns of it at its next ping: it is *assigned* meanwhile, counts
//!   as running, and the agent's own status still says `idle`.
//! - Of the jobs that some idle agent may run, the one of the highest priority goes first, then the oldest. Of the agents
//!   that may run it, the one that most recently finished a job well, then the one that has been there longest.
//! - A job that is not accepted in time, or whose agent disconnects before, is ready again, in its old place; the agent that let
//!   it lie is asked last.
//! - One SIGTERM: a worker that knows of a job finishes it, every other disconnects at once. The second kills running jobs, and
//!   one that is just being accepted is run on and lost. The third ends the process there and then.
//! - A killed agent stays connected until Buildkite notices, and can be given a job that it never learns of.
//! - A revoked token hurts no agent that is connected; a moved one leaves them in the cluster that they registered in.
//! - A token or a job can name any queue: it comes to be if it is not there. Without `queue=` it is [`DEFAULT_QUEUE`].
//! - A job holds its place in its concurrency group from when it is ready until it is over.
//! - An event is sent when a job becomes ready for any agent, and again when it is given back if the settings say so.
//! - A job whose dependency did not pass is broken: it ends without running.
//!
//! - A paused or stopped agent is given nothing. A stopped one disconnects at its next ping without a job.
//! - A route that fails or refuses is felt by simulated agents as by connected ones; one that is late or garbled is not.
//!
//! Each line about agents is held to the real one, case by case: `tests/agent/table.md`.
//!
//! Not simulated: agent priorities, retries of jobs, calls of a simulated agent that take long besides those of [`Settings`], and
//! the other way in which Buildkite may work, where a job goes to the first idle agent that pings. Streaming is for simulated
//! agents: a connected one is told that there is no stream, and polls.

mod agent;
mod agent_api;
mod connections;
mod control;
mod cord;
mod dispatch;
mod events;
mod faulty;
mod job;
mod job_log;
mod line;
mod meta_data;
mod numbers;
mod outbox;
mod pods;
mod record;
mod router;
mod settings;
mod shared;
mod state;
mod status;
mod summary;
mod taking;
mod time;
mod troubles;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;

use self::{
    agent::{Agent, AgentId, Process},
    connections::Connections,
    dispatch::{Errand, Group},
    events::Announcer,
    line::{LineId, Lines},
    meta_data::MetaData,
    numbers::Numbers,
    outbox::Outbox,
    time::later,
};
pub use self::{
    agent::{AgentPod, PodExit},
    connections::{Connection, Link},
    cord::Serving,
    events::JobEvent,
    job::{Attempt, Concurrency, End, Job, JobId, JobState, Loss, NewJob, Outcome},
    job_log::JobLog,
    record::{AttemptRecord, JobRecord, ScriptJob},
    router::{router, serve},
    settings::{Delivery, NumbersAge, PickUp, Settings, Spread},
    shared::{World, digest},
    state::{Cluster, Fault, Queue, Requests, Route, State, Token, UNCLUSTERED},
    status::{PodStatus, WorkerStatus},
    summary::{Departed, Summary},
};
use crate::{Agenda, Chance};

/// The queue of those that name none.
pub const DEFAULT_QUEUE: &str = "default";

/// There is one organization; its slug is a setting.
const ORGANIZATION_UUID: &str = "00000000-0000-4000-8000-000000000002";

/// The state machine.
#[derive(Debug)]
pub struct Buildkite {
    settings: Settings,
    seed: u64,
    now: Timestamp,
    /// What is set from outside: tokens, the clusters' names, and loads that are added to what is counted here.
    state: State,
    agenda: Agenda<Due>,
    jobs: Vec<Job>,
    lines: Lines,
    /// Queues in which something changed that may let a job go.
    stirred: BTreeSet<LineId>,
    groups: BTreeMap<String, Group>,
    agents: BTreeMap<AgentId, Agent>,
    registered: u64,
    departed: Departed,
    /// Those of the agents that are connected processes.
    connections: Connections,
    faults: BTreeMap<Route, Fault>,
    meta_data: MetaData,
    /// The living processes by the UID of their pod.
    processes: BTreeMap<Arc<str>, Process>,
    lives: u64,
    /// How many jobs finished well so far.
    finished: u64,
    exits: Outbox<PodExit>,
    registrations: Outbox<(Timestamp, String)>,
    numbers: Numbers,
    announcer: Announcer,
    chances: Chances,
}

#[derive(Debug)]
struct Chances {
    registration: Chance,
    pings: Chance,
    kills: Chance,
    cancels: Chance,
    noticing: Chance,
    finishes: Chance,
}

/// What happens by itself.
#[derive(Debug)]
enum Due {
    /// A process asks to be registered, for the nth time.
    Register(Living, u32),
    /// A process whose workers have all disconnected is gone.
    Leave(Living),
    /// A process that was told twice and is still there gives up.
    GiveUp(Living),
    Lost(AgentId),
    /// It is time to ask whether anything was heard of a connected process.
    Silence(AgentId),
    Deliver(Errand),
    Accept(Errand),
    Start(Errand),
    Finish(Errand),
    Lapse(Errand),
    Stop(Errand, End),
    /// An agent says once more that its job is over, for the nth time.
    Report(Errand, End, u32),
    /// An agent that asks for its job's state is refused.
    Disown(Errand),
    /// An agent asks for work, and something comes of it besides work.
    Ping(AgentId),
    /// An agent says that it is there, and is refused.
    Beat(AgentId),
}

/// A certain process in a pod, and not a later one.
#[derive(Debug, Clone)]
struct Living {
    pod: Arc<str>,
    life: u64,
}

impl Buildkite {
    /// One without jobs and agents. The same seed and the same calls give the same history.
    pub fn new(settings: Settings, seed: u64, start: Timestamp) -> Self {
        let chance = |purpose| Chance::new(seed, purpose);
        let numbers = Numbers::new(start, settings.numbers);
        Self {
            settings,
            seed,
            now: start,
            state: State::default(),
            agenda: Agenda::default(),
            jobs: Vec::new(),
            lines: Lines::default(),
            stirred: BTreeSet::new(),
            groups: BTreeMap::new(),
            agents: BTreeMap::new(),
            registered: 0,
            departed: Departed::default(),
            connections: Connections::default(),
            faults: BTreeMap::new(),
            meta_data: MetaData::default(),
            processes: BTreeMap::new(),
            lives: 0,
            finished: 0,
            exits: Outbox::default(),
            registrations: Outbox::default(),
            numbers,
            announcer: Announcer::new(seed),
            chances: Chances {
                registration: chance("registration"),
                pings: chance("pings"),
                kills: chance("kills"),
                cancels: chance("cancels"),
                noticing: chance("noticing"),
                finishes: chance("finishes"),
            },
        }
    }

    /// What it was made with.
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Up to when everything has happened.
    pub const fn now(&self) -> Timestamp {
        self.now
    }

    /// When something happens by itself.
    pub fn next_at(&self) -> Option<Timestamp> {
        [self.agenda.next_at(), self.announcer.next_at()].into_iter().flatten().min()
    }

    /// Lets happen what is due. Time does not go back: an earlier instant is the present one.
    pub fn advance(&mut self, now: Timestamp) {
        while let Some(at) = self.next_at().filter(|at| *at <= now) {
            self.pass(at);
            if let Some((_, due)) = self.agenda.due(at) {
                self.happen(due);
                self.dispatch();
            } else {
                self.receive(at);
            }
        }
        self.pass(now);
    }

    /// Time goes by, and nothing happens in it.
    fn pass(&mut self, now: Timestamp) {
        self.now = self.now.max(now);
        self.numbers.pass(self.now, || self.lines.loads());
    }

    fn happen(&mut self, due: Due) {
        match due {
            Due::Register(living, attempt) => self.register(living, attempt),
            Due::Leave(living) => self.leave(&living),
            Due::GiveUp(living) => self.end_process(&living, 1),
            Due::Lost(agent) => self.lose(agent, Loss::Silent),
            Due::Silence(agent) => self.listen(agent),
            Due::Deliver(errand) => self.deliver(errand),
            Due::Accept(errand) => self.accept(errand),
            Due::Start(errand) => self.start(errand),
            Due::Finish(errand) => self.finish(errand),
            Due::Lapse(errand) => self.lapse(errand),
            Due::Stop(errand, end) => self.stop(errand, end),
            Due::Report(errand, end, attempt) => self.report(errand, end, attempt),
            Due::Disown(errand) => self.disown(errand),
            Due::Ping(agent) => self.pinged(agent),
            Due::Beat(agent) => self.beaten(agent),
        }
    }

    fn enter(&mut self, wait: Duration, due: Due) {
        self.agenda.enter(later(self.now, wait), due);
    }

    /// Submits a job.
    pub fn submit(&mut self, job: NewJob, now: Timestamp) -> JobId {
        self.advance(now);
        let id = self.add(job);
        self.dispatch();
        id
    }

    /// Cancels a job. One that has ended stays as it ended.
    pub fn cancel(&mut self, id: JobId, now: Timestamp) {
        self.advance(now);
        self.call_off(id);
        self.dispatch();
    }

    /// Pauses the dispatch of a queue, or resumes it.
    pub fn set_paused(&mut self, cluster: &str, queue: &str, is_paused: bool, now: Timestamp) {
        self.advance(now);
        let line = self.lines.named(cluster, queue);
        if let Some(line) = self.lines.get_mut(line) {
            line.paused = is_paused;
        }
        self.stirred.insert(line);
        self.dispatch();
    }

    /// The pods whose agents have registered since it was last asked, in their order: from then on a process says that it is
    /// well.
    pub fn take_registered(&mut self) -> Vec<(Timestamp, String)> {
        self.registrations.take()
    }

    /// The processes that ended since it was last asked, in their order.
    pub fn take_exits(&mut self) -> Vec<PodExit> {
        self.exits.take()
    }

    /// The true load of a queue at this instant, together with what is set for it.
    pub fn load(&self, cluster: &str, queue: &str) -> Queue {
        let counted = self.lines.find(cluster, queue).and_then(|line| self.lines.get(line)).map(|line| line.load);
        let set = self.state.clusters.get(cluster).and_then(|cluster| cluster.queues.get(queue)).copied();
        counted.unwrap_or_default().plus(set.unwrap_or_default())
    }

    /// All jobs in the order in which they were submitted.
    pub fn jobs(&self) -> impl ExactSizeIterator<Item = &Job> {
        self.jobs.iter()
    }

    /// One job.
    pub fn job(&self, id: JobId) -> Option<&Job> {
        self.jobs.get(id.0)
    }

    /// How many agents Buildkite takes for connected, in all queues.
    pub fn agents(&self) -> usize {
        self.agents.len()
    }

    /// Breaks a route, or mends it. The simulated agents feel it as well, `troubles` says how.
    pub fn set_fault(&mut self, route: Route, fault: Option<Fault>) {
        match fault {
            Some(fault) => self.faults.insert(route, fault),
            None => self.faults.remove(&route),
        };
        self.alarm(route);
    }

    pub(crate) fn fault(&self, route: Route) -> Fault {
        self.faults.get(&route).copied().unwrap_or_default()
    }

    /// What is set.
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// Replaces what is set; jobs and agents stay.
    pub fn set_state(&mut self, state: State) {
        self.state = state;
    }

    /// Sets a load that is added to what is counted here; cluster and queue come to be if they are not there.
    pub fn set_queue(&mut self, cluster: &str, queue: &str, load: Queue) {
        let named = || Cluster { name: cluster.to_owned(), ..Cluster::default() };
        self.state.clusters.entry(cluster.to_owned()).or_insert_with(named).queues.insert(queue.to_owned(), load);
    }

    /// Lets a token in under an identity, or no longer.
    pub fn set_token(&mut self, token: &str, identity: Option<Token>) {
        match identity {
            Some(identity) => self.state.tokens.insert(token.to_owned(), identity),
            None => self.state.tokens.remove(token),
        };
    }

    /// Sets the seconds told in `Buildkite-Agent-Metrics-Poll-Duration`; `None` leaves the header out.
    pub const fn set_poll_duration(&mut self, seconds: Option<u64>) {
        self.state.poll_duration = seconds;
    }

    /// The nth of a kind, told apart from those of another world by its beginning.
    fn uuid(&self, kind: u16, number: impl Into<u128>) -> String {
        let world = self.seed & 0xffff_ffff;
        format!("{world:08x}-0000-4{kind:03x}-8000-{:012x}", number.into() & 0xffff_ffff_ffff)
    }
}
