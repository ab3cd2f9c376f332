//! The jobs that events told of, each once, put together so that counting them costs the same however many they are.
//!
//! ```text
//!  hint, hint, hint …  ──each job once──►  by what they ask for  ──►  (runnable_at, stored_at): jobs
//! ```
//!
//! A queue knows few sets of rules, and jobs that are alive became runnable within a few minutes, so what a decision walks
//! through is bounded by time and not by the number of events. Putting it together is for whoever keeps the hints, once for
//! each change of theirs.

use std::{
    collections::{BTreeMap, btree_map},
    sync::Arc,
};

use jiff::{Timestamp, Unit};
use serde::{Deserialize, Serialize};

use crate::{observation::Hint, units::Jobs};

/// The jobs of a queue's hints. Clones share them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<Kind>", into = "Vec<Kind>")]
pub struct Hints(Arc<Vec<Kind>>);

/// Jobs that ask for the same.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kind {
    /// What they ask for, as in [`Hint::rules`].
    pub(crate) rules: Vec<String>,
    /// How many became runnable when and were stored when, in the order of time.
    pub(crate) jobs: Vec<Moment>,
}

/// Jobs that are alike for every clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Moment {
    /// Buildkite's clock, to its whole second.
    pub(crate) runnable_at: Timestamp,
    /// The API server's clock.
    pub(crate) stored_at: Timestamp,
    /// How many.
    pub(crate) jobs: Jobs,
}

impl Hints {
    pub(crate) fn kinds(&self) -> &[Kind] {
        &self.0
    }

    /// How many jobs there are.
    pub fn jobs(&self) -> Jobs {
        let moments = self.0.iter().flat_map(|kind| &kind.jobs);
        moments.fold(Jobs::ZERO, |sum, moment| sum.plus(moment.jobs))
    }

    /// As they would be if no job were told from another.
    #[cfg(feature = "saboteurs")]
    pub(crate) fn each_twice(&self) -> Self {
        let mut kinds = (*self.0).clone();
        for moment in kinds.iter_mut().flat_map(|kind| &mut kind.jobs) {
            moment.jobs = moment.jobs.plus(moment.jobs);
        }
        Self(Arc::new(kinds))
    }
}

/// Puts hints together, each job once.
///
/// Of several hints for one job the latest `runnable_at` counts: a job that is put back into the queue keeps its id and
/// becomes runnable anew. And the latest `stored_at`: what was told again just now is alive.
///
/// Fractions of a second in `runnable_at` are left out. Some senders write them and some do not, readings are dated to whole
/// seconds, and the [margin](crate::demand::MARGIN) takes every `runnable_at` for rounded down already.
impl FromIterator<Hint> for Hints {
    fn from_iter<I: IntoIterator<Item = Hint>>(hints: I) -> Self {
        let mut jobs: BTreeMap<String, Hint> = BTreeMap::new();
        for hint in hints {
            match jobs.entry(hint.job.clone()) {
                btree_map::Entry::Vacant(entry) => drop(entry.insert(hint)),
                btree_map::Entry::Occupied(mut entry) => {
                    let known = entry.get_mut();
                    let stored_at = known.stored_at.max(hint.stored_at);
                    if (hint.runnable_at, &hint.rules) > (known.runnable_at, &known.rules) {
                        *known = hint;
                    }
                    known.stored_at = stored_at;
                }
            }
        }
        let mut kinds: BTreeMap<Vec<String>, BTreeMap<(Timestamp, Timestamp), u32>> = BTreeMap::new();
        for Hint { runnable_at, stored_at, rules, .. } in jobs.into_values() {
            let count = kinds.entry(rules).or_default().entry((whole_second(runnable_at), stored_at)).or_default();
            *count = count.saturating_add(1);
        }
        let kind = |(rules, moments): (Vec<String>, BTreeMap<_, u32>)| Kind {
            rules,
            jobs: moments
                .into_iter()
                .map(|((runnable_at, stored_at), count)| Moment { runnable_at, stored_at, jobs: Jobs(count) })
                .collect(),
        };
        Self(Arc::new(kinds.into_iter().map(kind).collect()))
    }
}

impl From<Vec<Hint>> for Hints {
    fn from(hints: Vec<Hint>) -> Self {
        hints.into_iter().collect()
    }
}

impl From<Vec<Kind>> for Hints {
    fn from(kinds: Vec<Kind>) -> Self {
        Self(Arc::new(kinds))
    }
}

impl From<Hints> for Vec<Kind> {
    fn from(hints: Hints) -> Self {
        Arc::unwrap_or_clone(hints.0)
    }
}

/// Rounded down; one at the very beginning of time stays as it is.
fn whole_second(at: Timestamp) -> Timestamp {
    let round = jiff::TimestampRound::new().smallest(Unit::Second).mode(jiff::RoundMode::Floor);
    at.round(round).unwrap_or(at)
}
