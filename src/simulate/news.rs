//! What a simulation tells whoever watches it: lines as they come, and now and then how everything stands.

use std::time::Duration;

use kitepool_world::{
    Joined,
    kubernetes::{Kind, Kubernetes},
};
use serde_json::Value;
use tokio::sync::mpsc;

use super::{
    expectation::replicas_of,
    stage::{CLUSTER, NAMESPACE},
    tally::{self, Agents},
};

/// Lines of some minutes. A reader that is further behind than that has gone away or stands still.
pub const WAITING_MAX: usize = 10_000;

/// One piece of news.
#[derive(Debug, Clone)]
pub enum News {
    /// Something happened: a line of the transcript.
    Line(String),
    /// It is so now.
    Frame(Frame),
}

/// How everything stands.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Frame {
    /// Since the beginning.
    pub since: Duration,
    /// Until the end, from the beginning.
    pub lasts: Duration,
    /// One for each pool, by name.
    pub rows: Vec<Row>,
}

/// How a pool stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Row {
    /// The pool.
    pub pool: String,
    /// Its queue.
    pub queue: String,
    /// Jobs that could run.
    pub queued: u32,
    /// Jobs that run.
    pub running: u32,
    /// What its pods do.
    pub agents: Agents,
    /// Pods that the controller asks for.
    pub desired: u64,
    /// The pool's last change and why, or what is wrong with it.
    pub reason: String,
    /// Whether something is wrong.
    pub is_trouble: bool,
}

/// Sends news, and never waits for the reader: what there is no room for is counted, and told when there is.
#[derive(Debug)]
pub(super) struct Teller {
    reader: mpsc::Sender<News>,
    left_out: usize,
}

impl Teller {
    pub(super) const fn new(reader: mpsc::Sender<News>) -> Self {
        Self { reader, left_out: 0 }
    }

    pub(super) fn line(&mut self, line: &str) {
        if self.left_out > 0 {
            let gap = format!("… {} lines are left out: nobody took them", self.left_out);
            if self.reader.try_send(News::Line(gap)).is_ok() {
                self.left_out = 0;
            }
        }
        if self.reader.try_send(News::Line(line.to_owned())).is_err() {
            self.left_out += 1;
        }
    }

    /// The next one makes up for one that is lost.
    pub(super) fn frame(&self, frame: Frame) {
        drop(self.reader.try_send(News::Frame(frame)));
    }
}

/// All pools of the story as they stand.
pub(super) fn rows(world: &Joined) -> Vec<Row> {
    let pools = world.kubernetes().peek(|kubernetes| kubernetes.objects(Kind::AgentPool, NAMESPACE));
    pools.iter().map(|pool| row(world, pool)).collect()
}

fn row(world: &Joined, pool: &Value) -> Row {
    let (name, queue) = (text(pool, "/metadata/name"), text(pool, "/spec/queue"));
    let load = world.buildkite().peek(|buildkite| buildkite.load(CLUSTER, queue));
    let desired = world.kubernetes().peek(|kubernetes: &Kubernetes| replicas_of(kubernetes, name));
    let trouble = trouble(pool);
    let is_trouble = trouble.is_some();
    Row {
        queued: load.scheduled,
        running: load.running,
        agents: tally::agents(world, NAMESPACE, Some(name)),
        desired,
        reason: trouble.unwrap_or_else(|| last_decision(pool)),
        is_trouble,
        pool: name.to_owned(),
        queue: queue.to_owned(),
    }
}

fn last_decision(pool: &Value) -> String {
    let Some(last) = pool.pointer("/status/lastDecision") else { return String::new() };
    let number = |path: &str| last.pointer(path).and_then(Value::as_i64).unwrap_or_default();
    format!("{} → {}: {}", number("/from"), number("/to"), text(last, "/message"))
}

/// Of the conditions that are not as they should be, the first.
fn trouble(pool: &Value) -> Option<String> {
    let conditions = pool.pointer("/status/conditions").and_then(Value::as_array)?;
    let is_trouble = |condition: &&Value| {
        let (kind, status) = (text(condition, "/type"), text(condition, "/status"));
        match kind {
            "Ready" => status == "False",
            // Before the first poll has ended nothing is wrong yet.
            "LoadFresh" => status == "False" && text(condition, "/reason") != "NotRead",
            // Limits and company on a queue are as configured.
            "AtLimit" | "QueueShared" => false,
            _ => status == "True",
        }
    };
    let condition = conditions.iter().find(is_trouble)?;
    Some(format!("{}: {}", text(condition, "/reason"), text(condition, "/message")))
}

fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    value.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_trouble_comes_before_the_last_decision_and_a_limit_is_none() {
        let condition =
            |kind: &str, status: &str| json!({ "type": kind, "status": status, "reason": kind, "message": "m" });
        let pool = |conditions: Vec<Value>| json!({ "status": { "conditions": conditions } });
        let fine = [condition("Ready", "True"), condition("AtLimit", "True"), condition("Contested", "False")];
        assert_eq!(trouble(&pool(fine.to_vec())), None);
        for wrong in [condition("Ready", "False"), condition("PodsFailing", "True"), condition("LoadFresh", "False")] {
            let expected = format!("{}: m", text(&wrong, "/type"));
            assert_eq!(trouble(&pool(vec![fine[1].clone(), wrong])), Some(expected));
        }
        let not_read = json!({ "type": "LoadFresh", "status": "False", "reason": "NotRead" });
        assert_eq!(trouble(&pool(vec![not_read])), None);
    }

    #[test]
    fn lines_that_nobody_takes_are_counted_and_told() {
        let (sender, mut reader) = mpsc::channel(1);
        let mut teller = Teller::new(sender);
        let mut taken = Vec::new();
        for line in ["a", "b", "c"] {
            teller.line(line);
        }
        for line in ["d", "e"] {
            if let Ok(News::Line(line)) = reader.try_recv() {
                taken.push(line);
            }
            teller.line(line);
        }
        if let Ok(News::Line(line)) = reader.try_recv() {
            taken.push(line);
        }
        assert_eq!(
            taken,
            ["a", "… 2 lines are left out: nobody took them", "… 1 lines are left out: nobody took them"]
        );
    }
}
