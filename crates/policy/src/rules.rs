//! Whether agents with certain tags may run a job with certain rules, as Buildkite decides it.

use std::{collections::BTreeSet, ops::Bound};

/// All rules must hold. The queue's own rule is left out: a job got to its queue by it.
pub fn match_tags(rules: &[String], tags: &BTreeSet<String>) -> bool {
    rules.iter().all(|rule| rule.starts_with("queue=") || matches_one(rule, tags))
}

/// One rule: the tag itself, or with a `*` at its end any tag that begins as the rule does.
fn matches_one(rule: &str, tags: &BTreeSet<String>) -> bool {
    match rule.strip_suffix('*') {
        None => tags.contains(rule),
        Some("") => true,
        Some(prefix) => tags
            .range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
            .next()
            .is_some_and(|tag| tag.starts_with(prefix)),
    }
}
