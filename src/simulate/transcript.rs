//! What happened, a line each: to be read by a person and compared byte by byte.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use kitepool_world::kubernetes::{Verb, Write};
use serde_json::Value;

/// Lines, each with how long after the beginning it was.
#[derive(Debug, Default)]
pub struct Transcript {
    start: Timestamp,
    lines: Vec<Line>,
    /// How many of them were told as news.
    told: usize,
    /// What each pool's status said last: conditions by type, and the last decision.
    said: BTreeMap<String, BTreeMap<String, String>>,
    /// Conditions that are not as they usually are, by pool and type.
    unusual: BTreeSet<(String, String)>,
    /// Pods that bear the sign of those who go.
    marked: BTreeSet<String>,
    arrived: Arrived,
}

/// Events that arrived, with nothing else between them: one line.
#[derive(Debug, Default)]
struct Arrived {
    /// Where the line is, and of which instant.
    line: usize,
    at: Timestamp,
    jobs: usize,
    shed: usize,
}

#[derive(Debug)]
struct Line {
    at: Timestamp,
    text: String,
    /// Whether somebody who watches should read it: all is as usual where nothing is said.
    is_news: bool,
}

impl Transcript {
    /// One that begins at `start`.
    pub fn new(start: Timestamp) -> Self {
        Self { start, ..Self::default() }
    }

    /// All lines in the order of time. What a client wrote is seen a little later than it was written.
    pub fn into_lines(mut self) -> Vec<String> {
        self.lines.sort_by_key(|line| line.at);
        self.lines.into_iter().map(|line| line.text).collect()
    }

    /// What is new since it was last asked, in the order in which it came in. That a condition is as it usually is belongs to it
    /// only after it was not.
    pub fn news(&mut self) -> impl Iterator<Item = &str> {
        let told = std::mem::replace(&mut self.told, self.lines.len());
        self.lines.iter().skip(told).filter(|line| line.is_news).map(|line| line.text.as_str())
    }

    /// One line.
    pub fn say(&mut self, now: Timestamp, text: &str) {
        self.note(now, text, true);
    }

    fn note(&mut self, now: Timestamp, text: &str, is_news: bool) {
        let text = format!("{} {text}", since(self.start, now));
        self.lines.push(Line { at: now, text, is_news });
    }

    /// Events of so many jobs arrive, and so many of them are shed. Those of one second are told in one line if nothing else
    /// happened between them.
    pub fn events(&mut self, now: Timestamp, jobs: usize, shed: usize) {
        let last = &mut self.arrived;
        let is_last = last.jobs > 0 && last.line + 1 == self.lines.len() && last.line >= self.told;
        if is_last && now.duration_since(last.at).as_secs() == 0 {
            self.lines.pop();
        } else {
            *last = Arrived { at: now, ..Arrived::default() };
        }
        let last = &mut self.arrived;
        (last.line, last.jobs, last.shed) = (self.lines.len(), last.jobs + jobs, last.shed + shed);
        let shed = if last.shed > 0 { format!(", {} shed", last.shed) } else { String::new() };
        let (at, text) = (last.at, format!("events of {} jobs arrive{shed}", last.jobs));
        self.say(at, &text);
    }

    /// What the controller wrote.
    pub fn wrote(&mut self, write: &Write) {
        let Write { at, verb, resource, name, status, object, .. } = write;
        if *status >= 400 {
            self.say(*at, &format!("  refused {status}: {verb:?} {resource} {name}"));
            return;
        }
        let object = object.as_deref().unwrap_or(&Value::Null);
        let replicas = object.pointer("/spec/replicas").and_then(Value::as_u64).unwrap_or_default();
        match (verb, resource.as_str()) {
            (Verb::Create, "deployments") => self.say(*at, &format!("  creates {name} with {replicas}")),
            (_, "deployments/scale") => self.say(*at, &format!("  scales {name} to {replicas}")),
            (Verb::Delete, "deployments") => self.say(*at, &format!("  deletes {name}")),
            (_, "agentpools/status") => self.pool_said(write, object),
            (Verb::Create | Verb::Patch, "events") => self.event(write, object),
            (Verb::Patch, "pods") => self.signed(write, object),
            _ => {}
        }
    }

    /// What is written on a pod: only who is chosen to go, and who no longer is. Busy and idle would be two lines a job.
    fn signed(&mut self, write: &Write, pod: &Value) {
        let cost =
            pod.pointer("/metadata/annotations/controller.kubernetes.io~1pod-deletion-cost").and_then(Value::as_str);
        if cost.is_some_and(|cost| cost.starts_with('-')) {
            if self.marked.insert(write.name.clone()) {
                self.note(write.at, &format!("  marks {}", write.name), false);
            }
        } else if self.marked.remove(&write.name) {
            self.note(write.at, &format!("  lets go of {}", write.name), false);
        }
    }

    /// What the status of a pool says that it did not say before.
    fn pool_said(&mut self, write: &Write, pool: &Value) {
        let said = self.said.entry(write.name.clone()).or_default();
        // One line for what is usual, and one for what is not.
        let (mut usual, mut fresh) = (Vec::new(), Vec::new());
        let mut note = |key: &str, text: String, is_news: bool| {
            if said.get(key) != Some(&text) {
                if is_news { &mut fresh } else { &mut usual }.push(text.clone());
                said.insert(key.to_owned(), text);
            }
        };
        let conditions = pool.pointer("/status/conditions").and_then(Value::as_array);
        for condition in conditions.into_iter().flatten() {
            let [kind, status, reason] = ["type", "status", "reason"].map(|key| text(condition, key));
            let key = (write.name.clone(), kind.to_owned());
            let was_unusual = self.unusual.remove(&key);
            let is_unusual = !is_usual(kind, status, reason);
            if is_unusual {
                self.unusual.insert(key);
            }
            note(kind, format!("{kind}={status} ({reason})"), is_unusual || was_unusual);
        }
        if let Some(last) = pool.pointer("/status/lastDecision") {
            let number = |key: &str| last.get(key).and_then(Value::as_i64).unwrap_or_default();
            let decision = format!("{} -> {}: {}", number("from"), number("to"), text(last, "reason"));
            note("", decision, true);
        }
        for (words, is_news) in [(usual, false), (fresh, true)] {
            if !words.is_empty() {
                self.note(write.at, &format!("  {}: {}", write.name, words.join(", ")), is_news);
            }
        }
    }

    fn event(&mut self, write: &Write, event: &Value) {
        let about = event.pointer("/regarding").map(|about| text(about, "name")).unwrap_or_default();
        let count = event.pointer("/series/count").and_then(Value::as_u64);
        let again = count.map(|count| format!(" ({count} times)")).unwrap_or_default();
        let (reason, note) = (text(event, "reason"), text(event, "note"));
        // Whoever watches has just read the same in a condition or a decision.
        self.note(write.at, &format!("  Event {reason} on {about}{again}: {note}"), false);
    }
}

/// Whether a condition is so when all is well, and in the first seconds of a controller.
fn is_usual(kind: &str, status: &str, reason: &str) -> bool {
    match kind {
        "Ready" => status == "True",
        "LoadFresh" => status == "True" || reason == "NotRead",
        _ => status == "False",
    }
}

/// How long after the beginning, as lines begin.
pub(super) fn since(start: Timestamp, now: Timestamp) -> String {
    let since = now.duration_since(start).unsigned_abs();
    let (seconds, tenths) = (since.as_secs(), since.subsec_millis() / 100);
    let (hours, minutes) = (seconds / 3_600, seconds / 60 % 60);
    format!("{hours:02}:{minutes:02}:{:02}.{tenths}", seconds % 60)
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}
