//! The way of a job: behind others, ready, given to an agent, taken, run, over; and back where nobody took it.

use std::{cmp::Reverse, collections::BTreeSet, time::Duration};

use super::{
    Buildkite, Due,
    agent::{Agent, AgentId, Work},
    job::{ATTEMPTS_KEPT, Attempt, End, Job, JobId, JobState, Loss, NewJob, Outcome},
    line::{Line, Place, beyond_queue},
};

/// From the assignment until a streaming agent has it: 1 ms in the middle, 4 at most.
pub(super) const STREAMED: Duration = Duration::from_millis(1);

/// The nth time that a job was given to an agent. What is due about an earlier one does not happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Errand {
    job: JobId,
    time: u32,
}

/// A concurrency group: how many hold a place, and who waits for one.
#[derive(Debug, Default)]
pub(super) struct Group {
    taken: usize,
    behind: BTreeSet<Place>,
}

impl Job {
    /// The time that it was given away last.
    pub(super) const fn errand(&self) -> Errand {
        Errand { job: self.id, time: self.assignments }
    }
}

impl Buildkite {
    pub(super) fn add(&mut self, new: NewJob) -> JobId {
        let id = JobId(self.jobs.len());
        let line = self.lines.named(&new.cluster, &new.queue);
        let named = self.lines.get(line).map(|line| (line.cluster.clone(), line.name.clone()));
        let (cluster, queue) = named.unwrap_or_else(|| (new.cluster.as_str().into(), new.queue.as_str().into()));
        let ends: Vec<Option<End>> =
            new.depends_on.iter().filter_map(|before| Some(self.job(*before)?.end())).collect();
        let is_broken = ends.iter().flatten().any(|end| *end != End::Passed);
        let behind = ends.iter().filter(|end| end.is_none()).count();
        for before in &new.depends_on {
            if let Some(before) = self.jobs.get_mut(before.0).filter(|before| before.end().is_none()) {
                before.before.push(id);
            }
        }
        self.jobs.push(Job {
            id,
            uuid: self.uuid(0, u64::try_from(id.0).unwrap_or(u64::MAX)),
            cluster,
            queue,
            wants: beyond_queue(&new.rules),
            rules: new.rules,
            priority: new.priority,
            duration: new.duration,
            state: JobState::Waiting,
            created_at: self.now,
            runnable_at: None,
            assigned_at: None,
            accepted_at: None,
            started_at: None,
            finished_at: None,
            assignments: 0,
            pod: None,
            attempts: Vec::new(),
            outcome: Outcome::default(),
            command: new.command,
            env: new.env,
            fails: new.fails,
            is_over: false,
            line,
            agent: None,
            behind,
            before: Vec::new(),
            concurrency: new.concurrency,
        });
        self.count(id, |count| *count += 1);
        if is_broken {
            self.end(id, End::Broken);
        } else if behind == 0 {
            self.ripen(id);
        }
        id
    }

    /// Changes the number that a job stands in.
    fn count(&mut self, id: JobId, change: impl FnOnce(&mut u32)) {
        let Some(job) = self.jobs.get(id.0) else { return };
        if let Some(count) = self.lines.get_mut(job.line).and_then(|line| job.state.counted(&mut line.load)) {
            change(count);
        }
    }

    fn set_job(&mut self, id: JobId, state: JobState) {
        self.count(id, |count| *count = count.saturating_sub(1));
        if let Some(job) = self.jobs.get_mut(id.0) {
            job.state = state;
        }
        self.count(id, |count| *count += 1);
    }

    /// It waits for no other job any more.
    fn ripen(&mut self, id: JobId) {
        let Some(job) = self.jobs.get(id.0) else { return };
        let place = (Reverse(job.priority), id);
        if let Some(concurrency) = &job.concurrency {
            let limit = concurrency.limit;
            let group = self.groups.entry(concurrency.group.clone()).or_default();
            if group.taken >= limit {
                group.behind.insert(place);
                self.set_job(id, JobState::Limited);
                return;
            }
            group.taken += 1;
        }
        if let Some(job) = self.jobs.get_mut(id.0) {
            job.runnable_at = Some(self.now);
        }
        self.queue_up(id);
        self.announce(id);
    }

    /// It is ready for any agent, for the first time or again, in the place of its age.
    fn queue_up(&mut self, id: JobId) {
        self.set_job(id, JobState::Scheduled);
        let Some(job) = self.jobs.get(id.0) else { return };
        if let Some(line) = self.lines.get_mut(job.line) {
            line.add_job(&job.wants, (Reverse(job.priority), id));
        }
        self.stirred.insert(job.line);
    }

    /// It is over, and with it the waiting of others.
    fn end(&mut self, id: JobId, end: End) {
        let mut ending = vec![(id, end)];
        while let Some((id, end)) = ending.pop() {
            let Some(job) = self.jobs.get_mut(id.0).filter(|job| job.end().is_none()) else { continue };
            job.finished_at = Some(self.now);
            let (state, before) = (job.state, std::mem::take(&mut job.before));
            let place = (Reverse(job.priority), id);
            if state == JobState::Scheduled
                && let Some(line) = self.lines.get_mut(job.line)
            {
                line.remove_job(&job.wants, place);
            }
            self.set_job(id, JobState::Ended(end));
            self.leave_group(id, state, place);
            for behind in before {
                if end != End::Passed {
                    ending.push((behind, End::Broken));
                } else if let Some(job) = self.jobs.get_mut(behind.0).filter(|job| job.end().is_none()) {
                    job.behind = job.behind.saturating_sub(1);
                    if job.behind == 0 {
                        self.ripen(behind);
                    }
                }
            }
        }
    }

    /// Gives its place in its group to the next.
    fn leave_group(&mut self, id: JobId, state: JobState, place: Place) {
        let Some(concurrency) = self.jobs.get(id.0).and_then(|job| job.concurrency.clone()) else { return };
        let Some(group) = self.groups.get_mut(&concurrency.group) else { return };
        match state {
            JobState::Limited => {
                group.behind.remove(&place);
            }
            JobState::Waiting | JobState::Ended(_) => {}
            JobState::Scheduled
            | JobState::Assigned
            | JobState::Accepted
            | JobState::Running
            | JobState::Cancelling => {
                group.taken = group.taken.saturating_sub(1);
                if let Some((_, next)) = group.behind.pop_first() {
                    self.ripen(next);
                }
            }
        }
    }

    pub(super) fn call_off(&mut self, id: JobId) {
        let Some(job) = self.jobs.get(id.0) else { return };
        let errand = job.errand();
        match job.state {
            JobState::Waiting | JobState::Limited | JobState::Scheduled => self.end(id, End::Cancelled),
            JobState::Assigned => {
                // Its agent hears at the next ping that there is nothing, or that it may not accept.
                let agent = job.agent;
                self.end(id, End::Cancelled);
                self.release(agent);
            }
            JobState::Accepted | JobState::Running => {
                // A connected process learns of it when it asks for the job's state.
                let is_simulated = job.agent.and_then(|agent| self.agents.get(&agent)).is_some_and(Agent::is_simulated);
                self.set_job(id, JobState::Cancelling);
                if is_simulated {
                    let dead_at = self.dead_after_asking(errand);
                    self.agenda.enter(dead_at, Due::Stop(errand, End::Cancelled));
                }
            }
            JobState::Cancelling | JobState::Ended(_) => {}
        }
    }

    /// Gives out what can be given.
    pub(super) fn dispatch(&mut self) {
        while let Some(line) = self.stirred.pop_first() {
            while let Some((job, agent)) = self.lines.get(line).and_then(Line::pair) {
                self.assign(job, agent);
            }
        }
    }

    fn assign(&mut self, id: JobId, to: AgentId) {
        let (Some(job), Some(agent)) = (self.jobs.get_mut(id.0), self.agents.get_mut(&to)) else { return };
        job.assigned_at = Some(self.now);
        job.assignments += 1;
        job.agent = Some(to);
        job.pod = Some(agent.pod.clone());
        if job.attempts.len() < ATTEMPTS_KEPT {
            job.attempts.push(Attempt {
                agent: to,
                name: agent.pod.clone(),
                assigned_at: self.now,
                delivered_at: None,
            });
        }
        agent.work = Work::Given(id);
        if let Some(line) = self.lines.get_mut(job.line) {
            line.remove_job(&job.wants, (Reverse(job.priority), id));
            line.remove_agent(&agent.tags, agent.warmth(to));
            line.load.idle = line.load.idle.saturating_sub(1);
            line.load.busy += 1;
        }
        let errand = job.errand();
        if let Some(at) = self.next_ping(to) {
            self.agenda.enter(at, Due::Deliver(errand));
        }
        self.enter(self.settings.accept_within, Due::Lapse(errand));
        self.set_job(id, JobState::Assigned);
    }

    /// The agent that has the job of this errand, if that is still how things are.
    fn bound(&self, errand: Errand, is_so: impl Fn(JobState) -> bool) -> Option<AgentId> {
        let job = self.jobs.get(errand.job.0)?;
        (job.assignments == errand.time && is_so(job.state)).then_some(job.agent).flatten()
    }

    /// The same, of an agent whose process is there to do something about it.
    pub(super) fn doing(&self, errand: Errand, is_so: impl Fn(JobState) -> bool) -> Option<AgentId> {
        self.bound(errand, is_so).filter(|agent| self.agents.get(agent).is_some_and(|agent| agent.alive))
    }

    pub(super) fn deliver(&mut self, errand: Errand) {
        let Some(agent) = self.doing(errand, |state| state == JobState::Assigned) else { return };
        if !self.hears(errand, agent) {
            return;
        }
        self.hand_over(errand.job, agent);
        self.enter(self.settings.accepting, Due::Accept(errand));
    }

    /// The agent knows of its job now.
    pub(super) fn hand_over(&mut self, job: JobId, to: AgentId) {
        if let Some(agent) = self.agents.get_mut(&to) {
            agent.work = Work::Known(job);
        }
        if let Some(attempt) = self.jobs.get_mut(job.0).and_then(|job| job.attempts.last_mut()) {
            attempt.delivered_at.get_or_insert(self.now);
        }
    }

    pub(super) fn accept(&mut self, errand: Errand) {
        let Some(agent) = self.doing(errand, |state| state == JobState::Assigned) else { return };
        if !self.gets_accepted(errand, agent) {
            return;
        }
        self.take(errand.job, agent);
        self.enter(self.settings.starting, Due::Start(errand));
    }

    /// The agent has said that it takes its job.
    pub(super) fn take(&mut self, job: JobId, by: AgentId) {
        self.set_job(job, JobState::Accepted);
        if let Some(job) = self.jobs.get_mut(job.0) {
            job.accepted_at = Some(self.now);
        }
        if let Some(agent) = self.agents.get_mut(&by) {
            agent.lapsed = false;
        }
    }

    pub(super) fn start(&mut self, errand: Errand) {
        let Some(agent) = self.doing(errand, |state| state == JobState::Accepted) else { return };
        if let Some(wait) = self.begin(errand.job) {
            self.enter(wait, Due::Finish(errand));
            self.await_state_poll(agent);
        }
    }

    /// Its command runs now; says how long that takes where it is simulated.
    pub(super) fn begin(&mut self, id: JobId) -> Option<Duration> {
        self.set_job(id, JobState::Running);
        let job = self.jobs.get_mut(id.0)?;
        job.started_at = Some(self.now);
        Some(job.duration)
    }

    pub(super) fn finish(&mut self, errand: Errand) {
        if self.doing(errand, |state| state == JobState::Running).is_none() {
            return;
        }
        let fails = self.jobs.get(errand.job.0).is_some_and(|job| job.fails);
        self.cease(errand, if fails { End::Failed } else { End::Passed });
    }

    /// Its command is over, and its agent says so. It is over once: what was to stop it comes too late then.
    fn cease(&mut self, errand: Errand, end: End) {
        if self.jobs.get_mut(errand.job.0).is_some_and(|job| !std::mem::replace(&mut job.is_over, true)) {
            self.report(errand, end, 1);
        }
    }

    pub(super) fn job_of(&self, errand: Errand) -> Option<&Job> {
        self.jobs.get(errand.job.0)
    }

    /// A job that an agent had taken is over, and the agent has said so.
    pub(super) fn conclude(&mut self, job: JobId, agent: AgentId, end: End) {
        if let Some(agent) = self.agents.get_mut(&agent).filter(|_| end == End::Passed) {
            self.finished += 1;
            agent.finished = self.finished;
        }
        self.end(job, end);
        self.release(Some(agent));
    }

    /// A job that its agent had taken is dead, and the agent has said so.
    pub(super) fn stop(&mut self, errand: Errand, end: End) {
        if self.doing(errand, JobState::is_taken).is_some() {
            self.cease(errand, end);
        }
    }

    pub(super) fn lapse(&mut self, errand: Errand) {
        let Some(id) = self.bound(errand, |state| state == JobState::Assigned) else { return };
        if let Some(agent) = self.agents.get_mut(&id) {
            agent.lapsed = true;
        }
        self.release(Some(id));
        self.give_back(errand.job);
    }

    /// A job that was assigned and not accepted is ready again.
    pub(super) fn give_back(&mut self, id: JobId) {
        if let Some(job) = self.jobs.get_mut(id.0) {
            job.agent = None;
        }
        self.queue_up(id);
        if self.settings.events.again {
            self.announce(id);
        }
    }

    /// Its agent was told twice to stop: what runs is killed. One that is just being accepted nobody can stop.
    pub(super) fn kill_job_of(&mut self, agent: AgentId) {
        let job = self.agents.get(&agent).and_then(|agent| agent.work.job()).and_then(|job| self.jobs.get(job.0));
        if let Some(job) = job.filter(|job| job.state.is_taken()) {
            let errand = job.errand();
            let wait = self.settings.killing.draw(&mut self.chances.kills);
            self.enter(wait, Due::Stop(errand, End::Killed));
        }
    }

    /// A connection that is gone: what it had taken is lost with it, and ready again if it never took it.
    pub(super) fn lose(&mut self, id: AgentId, loss: Loss) {
        let Some(agent) = self.agents.get(&id) else { return };
        let count = match loss {
            Loss::Silent => &mut self.departed.lost,
            Loss::Left => &mut self.departed.disconnected,
        };
        *count = count.saturating_add(1);
        let job = agent.work.job();
        if let Some(job) = job.filter(|job| self.jobs.get(job.0).is_some_and(|job| job.state.is_taken())) {
            if let Some(job) = self.jobs.get_mut(job.0) {
                job.outcome.loss = Some(loss);
            }
            self.end(job, End::Lost);
        }
        self.disconnect(id);
    }
}
