//! At which of its writes a controller is killed. A write is known by what it does, so that the same one is found again in
//! another life and in another run, however many reports were worth a write in between.

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Arc, Mutex},
};

use hyper::Method;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// A write, by what it does.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Write {
    /// Changes a Deployment.
    Act(String),
    /// A status that writes down acts before they are carried out.
    Intent(String),
    /// A status that only shows what stands.
    Report(String),
}

impl Write {
    /// Whether it shows nothing but what stands: how often that is worth a write depends on the moment.
    pub(crate) const fn is_report(&self) -> bool {
        matches!(self, Self::Report(_))
    }
}

impl fmt::Display for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Act(what) => f.write_str(what),
            Self::Intent(what) => write!(f, "intent: {what}"),
            Self::Report(what) => write!(f, "report: {what}"),
        }
    }
}

/// Names the writes of one run. Deployments are counted in the order in which they come up, since their names differ from run
/// to run.
#[derive(Debug)]
pub(crate) struct Namer {
    steps_up: StepsUp,
    generations: Vec<String>,
    /// Whether the last status had a round whose pods were being taken.
    is_taking: bool,
}

/// Whether growth by one step and growth by another are two writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StepsUp {
    /// They are: for a run that is compared with itself alone.
    Told,
    /// They are one: in how many steps a generation grows beside another that goes depends on when which reading came, so that
    /// another run may never make the same step.
    Alike,
}

/// The report that a round's pods are gone.
pub(crate) const ROUND_OVER: &str = "a round is over";

impl Namer {
    pub(crate) const fn new(steps_up: StepsUp) -> Self {
        Self { steps_up, generations: Vec::new(), is_taking: false }
    }

    /// What this write does.
    pub(crate) fn name(&mut self, method: &Method, path: &str, body: &str) -> Write {
        let body: Value = serde_json::from_str(body).unwrap_or_default();
        let path = path.split('?').next().unwrap_or_default();
        let mut parts = path.rsplit('/');
        match (method.as_str(), parts.next().unwrap_or_default(), parts.next().unwrap_or_default()) {
            (_, "status", _) => self.status(&body[1]["value"]),
            ("POST", "deployments", _) => {
                let name = body["metadata"]["name"].as_str().unwrap_or_default();
                Write::Act(format!("create {} with {}", self.number(name), body["spec"]["replicas"]))
            }
            ("PATCH", "scale", name) => {
                Write::Act(format!("scale {}", self.step(name, &body[0]["value"], &body[1]["value"])))
            }
            ("DELETE", name, "deployments") => Write::Act(format!("delete {}", self.number(name))),
            // Pods have other names in each run, and guards come and go with jobs: one of each kind says it all.
            ("PATCH", _, "pods") => {
                let cost = body["metadata"]["annotations"]["controller.kubernetes.io/pod-deletion-cost"].as_str();
                match cost {
                    Some(cost) if cost.starts_with('-') => Write::Act("mark a pod that is to go".to_owned()),
                    Some(_) => Write::Report("guard a pod".to_owned()),
                    None => Write::Report("take a sign off a pod".to_owned()),
                }
            }
            (method, last, before) => Write::Act(format!("{method} {before}/{last}")),
        }
    }

    fn status(&mut self, status: &Value) -> Write {
        let rounds = status["memory"]["rounds"].as_object().cloned().unwrap_or_default();
        let is_taking = rounds.values().any(|round| round["lowered"].is_object());
        let was_taking = std::mem::replace(&mut self.is_taking, is_taking);
        let asked = status["memory"]["asked"].as_object().into_iter().flatten();
        let pending = asked.filter(|(_, asked)| asked["from"] != asked["to"]);
        let mut pending: Vec<String> =
            pending.map(|(name, asked)| self.step(name, &asked["from"], &asked["to"])).collect();
        pending.sort();
        if !pending.is_empty() {
            return Write::Intent(pending.join(", "));
        }
        if was_taking && rounds.is_empty() {
            return Write::Report(ROUND_OVER.to_owned());
        }
        let mut chosen: Vec<String> = rounds.keys().map(|name| format!("choose of {}", self.number(name))).collect();
        chosen.sort();
        if !chosen.is_empty() {
            return Write::Intent(chosen.join(", "));
        }
        let conditions = status["conditions"].as_array().into_iter().flatten();
        let conditions: Vec<Value> =
            conditions.map(|each| json!([each["type"], each["status"], each["reason"]])).collect();
        let shown = json!([status["replicas"], status["agents"], status["load"], conditions]);
        Write::Report(shown.to_string())
    }

    /// How many go at once depends on who is idle at that moment, so a step down is the same whatever its size.
    fn step(&mut self, generation: &str, from: &Value, to: &Value) -> String {
        let generation = self.number(generation);
        if to.as_u64() < from.as_u64() {
            format!("{generation} down")
        } else if self.steps_up == StepsUp::Alike {
            format!("{generation} up")
        } else {
            format!("{generation} from {from} to {to}")
        }
    }

    fn number(&mut self, generation: &str) -> String {
        let known = self.generations.iter().position(|known| known == generation);
        let index = known.unwrap_or_else(|| {
            self.generations.push(generation.to_owned());
            self.generations.len() - 1
        });
        format!("generation {}", index + 1)
    }
}

/// On which side of a write the controller dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// The write is never passed on.
    Before,
    /// The write is passed on; its answer is not.
    After,
}

/// At which writes. At each of them once: the next life may do it.
#[derive(Debug, Clone)]
pub(crate) enum Victims {
    /// At every one, as soon as it comes up.
    Each,
    /// At these.
    These(BTreeSet<Write>),
}

impl Victims {
    /// How the writes of such a run are named.
    pub(crate) const fn steps_up(&self) -> StepsUp {
        match self {
            Self::Each => StepsUp::Told,
            Self::These(_) => StepsUp::Alike,
        }
    }
}

/// The process to kill; empty between a kill and the next life.
pub(crate) type Alive = Arc<Mutex<Option<Pid>>>;

/// A plan, and how far it has come.
#[derive(Debug)]
pub(crate) struct KillPlan {
    side: Side,
    victims: Victims,
    alive: Alive,
    namer: Namer,
    killed: BTreeSet<Write>,
}

impl KillPlan {
    pub(crate) fn new(side: Side, victims: Victims, alive: Alive) -> Self {
        let namer = Namer::new(victims.steps_up());
        Self { side, victims, alive, namer, killed: BTreeSet::new() }
    }

    /// The writes at which it was killed so far.
    pub(crate) fn killed(&self) -> BTreeSet<Write> {
        self.killed.clone()
    }

    /// Whether this is the end of the process that writes.
    pub(crate) fn strikes(&mut self, method: &Method, path: &str, body: &str) -> Option<Strike> {
        let write = self.namer.name(method, path, body);
        let is_meant = match &self.victims {
            Victims::Each => true,
            Victims::These(these) => these.contains(&write),
        };
        if !is_meant || self.killed.contains(&write) {
            return None;
        }
        let pid = self.alive.lock().expect("no panic while it is held").take()?;
        self.killed.insert(write);
        Some(Strike { side: self.side, pid })
    }
}

/// A kill that is due.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Strike {
    pub(crate) side: Side,
    pid: Pid,
}

impl Strike {
    pub(crate) fn carry_out(self) {
        kill_process(self.pid, Signal::KILL).expect("a child of ours that nobody else ends");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(asked: &Value, ready: u32, time: &str) -> String {
        json!([
            { "op": "test", "path": "/metadata/uid", "value": "x" },
            { "op": "add", "path": "/status", "value": {
                "memory": { "asked": asked, "lastUp": time },
                "replicas": { "ready": ready },
                "conditions": [{ "type": "Ready", "status": "True", "reason": "Deciding", "lastTransitionTime": time }],
            } },
        ])
        .to_string()
    }

    #[test]
    fn a_write_has_the_same_name_in_every_run() {
        let names = |hash: &str, time: &str| {
            let mut namer = Namer::new(StepsUp::Told);
            let deployments = "/apis/apps/v1/namespaces/e2e/deployments";
            let (old, new) = (format!("linux-9{hash}"), format!("linux-1{hash}"));
            let created = json!({ "metadata": { "name": old }, "spec": { "replicas": 4 } }).to_string();
            let scaled = json!([{ "op": "test", "value": 4 }, { "op": "replace", "value": 2 }]).to_string();
            let pending = json!({ &old: { "from": 4, "to": 2, "loweredAt": time }, &new: { "from": 0, "to": 1 } });
            let status_path =
                "/apis/kitepool.dev/v1alpha1/namespaces/e2e/agentpools/linux/status?&fieldManager=kitepool";
            [
                namer.name(&Method::POST, &format!("{deployments}?fieldManager=kitepool"), &created),
                namer.name(&Method::PATCH, status_path, &status(&pending, 4, time)),
                namer.name(&Method::PATCH, &format!("{deployments}/{old}/scale?x=y"), &scaled),
                namer.name(&Method::PATCH, status_path, &status(&json!({ &new: { "from": 1, "to": 1 } }), 3, time)),
                namer.name(&Method::DELETE, &format!("{deployments}/{old}"), "{}"),
            ]
        };
        let first = names("a", "2026-01-01T00:00:00Z");
        assert_eq!(first, names("b", "2026-02-02T00:00:00Z"));
        let shown: Vec<String> = first.iter().map(ToString::to_string).collect();
        assert_eq!(shown[0], "create generation 1 with 4");
        assert_eq!(shown[1], "intent: generation 1 down, generation 2 from 0 to 1");
        assert_eq!(shown[2], "scale generation 1 down");
        assert!(first[3].is_report() && shown[3].contains("\"ready\":3"), "{}", shown[3]);
        assert_eq!(shown[4], "delete generation 1");
    }
    #[test]
    fn steps_up_are_told_apart_only_where_asked() {
        let scaled = |steps_up, to: u32| {
            let body = json!([{ "op": "test", "value": 2 }, { "op": "replace", "value": to }]).to_string();
            Namer::new(steps_up).name(&Method::PATCH, "/apis/apps/v1/namespaces/e2e/deployments/linux-1/scale", &body)
        };
        assert_ne!(scaled(StepsUp::Told, 3), scaled(StepsUp::Told, 4));
        assert_eq!(scaled(StepsUp::Alike, 3), scaled(StepsUp::Alike, 4));
        assert_ne!(scaled(StepsUp::Alike, 3), scaled(StepsUp::Alike, 1));
    }
}
