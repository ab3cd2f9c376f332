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

#[cfg(test)]
mod tests {
    use super::*;

    fn matched(rules: &[&str], tags: &[&str]) -> bool {
        let rules: Vec<String> = rules.iter().map(ToString::to_string).collect();
        match_tags(&rules, &tags.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn rules_match_the_way_buildkite_does() {
        for (rules, tags, expected) in [
            (&[][..], &[][..], true),
            (&["queue=linux"], &[], true),
            (&["queue=*"], &[], true),
            (&["os=linux"], &[], false),
            (&["os=linux"], &["os=linux"], true),
            (&["os=linux", "gpu=true"], &["os=linux"], false),
            (&["os=linux", "gpu=true"], &["gpu=true", "os=linux"], true),
            (&["os=*"], &["os=linux"], true),
            (&["os=*"], &["osx=linux"], false),
            (&["os=lin*"], &["os=linux"], true),
            (&["os=lin*"], &["os=mac", "os=windows"], false),
            (&["*"], &[], true),
            (&["os=linux"], &["os=linux2"], false),
        ] {
            assert_eq!(matched(rules, tags), expected, "{rules:?} against {tags:?}");
        }
    }
}
