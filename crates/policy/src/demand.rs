//! Step 2: how many agents the jobs of a queue want, by Buildkite's own clocks only.
//!
//! A reading says what was true at about its `Date`; hints say which jobs became runnable since. With D the `Date` and m the
//! [`MARGIN`], each hint stands somewhere on this line:
//!
//! ```text
//!        settled           │           unsure            │        new
//!  surely in the reading   │  may or may not be in it    │  surely not in it
//! ─────────────────────────┼─────────────────────────────┼─────────────────► runnable_at
//!                        D - m                         D + 1 s
//! ```
//!
//! `queued = max(scheduled, unsure) + new`: an unsure job that the reading counts is not counted again, and a new one always
//! is. So a doubled or late event changes nothing, and a lost one costs what one poll costs.
//!
//! What our own agents say is newer than the reading. Jobs that pods finish on their way out need no agent any more, so `running`
//! counts without them; and where more of ours are busy than that, so many of the queued have started since:
//! `started = max(0, busy - running)`. The larger of the two is what is being served, and not what is busy alone: a job that was
//! just given to an agent counts as running, while the agent still says that it is idle.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::{
    age::elapsed,
    decision::Reason,
    hints::Moment,
    memory::Unsatisfiable,
    observation::{Hint, Load, QueueObservation},
    rules,
    spec::Fraction,
    units::{Agents, Jobs},
    unsatisfiable,
};

/// How old the numbers of a reading can be when it is sent. Buildkite's own page refreshes the same numbers every 10 s and
/// asks pollers to wait as long.
pub const METRICS_STALENESS: SignedDuration = SignedDuration::from_secs(10);

/// The grain of an HTTP `Date` and of an event's `runnable_at`: both are whole seconds, rounded down.
pub const CLOCK_GRAIN: SignedDuration = SignedDuration::from_secs(1);

/// A job is surely in a reading when it became runnable this long before its `Date`: the staleness of the numbers, and one
/// grain because a job written as runnable at `r` became so before `r + 1 s`. `Date` was rounded down as well, which is on
/// the safe side here; on the other side of it a job is new only from `D + 1 s` on.
pub const MARGIN: SignedDuration = SignedDuration::from_secs(METRICS_STALENESS.as_secs() + CLOCK_GRAIN.as_secs());

/// What a hint is to the reading and the pools at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    /// The reading knows the job, whatever became of it: it can be deleted.
    Settled,
    /// The reading may know the job.
    Unsure,
    /// The reading cannot know the job.
    New,
    /// No reading settled it within its time: it can be deleted.
    Expired,
    /// It asks for tags that no pool of the queue has: it raises nothing.
    Unmatched,
}

/// What the hints of one queue are measured against; the same for the policy and for whoever deletes hints.
#[derive(Debug, Clone, Copy)]
pub struct Yardstick<'a> {
    queue: &'a QueueObservation,
    date: Option<Timestamp>,
    ttl: Option<Duration>,
    now: Timestamp,
}

impl<'a> Yardstick<'a> {
    /// For this queue at `now`.
    ///
    /// The time to live is the largest that a pool of the queue asks for: a job belongs to the queue, and dropping its hint
    /// for the pool with the shortest would take it from the others. Without any pool nothing expires: a definition that
    /// is broken for a minute must not lose the events of that minute.
    pub fn of(queue: &'a QueueObservation, now: Timestamp) -> Self {
        let date = queue.reading.last_good.map(|good| good.date);
        let ttl = queue.pools.iter().map(|pool| pool.spec.hint_ttl).max();
        Self { queue, date, ttl, now }
    }

    /// Where this hint stands.
    pub fn standing(&self, hint: &Hint) -> Standing {
        self.stands(hint.runnable_at, hint.stored_at, || self.is_matched(&hint.rules))
    }

    /// What may be deleted comes first, so that an unmatched hint goes as well when its time is up.
    fn stands(&self, runnable_at: Timestamp, stored_at: Timestamp, is_matched: impl FnOnce() -> bool) -> Standing {
        let after_date = self.date.map(|date| runnable_at.duration_since(date));
        if after_date.is_some_and(|after| after < -MARGIN) {
            return Standing::Settled;
        }
        // A `stored_at` in the future counts as just stored. Its clock is the API server's and may be ahead of ours for
        // good; taking such hints for expired would lose every event, and a reading settles them by other clocks.
        if self.ttl.is_some_and(|ttl| elapsed(stored_at, self.now) > ttl) {
            return Standing::Expired;
        }
        if !is_matched() {
            return Standing::Unmatched;
        }
        if after_date.is_some_and(|after| after < CLOCK_GRAIN) { Standing::Unsure } else { Standing::New }
    }

    fn is_matched(&self, rules: &[String]) -> bool {
        self.queue.pools.iter().any(|pool| rules::match_tags(rules, &pool.spec.tags))
    }

    /// Of jobs in the order of time those that are not settled.
    fn unsettled<'j>(&self, jobs: &'j [Moment]) -> &'j [Moment] {
        let settled = |moment: &Moment| self.date.is_some_and(|date| moment.runnable_at.duration_since(date) < -MARGIN);
        jobs.split_at_checked(jobs.partition_point(settled)).map_or(jobs, |(_, rest)| rest)
    }
}

/// Where one hint stands; for many, make the [`Yardstick`] once.
pub fn standing_of(hint: &Hint, queue: &QueueObservation, now: Timestamp) -> Standing {
    Yardstick::of(queue, now).standing(hint)
}

/// The jobs of a queue's live hints, each once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Hinted {
    /// That the reading may know.
    pub unsure: Jobs,
    /// That it cannot know.
    pub new: Jobs,
    /// That no pool can run.
    pub unmatched: Jobs,
}

impl Hinted {
    /// Counts them.
    fn count(queue: &QueueObservation, now: Timestamp) -> Self {
        let yardstick = Yardstick::of(queue, now);
        let mut counted = Self::default();
        for kind in queue.hints.kinds() {
            let is_matched = yardstick.is_matched(&kind.rules);
            for moment in yardstick.unsettled(&kind.jobs) {
                let count = match yardstick.stands(moment.runnable_at, moment.stored_at, || is_matched) {
                    Standing::Unsure => &mut counted.unsure,
                    Standing::New => &mut counted.new,
                    Standing::Unmatched => &mut counted.unmatched,
                    Standing::Settled | Standing::Expired => continue,
                };
                *count = count.plus(moment.jobs);
            }
        }
        counted
    }
}

/// Agents that a queue's jobs want before any limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Demand {
    /// For jobs that run, on whomever's agents, those left out that pods of ours finish on their way out.
    pub busy: Agents,
    /// For jobs that could run now.
    pub queued: Agents,
    /// For a part of the jobs that cannot run yet.
    pub ahead: Agents,
    /// Jobs that pods of ours finish on their way out.
    pub draining: Agents,
    /// Jobs that our agents have begun since the reading.
    pub started: Agents,
    /// What the last good reading says; nothing without one.
    pub load: Load,
    /// What the hints say.
    pub hinted: Hinted,
    /// Scheduled jobs that no agent takes; they do not count. They have been scheduled for longer than the margin, so none of
    /// them is among the hinted ones.
    pub unsatisfiable: Option<Unsatisfiable>,
}

impl Demand {
    /// Of the queue at `now`. The last good load counts however old it is: [`Trust`](crate::trust::Trust) sees to it that an
    /// old one takes nothing away.
    ///
    /// `waitingWeight` is a pool's, waiting jobs are the queue's: the largest weight of its pools counts.
    pub fn of(queue: &QueueObservation, now: Timestamp) -> Self {
        let load = queue.reading.last_good.map(|good| good.load).unwrap_or_default();
        let hinted = Hinted::count(queue, now);
        let unsatisfiable = unsatisfiable::of(queue);
        let scheduled = load.scheduled.minus(unsatisfiable.map_or(Jobs::ZERO, |found| found.jobs));
        let weight = queue.pools.iter().map(|pool| pool.spec.waiting_weight).max().unwrap_or(Fraction::ZERO);
        let draining = queue.draining_busy_agents();
        let running = load.running.agents().minus(draining);
        let busy = running.max(queue.busy_agents());
        let started = busy.minus(running);
        Self {
            busy,
            queued: scheduled.max(hinted.unsure).plus(hinted.new).agents().minus(started),
            ahead: Agents(weight.of_rounded_up(load.waiting.0)),
            draining,
            started,
            load,
            hinted,
            unsatisfiable,
        }
    }

    /// All together.
    pub const fn agents(&self) -> Agents {
        self.busy.plus(self.queued).plus(self.ahead)
    }

    /// The entry's reason.
    pub(crate) const fn reason(&self) -> Reason {
        if let Some(Unsatisfiable { jobs, .. }) = self.unsatisfiable {
            return Reason::Unsatisfiable { jobs, running: self.load.running, queued: self.queued, ahead: self.ahead };
        }
        Reason::Jobs {
            running: self.load.running,
            scheduled: self.load.scheduled,
            unsure: self.hinted.unsure,
            new: self.hinted.new,
            unmatched: self.hinted.unmatched,
            ahead: self.ahead,
            started: self.started,
            draining: self.draining,
        }
    }
}
