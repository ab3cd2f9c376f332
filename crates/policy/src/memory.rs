//! What a pool's policy must know across restarts, small and without a clock that ticks: it changes only when a decision does.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::units::Pods;

/// The most peaks that are kept. More are merged pairwise, keeping the later time and the larger want, so that a merge only
/// ever holds a pool up for longer. Eight give a five-minute window a grain below 40 s.
pub const PEAKS_MAX: usize = 8;

/// How many foreign changes make a pool contested, and in which span (architecture, section 6).
pub const CONTESTED_AFTER: usize = 3;

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

/// A change of replicas that was decided; recorded before it is written, so that a crash in between is told from a foreign change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Asked {
    /// What stood there: still seen, the write has not landed. Equal to `to` once it was seen to land.
    pub from: Pods,
    /// What was asked for.
    pub to: Pods,
}
