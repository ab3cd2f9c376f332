//! Agents that are connected processes: registered, heard of, paused, stopped, gone. What they do with jobs is in `taking`.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    Buildkite, DEFAULT_QUEUE, Due, UNCLUSTERED,
    agent::{Agent, AgentId, Hold, Work},
    job::{JobState, Loss},
    line::beyond_queue,
    settings::PickUp,
    time::later,
};

/// So many agents that are gone are remembered: more than any test has, and few enough for one that runs for ever.
const GONE_MAX: usize = 100_000;

/// What a process says of itself when it registers one of its workers. What it says besides is not looked at.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Registration {
    name: String,
    hostname: String,
    version: String,
    pid: i64,
    meta_data: Vec<String>,
}

/// What a worker is told when it has registered.
#[derive(Debug, Serialize)]
pub(super) struct Registered {
    id: String,
    name: String,
    access_token: String,
    endpoint: &'static str,
    request_headers: BTreeMap<String, String>,
    ping_interval: u64,
    job_status_interval: u64,
    heartbeat_interval: u64,
    meta_data: Vec<String>,
}

/// What a ping is answered.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Ping {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) action: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) job: Option<PingedJob>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct PingedJob {
    pub(super) id: String,
}

/// How it stands with the connection of a real agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Link {
    /// It has a token, and has not connected.
    Registered,
    /// It is there, for all that Buildkite knows.
    Connected,
    /// It has said that it goes.
    Disconnected,
    /// Nothing was heard of it for too long.
    Lost,
}

/// A real agent: one worker of a process that speaks the agent API.
#[derive(Debug, Clone, Serialize)]
pub struct Connection {
    /// Its UUID.
    pub uuid: String,
    /// Its name, what it had Buildkite fill in with it.
    pub name: String,
    /// What its machine is called.
    pub hostname: String,
    /// Its process.
    pub pid: i64,
    /// Which agent it is.
    pub version: String,
    /// `key=value`, the queue with them.
    pub tags: Vec<String>,
    /// The cluster's UUID, or [`UNCLUSTERED`].
    pub cluster: String,
    /// The queue's key.
    pub queue: String,
    /// Where it stands.
    pub link: Link,
    /// Whether it is paused.
    pub is_paused: bool,
    /// Whether it was stopped from outside.
    pub is_stopping: bool,
    /// When it registered.
    pub registered_at: Timestamp,
    /// When it connected.
    pub connected_at: Option<Timestamp>,
    /// When it disconnected or was taken for lost.
    pub ended_at: Option<Timestamp>,
    /// When it last registered, connected, pinged or sent a heartbeat.
    pub heard_at: Timestamp,
    /// How often it asked for work.
    pub pings: u64,
    /// How often it said that it is there.
    pub heartbeats: u64,
    #[serde(skip)]
    session: String,
    /// What it registered with.
    #[serde(skip)]
    token: String,
    #[serde(skip)]
    tolerance: Duration,
}

impl Connection {
    pub(super) const fn token(&self) -> &str {
        self.token.as_str()
    }

    const fn is_there(&self) -> bool {
        matches!(self.link, Link::Registered | Link::Connected)
    }
}

/// All real agents.
#[derive(Debug, Default)]
pub(super) struct Connections {
    all: BTreeMap<AgentId, Connection>,
    /// Those that are there, by the token that they were given.
    sessions: BTreeMap<String, AgentId>,
    gone: VecDeque<AgentId>,
}

impl Connections {
    pub(super) fn session(&self, session: &str) -> Option<AgentId> {
        self.sessions.get(session).copied()
    }

    pub(super) fn get(&self, id: AgentId) -> Option<&Connection> {
        self.all.get(&id)
    }

    fn hear(&mut self, id: AgentId, now: Timestamp) -> Option<&mut Connection> {
        let connection = self.all.get_mut(&id)?;
        connection.heard_at = now;
        Some(connection)
    }

    fn close(&mut self, id: AgentId, link: Link, now: Timestamp) {
        let Some(connection) = self.all.get_mut(&id).filter(|connection| connection.is_there()) else { return };
        connection.link = link;
        connection.ended_at = Some(now);
        self.sessions.remove(&connection.session);
        self.gone.push_back(id);
        if self.gone.len() > GONE_MAX
            && let Some(oldest) = self.gone.pop_front()
        {
            self.all.remove(&oldest);
        }
    }
}

impl Buildkite {
    /// The real agents in the order in which they registered, those that are gone with them.
    pub fn connections(&self) -> impl ExactSizeIterator<Item = &Connection> {
        self.connections.all.values()
    }

    /// One real agent by its UUID.
    pub fn connection(&self, uuid: &str) -> Option<&Connection> {
        self.connections.get(self.agent_named(uuid)?)
    }

    /// Since when an agent is connected, a real one or a simulated one.
    pub fn connected_since(&self, uuid: &str) -> Option<Timestamp> {
        Some(self.agents.get(&self.agent_named(uuid)?)?.connected_at)
    }

    /// An agent that is there, or was connected once.
    fn agent_named(&self, uuid: &str) -> Option<AgentId> {
        let id = AgentId(u64::from_str_radix(uuid.get(24..)?, 16).ok()?);
        let is_known = self.agents.contains_key(&id) || self.connections.get(id).is_some();
        (is_known && uuid == self.uuid(1, id.0)).then_some(id)
    }

    /// Lets a worker in; `None` for a token that is not.
    pub(super) fn register_agent(&mut self, token: &str, said: Registration) -> Option<Registered> {
        let cluster = self.state.tokens.get(token)?.cluster.clone().unwrap_or_else(|| UNCLUSTERED.to_owned());
        self.registered += 1;
        let id = AgentId(self.registered);
        let uuid = self.uuid(1, id.0);
        let name = said.name.replace("%hostname", &said.hostname).replace("%pid", &said.pid.to_string());
        let queue = said.meta_data.iter().find_map(|tag| tag.strip_prefix("queue=")).unwrap_or(DEFAULT_QUEUE);
        let tolerance = self.settings.noticing.draw(&mut self.chances.noticing);
        let connection = Connection {
            uuid: uuid.clone(),
            name: name.clone(),
            hostname: said.hostname,
            pid: said.pid,
            version: said.version,
            cluster,
            queue: queue.to_owned(),
            tags: said.meta_data.clone(),
            link: Link::Registered,
            is_paused: false,
            is_stopping: false,
            registered_at: self.now,
            connected_at: None,
            ended_at: None,
            heard_at: self.now,
            pings: 0,
            heartbeats: 0,
            session: format!("session-{uuid}"),
            token: token.to_owned(),
            tolerance,
        };
        let access_token = connection.session.clone();
        self.connections.sessions.insert(access_token.clone(), id);
        self.connections.all.insert(id, connection);
        self.enter(tolerance, Due::Silence(id));
        Some(Registered {
            id: uuid,
            name,
            access_token,
            endpoint: "",
            request_headers: BTreeMap::new(),
            ping_interval: whole_seconds(self.ping_interval()),
            job_status_interval: whole_seconds(self.settings.job_status),
            heartbeat_interval: whole_seconds(self.settings.heartbeat),
            meta_data: said.meta_data,
        })
    }

    /// How often an agent polls; where jobs are streamed, how often one would that cannot have a stream.
    fn ping_interval(&self) -> Duration {
        match self.settings.pick_up {
            PickUp::Polling { interval } => interval,
            PickUp::Streaming => POLLING_BESIDE_STREAMS,
        }
    }

    /// From here on it may be given jobs. Once more changes nothing.
    pub(super) fn connect_agent(&mut self, id: AgentId) {
        let now = self.now;
        let Some(connection) = self.connections.hear(id, now).filter(|known| known.link == Link::Registered) else {
            return;
        };
        connection.link = Link::Connected;
        connection.connected_at = Some(now);
        let line = self.lines.named(&connection.cluster, &connection.queue);
        let agent = Agent {
            pod: Arc::from(connection.name.as_str()),
            line,
            tags: beyond_queue(&connection.tags),
            work: Work::None,
            alive: true,
            leaving: false,
            lapsed: false,
            finished: 0,
            hold: Hold::Open,
            connected_at: now,
            pings: None,
        };
        self.agents.insert(id, agent);
        self.rest(id);
        self.dispatch();
    }

    pub(super) fn beat_agent(&mut self, id: AgentId) {
        if let Some(connection) = self.connections.hear(id, self.now) {
            connection.heartbeats += 1;
        }
    }

    /// An agent asks what there is to do.
    pub(super) fn ping_agent(&mut self, id: AgentId) -> Ping {
        if let Some(connection) = self.connections.hear(id, self.now) {
            connection.pings += 1;
        }
        self.order_for(id)
    }

    /// What an agent is told: its job if it has one that it has not taken. From then on it knows of it.
    pub(super) fn order_for(&mut self, id: AgentId) -> Ping {
        let Some(agent) = self.agents.get(&id) else { return Ping::default() };
        let given = agent.work.job().and_then(|job| self.job(job)).filter(|job| job.state == JobState::Assigned);
        if let Some(job) = given {
            let (job, uuid) = (job.id, job.uuid.clone());
            self.hand_over(job, id);
            return Ping { action: None, job: Some(PingedJob { id: uuid }) };
        }
        let action = match agent.hold {
            Hold::Open | Hold::Withdrawn => None,
            Hold::Paused => Some("pause"),
            Hold::Stopping => Some("disconnect"),
        };
        Ping { action, job: None }
    }

    /// An agent says that it goes.
    pub(super) fn disconnect_agent(&mut self, id: AgentId) {
        self.lose(id, Loss::Left);
        self.connections.close(id, Link::Disconnected, self.now);
        self.dispatch();
    }

    /// Looks whether an agent was silent for too long; else looks again when it would be.
    pub(super) fn listen(&mut self, id: AgentId) {
        let Some(connection) = self.connections.get(id).filter(|connection| connection.is_there()) else { return };
        let patience_ends = later(connection.heard_at, connection.tolerance);
        if patience_ends > self.now {
            self.agenda.enter(patience_ends, Due::Silence(id));
        } else {
            self.lose(id, Loss::Silent);
            self.connections.close(id, Link::Lost, self.now);
        }
    }

    /// Pauses an agent, or lets it go on. A job that was given to it and that it has not heard of goes to another.
    /// Answers whether there is such an agent.
    pub fn set_agent_paused(&mut self, uuid: &str, is_paused: bool, now: Timestamp) -> bool {
        self.advance(now);
        let Some(id) = self.agent_named(uuid) else { return false };
        let from = if is_paused { Hold::Open } else { Hold::Paused };
        if self.agents.get(&id).is_some_and(|agent| agent.hold == from) {
            self.hold(id, if is_paused { Hold::Paused } else { Hold::Open });
        }
        if let Some(connection) = self.connections.all.get_mut(&id) {
            connection.is_paused = is_paused;
        }
        self.dispatch();
        true
    }

    /// Tells an agent to disconnect, when it has no job any more; by force, its job is cancelled. Answers whether there is
    /// such an agent.
    pub fn stop_agent(&mut self, uuid: &str, by_force: bool, now: Timestamp) -> bool {
        self.advance(now);
        let Some(id) = self.agent_named(uuid) else { return false };
        self.hold(id, Hold::Stopping);
        if let Some(connection) = self.connections.all.get_mut(&id) {
            connection.is_stopping = true;
        }
        if let Some(job) = self.agents.get(&id).and_then(|agent| agent.work.job()).filter(|_| by_force) {
            self.call_off(job);
        }
        self.await_ping(id);
        self.dispatch();
        true
    }

    /// Gives an agent no more jobs, or lets it have them again. Its place among the idle ones changes, not their number.
    pub(super) fn hold(&mut self, id: AgentId, hold: Hold) {
        let Some(agent) = self.agents.get_mut(&id) else { return };
        agent.hold = hold;
        if let Work::Given(job) = agent.work
            && hold != Hold::Open
        {
            self.release(Some(id));
            self.give_back(job);
            return;
        }
        let (line, is_idle, is_open) = (agent.line, agent.work == Work::None, agent.is_open());
        if let Some(line) = self.lines.get_mut(line).filter(|_| is_idle) {
            if is_open {
                line.add_agent(&agent.tags, agent.warmth(id));
            } else {
                line.remove_agent(&agent.tags, agent.warmth(id));
            }
        }
        self.stirred.insert(line);
    }
}

/// How often an agent polls whose stream was refused.
const POLLING_BESIDE_STREAMS: Duration = Duration::from_secs(10);

/// As the wire has them. The agent cannot do with none.
fn whole_seconds(interval: Duration) -> u64 {
    interval.as_secs().max(1)
}
