//! What a pool's policy must know across restarts, small and without a clock that ticks: it changes only when a decision does.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::units::{Jobs, Pods};

/// The most peaks that are kept. More are merged, keeping the later time and the larger want, so that a merge only ever holds a
/// pool up for longer. Eight give a five-minute window a grain below 43 s: a seventh of it, since a window that slides over
/// fixed pieces touches one more than it holds.
pub const PEAKS_MAX: usize = 8;

/// How many foreign changes make a pool contested (architecture, section 6).
pub const CONTESTED_AFTER: usize = 3;

/// The span in which so many foreign changes make a pool contested. A person who scales by hand, looks and corrects does so
/// once or twice in ten minutes; another controller keeps doing it.
pub const CONTESTED_WITHIN: Duration = Duration::from_mins(10);

/// A pool's memory. Round-trips through the resource's status.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Memory {
    /// When we last grew the pool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_up: Option<Timestamp>,
    /// When we last shrank it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_down: Option<Timestamp>,
    /// What was wanted last; it counts as wanted up to now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub want: Option<Pods>,
    /// Larger wants of the past, each with the last instant it held: times rise, wants fall.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub peaks: Vec<Peak>,
    /// The growth step's running period.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub up_period: Option<Period>,
    /// The shrink step's running period.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub down_period: Option<Period>,
    /// For each generation, what we last asked for.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub asked: BTreeMap<String, Asked>,
    /// The last foreign changes of replicas, at most [`CONTESTED_AFTER`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub foreign: Vec<Timestamp>,
    /// Since when the pool is contested; a person's word ends it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contested_since: Option<Timestamp>,
    /// Jobs of the queue that no agent takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unsatisfiable: Option<Unsatisfiable>,
    /// Pods of the wanted generation that fail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failing: Option<Failing>,
    /// For each generation, the pods that are chosen to go.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub rounds: BTreeMap<String, Round>,
}

impl Memory {
    /// A person's word: the pool is theirs to decide about no more. It shrinks again, and old foreign changes are forgotten.
    pub fn settle_contest(&mut self) {
        self.contested_since = None;
        self.foreign.clear();
    }

    /// When we last changed anything about the pool.
    pub fn last_change(&self) -> Option<Timestamp> {
        let of_generations = self.asked.values().flat_map(|asked| [asked.raised_at, asked.lowered_at]);
        of_generations.chain([self.last_up, self.last_down]).flatten().max()
    }

    /// When we last took pods away.
    pub fn last_lowered(&self) -> Option<Timestamp> {
        self.asked.values().map(|asked| asked.lowered_at).chain([self.last_down]).flatten().max()
    }

    /// Brings instants that lie in the future to `now`: the clock stepped back, and so it costs at most one cooldown or
    /// window, counted from here, and never less than that.
    pub(crate) fn bring_to(&mut self, now: Timestamp) {
        let bring = |at: &mut Timestamp| *at = (*at).min(now);
        let of_generations = self.asked.values_mut().flat_map(|asked| [&mut asked.raised_at, &mut asked.lowered_at]);
        [&mut self.last_up, &mut self.last_down, &mut self.contested_since]
            .into_iter()
            .chain(of_generations)
            .flatten()
            .for_each(bring);
        [&mut self.up_period, &mut self.down_period].into_iter().flatten().for_each(|period| bring(&mut period.start));
        self.foreign.iter_mut().for_each(bring);
        self.rounds.values_mut().for_each(|round| bring(&mut round.since));
        self.peaks.iter_mut().for_each(|peak| bring(&mut peak.until));
        // Peaks that now end together: the larger one, which comes first, says it all.
        self.peaks.dedup_by(|later, earlier| later.until <= earlier.until);
    }
}

/// Jobs that no agent of the queue takes; every pool of it remembers the same. It changes when their number does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Unsatisfiable {
    /// How many.
    pub jobs: Jobs,
    /// `Date` of the reading by which it was found, by Buildkite's clock.
    pub since: Timestamp,
}

/// Pods of one generation that fail: against what a recovery shows. It changes when the numbers of pods do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failing {
    /// Which generation.
    pub generation: String,
    /// How many of its pods were ready: one more, and one has recovered.
    pub ready: Pods,
    /// How many failed when one last became ready: no reason against growth.
    pub tolerated: Pods,
}

impl Failing {
    /// Whether so many failing pods are more than those that failed when one last became ready.
    pub fn holds(&self, failing: Pods) -> bool {
        failing > self.tolerated
    }
}

/// The most pods that are chosen at once. Their names are kept in the pool's status, a hundred bytes each; and a pool that
/// has more to give has given these within half a minute.
pub const VICTIMS_MAX: usize = 50;

/// Pods of one generation that are chosen to go, from the choice until they are gone: see [`protocol`](crate::protocol).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Round {
    /// When they were chosen.
    pub since: Timestamp,
    /// Which, by name; at most [`VICTIMS_MAX`].
    pub victims: Vec<Victim>,
    /// What replicas were to be lowered from and to for them, once that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lowered: Option<Lowered>,
}

impl Round {
    /// Whether this pod is one of them.
    pub fn names(&self, uid: &str) -> bool {
        self.victims.iter().any(|victim| victim.uid == uid)
    }
}

/// A pod that is chosen.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Victim {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

/// Replicas as they were lowered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lowered {
    /// From.
    pub from: Pods,
    /// To.
    pub to: Pods,
}

/// A want and the last instant it held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Peak {
    /// The last instant.
    pub until: Timestamp,
    /// The want.
    pub want: Pods,
}

/// A step's period: no more than the step from `base` until it is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Period {
    /// Its beginning.
    pub start: Timestamp,
    /// The pods at its beginning.
    pub base: Pods,
}

/// A change of replicas that was decided; recorded before it is written, so that a crash in between is told from a foreign change. A raise
/// alone is told from that by whose scale it was, and recorded after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Asked {
    /// What stood there: still seen, the write has not landed. Equal to `to` once it was seen to land.
    pub from: Pods,
    /// What was asked for.
    pub to: Pods,
    /// When we last raised this generation: its youngest pods of our making are no older.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raised_at: Option<Timestamp>,
    /// When we last lowered it: a reading from before may still count the agents that went.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lowered_at: Option<Timestamp>,
}

impl Asked {
    /// Replicas that were found, with nothing under way.
    pub const fn found(replicas: Pods) -> Self {
        Self { from: replicas, to: replicas, raised_at: None, lowered_at: None }
    }

    /// Whether replicas that are seen can be our own doing: what stood there, what was asked for, or in between.
    ///
    /// In between, since what we see may be older than our last write: asked for 10 and, before that was seen to land, for
    /// 12, the 10 that shows up is ours.
    pub fn explains(self, replicas: Pods) -> bool {
        self.from.min(self.to) <= replicas && replicas <= self.from.max(self.to)
    }

    /// Whether going from `from` to `to` is part of what was asked for and has not landed.
    pub fn covers(self, from: Pods, to: Pods) -> bool {
        self.from == from && from != to && self.explains(to)
    }
}
