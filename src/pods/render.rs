//! A pod definition with the contract's additions, or everything that stands against it.
//!
//! Works on JSON rather than on typed pods, so that a field which is newer than our types is kept.

use std::{collections::BTreeSet, time::Duration};

use kitepool_api::{
    Problem,
    validate::{TokenSource, ValidPool},
};
use serde_json::{Map, Value, json};

use super::contract::{
    AGENT_CONTAINER, DEFAULT_GRACE_SECONDS, HEALTH_PORT, TOKEN_FOLDER, TOKEN_VOLUME,
    environment::{ENDPOINT, HEALTH_ADDRESS, META_DATA, NAME, POD_IP, QUEUE, SPAWN, TAGS, TOKEN},
};

/// What a pool brings to its definition.
#[derive(Debug, Clone, PartialEq)]
pub struct Overrides {
    /// The queue's key.
    pub queue: String,
    /// Tags besides the queue.
    pub tags: BTreeSet<String>,
    /// Where the token comes from.
    pub token: TokenSource,
    /// Workers in a pod.
    pub agents_per_pod: u32,
    /// How long a draining agent may finish its job.
    pub longest_job: Duration,
    /// Buildkite's address, where it is not the agent's own default.
    pub endpoint: Option<String>,
}

impl Overrides {
    /// Of a pool. `endpoint` is Buildkite's address, where the controller was given one.
    pub fn of(pool: &ValidPool, endpoint: Option<&str>) -> Self {
        Self {
            queue: pool.queue.clone(),
            tags: pool.spec.tags.clone(),
            token: pool.token.clone(),
            agents_per_pod: pool.spec.agents_per_pod.get(),
            longest_job: pool.longest_job,
            endpoint: endpoint.map(ToOwned::to_owned),
        }
    }
}

/// Adds what the definition leaves open. `path` says where the definition stands, for the problems' sake.
pub fn render(definition: &Value, overrides: &Overrides, path: &str) -> Result<Value, Vec<Problem>> {
    let mut template = definition.clone();
    let mut problems = Vec::new();
    let Some(spec) = template.get_mut("spec").and_then(Value::as_object_mut) else {
        return Err(vec![Problem::new(
            format!("{path}.spec"),
            "there is no pod spec",
            "write a pod template with a container named `agent`; pod-library/basic.yaml is one to start from",
        )]);
    };
    grace_period(spec, overrides, path, &mut problems);
    let has_agent = add_to_agent(spec, overrides, path, &mut problems);
    if has_agent && let TokenSource::Secret { name, key } = &overrides.token {
        mount_token(spec, name, key, path, &mut problems);
    }
    if problems.is_empty() { Ok(template) } else { Err(problems) }
}

fn grace_period(spec: &mut Map<String, Value>, overrides: &Overrides, path: &str, problems: &mut Vec<Problem>) {
    let longest = i64::try_from(overrides.longest_job.as_secs()).unwrap_or(i64::MAX);
    let asked = spec.get("terminationGracePeriodSeconds").and_then(Value::as_i64);
    match asked {
        Some(seconds) if seconds != DEFAULT_GRACE_SECONDS && seconds < longest => problems.push(Problem::new(
            format!("{path}.spec.terminationGracePeriodSeconds"),
            format!(
                "{seconds} s are less than the pool's longestJob of {longest} s, so a draining agent would be killed"
            ),
            "leave it out, or make it at least as long, or lower spec.longestJob",
        )),
        Some(seconds) if seconds != DEFAULT_GRACE_SECONDS => {}
        _ => {
            spec.insert("terminationGracePeriodSeconds".to_owned(), json!(longest.max(DEFAULT_GRACE_SECONDS)));
        }
    }
}

/// Answers whether there is an agent container to speak of.
fn add_to_agent(spec: &mut Map<String, Value>, overrides: &Overrides, path: &str, problems: &mut Vec<Problem>) -> bool {
    let names: Vec<String> = list(spec, "containers").iter().filter_map(|container| text(container, "name")).collect();
    let Some(agent) = spec
        .get_mut("containers")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
        .filter_map(Value::as_object_mut)
        .find(|container| container.get("name").and_then(Value::as_str) == Some(AGENT_CONTAINER))
    else {
        let found =
            if names.is_empty() { "there are none".to_owned() } else { format!("there is {}", names.join(", ")) };
        problems.push(Problem::new(
            format!("{path}.spec.containers"),
            format!("no container is named `agent`; {found}"),
            "name the container that runs buildkite-agent `agent`",
        ));
        return false;
    };
    add_environment(agent, overrides, path, problems);
    if let TokenSource::Secret { .. } = overrides.token {
        append(agent, "volumeMounts", [json!({ "name": TOKEN_VOLUME, "mountPath": TOKEN_FOLDER, "readOnly": true })]);
    }
    true
}

fn add_environment(agent: &mut Map<String, Value>, overrides: &Overrides, path: &str, problems: &mut Vec<Problem>) {
    let env = list(agent, "env");
    let set: BTreeSet<String> = env.iter().filter_map(|variable| text(variable, "name")).collect();
    let is_silent = |name: &str| !set.contains(name);
    let value = |name: &str| {
        env.iter().find(|variable| text(variable, "name").as_deref() == Some(name)).and_then(|v| text(v, "value"))
    };

    let own_queue = own_queue(value(TAGS).or_else(|| value(META_DATA)).as_deref(), value(QUEUE).as_deref());
    if let Some(queue) = own_queue.filter(|queue| *queue != overrides.queue) {
        problems.push(Problem::new(
            format!("{path}.spec.containers[agent].env"),
            format!("the agents would serve queue `{queue}`, the pool is for `{}`", overrides.queue),
            "leave queue and tags out of the definition; the pool brings them",
        ));
    }

    let mut added = Vec::new();
    if is_silent(TOKEN) {
        let file = match &overrides.token {
            TokenSource::Secret { .. } => format!("{TOKEN_FOLDER}/token"),
            TokenSource::File(file) => file.clone(),
        };
        added.push(json!({ "name": TOKEN, "value": format!("file://{file}") }));
    }
    if is_silent(TAGS) && is_silent(META_DATA) && is_silent(QUEUE) {
        let queue = format!("queue={}", overrides.queue);
        let tags: Vec<&str> =
            std::iter::once(queue.as_str()).chain(overrides.tags.iter().map(String::as_str)).collect();
        added.push(json!({ "name": TAGS, "value": tags.join(",") }));
    }
    if is_silent(NAME) {
        added.push(json!({ "name": NAME, "value": "%hostname-%spawn" }));
    }
    if is_silent(SPAWN) {
        added.push(json!({ "name": SPAWN, "value": overrides.agents_per_pod.to_string() }));
    }
    let health_is_ours = is_silent(HEALTH_ADDRESS);
    if health_is_ours {
        // `$(POD_IP)` is expanded only from variables that stand before it.
        if is_silent(POD_IP) {
            added.push(json!({ "name": POD_IP, "valueFrom": { "fieldRef": { "fieldPath": "status.podIP" } } }));
        }
        added.push(json!({ "name": HEALTH_ADDRESS, "value": format!("$({POD_IP}):{HEALTH_PORT}") }));
    }
    if is_silent(ENDPOINT)
        && let Some(endpoint) = &overrides.endpoint
    {
        added.push(json!({ "name": ENDPOINT, "value": endpoint }));
    }
    append(agent, "env", added);
    if health_is_ours && !agent.contains_key("readinessProbe") {
        agent.insert("readinessProbe".to_owned(), readiness_probe());
    }
}

/// Ready from registration to the end. It answers whatever Buildkite does; thirty misses (a minute) are allowed, since a
/// `ReplicaSet` takes a pod that is not ready before any other, busy or not.
fn readiness_probe() -> Value {
    json!({
        "httpGet": { "path": "/", "port": HEALTH_PORT },
        "periodSeconds": 2,
        "timeoutSeconds": 2,
        "successThreshold": 1,
        "failureThreshold": 30,
    })
}

fn mount_token(spec: &mut Map<String, Value>, secret: &str, key: &str, path: &str, problems: &mut Vec<Problem>) {
    if list(spec, "volumes").iter().any(|volume| text(volume, "name").as_deref() == Some(TOKEN_VOLUME)) {
        problems.push(Problem::new(
            format!("{path}.spec.volumes"),
            format!("the name `{TOKEN_VOLUME}` is taken"),
            "rename the volume; the controller mounts the agent token under this name",
        ));
        return;
    }
    // Readable by whatever user the agent runs as; the volume is seen by this pod's agent container alone.
    let items = json!([{ "key": key, "path": "token" }]);
    let secret = json!({ "secretName": secret, "items": items, "defaultMode": 0o444 });
    append(spec, "volumes", [json!({ "name": TOKEN_VOLUME, "secret": secret })]);
}

fn own_queue(tags: Option<&str>, queue: Option<&str>) -> Option<String> {
    let from_tags = tags.and_then(|tags| tags.split(',').find_map(|tag| tag.trim().strip_prefix("queue=")));
    queue.or(from_tags).map(ToOwned::to_owned)
}

fn text(value: &Value, key: &str) -> Option<String> {
    value.get(key).and_then(Value::as_str).map(ToOwned::to_owned)
}

/// Appends to the list under `key`, which is made if need be.
fn append(object: &mut Map<String, Value>, key: &str, more: impl IntoIterator<Item = Value>) {
    let mut list = match object.remove(key) {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    };
    list.extend(more);
    object.insert(key.to_owned(), Value::Array(list));
}

/// The list under `key`; nothing where there is none.
fn list<'a>(object: &'a Map<String, Value>, key: &str) -> &'a [Value] {
    object.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overrides() -> Overrides {
        Overrides {
            queue: "linux".to_owned(),
            tags: BTreeSet::from(["os=linux".to_owned()]),
            token: TokenSource::Secret { name: "agent-token".to_owned(), key: "token".to_owned() },
            agents_per_pod: 2,
            longest_job: Duration::from_hours(4),
            endpoint: None,
        }
    }

    fn rendered(definition: &Value) -> Value {
        render(definition, &overrides(), "template").unwrap()
    }

    fn environment(template: &Value) -> Vec<(String, String)> {
        let env = template.pointer("/spec/containers/0/env").unwrap().as_array().unwrap();
        env.iter().map(|v| (text(v, "name").unwrap(), text(v, "value").unwrap_or_default())).collect()
    }

    #[test]
    fn a_silent_definition_gets_everything_that_an_agent_needs() {
        let template = rendered(&json!({ "spec": { "containers": [{ "name": "agent", "image": "i" }] } }));
        let expected = [
            ("BUILDKITE_AGENT_TOKEN", "file:///var/run/kitepool/token/token"),
            ("BUILDKITE_AGENT_TAGS", "queue=linux,os=linux"),
            ("BUILDKITE_AGENT_NAME", "%hostname-%spawn"),
            ("BUILDKITE_AGENT_SPAWN", "2"),
            ("POD_IP", ""),
            ("BUILDKITE_AGENT_HEALTH_CHECK_ADDR", "$(POD_IP):3901"),
        ];
        assert_eq!(environment(&template), expected.map(|(n, v)| (n.to_owned(), v.to_owned())));
        assert_eq!(template["spec"]["terminationGracePeriodSeconds"], 14_400);
        assert_eq!(template["spec"]["volumes"][0]["secret"]["secretName"], "agent-token");
        assert_eq!(template["spec"]["containers"][0]["volumeMounts"][0]["readOnly"], true);
        assert_eq!(template["spec"]["containers"][0]["readinessProbe"]["httpGet"]["path"], "/");
    }

    #[test]
    fn nothing_is_added_that_v3_and_v4_of_the_agent_read_differently() {
        let differing = [
            "BUILDKITE_CANCEL_GRACE_PERIOD",
            "BUILDKITE_SIGNAL_GRACE_PERIOD_SECONDS",
            "BUILDKITE_CANCEL_SIGNAL_TIMEOUT",
            "BUILDKITE_CANCEL_CLEANUP_TIMEOUT",
            "BUILDKITE_AGENT_SPAWN_WITH_PRIORITY",
        ];
        let template = rendered(&json!({ "spec": { "containers": [{ "name": "agent" }] } }));
        let added = environment(&template);
        assert!(added.iter().all(|(name, _)| !differing.contains(&name.as_str())), "{added:?}");
        assert!(template["spec"]["containers"][0].get("args").is_none(), "a flag could differ as well");
    }

    #[test]
    fn what_a_definition_sets_is_kept() {
        let template = rendered(&json!({ "spec": {
            "terminationGracePeriodSeconds": 90_000,
            "containers": [{ "name": "helper" }, { "name": "agent", "readinessProbe": { "exec": {} }, "env": [
                { "name": "BUILDKITE_AGENT_TAGS", "value": "queue=linux,gpu=1" },
                { "name": "BUILDKITE_AGENT_HEALTH_CHECK_ADDR", "value": "0.0.0.0:1" },
            ], "unknownNewField": 1 }],
        } }));
        assert_eq!(template["spec"]["terminationGracePeriodSeconds"], 90_000);
        let agent = &template["spec"]["containers"][1];
        assert_eq!(agent["unknownNewField"], 1);
        assert_eq!(agent["readinessProbe"], json!({ "exec": {} }));
        assert_eq!(agent["env"].as_array().unwrap().len(), 5);
    }

    #[test]
    fn the_grace_period_that_kubernetes_fills_in_counts_as_silence() {
        let template =
            rendered(&json!({ "spec": { "terminationGracePeriodSeconds": 30, "containers": [{ "name": "agent" }] } }));
        assert_eq!(template["spec"]["terminationGracePeriodSeconds"], 14_400);
    }

    #[test]
    fn all_problems_are_told_at_once() {
        let definition = json!({ "spec": {
            "terminationGracePeriodSeconds": 60,
            "volumes": [{ "name": "kitepool-token" }],
            "containers": [{ "name": "agent", "env": [{ "name": "BUILDKITE_AGENT_QUEUE", "value": "other" }] }],
        } });
        let problems = render(&definition, &overrides(), "PodTemplate basic: template").unwrap_err();
        assert_eq!(problems.len(), 3, "{problems:?}");
        assert!(problems.iter().all(|problem| problem.to_string().starts_with("PodTemplate basic: template.spec")));
    }

    #[test]
    fn a_definition_without_an_agent_is_refused_with_what_there_is() {
        let problems = render(&json!({ "spec": { "containers": [{ "name": "runner" }] } }), &overrides(), "template");
        let sentence = problems.unwrap_err()[0].to_string();
        assert!(sentence.contains("no container is named `agent`") && sentence.contains("runner"), "{sentence}");
        assert!(render(&json!({}), &overrides(), "template").is_err());
    }

    #[test]
    fn the_endpoint_and_a_token_file_are_passed_on() {
        let given = Overrides {
            endpoint: Some("http://127.0.0.1:1/v3".to_owned()),
            token: TokenSource::File("/mnt/token".to_owned()),
            ..overrides()
        };
        let template = render(&json!({ "spec": { "containers": [{ "name": "agent" }] } }), &given, "template").unwrap();
        let environment = environment(&template);
        assert!(environment.contains(&("BUILDKITE_AGENT_ENDPOINT".to_owned(), "http://127.0.0.1:1/v3".to_owned())));
        assert!(environment.contains(&("BUILDKITE_AGENT_TOKEN".to_owned(), "file:///mnt/token".to_owned())));
        assert!(template["spec"].get("volumes").is_none());
    }
}
