//! Label selectors, as `labelSelector` writes them.

use std::collections::BTreeMap;

/// A selector: all of its requirements hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Selector(Vec<Requirement>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Requirement {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Absent(String),
}

impl Selector {
    /// Takes `a=b,c!=d,e in (f,g),h notin (i),j,!k` apart; `None` for anything else.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut requirements = Vec::new();
        let mut rest = text.trim();
        while !rest.is_empty() {
            let end = end_of_requirement(rest);
            let (one, more) = rest.split_at(end);
            requirements.push(requirement(one.trim())?);
            rest = more.strip_prefix(',').unwrap_or(more).trim_start();
        }
        Some(Self(requirements))
    }

    pub(super) fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|requirement| match requirement {
            Requirement::In(key, values) => labels.get(key).is_some_and(|value| values.contains(value)),
            Requirement::NotIn(key, values) => labels.get(key).is_none_or(|value| !values.contains(value)),
            Requirement::Exists(key) => labels.contains_key(key),
            Requirement::Absent(key) => !labels.contains_key(key),
        })
    }
}

/// The comma that ends the first requirement: the first that stands in no parenthesis.
fn end_of_requirement(text: &str) -> usize {
    let mut is_inside = false;
    for (index, c) in text.char_indices() {
        match c {
            '(' => is_inside = true,
            ')' => is_inside = false,
            ',' if !is_inside => return index,
            _ => {}
        }
    }
    text.len()
}

fn requirement(text: &str) -> Option<Requirement> {
    let one = |value: &str| vec![value.trim().to_owned()];
    if let Some((key, value)) = text.split_once("!=") {
        return Some(Requirement::NotIn(label(key)?, one(value)));
    }
    if let Some((key, value)) = text.split_once('=') {
        return Some(Requirement::In(label(key)?, one(value.strip_prefix('=').unwrap_or(value))));
    }
    if let Some((words, values)) = text.split_once('(') {
        let values: Vec<String> = values.strip_suffix(')')?.split(',').map(|value| value.trim().to_owned()).collect();
        let mut words = words.split_whitespace();
        let (key, operator) = (label(words.next()?)?, words.next()?);
        return match (operator, words.next()) {
            ("in", None) => Some(Requirement::In(key, values)),
            ("notin", None) => Some(Requirement::NotIn(key, values)),
            _ => None,
        };
    }
    match text.strip_prefix('!') {
        Some(key) => Some(Requirement::Absent(label(key)?)),
        None => Some(Requirement::Exists(label(text)?)),
    }
}

fn label(text: &str) -> Option<String> {
    let text = text.trim();
    let is_legal = !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c));
    is_legal.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operator_selects_as_written() {
        let labels: BTreeMap<String, String> =
            [("app", "agent"), ("pool", "linux")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        for (selector, expected) in [
            ("", true),
            ("app=agent", true),
            ("app==agent,pool=mac", false),
            ("app!=agent", false),
            ("zone!=a", true),
            ("pool in (linux,mac), app", true),
            ("pool notin (linux,mac)", false),
            ("!zone", true),
            ("zone", false),
        ] {
            assert_eq!(Selector::parse(selector).unwrap().matches(&labels), expected, "{selector}");
        }
        for nonsense in ["a b", "a in b", "=x", "a in (b"] {
            assert_eq!(Selector::parse(nonsense), None, "{nonsense}");
        }
    }
}
