//! What a controller told in its log.

use std::path::Path;

use jiff::Timestamp;
use serde_json::Value;

/// Its lines, in their order; the last may have been cut off by a kill.
pub(crate) fn told(log: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(log).expect("the controller's log");
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Those with this message.
pub(crate) fn told_as(log: &Path, message: &str) -> Vec<Value> {
    told(log).into_iter().filter(|line| line["message"] == message).collect()
}

/// When a line was written.
pub(crate) fn at(line: &Value) -> Option<Timestamp> {
    line["timestamp"].as_str()?.parse().ok()
}
