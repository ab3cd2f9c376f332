//! Reads back from a record what is valid by construction: a line that says otherwise is refused, as the constructors would.

use std::{collections::BTreeMap, time::Duration};

use jiff::civil::Weekday;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use crate::{
    spec,
    units::{Agents, Pods},
};

/// The fields of [`spec::Limits`] before they are believed.
#[derive(Deserialize)]
pub(crate) struct Limits {
    min: Pods,
    max: Pods,
}

impl TryFrom<Limits> for spec::Limits {
    type Error = &'static str;

    fn try_from(read: Limits) -> Result<Self, Self::Error> {
        Self::new(read.min, read.max).ok_or("min is above max")
    }
}

/// The fields of [`spec::Step`] before they are believed.
#[derive(Deserialize)]
pub(crate) struct Step {
    percent: spec::Percent,
    agents: Agents,
    per: Duration,
}

impl TryFrom<Step> for spec::Step {
    type Error = &'static str;

    fn try_from(read: Step) -> Result<Self, Self::Error> {
        Self::new(read.percent, read.agents, read.per).ok_or("a step that never moves, or without a period")
    }
}

impl TryFrom<u16> for spec::Percent {
    type Error = &'static str;

    fn try_from(read: u16) -> Result<Self, Self::Error> {
        Self::new(read).ok_or("more percent than are accepted")
    }
}

impl TryFrom<u16> for spec::Fraction {
    type Error = &'static str;

    fn try_from(read: u16) -> Result<Self, Self::Error> {
        Self::from_thousandths(read).ok_or("more than a thousand thousandths")
    }
}

/// Days of the week as numbers, 1 for Monday, as ISO 8601 counts them.
pub(crate) mod days {
    use super::{Deserialize as _, Deserializer, Error as _, Serializer, Weekday};

    pub(crate) fn serialize<S: Serializer>(days: &[Weekday], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(days.iter().map(|day| day.to_monday_one_offset()))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Weekday>, D::Error> {
        let numbers = Vec::<i8>::deserialize(deserializer)?;
        numbers.into_iter().map(|day| Weekday::from_monday_one_offset(day).map_err(D::Error::custom)).collect()
    }
}

/// A map whose keys are no strings, as JSON would want them: a list of pairs.
pub(crate) mod pairs {
    use super::{BTreeMap, Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) fn serialize<K: Serialize, V: Serialize, S: Serializer>(
        map: &BTreeMap<K, V>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(map)
    }

    pub(crate) fn deserialize<'de, K, V, D>(deserializer: D) -> Result<BTreeMap<K, V>, D::Error>
    where
        K: Deserialize<'de> + Ord,
        V: Deserialize<'de>,
        D: Deserializer<'de>,
    {
        Ok(Vec::<(K, V)>::deserialize(deserializer)?.into_iter().collect())
    }
}
