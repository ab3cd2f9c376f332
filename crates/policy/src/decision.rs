//! What a tick decided for one pool: what to write, what to remember, and why.

use serde::{Deserialize, Serialize};

use crate::{
    memory::{Asked, Memory},
    observation::Sign,
    spec::PoolName,
    units::Pods,
};

pub use crate::reason::Reason;

/// One pool's decision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[must_use = "a decision that is not carried out or refused is lost"]
pub struct Decision {
    /// Which pool.
    pub pool: PoolName,
    /// Replicas that all its generations should have together after the intents.
    pub target: Pods,
    /// Writes, in the order in which they are to be made.
    pub intents: Vec<Intent>,
    /// Signs to put up on pods, the most urgent first; at most [`SIGNS_MAX`], the rest comes in the next tick.
    pub signs: Vec<SignChange>,
    /// Changes of replicas by somebody else that were noticed just now; each is told once.
    pub foreign: Vec<ForeignChange>,
    /// Raises of ours that were found without a memory of them; each is told once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unrecorded: Vec<UnrecordedRaise>,
    /// Pods that were chosen and stand although as many went; each is told once.
    pub spared: Vec<Spared>,
    /// To be recorded before the intents are carried out; after them where it [is a plain raise](Self::is_plain_raise).
    pub memory: Memory,
    /// Why.
    pub report: Report,
}

impl Decision {
    /// Whether the act is a record of itself: one Deployment of the pool is raised, and nothing else happens. Kubernetes notes who scaled it,
    /// so whoever finds it raised, and in the status the memory that is `recorded` there, knows whose doing it is and goes on from there.
    /// So a job need not wait until the memory is recorded.
    pub fn is_plain_raise(&self, recorded: &Memory) -> bool {
        let [Intent::Scale { generation, from, to }] = self.intents.as_slice() else { return false };
        // More than any number that the books would explain, and these are not open for a smaller one.
        let stands_out = |asked: &Asked| asked.from <= asked.to && asked.to < *to;
        to > from
            && self.memory.asked.len() == 1
            && recorded.asked.get(generation).is_some_and(stands_out)
            && recorded.rounds == self.memory.rounds
            && self.foreign.is_empty()
            && self.unrecorded.is_empty()
            && self.spared.is_empty()
    }
}

/// One write to a Deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all_fields = "camelCase")]
pub enum Intent {
    /// Create the wanted generation with its replicas.
    Create {
        /// Its name.
        generation: String,
        /// Its replicas from the start.
        replicas: Pods,
    },
    /// Change replicas, if they still are `from`.
    Scale {
        /// Its name.
        generation: String,
        /// What must stand there.
        from: Pods,
        /// What is to stand there.
        to: Pods,
    },
    /// Delete an empty generation that is no longer wanted.
    Delete {
        /// Its name.
        generation: String,
    },
}

impl Intent {
    /// The Deployment it is about.
    pub fn generation(&self) -> &str {
        match self {
            Self::Create { generation, .. } | Self::Scale { generation, .. } | Self::Delete { generation } => {
                generation
            }
        }
    }
}

/// Replicas that somebody else changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ForeignChange {
    /// Of which Deployment.
    pub generation: String,
    /// What we had asked for.
    pub expected: Pods,
    /// What stood there; zero also when the Deployment was gone.
    pub found: Pods,
}

/// Replicas that we raised, and of which no memory was recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UnrecordedRaise {
    /// Of which Deployment.
    pub generation: String,
    /// What was recorded.
    pub from: Pods,
    /// What stands there.
    pub to: Pods,
}

/// The most signs that are put up for one pool in one tick: two seconds of the usual budget of writes, so that a large pool does
/// not keep the others waiting.
pub const SIGNS_MAX: usize = 100;

/// A sign to put up on a pod in place of the one that it has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SignChange {
    /// Its generation.
    pub generation: String,
    /// The pod.
    pub pod: String,
    /// Its uid.
    pub uid: String,
    /// What it is to have.
    pub sign: Sign,
}

/// Pods of a generation that were chosen to go, while others went in their places.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Spared {
    /// Of which Deployment.
    pub generation: String,
    /// The chosen ones that stand, by name.
    pub pods: Vec<String>,
}

/// The policy's steps, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum StepName {
    /// Is the reading believed?
    Trust,
    /// Agents wanted by jobs.
    Demand,
    /// This pool's part of the queue's demand.
    Share,
    /// Idle agents on top.
    Spare,
    /// The floor of the hour.
    Schedule,
    /// Windows and cooldowns.
    Stabilise,
    /// min, max, step, pause.
    Limits,
    /// How many may go, from which generation.
    Shrink,
}

impl StepName {
    /// All, in order.
    pub const ALL: [Self; 8] = [
        Self::Trust,
        Self::Demand,
        Self::Share,
        Self::Spare,
        Self::Schedule,
        Self::Stabilise,
        Self::Limits,
        Self::Shrink,
    ];

    /// A bounded word for labels and transcripts.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Trust => "trust",
            Self::Demand => "demand",
            Self::Share => "share",
            Self::Spare => "spare",
            Self::Schedule => "schedule",
            Self::Stabilise => "stabilise",
            Self::Limits => "limits",
            Self::Shrink => "shrink",
        }
    }
}

/// One step's account of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// Which step.
    pub step: StepName,
    /// The number that came in: jobs of the reading in `Trust`, agents up to `Spare`, pods from `Schedule` on.
    pub input: u32,
    /// The number that went out.
    pub output: u32,
    /// Why it is this number.
    pub reason: Reason,
}

/// One entry per step, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[must_use = "an unread report explains nothing"]
pub struct Report {
    /// The steps.
    pub entries: Vec<Entry>,
}

impl Decision {
    /// Whether the same would be decided for as long as nothing is heard: nothing to do, and nothing that ends with time. A
    /// schedule's hour and a hint's expiry aside.
    pub fn is_calm(&self) -> bool {
        self.intents.is_empty()
            && self.signs.is_empty()
            && self.memory.rounds.is_empty()
            && !self.report.entries.iter().any(|entry| entry.reason.ends_with_time())
    }
}

impl Report {
    /// The entry that explains the decision best: the last step that held the number back or pushed it, else the jobs.
    pub fn deciding(&self) -> Option<&Entry> {
        let bound = self.entries.iter().rev().find(|entry| entry.reason.bound());
        bound.or_else(|| self.entry(StepName::Demand))
    }

    /// The entry of one step.
    pub fn entry(&self, step: StepName) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.step == step)
    }
}
