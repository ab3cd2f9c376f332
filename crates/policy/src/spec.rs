//! A pool as the policy knows it: valid by construction, so that no step has to doubt it.
//!
//! `kitepool-api` converts the `AgentPool` resource into these types and reports everything that stands against it.

use std::{collections::BTreeSet, fmt, time::Duration};

use jiff::{civil, tz::TimeZone};
use serde::{Deserialize, Serialize};

use crate::{
    recorded,
    units::{Agents, AgentsPerPod, Pods},
};

/// `namespace/name` of an `AgentPool`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolName {
    /// The namespace.
    pub namespace: String,
    /// The name within it.
    pub name: String,
}

impl fmt::Display for PoolName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A pool's effective spec: the resource, with its annotations applied.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolSpec {
    /// Which pool.
    pub name: PoolName,
    /// What its agents carry besides `queue=`, as `key=value`.
    pub tags: BTreeSet<String>,
    /// Agents in each pod.
    pub agents_per_pod: AgentsPerPod,
    /// Whether decisions are carried out. Both modes decide alike.
    pub mode: Mode,
    /// The `kitepool.dev/pause` annotation.
    pub pause: Pause,
    /// Pools on one queue are filled in this order, then by name.
    pub order: i32,
    /// The floor and the ceiling.
    pub limits: Limits,
    /// Idle agents kept on top of demand.
    pub spare: Spare,
    /// How much of `waiting` is started ahead of time.
    pub waiting_weight: Fraction,
    /// Growth.
    pub scale_up: ScaleUp,
    /// Shrinking.
    pub scale_down: ScaleDown,
    /// How long a hint counts when no reading settles it.
    pub hint_ttl: Duration,
    /// The age from which a reading is no longer believed.
    pub stale_after: Duration,
    /// Floors that hold at certain hours.
    pub schedules: Vec<Schedule>,
}

/// Whether a pool's decisions are carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// Decide and act.
    Active,
    /// Decide and explain, write nothing to Deployments.
    Observe,
}

/// Which directions a person has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pause {
    /// Neither.
    None,
    /// Growth.
    Up,
    /// Shrinking.
    Down,
    /// Both.
    All,
}

impl Pause {
    /// Whether growth is stopped.
    pub const fn stops_up(self) -> bool {
        matches!(self, Self::Up | Self::All)
    }

    /// Whether shrinking is stopped.
    pub const fn stops_down(self) -> bool {
        matches!(self, Self::Down | Self::All)
    }
}

/// `min <= max`, in pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "recorded::Limits")]
pub struct Limits {
    min: Pods,
    max: Pods,
}

impl Limits {
    /// `None` when `min` is above `max`.
    pub const fn new(min: Pods, max: Pods) -> Option<Self> {
        if min.0 <= max.0 { Some(Self { min, max }) } else { None }
    }

    /// The floor.
    pub const fn min(self) -> Pods {
        self.min
    }

    /// The ceiling.
    pub const fn max(self) -> Pods {
        self.max
    }
}

/// Idle agents kept so that the next job does not wait for a cold start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Spare {
    /// As many, whatever the demand.
    Agents(Agents),
    /// A share of the demand, rounded up.
    Percent(Percent),
}

/// A whole percentage, 0 to 1,000: more than ten times the base is taken for a mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u16")]
pub struct Percent(u16);

impl Percent {
    /// The largest that is accepted.
    pub const MAX: u16 = 1_000;

    /// `None` above [`Self::MAX`].
    pub const fn new(percent: u16) -> Option<Self> {
        if percent <= Self::MAX { Some(Self(percent)) } else { None }
    }

    /// The number itself.
    pub const fn get(self) -> u16 {
        self.0
    }

    /// So many percent of `count`, rounded up.
    pub fn of_rounded_up(self, count: u32) -> u32 {
        let share = (u64::from(count) * u64::from(self.0)).div_ceil(100);
        u32::try_from(share).unwrap_or(u32::MAX)
    }
}

/// A fraction from 0 to 1, in thousandths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u16")]
pub struct Fraction(u16);

impl Fraction {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// From thousandths; `None` above 1,000.
    pub const fn from_thousandths(thousandths: u16) -> Option<Self> {
        if thousandths <= 1_000 { Some(Self(thousandths)) } else { None }
    }

    /// In thousandths.
    pub const fn thousandths(self) -> u16 {
        self.0
    }

    /// This part of `count`, rounded up.
    pub fn of_rounded_up(self, count: u32) -> u32 {
        let part = (u64::from(count) * u64::from(self.0)).div_ceil(1_000);
        u32::try_from(part).unwrap_or(u32::MAX)
    }
}

/// How a pool grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScaleUp {
    /// The least time between two growths.
    pub cooldown: Duration,
    /// How far it may grow in a period.
    pub step: Step,
}

/// How a pool shrinks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScaleDown {
    /// The least time after any change of size.
    pub cooldown: Duration,
    /// The largest want of this long is what counts.
    pub window: Duration,
    /// How far it may shrink in a period.
    pub step: Step,
    /// A younger pod is no victim.
    pub min_age: Duration,
}

/// The larger of `percent` and `agents`, once in each period of `per`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "recorded::Step")]
pub struct Step {
    percent: Percent,
    agents: Agents,
    per: Duration,
}

impl Step {
    /// `None` when it could never move, or its period is zero.
    pub fn new(percent: Percent, agents: Agents, per: Duration) -> Option<Self> {
        let moves = percent.get() > 0 || !agents.is_zero();
        (moves && !per.is_zero()).then_some(Self { percent, agents, per })
    }

    /// The period.
    pub const fn per(self) -> Duration {
        self.per
    }

    /// The pods that may come or go in a period that began with `base` pods: at least one.
    pub fn pods(self, base: Pods, agents_per_pod: AgentsPerPod) -> Pods {
        let by_percent = Pods(self.percent.of_rounded_up(base.0));
        let by_count = agents_per_pod.pods_for(self.agents);
        by_percent.max(by_count).max(Pods(1))
    }
}

/// A floor that holds on certain days between two times of day, in a time zone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Schedule {
    /// The days, each once.
    #[serde(with = "recorded::days")]
    pub days: Vec<civil::Weekday>,
    /// From this time of day on. With `to` at or before it, the span runs past midnight.
    pub from: civil::Time,
    /// Up to this time of day, which is no longer part of it.
    pub to: civil::Time,
    /// Whose clocks count.
    #[serde(with = "jiff::fmt::serde::tz::required")]
    pub time_zone: TimeZone,
    /// The floor, in pods.
    pub min: Pods,
}
