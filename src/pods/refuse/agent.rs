//! What the agent's own container must not do.

use kitepool_api::{Problem, Rule};
use serde_json::Value;

use super::{Asked, script};
use crate::pods::{
    contract::{
        ACQUIRE_JOB, AGENT_CONTAINER, COMMAND_EXEC, DISCONNECT_AFTER, HEALTH_FLAG, KUBERNETES_EXEC, OTHER_QUEUE,
        PRE_STOP_SIGNALS,
        environment::{META_DATA, QUEUE, TAGS},
    },
    template::{self, containers, list, place, text, variable},
};

/// Flags of `buildkite-agent start`, the variables that say the same, and the rule that they break.
const SETTINGS: [(&str, Option<&str>, Rule); 7] = [
    ("--kubernetes-exec", Some("BUILDKITE_KUBERNETES_EXEC"), KUBERNETES_EXEC),
    ("--acquire-job", Some("BUILDKITE_AGENT_ACQUIRE_JOB"), ACQUIRE_JOB),
    ("--disconnect-after-job", Some("BUILDKITE_AGENT_DISCONNECT_AFTER_JOB"), DISCONNECT_AFTER),
    ("--disconnect-after-job-timeout", Some("BUILDKITE_AGENT_DISCONNECT_AFTER_JOB_TIMEOUT"), DISCONNECT_AFTER),
    ("--disconnect-after-idle-timeout", Some("BUILDKITE_AGENT_DISCONNECT_AFTER_IDLE_TIMEOUT"), DISCONNECT_AFTER),
    ("--disconnect-after-uptime", Some("BUILDKITE_AGENT_DISCONNECT_AFTER_UPTIME"), DISCONNECT_AFTER),
    ("--health-check-addr", None, HEALTH_FLAG),
];

/// Words of a hook that reach another process.
const SIGNALLING: [&str; 4] = ["kill", "pkill", "killall", "skill"];

/// Signals on which an agent finishes its job.
const GRACEFUL: [&str; 2] = ["SIGTERM", "SIGINT"];

/// All of it.
pub(super) fn all(template: &Value, agent: &Value, asked: Asked<'_>, path: &str) -> Vec<Problem> {
    let place = place(path, "containers", agent);
    let mut problems: Vec<Problem> = SETTINGS.iter().filter_map(|setting| set(agent, setting, &place)).collect();
    problems.extend(other_queue(agent, asked, &place));
    problems.extend(command(agent, &place));
    problems.extend(stop_signal(agent, &place));
    problems.extend(hooks(template, path));
    problems
}

fn set(agent: &Value, (flag, name, rule): &(&str, Option<&str>, Rule), place: &str) -> Option<Problem> {
    if let Some(name) = name
        && let Some(found) = variable(agent, name)
        && text(found, "value").is_none_or(is_on)
    {
        return Some(rule.broken(format!("{place}.env[{name}]"), &format!("`{name}` is set")));
    }
    ["command", "args"].into_iter().find_map(|list_of| {
        let all: Vec<&str> = list(agent, list_of).iter().filter_map(Value::as_str).flat_map(script::words).collect();
        let mut rest = all.iter().copied();
        while let Some(word) = rest.next() {
            let value = match word.split_once('=') {
                Some((before, value)) if before == *flag => value,
                None if word == *flag => rest.clone().next().unwrap_or("true"),
                _ => continue,
            };
            if is_on(value) {
                return Some(rule.broken(format!("{place}.{list_of}"), &format!("`{flag}` is given")));
            }
        }
        None
    })
}

/// Whether a setting does anything: these say that it does not.
fn is_on(value: &str) -> bool {
    !matches!(value, "" | "0" | "false")
}

fn other_queue(agent: &Value, asked: Asked<'_>, place: &str) -> Option<Problem> {
    let wanted = asked.queue?;
    let (name, queue) = own_queue(agent)?;
    let found = format!("the agents would serve queue `{queue}`, the pool is for `{wanted}`");
    (queue != wanted).then(|| OTHER_QUEUE.broken(format!("{place}.env[{name}]"), &found))
}

/// The queue that a definition names by itself, and where.
fn own_queue(agent: &Value) -> Option<(&'static str, &str)> {
    let value = |name| variable(agent, name).and_then(|variable| text(variable, "value"));
    if let Some(queue) = value(QUEUE) {
        return Some((QUEUE, queue));
    }
    [TAGS, META_DATA].into_iter().find_map(|name| {
        let queue = value(name)?.split(',').find_map(|tag| tag.trim().strip_prefix("queue="))?;
        Some((name, queue))
    })
}

fn command(agent: &Value, place: &str) -> Option<Problem> {
    let words = template::words(agent);
    let script = script::of_shell(&words)?;
    let last = script::last_command(script);
    if script::is_exec(&last) {
        return None;
    }
    let found = format!("the script's last command is `{}`", last.trim());
    Some(COMMAND_EXEC.broken(format!("{place}.command"), &found))
}

fn stop_signal(agent: &Value, place: &str) -> Option<Problem> {
    let signal = text(agent.get("lifecycle")?, "stopSignal")?;
    let found = format!("the pod is stopped with {signal}");
    (!GRACEFUL.contains(&signal)).then(|| PRE_STOP_SIGNALS.broken(format!("{place}.lifecycle.stopSignal"), &found))
}

/// The agent's own hook; and those of the others, where they see its processes.
fn hooks(template: &Value, path: &str) -> Vec<Problem> {
    let is_shared = template.pointer("/spec/shareProcessNamespace").and_then(Value::as_bool) == Some(true);
    containers(template)
        .filter(|(_, container)| is_shared || text(container, "name") == Some(AGENT_CONTAINER))
        .filter_map(|(kind, container)| {
            let command = container.pointer("/lifecycle/preStop/exec/command")?.as_array()?;
            let words: Vec<&str> = command.iter().filter_map(Value::as_str).flat_map(script::words).collect();
            let signal = words.iter().position(|word| SIGNALLING.contains(&script::base_name(word)));
            let stop = words.windows(2).position(|two| {
                matches!(two, [program, verb] if script::base_name(program) == "buildkite-agent" && *verb == "stop")
            });
            let word = words.get(signal.or(stop)?)?;
            let place = place(path, kind, container);
            Some(PRE_STOP_SIGNALS.broken(format!("{place}.lifecycle.preStop"), &format!("the hook runs `{word}`")))
        })
        .collect()
}
