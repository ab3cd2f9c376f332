//! Collects what stands against a pool; each check answers the valid value where there is one.

use std::time::Duration;

use crate::{
    Problem, Span,
    rules::{DurationRules, Rule},
};

/// What was found so far.
#[derive(Debug, Default)]
pub(super) struct Check {
    pub(super) problems: Vec<Problem>,
}

impl Check {
    /// What is no rule of the definition.
    pub(super) fn refuse(&mut self, path: &str, what: impl Into<String>, remedy: impl Into<String>) {
        self.problems.push(Problem::new(path, what, remedy));
    }

    /// A rule that is attached at `path`. Answers whether it holds.
    pub(super) fn holds(&mut self, holds: bool, rule: &Rule, path: &str) -> bool {
        if !holds {
            self.problems.push(rule.problem(path));
        }
        holds
    }

    /// A number within bounds, both included.
    pub(super) fn count(&mut self, path: &str, count: i32, least: i32, most: i32) -> Option<u32> {
        let valid = u32::try_from(count).ok().filter(|_| (least..=most).contains(&count));
        if valid.is_none() {
            self.refuse(path, format!("{count} is out of bounds"), format!("give something from {least} to {most}"));
        }
        valid
    }

    /// A text of at most so many characters that obeys the rule at `path`.
    pub(super) fn text(
        &mut self,
        path: &str,
        text: &str,
        most: usize,
        rule: &Rule,
        obeys: impl Fn(&str) -> bool,
    ) -> Option<String> {
        let length = text.chars().count();
        if length > most {
            self.refuse(path, format!("it has {length} characters"), format!("keep to {most}"));
            return None;
        }
        self.holds(obeys(text), rule, path).then(|| text.to_owned())
    }

    /// A list of at most so many entries. Answers whether it is.
    pub(super) fn items(&mut self, path: &str, items: usize, most: usize) -> bool {
        if items > most {
            self.refuse(path, format!("there are {items}"), format!("keep to {most}"));
        }
        items <= most
    }

    /// A duration within the bounds of its field.
    pub(super) fn span(&mut self, path: &str, span: &Span, rules: &DurationRules) -> Option<Duration> {
        let Ok(duration) = span.get() else {
            self.problems.push(rules.grammar.problem(path));
            return None;
        };
        self.holds((rules.min..=rules.max).contains(&duration), &rules.range, path).then_some(duration)
    }
}
