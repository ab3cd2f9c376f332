//! What the simulated agents do about faults of the routes that they would call, and about being stopped: as measured on the
//! real agent, call by call.
//!
//! Of a fault the status and the broken connection count. What is late, garbled or about any other route does nothing to them.

use std::time::Duration;

use jiff::Timestamp;

use super::{
    Buildkite, Due, Fault, Route,
    agent::{Agent, AgentId, Hold, Pings, Work},
    dispatch::{Errand, STREAMED},
    job::{End, JobState, Loss},
    settings::PickUp,
    time::{beat, later},
};

/// From one attempt to take a job to the next, after a connection that broke.
const ACCEPT_AGAIN: Duration = Duration::from_secs(5);
/// From the first attempt to say that a job is over to the second. Each wait is this times a power of its own thousandths, which
/// grows by a sixteenth each time, and up to [`FINISH_JITTER`].
const FINISH_AGAIN: Duration = Duration::from_secs(2);
const FINISH_JITTER: Duration = Duration::from_secs(1);
/// A stream that failed is open again after this; later ones after longer, which is not simulated.
const STREAM_AGAIN: Duration = Duration::from_secs(2);
/// So often it is said that a job is over before the agent gives up.
const FINISH_ATTEMPTS: u32 = 12;
/// So long an agent tries to say that it goes: three waits of a second.
const GOODBYE: Duration = Duration::from_secs(3);

/// What comes of a call that a fault stands in the way of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The server is there and cannot: 429, 5xx.
    Failing,
    /// The connection broke.
    Dropped,
    /// The server will not: any other 4xx.
    Refused,
}

impl Fault {
    fn trouble(self) -> Option<Trouble> {
        match self.status {
            _ if self.drop => Some(Trouble::Dropped),
            Some(429 | 500..) => Some(Trouble::Failing),
            Some(400..) => Some(Trouble::Refused),
            Some(_) | None => None,
        }
    }
}

impl Buildkite {
    pub(super) fn trouble(&self, route: Route) -> Option<Trouble> {
        self.fault(route).trouble()
    }

    fn is_refused(&self, route: Route) -> bool {
        self.trouble(route) == Some(Trouble::Refused)
    }

    /// A fault has begun: those that would hear of it by themselves do so when they next call.
    pub(super) fn alarm(&mut self, route: Route) {
        if !self.is_refused(route) {
            return;
        }
        let ours = self.agents.iter().filter(|(_, agent)| agent.alive && agent.is_simulated());
        for id in ours.map(|(id, _)| *id).collect::<Vec<_>>() {
            if route == Route::Ping {
                self.await_ping(id);
            } else if route == Route::Heartbeat {
                self.await_beat(id);
            } else if route == Route::JobState {
                self.await_state_poll(id);
            }
        }
    }

    /// Something comes of the next ping of an agent that asks for work.
    pub(super) fn await_ping(&mut self, id: AgentId) {
        let is_refused = self.is_refused(Route::Ping);
        let of_interest = |agent: &Agent| agent.asks_for_work() && (is_refused || agent.hold == Hold::Stopping);
        if self.agents.get(&id).is_some_and(of_interest)
            && let Some(at) = self.next_ping(id)
        {
            self.agenda.enter(at, Due::Ping(id));
        }
    }

    /// When a simulated agent next asks for work.
    pub(super) fn next_ping(&mut self, id: AgentId) -> Option<Timestamp> {
        let now = self.now;
        let pings = self.agents.get_mut(&id).filter(|agent| agent.alive)?.pings.as_mut()?;
        Some(match self.settings.pick_up {
            PickUp::Polling { interval } => pings.next(now, interval, &mut self.chances.pings),
            PickUp::Streaming => pings.opened().max(later(now, STREAMED)),
        })
    }

    /// The ping is answered.
    pub(super) fn pinged(&mut self, id: AgentId) {
        let Some(agent) = self.agents.get(&id).filter(|agent| agent.asks_for_work()) else { return };
        let is_stopped = agent.hold == Hold::Stopping && self.trouble(Route::Ping).is_none();
        if self.is_refused(Route::Ping) {
            self.break_down(id);
        } else if is_stopped {
            self.go(id);
        } else {
            self.await_ping(id);
        }
    }

    /// The next heartbeat of an agent is refused if nothing changes until then.
    pub(super) fn await_beat(&mut self, id: AgentId) {
        let (now, every) = (self.now, self.settings.heartbeat);
        let Some(agent) = self.agents.get(&id).filter(|_| self.is_refused(Route::Heartbeat)) else { return };
        self.agenda.enter(later(beat(agent.connected_at, every, now), every), Due::Beat(id));
    }

    pub(super) fn beaten(&mut self, id: AgentId) {
        if self.is_refused(Route::Heartbeat) && self.agents.get(&id).is_some_and(|agent| agent.alive) {
            self.break_down(id);
        }
    }

    /// An agent with a running job asks for its state, and is refused if nothing changes until then.
    pub(super) fn await_state_poll(&mut self, id: AgentId) {
        let job = self.agents.get(&id).filter(|agent| agent.is_simulated()).and_then(|agent| agent.work.job());
        let Some(job) = job.and_then(|job| self.job(job)).filter(|job| job.state == JobState::Running) else { return };
        let errand = job.errand();
        if self.is_refused(Route::JobState) {
            let dead_at = self.dead_after_asking(errand);
            self.agenda.enter(dead_at, Due::Disown(errand));
        }
    }

    /// When a job is dead that its agent stops after it asked for its state the next time: once in each interval, as it pings.
    pub(super) fn dead_after_asking(&mut self, errand: Errand) -> Timestamp {
        let (now, every) = (self.now, self.settings.job_status);
        let began = self.job_of(errand).and_then(|job| job.started_at).unwrap_or(now);
        let asked = Pings::new(began).next(now, every, &mut self.chances.cancels);
        later(asked, self.settings.killing.draw(&mut self.chances.cancels))
    }

    pub(super) fn disown(&mut self, errand: Errand) {
        if self.is_refused(Route::JobState) {
            self.stop(errand, End::Cancelled);
        }
    }

    /// An agent has been refused for good: it stops its job, and its process will say that something was wrong.
    fn break_down(&mut self, id: AgentId) {
        let Some(agent) = self.agents.get_mut(&id) else { return };
        agent.leaving = true;
        let pod = agent.pod.clone();
        if let Some(process) = self.processes.get_mut(&pod) {
            process.exit_code = 1;
        }
        if self.known(id).is_some() {
            self.kill_job_of(id);
        } else {
            self.go(id);
        }
    }

    /// An agent without a job goes, and its process if it was the last.
    pub(super) fn go(&mut self, id: AgentId) {
        let Some(pod) = self.agents.get(&id).map(|agent| agent.pod.clone()) else { return };
        self.say_goodbye(id);
        self.leave_if_alone(&pod);
    }

    /// An agent goes. Buildkite hears of it, or misses it later.
    pub(super) fn say_goodbye(&mut self, id: AgentId) {
        let Some(agent) = self.agents.get_mut(&id) else { return };
        if self.faults.get(&Route::Disconnect).is_none_or(|fault| fault.trouble().is_none()) {
            self.lose(id, Loss::Left);
            return;
        }
        agent.alive = false;
        let pod = agent.pod.clone();
        if let Some(process) = self.processes.get_mut(&pod) {
            process.goodbye = GOODBYE;
        }
        self.miss(id);
    }

    /// What an agent does at a ping that would tell it of its job: whether it hears of it.
    pub(super) fn hears(&mut self, errand: Errand, id: AgentId) -> bool {
        match self.trouble(Route::Ping) {
            None => true,
            Some(Trouble::Refused) => {
                self.break_down(id);
                false
            }
            Some(Trouble::Failing | Trouble::Dropped) => {
                self.deliver_later(errand, id);
                false
            }
        }
    }

    /// At the next ping; a stream that failed is opened again by and by.
    fn deliver_later(&mut self, errand: Errand, id: AgentId) {
        let at = match self.settings.pick_up {
            PickUp::Polling { .. } => self.next_ping(id),
            PickUp::Streaming => Some(later(self.now, STREAM_AGAIN)),
        };
        if let Some(at) = at {
            self.agenda.enter(at, Due::Deliver(errand));
        }
    }

    /// Whether an agent's acceptance gets through. If not, it asks for its job again, or says the same again.
    pub(super) fn gets_accepted(&mut self, errand: Errand, id: AgentId) -> bool {
        match self.trouble(Route::Accept) {
            None => true,
            Some(Trouble::Dropped) => {
                self.enter(ACCEPT_AGAIN, Due::Accept(errand));
                false
            }
            Some(Trouble::Failing | Trouble::Refused) => {
                let job = self.job_of(errand).map(|job| job.id);
                let Some((agent, job)) = self.agents.get_mut(&id).zip(job) else { return false };
                agent.work = Work::Given(job);
                if agent.leaving {
                    self.go(id);
                } else {
                    self.deliver_later(errand, id);
                }
                false
            }
        }
    }

    /// A command is over, and its agent says so: it gets through, is said again later, or the agent gives up.
    pub(super) fn report(&mut self, errand: Errand, end: End, attempt: u32) {
        let Some(id) = self.doing(errand, JobState::is_taken) else { return };
        let Some(job) = self.job_of(errand) else { return };
        let (job, end) = (job.id, if job.state == JobState::Cancelling { End::Cancelled } else { end });
        match self.trouble(Route::Finish) {
            None => self.conclude(job, id, end),
            Some(Trouble::Failing | Trouble::Dropped) if attempt < FINISH_ATTEMPTS => {
                let growth = (FINISH_AGAIN.as_secs_f64() * 1_000.0).powf(f64::from(attempt - 1) / 16.0);
                let jitter = self.chances.finishes.between(Duration::ZERO, FINISH_JITTER);
                self.enter(FINISH_AGAIN.mul_f64(growth) + jitter, Due::Report(errand, end, attempt + 1));
            }
            Some(_) => self.give_up(id),
        }
    }

    /// An agent is done with a job of which Buildkite does not hear. For Buildkite it has it still.
    fn give_up(&mut self, id: AgentId) {
        let Some(agent) = self.agents.get_mut(&id) else { return };
        if let Work::Known(job) = agent.work {
            agent.work = Work::Dropped(job);
        }
        agent.pings = Some(Pings::new(self.now));
        if agent.leaving {
            self.go(id);
        } else {
            self.await_ping(id);
        }
    }
}

impl Agent {
    /// Whether it pings, whatever Buildkite thinks that it does.
    fn asks_for_work(&self) -> bool {
        self.alive && !self.leaving && matches!(self.work, Work::None | Work::Dropped(_))
    }
}
