//! What stands against a definition, all at once: each breach with its place, the reason and what to do.

mod agent;
mod around;
mod script;

use std::time::Duration;

use kitepool_api::Problem;
use serde_json::Value;

use super::{
    contract::{AGENT_MISSING, DEFAULT_GRACE_SECONDS, GRACE_PERIOD, POD_SPEC},
    template::{self, list, text},
};

/// What a pool asks of its definition.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    /// The queue that its agents must serve; any, where no pool asks.
    pub(super) queue: Option<&'a str>,
    /// How long a draining agent may need.
    pub(super) longest_job: Duration,
    /// Whether the token comes from a Secret, which takes a volume.
    pub(super) mounts_token: bool,
}

/// Everything that stands against a template at `path`.
pub(super) fn all(template: &Value, asked: Asked<'_>, path: &str) -> Vec<Problem> {
    let Some(spec) = template.get("spec").filter(|spec| spec.is_object()) else {
        return vec![POD_SPEC.broken(format!("{path}.spec"), "there is no pod spec")];
    };
    let mut problems = Vec::new();
    problems.extend(grace_period(spec, asked, path));
    if let Some(container) = template::agent(template) {
        problems.extend(agent::all(template, container, asked, path));
        problems.extend(around::all(template, container, asked.mounts_token, path));
    } else {
        let names: Vec<&str> = list(spec, "containers").iter().filter_map(|one| text(one, "name")).collect();
        let there =
            if names.is_empty() { "there are none".to_owned() } else { format!("there is {}", names.join(", ")) };
        let found = format!("no container is named `agent`; {there}");
        problems.push(AGENT_MISSING.broken(format!("{path}.spec.containers"), &found));
    }
    problems
}

fn grace_period(spec: &Value, asked: Asked<'_>, path: &str) -> Option<Problem> {
    let longest = i64::try_from(asked.longest_job.as_secs()).unwrap_or(i64::MAX);
    let seconds = spec.get("terminationGracePeriodSeconds").and_then(Value::as_i64)?;
    let found = format!("{seconds} s are less than the pool's longestJob of {longest} s");
    (seconds != DEFAULT_GRACE_SECONDS && seconds < longest)
        .then(|| GRACE_PERIOD.broken(format!("{path}.spec.terminationGracePeriodSeconds"), &found))
}
