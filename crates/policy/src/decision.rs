//! What a tick decided for one pool: what to write, what to remember, and why.

use std::fmt;

use crate::{memory::Memory, spec::PoolName, units::Pods};

/// One pool's decision.
#[derive(Debug, Clone, PartialEq)]
#[must_use = "a decision that is not carried out or refused is lost"]
pub struct Decision {
    /// Which pool.
    pub pool: PoolName,
    /// Replicas that all its generations should have together after the intents.
    pub target: Pods,
    /// Writes, in the order in which they are to be made.
    pub intents: Vec<Intent>,
    /// To be recorded before the intents are carried out.
    pub memory: Memory,
    /// Why.
    pub report: Report,
}

/// One write to a Deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
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

/// The policy's steps, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Which step.
    pub step: StepName,
    /// The number that came in (agents before `Stabilise`, pods from there on).
    pub input: u32,
    /// The number that went out.
    pub output: u32,
    /// Why it is this number.
    pub reason: Reason,
}

/// Why a step gave what it gave. The text for people is its `Display`; the bounded word is [`Reason::category`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// Nothing to say: passed through.
    Unchanged,
}

impl Reason {
    /// A bounded `CamelCase` word, fit for a condition's or Event's reason and a label.
    pub const fn category(&self) -> &'static str {
        match self {
            Self::Unchanged => "Unchanged",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unchanged => f.write_str("nothing changed"),
        }
    }
}

/// One entry per step, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "an unread report explains nothing"]
pub struct Report {
    /// The steps.
    pub entries: Vec<Entry>,
}

impl Report {
    /// The entry that explains the decision best: the last step that changed the number, or held the pool back.
    pub fn deciding(&self) -> Option<&Entry> {
        self.entries.iter().rev().find(|entry| entry.reason != Reason::Unchanged)
    }
}
