//! How many pods, when: floor, ceiling, spare, pace, trust and hours, as people write them.

use kitepool_policy::spec::Percent;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    duration::Span,
    rules::{self, validations},
};

/// The most pods or agents that anybody may ask for; a larger number is taken for a mistake.
pub const COUNT_MAX: i32 = 10_000;
/// The most schedules.
pub const SCHEDULES_MAX: usize = 16;
/// The longest list of days: each by itself takes 34 characters.
pub const DAYS_MAX: usize = 64;
/// A time of day.
pub const TIME_MAX: usize = 5;
/// The longest name of a time zone; today's longest has 32 characters.
pub const TIME_ZONE_MAX: usize = 64;

/// How many agents, when. Limits are in pods.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = validations(&[rules::MIN_MAX])))]
pub struct Scaling {
    /// Pods kept even without jobs.
    #[schemars(range(min = 0, max = COUNT_MAX))]
    pub min: i32,
    /// Pods at most.
    #[schemars(range(min = 0, max = COUNT_MAX))]
    pub max: i32,
    /// Idle agents on top of demand.
    pub spare: SpareSpec,
    /// How much of the waiting jobs to start ahead of time, from 0 to 1.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub waiting_weight: f64,
    /// Growth.
    pub scale_up: ScaleUp,
    /// Shrinking.
    pub scale_down: ScaleDown,
    /// How long an event counts when no reading settles it. From 10s to 1h.
    #[schemars(extend("x-kubernetes-validations" = rules::HINT_TTL.validations()))]
    pub hint_ttl: Span,
    /// The age from which a reading is not believed. From 10s to 1h.
    #[schemars(extend("x-kubernetes-validations" = rules::STALE_AFTER.validations()))]
    pub stale_after: Span,
    /// Floors at certain hours.
    #[schemars(length(max = SCHEDULES_MAX))]
    pub schedules: Vec<ScheduleSpec>,
}

impl Default for Scaling {
    fn default() -> Self {
        Self {
            min: 0,
            max: 100,
            spare: SpareSpec { agents: Some(1), percent: None },
            waiting_weight: 0.0,
            scale_up: ScaleUp::default(),
            scale_down: ScaleDown::default(),
            hint_ttl: Span::new("2m"),
            // Nine polls of ten seconds: a few may fail before anything stands still.
            stale_after: Span::new("90s"),
            schedules: Vec::new(),
        }
    }
}

/// Idle agents on top of demand: one of the two; neither is none.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = validations(&[rules::SPARE_CHOICE])))]
pub struct SpareSpec {
    /// As many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = COUNT_MAX))]
    pub agents: Option<i32>,
    /// A share of demand, rounded up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = Percent::MAX))]
    pub percent: Option<i32>,
}

/// How a pool grows.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct ScaleUp {
    /// The least time between two growths. Up to 1h.
    #[schemars(extend("x-kubernetes-validations" = rules::UP_COOLDOWN.validations()))]
    pub cooldown: Span,
    /// How far in a period.
    pub step: StepSpec,
}

impl Default for ScaleUp {
    /// Doubles every ten seconds, and ten agents at once from nothing.
    fn default() -> Self {
        Self { cooldown: Span::new("0s"), step: StepSpec { percent: 100, agents: 10, ..StepSpec::default() } }
    }
}

/// How a pool shrinks.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct ScaleDown {
    /// The least time after any change. Up to 24h.
    #[schemars(extend("x-kubernetes-validations" = rules::DOWN.validations()))]
    pub cooldown: Span,
    /// The largest want of this long counts. Up to 24h.
    #[schemars(extend("x-kubernetes-validations" = rules::DOWN.validations()))]
    pub window: Span,
    /// How far in a period.
    pub step: StepSpec,
    /// A younger pod is no victim. Up to 24h.
    #[schemars(extend("x-kubernetes-validations" = rules::DOWN.validations()))]
    pub min_age: Span,
}

impl Default for ScaleDown {
    /// Halves every ten seconds.
    fn default() -> Self {
        Self {
            cooldown: Span::new("60s"),
            window: Span::new("5m"),
            step: StepSpec { percent: 50, agents: 1, ..StepSpec::default() },
            min_age: Span::new("2m"),
        }
    }
}

/// The larger of the two, in each period.
///
/// What is not written in a step is zero, not what the step would be if none were written: that one's percent would win
/// against `step: { agents: 2 }`.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = validations(&[rules::STEP_MOVES])))]
pub struct StepSpec {
    /// Of the pods at the beginning of the period.
    #[schemars(range(min = 0, max = Percent::MAX))]
    pub percent: i32,
    /// As many agents.
    #[schemars(range(min = 0, max = COUNT_MAX))]
    pub agents: i32,
    /// The period. From 1s to 1h.
    #[schemars(extend("x-kubernetes-validations" = rules::STEP_PER.validations()))]
    pub per: Span,
}

impl Default for StepSpec {
    fn default() -> Self {
        Self { percent: 0, agents: 0, per: Span::new("10s") }
    }
}

/// On these days, from one time of day to another, keep at least so many pods.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = validations(&[rules::FROM_TO])))]
pub struct ScheduleSpec {
    /// The days on which it begins: `Mon-Fri`, `Sat,Sun`, `Fri-Mon`, or `daily`.
    #[schemars(length(max = DAYS_MAX), extend("x-kubernetes-validations" = validations(&[rules::DAYS])))]
    pub days: String,
    /// `08:00`.
    #[schemars(length(max = TIME_MAX), extend("x-kubernetes-validations" = validations(&[rules::TIME])))]
    pub from: String,
    /// `19:00`; before `from` it is the next day's.
    #[schemars(length(max = TIME_MAX), extend("x-kubernetes-validations" = validations(&[rules::TIME])))]
    pub to: String,
    /// A name of the IANA time zone database, such as `Europe/London`.
    #[serde(default = "utc")]
    #[schemars(length(max = TIME_ZONE_MAX), extend("x-kubernetes-validations" = validations(&[rules::TIME_ZONE])))]
    pub time_zone: String,
    /// The floor, in pods.
    #[schemars(range(min = 0, max = COUNT_MAX))]
    pub min: i32,
}

fn utc() -> String {
    "UTC".to_owned()
}
