//! Agents and the processes they are workers of, as Buildkite and the pod see them.

use std::{cmp::Reverse, sync::Arc, time::Duration};

use jiff::Timestamp;

use super::{
    job::JobId,
    line::{LineId, Warmth},
    time::{beat, later},
};
use crate::Chance;

/// An agent of this world, in the order in which they registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct AgentId(pub(super) u64);

/// A pod in which an agent's process starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentPod {
    /// The pod's UID.
    pub pod: String,
    /// What it registers with.
    pub token: String,
    /// `key=value`, the queue with them.
    pub tags: Vec<String>,
    /// How many workers the process has; at least one.
    pub spawn: u32,
}

impl AgentPod {
    /// A pod of one worker that carries nothing but its queue.
    pub fn new(pod: &str, token: &str, queue: &str) -> Self {
        Self { pod: pod.to_owned(), token: token.to_owned(), tags: vec![format!("queue={queue}")], spawn: 1 }
    }
}

/// A process that ended. Each that started ends once, whoever ended it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodExit {
    /// When.
    pub at: Timestamp,
    /// The pod's UID.
    pub pod: String,
    /// As a shell would say it: 143 for one that a SIGTERM ended before it was registered, 137 for one that was killed.
    pub exit_code: i32,
}

/// A connected agent.
#[derive(Debug)]
pub(super) struct Agent {
    pub(super) pod: Arc<str>,
    pub(super) line: LineId,
    /// What it offers beyond its queue.
    pub(super) tags: Arc<[String]>,
    pub(super) work: Work,
    /// Whether its process is there. Buildkite learns late that it is not.
    pub(super) alive: bool,
    /// Told to stop.
    pub(super) leaving: bool,
    pub(super) lapsed: bool,
    pub(super) finished: u64,
    pub(super) hold: Hold,
    pub(super) connected_at: Timestamp,
    /// `None` for a connected process, which asks for work by itself.
    pub(super) pings: Option<Pings>,
}

/// Why an agent without a job is given none. It counts as idle all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Hold {
    /// It is given the next one.
    #[default]
    Open,
    /// Somebody paused it.
    Paused,
    /// It said itself that it wants no more.
    Withdrawn,
    /// Somebody stopped it: it is told to disconnect at its next ping.
    Stopping,
}

impl Agent {
    /// Whether it may be given a job when it has none.
    pub(super) fn is_open(&self) -> bool {
        self.hold == Hold::Open
    }

    /// Whether it is one of ours, and no connected process.
    pub(super) const fn is_simulated(&self) -> bool {
        self.pings.is_some()
    }

    pub(super) const fn warmth(&self, agent: AgentId) -> Warmth {
        Warmth { lapsed: self.lapsed, finished: Reverse(self.finished), agent }
    }
}

/// The job of an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    None,
    /// Buildkite gave it this one, and it does not know yet.
    Given(JobId),
    /// It knows of it, and brings it to its end.
    Known(JobId),
    /// It is done with it, and could not say so: for Buildkite it has it still.
    Dropped(JobId),
}

impl Work {
    pub(super) const fn job(self) -> Option<JobId> {
        match self {
            Self::None => None,
            Self::Given(job) | Self::Known(job) | Self::Dropped(job) => Some(job),
        }
    }
}

/// When an agent asks for work: once in each interval, at an instant evenly drawn from it.
///
/// Nothing comes of a ping that finds no job, so a ping is drawn when somebody wants to know of it; what was drawn stays.
#[derive(Debug)]
pub(super) struct Pings {
    from: Timestamp,
    drawn: Option<Timestamp>,
}

impl Pings {
    /// From here on: at the connection, and again when a job is over.
    pub(super) const fn new(from: Timestamp) -> Self {
        Self { from, drawn: None }
    }

    /// Since when it can be asked over an open stream.
    pub(super) const fn opened(&self) -> Timestamp {
        self.from
    }

    /// The first one after `now`.
    pub(super) fn next(&mut self, now: Timestamp, interval: Duration, chance: &mut Chance) -> Timestamp {
        if let Some(drawn) = self.drawn.filter(|drawn| *drawn > now) {
            return drawn;
        }
        let mut interval_from = beat(self.from, interval, now);
        // That of this interval has gone by if it is the one that was drawn last.
        if self.drawn.is_some_and(|drawn| drawn >= interval_from) {
            interval_from = later(interval_from, interval);
        }
        let mut ping = later(interval_from, chance.between(Duration::ZERO, interval));
        if ping <= now && !interval.is_zero() {
            ping = later(later(interval_from, interval), chance.between(Duration::ZERO, interval));
        }
        self.drawn = Some(ping);
        ping
    }
}

/// A process in a pod.
#[derive(Debug)]
pub(super) struct Process {
    /// Tells it from an earlier one in the same pod.
    pub(super) life: u64,
    pub(super) token: String,
    pub(super) tags: Vec<String>,
    pub(super) spawn: u32,
    /// How often it was told to stop.
    pub(super) told: u32,
    /// What it ends with when all its workers have gone.
    pub(super) exit_code: i32,
    /// How long the last of its workers tries to say that it goes.
    pub(super) goodbye: Duration,
    /// Its workers in their order, those that have disconnected as well. None before it is registered.
    pub(super) workers: Vec<AgentId>,
}

impl Process {
    pub(super) const fn is_registered(&self) -> bool {
        !self.workers.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pings_come_once_in_each_interval_and_their_gaps_are_as_measured() {
        let (interval, mut chance) = (Duration::from_secs(4), Chance::new(1, "pings"));
        let mut pings = Pings::new(Timestamp::UNIX_EPOCH);
        let mut at: Vec<f64> = vec![
            pings
                .next(Timestamp::UNIX_EPOCH, interval, &mut chance)
                .duration_since(Timestamp::UNIX_EPOCH)
                .as_secs_f64(),
        ];
        for _ in 0..5_000 {
            let now = later(Timestamp::UNIX_EPOCH, Duration::from_secs_f64(at[at.len() - 1]));
            at.push(pings.next(now, interval, &mut chance).duration_since(Timestamp::UNIX_EPOCH).as_secs_f64());
        }
        for (number, ping) in (0_u32..).zip(&at) {
            let from = 4.0 * f64::from(number);
            assert!((from..from + 4.0).contains(ping), "{number}: {ping}");
        }
        let mut gaps: Vec<f64> = at.windows(2).map(|pair| pair[1] - pair[0]).collect();
        gaps.sort_by(f64::total_cmp);
        let mean = gaps.iter().sum::<f64>() / 5_000.0;
        // Measured over 184 gaps: mean 3.99, p95 6.5, max 7.67.
        assert!((3.9..4.1).contains(&mean), "{mean}");
        assert!((6.4..6.9).contains(&gaps[4_750]), "{}", gaps[4_750]);
    }

    #[test]
    fn a_ping_that_somebody_asked_about_stays_where_it_was() {
        let (interval, mut chance) = (Duration::from_secs(10), Chance::new(1, "pings"));
        let mut pings = Pings::new(Timestamp::UNIX_EPOCH);
        let first = pings.next(Timestamp::UNIX_EPOCH, interval, &mut chance);
        assert_eq!(pings.next(Timestamp::UNIX_EPOCH, interval, &mut chance), first);
        let second = pings.next(first, interval, &mut chance);
        assert!(second >= later(Timestamp::UNIX_EPOCH, interval), "{second}");
    }
}
