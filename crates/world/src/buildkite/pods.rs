//! The way of an agent's process: started, registered, told to stop, gone; and of its workers' connections.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;

use super::{
    Buildkite, DEFAULT_QUEUE, Due, Living, Route, UNCLUSTERED,
    agent::{Agent, AgentId, AgentPod, Hold, Pings, PodExit, Process, Work},
    job::JobState,
    line::beyond_queue,
    settings::PickUp,
    time::later,
    troubles::Trouble,
};

/// The client's own patience with a call, and its wait before it registers once more.
const CALL_TIMEOUT: Duration = Duration::from_mins(1);
const REGISTER_AGAIN: Duration = Duration::from_secs(10);
/// So often it asks to be registered.
const REGISTER_ATTEMPTS: u32 = 30;
/// From a second signal until the process ends whatever it is doing: the cancel grace period of 10 s, and one.
const HARD_EXIT: Duration = Duration::from_secs(11);
/// A stream is open within this of the connection.
const STREAM_OPENS: Duration = Duration::from_secs(1);

/// Exit codes as a shell says them: 128 and the signal.
const SIGTERM: i32 = 143;
const SIGKILL: i32 = 137;

impl Buildkite {
    /// A process starts in a pod; nothing happens if there is one. Its agents connect a little later, or it exits with 1 if
    /// the token is refused.
    pub fn pod_started(&mut self, pod: AgentPod, now: Timestamp) {
        self.advance(now);
        let AgentPod { pod, token, tags, spawn } = pod;
        let pod = Arc::<str>::from(pod);
        if self.processes.contains_key(&pod) {
            return;
        }
        self.lives += 1;
        let life = self.lives;
        let process =
            Process { life, token, tags, spawn, told: 0, exit_code: 0, goodbye: Duration::ZERO, workers: Vec::new() };
        self.processes.insert(Arc::clone(&pod), process);
        let wait = self.settings.registration.draw(&mut self.chances.registration);
        self.enter(wait, Due::Register(Living { pod, life }, 1));
    }

    /// One SIGTERM to the process in a pod.
    pub fn pod_told(&mut self, pod: &str, now: Timestamp) {
        self.advance(now);
        let Some((pod, process)) = self.processes.get_key_value(pod) else { return };
        let living = Living { pod: Arc::clone(pod), life: process.life };
        let workers = process.workers.clone();
        let (told, is_registered) = (process.told + 1, process.is_registered());
        if let Some(process) = self.processes.get_mut(&living.pod) {
            process.told = told;
        }
        match told {
            _ if !is_registered => self.end_process(&living, SIGTERM),
            1 => {
                for worker in workers {
                    self.ask_to_leave(worker);
                }
                self.leave_if_alone(&living.pod);
            }
            2 => {
                for worker in workers {
                    self.kill_job_of(worker);
                }
                self.enter(HARD_EXIT, Due::GiveUp(living));
            }
            _ => self.end_process(&living, 1),
        }
        self.dispatch();
    }

    /// The process in a pod is gone at once and without a word: SIGKILL, or its node.
    pub fn pod_killed(&mut self, pod: &str, now: Timestamp) {
        self.advance(now);
        let Some((pod, process)) = self.processes.get_key_value(pod) else { return };
        let living = Living { pod: Arc::clone(pod), life: process.life };
        self.end_process(&living, SIGKILL);
    }

    pub(super) fn register(&mut self, living: Living, attempt: u32) {
        let Some(process) = self.processes.get(&living.pod).filter(|process| process.life == living.life) else {
            return;
        };
        let (spawn, workers_tags) = (process.spawn.max(1), beyond_queue(&process.tags));
        let trouble = self.trouble(Route::Register);
        let token = self.state.tokens.get(&process.token).filter(|_| trouble != Some(Trouble::Refused));
        let patience = match (token, trouble) {
            (None, _) => None,
            (Some(token), _) if token.hangs => Some(CALL_TIMEOUT),
            (Some(_), trouble) => trouble.map(|_| Duration::ZERO),
        };
        let Some(token) = token else {
            self.end_process(&living, 1);
            return;
        };
        if let Some(patience) = patience {
            if attempt < REGISTER_ATTEMPTS {
                self.enter(patience + REGISTER_AGAIN, Due::Register(living, attempt + 1));
            } else {
                self.end_process(&living, 1);
            }
            return;
        }
        let queue = process.tags.iter().find_map(|tag| tag.strip_prefix("queue=")).unwrap_or(DEFAULT_QUEUE);
        let line = self.lines.named(token.cluster.as_deref().unwrap_or(UNCLUSTERED), queue);
        let mut workers = Vec::new();
        for _ in 0..spawn {
            self.registered += 1;
            let (id, tags) = (AgentId(self.registered), Arc::clone(&workers_tags));
            let agent = Agent {
                pod: Arc::clone(&living.pod),
                line,
                tags,
                work: Work::None,
                alive: true,
                leaving: false,
                lapsed: false,
                finished: 0,
                hold: Hold::Open,
                connected_at: self.now,
                pings: Some(self.pings_from_connection()),
            };
            self.agents.insert(id, agent);
            self.rest(id);
            self.await_beat(id);
            workers.push(id);
        }
        if let Some(process) = self.processes.get_mut(&living.pod) {
            process.workers = workers;
        }
        self.registrations.push((self.now, living.pod.to_string()));
    }

    fn pings_from_connection(&mut self) -> Pings {
        match self.settings.pick_up {
            PickUp::Polling { .. } => Pings::new(self.now),
            PickUp::Streaming => {
                let opens = self.chances.pings.between(Duration::ZERO, STREAM_OPENS);
                Pings::new(later(self.now, opens))
            }
        }
    }

    /// It is idle, and is given a job unless something holds it.
    pub(super) fn rest(&mut self, id: AgentId) {
        let Some(agent) = self.agents.get(&id) else { return };
        if let Some(line) = self.lines.get_mut(agent.line) {
            line.load.idle += 1;
            if agent.is_open() {
                line.add_agent(&agent.tags, agent.warmth(id));
            }
        }
        self.stirred.insert(agent.line);
        self.await_ping(id);
    }

    /// An agent has no job any more: it rests, or goes if it was told to.
    pub(super) fn release(&mut self, agent: Option<AgentId>) {
        let Some((id, agent)) = agent.and_then(|id| Some((id, self.agents.get_mut(&id)?))) else { return };
        // An agent that worked asks again within one interval; one that never had its job goes on as before.
        let has_worked =
            agent.work.job().and_then(|job| self.jobs.get(job.0)).is_some_and(|job| job.accepted_at.is_some());
        if let Some(pings) = agent.pings.as_mut().filter(|_| has_worked) {
            *pings = Pings::new(self.now);
        }
        agent.work = Work::None;
        if let Some(line) = self.lines.get_mut(agent.line) {
            line.load.busy = line.load.busy.saturating_sub(1);
        }
        let leaves = agent.leaving;
        self.rest(id);
        if leaves {
            self.go(id);
        }
    }

    /// The first SIGTERM reaches a worker: what it knows of it finishes.
    fn ask_to_leave(&mut self, id: AgentId) {
        let Some(agent) = self.agents.get_mut(&id) else { return };
        agent.leaving = true;
        if !matches!(agent.work, Work::Known(_)) {
            self.say_goodbye(id);
        }
    }

    /// Buildkite has it no longer. A job that it never took is ready again.
    pub(super) fn disconnect(&mut self, id: AgentId) {
        let Some(agent) = self.agents.remove(&id) else { return };
        if let Some(line) = self.lines.get_mut(agent.line) {
            if agent.work == Work::None {
                line.load.idle = line.load.idle.saturating_sub(1);
                line.remove_agent(&agent.tags, agent.warmth(id));
            } else {
                line.load.busy = line.load.busy.saturating_sub(1);
            }
        }
        let assigned = |job: &super::JobId| self.job(*job).is_some_and(|job| job.state == JobState::Assigned);
        if let Some(job) = agent.work.job().filter(assigned) {
            self.give_back(job);
        }
    }

    /// A process whose workers have all disconnected ends.
    pub(super) fn leave_if_alone(&mut self, pod: &Arc<str>) {
        let Some(process) = self.processes.get(pod) else { return };
        if !process.workers.iter().any(|worker| self.agents.get(worker).is_some_and(|agent| agent.alive)) {
            let living = Living { pod: Arc::clone(pod), life: process.life };
            self.enter(process.goodbye + self.settings.leaving, Due::Leave(living));
        }
    }

    /// All its workers have gone.
    pub(super) fn leave(&mut self, living: &Living) {
        let exit_code = self.processes.get(&living.pod).map_or(0, |process| process.exit_code);
        self.end_process(living, exit_code);
    }

    /// Nothing is heard of an agent from now on, which Buildkite notices later.
    pub(super) fn miss(&mut self, id: AgentId) {
        let wait = self.settings.noticing.draw(&mut self.chances.noticing);
        self.enter(wait, Due::Lost(id));
    }

    /// A process is gone. Workers that have not disconnected are not missed yet.
    pub(super) fn end_process(&mut self, living: &Living, exit_code: i32) {
        if self.processes.get(&living.pod).is_none_or(|process| process.life != living.life) {
            return;
        }
        let Some(process) = self.processes.remove(&living.pod) else { return };
        for worker in process.workers {
            if let Some(agent) = self.agents.get_mut(&worker).filter(|agent| agent.alive) {
                agent.alive = false;
                self.miss(worker);
            }
        }
        self.exits.push(PodExit { at: self.now, pod: living.pod.to_string(), exit_code });
    }
}
