//! The last decision of each pool, step by step, from the file that a controller records.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufRead as _, BufReader},
    path::Path,
};

use jiff::Timestamp;
use kitepool_policy::decision::Decision;
use serde::Serialize;

use crate::control::record::Line;

/// A decision, as it was recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Recorded {
    /// When it was made first: later ticks may have come to the same.
    pub at: Timestamp,
    /// Replicas that the pool shall have.
    pub target: u32,
    /// The policy's steps, in their order.
    pub steps: Vec<Step>,
}

/// What a step made of a number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// Its name.
    pub step: &'static str,
    /// What came in.
    pub input: u32,
    /// What went out.
    pub output: u32,
    /// The word for why.
    pub reason: &'static str,
    /// The sentence.
    pub message: String,
}

/// The last decisions for the pools of a namespace, by name. A line that is cut off, or of another version, is passed over.
pub fn read(path: &Path, namespace: &str) -> io::Result<BTreeMap<String, Recorded>> {
    let mut found = BTreeMap::new();
    for line in BufReader::new(File::open(path)?).lines() {
        let Ok(Line { now, seen: Some(seen), .. }) = serde_json::from_str(&line?) else { continue };
        for decision in seen.decisions.into_iter().filter(|decision| decision.pool.namespace == namespace) {
            found.insert(decision.pool.name.clone(), recorded(now, &decision));
        }
    }
    Ok(found)
}

fn recorded(at: Timestamp, decision: &Decision) -> Recorded {
    let steps = decision.report.entries.iter().map(|entry| Step {
        step: entry.step.as_str(),
        input: entry.input,
        output: entry.output,
        reason: entry.reason.category(),
        message: entry.reason.to_string(),
    });
    Recorded { at, target: decision.target.0, steps: steps.collect() }
}
