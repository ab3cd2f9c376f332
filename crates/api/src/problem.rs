//! One thing that stands against an input: where, what, and how to mend it.

use std::fmt;

/// One problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where, as a path such as `spec.scaling.min`.
    pub path: String,
    /// What is wrong.
    pub what: String,
    /// How to mend it.
    pub remedy: String,
    /// The [`Rule`] of pod definitions that is broken; empty where it is another kind of problem.
    pub id: &'static str,
}

/// A rule that pod definitions obey, as documents list it and programs name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// A word for programs, which stays what it is.
    pub id: &'static str,
    /// Where it is broken.
    pub path: &'static str,
    /// Why it must not be.
    pub reason: &'static str,
    /// What to do.
    pub remedy: &'static str,
}

impl Rule {
    /// A breach: `found` says what stands there, and the rule why that will not do.
    pub fn broken(&self, path: impl Into<String>, found: &str) -> Problem {
        Problem::new(path, format!("{found}: {}", self.reason), self.remedy).of(self.id)
    }
}

impl Problem {
    /// Makes one.
    pub fn new(path: impl Into<String>, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { path: path.into(), what: what.into(), remedy: remedy.into(), id: "" }
    }

    /// The same as a breach of this rule.
    #[must_use]
    pub fn of(self, id: &'static str) -> Self {
        Self { id, ..self }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.path, self.what, self.remedy)
    }
}

/// The candidate that was most probably meant, unless all are far off: more than a third of it differs.
pub(crate) fn nearest<'a>(typed: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let typed = typed.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (distance(&typed, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| distance * 3 <= candidate.len())
        .min()
        .map(|(_, candidate)| candidate)
}

/// The insertions, deletions and replacements of one character that turn one text into the other.
fn distance(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.chars().count()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut left = i + 1;
        let mut next = vec![left];
        for ((b, diagonal), above) in to.chars().zip(&row).zip(row.iter().skip(1)) {
            left = (diagonal + usize::from(a != b)).min(above + 1).min(left + 1);
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_says_where_what_and_how_to_mend_it() {
        let problem = Problem::new("spec.scaling.min", "min is above max", "lower min or raise max");
        assert_eq!(problem.to_string(), "spec.scaling.min: min is above max; lower min or raise max");
    }

    #[test]
    fn a_distance_counts_single_changes() {
        for (from, to, expected) in
            [("", "", 0), ("abc", "", 3), ("", "abc", 3), ("kitten", "sitting", 3), ("queue", "queeu", 2)]
        {
            assert_eq!(distance(from, to), expected, "{from} to {to}");
        }
    }

    #[test]
    fn the_nearest_name_is_offered_only_when_it_is_near() {
        let zones = ["Europe/London", "Europe/Berlin", "UTC"];
        assert_eq!(nearest("europe/lodnon", zones), Some("Europe/London"));
        assert_eq!(nearest("Mars/Olympus", zones), None);
    }
}
