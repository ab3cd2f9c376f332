//! A pod definition with the contract's additions, or everything that stands against it.
//!
//! Works on JSON rather than on typed pods, so that a field which is newer than our types is kept.

use std::{collections::BTreeSet, time::Duration};

use kitepool_api::{
    PodOverrides, Problem,
    validate::{TokenSource, ValidPool},
};
use serde_json::{Map, Value, json};

use super::{
    contract::{
        AGENT_CONTAINER, DEFAULT_GRACE_SECONDS, HEALTH_PORT, TOKEN_FOLDER, TOKEN_VOLUME,
        environment::{ENDPOINT, HEALTH_ADDRESS, META_DATA, NAME, POD_IP, QUEUE, SPAWN, TAGS, TOKEN},
    },
    first::{self, FirstImage, Presence},
    overrides,
    refuse::{self, Asked},
    template::text,
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
    /// Where the first process of the agent's container comes from. No part of what a generation is known by.
    pub first: Option<FirstImage>,
    /// Changes of the definition.
    pub pod: PodOverrides,
}

impl Overrides {
    /// Of a pool. `endpoint` is Buildkite's address, and `first` where the first process comes from, where the controller was
    /// given them.
    pub fn of(pool: &ValidPool, endpoint: Option<&str>, first: Option<&FirstImage>) -> Self {
        Self {
            queue: pool.queue.clone(),
            tags: pool.spec.tags.clone(),
            token: pool.token.clone(),
            agents_per_pod: pool.spec.agents_per_pod.get(),
            longest_job: pool.longest_job,
            endpoint: endpoint.map(ToOwned::to_owned),
            first: first.cloned(),
            pod: pool.overrides.clone(),
        }
    }
}

/// What comes of a definition.
#[derive(Debug, Clone, PartialEq)]
pub struct Rendered {
    /// The pod template.
    pub template: Value,
    /// Whether its agents have the first process.
    pub first_process: Presence,
}

/// Adds what the definition leaves open. `path` says where the definition stands, for the problems' sake.
pub fn render(definition: &Value, given: &Overrides, path: &str) -> Result<Rendered, Vec<Problem>> {
    let asked = Asked {
        queue: Some(&given.queue),
        longest_job: given.longest_job,
        mounts_token: matches!(given.token, TokenSource::Secret { .. }),
    };
    let mut problems = refuse::all(definition, asked, path);
    let mut template = definition.clone();
    if !given.pod.is_empty() {
        let (changed, more) = match overrides::applied(definition, &given.pod) {
            Ok(changed) => {
                let all = refuse::all(&changed, asked, path);
                (changed, all)
            }
            Err(more) => (template, problems.iter().cloned().chain(more).collect()),
        };
        template = changed;
        // What the pool mends is none; what it brings along is its own doing.
        let brought = more.into_iter().map(|problem| {
            let is_old = problems.contains(&problem) || problem.path.starts_with(overrides::PATH);
            if is_old { problem } else { Problem { path: format!("{}: {}", overrides::PATH, problem.path), ..problem } }
        });
        problems = brought.collect();
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    if let Some(spec) = template.get_mut("spec").and_then(Value::as_object_mut) {
        grace_period(spec, given);
        add_to_agent(spec, given);
        if let TokenSource::Secret { name, key } = &given.token {
            mount_token(spec, name, key);
        }
    }
    let first_process = first::presence(&template, given.first.as_ref());
    first::add(&mut template, given.first.as_ref());
    Ok(Rendered { template, first_process })
}

fn grace_period(spec: &mut Map<String, Value>, overrides: &Overrides) {
    let longest = i64::try_from(overrides.longest_job.as_secs()).unwrap_or(i64::MAX);
    let asked = spec.get("terminationGracePeriodSeconds").and_then(Value::as_i64);
    if asked.is_none_or(|seconds| seconds == DEFAULT_GRACE_SECONDS) {
        spec.insert("terminationGracePeriodSeconds".to_owned(), json!(longest.max(DEFAULT_GRACE_SECONDS)));
    }
}

fn add_to_agent(spec: &mut Map<String, Value>, overrides: &Overrides) {
    let containers = spec.get_mut("containers").and_then(Value::as_array_mut);
    let mut containers = containers.into_iter().flatten().filter_map(Value::as_object_mut);
    let Some(agent) =
        containers.find(|container| container.get("name").and_then(Value::as_str) == Some(AGENT_CONTAINER))
    else {
        return;
    };
    add_environment(agent, overrides);
    if let TokenSource::Secret { .. } = overrides.token {
        append(agent, "volumeMounts", [json!({ "name": TOKEN_VOLUME, "mountPath": TOKEN_FOLDER, "readOnly": true })]);
    }
}

fn add_environment(agent: &mut Map<String, Value>, overrides: &Overrides) {
    let env = agent.get("env").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let set: BTreeSet<String> = env.iter().filter_map(|variable| text(variable, "name")).map(str::to_owned).collect();
    let is_silent = |name: &str| !set.contains(name);

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
        // An IPv6 address needs the brackets. Around an IPv4 address they change nothing.
        added.push(json!({ "name": HEALTH_ADDRESS, "value": format!("[$({POD_IP})]:{HEALTH_PORT}") }));
    }
    if is_silent(ENDPOINT)
        && let Some(endpoint) = &overrides.endpoint
    {
        added.push(json!({ "name": ENDPOINT, "value": endpoint }));
    }
    append(agent, "env", added);
    if health_is_ours {
        agent.entry("startupProbe").or_insert_with(|| probe(STARTUP_MISSES));
        agent.entry("readinessProbe").or_insert_with(|| probe(READINESS_MISSES));
    }
}

/// Fifteen minutes: registration is tried for five, and an entrypoint may have to do things first. Only what hangs is started again.
const STARTUP_MISSES: u32 = 450;
/// A minute. A `ReplicaSet` takes a pod that is not ready before any other, busy or not.
const READINESS_MISSES: u32 = 30;

/// True from registration to the end: it answers whatever Buildkite does, and whether a job runs or not.
fn probe(misses: u32) -> Value {
    json!({
        "httpGet": { "path": "/", "port": HEALTH_PORT },
        "periodSeconds": 2,
        "timeoutSeconds": 2,
        "successThreshold": 1,
        "failureThreshold": misses,
    })
}

fn mount_token(spec: &mut Map<String, Value>, secret: &str, key: &str) {
    // Readable by whatever user the agent runs as; the volume is seen by this pod's agent container alone.
    let items = json!([{ "key": key, "path": "token" }]);
    let secret = json!({ "secretName": secret, "items": items, "defaultMode": 0o444 });
    append(spec, "volumes", [json!({ "name": TOKEN_VOLUME, "secret": secret })]);
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
            first: None,
            pod: PodOverrides::default(),
        }
    }

    fn rendered(definition: &Value) -> Value {
        render(definition, &overrides(), "template").unwrap().template
    }

    fn environment(template: &Value) -> Vec<(String, String)> {
        let env = template.pointer("/spec/containers/0/env").unwrap().as_array().unwrap();
        env.iter()
            .map(|v| (text(v, "name").unwrap().to_owned(), text(v, "value").unwrap_or_default().to_owned()))
            .collect()
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
            ("BUILDKITE_AGENT_HEALTH_CHECK_ADDR", "[$(POD_IP)]:3901"),
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
            "initContainers": [{ "name": "helper", "restartPolicy": "Always" }],
            "containers": [{ "name": "agent", "readinessProbe": { "exec": {} }, "env": [
                { "name": "BUILDKITE_AGENT_TAGS", "value": "queue=linux,gpu=1" },
                { "name": "BUILDKITE_AGENT_HEALTH_CHECK_ADDR", "value": "0.0.0.0:1" },
            ], "unknownNewField": 1 }],
        } }));
        assert_eq!(template["spec"]["terminationGracePeriodSeconds"], 90_000);
        let agent = &template["spec"]["containers"][0];
        assert_eq!(agent["unknownNewField"], 1);
        assert_eq!(agent["readinessProbe"], json!({ "exec": {} }));
        assert_eq!(agent.get("startupProbe"), None, "the port is the definition's own");
        assert_eq!(agent["env"].as_array().unwrap().len(), 5);
    }

    /// What stands in `after` and not in `before`, one level below the places that the table names.
    fn added(before: &Value, after: &Value) -> BTreeSet<(String, String)> {
        let mut found = BTreeSet::new();
        let fields = |of: &Value, pointer: &str| -> BTreeSet<String> {
            let object = of.pointer(pointer).and_then(Value::as_object).cloned().unwrap_or_default();
            object.keys().cloned().collect()
        };
        let names = |of: &Value, pointer: &str, key: &str| -> BTreeSet<String> {
            let list = of.pointer(pointer).and_then(Value::as_array).cloned().unwrap_or_default();
            list.iter().filter_map(|entry| text(entry, key)).map(str::to_owned).collect()
        };
        let lists = [
            ("agent.env", "/spec/containers/0/env", "name"),
            ("agent.volumeMounts", "/spec/containers/0/volumeMounts", "mountPath"),
            ("spec.volumes", "/spec/volumes", "name"),
            ("spec.initContainers", "/spec/initContainers", "name"),
        ];
        for (path, pointer, key) in lists {
            let more = &names(after, pointer, key) - &names(before, pointer, key);
            found.extend(more.into_iter().map(|name| (path.to_owned(), name)));
        }
        let objects = [("agent", "/spec/containers/0"), ("spec", "/spec"), ("", "")];
        for (path, pointer) in objects {
            let more = &fields(after, pointer) - &fields(before, pointer);
            found.extend(more.into_iter().map(|name| (path.to_owned(), name)));
        }
        // The lists themselves.
        found.retain(|(_, name)| !["env", "volumeMounts", "volumes", "initContainers"].contains(&name.as_str()));
        let command = "/spec/containers/0/command";
        if before.pointer(command) != after.pointer(command) {
            found.insert(("agent".to_owned(), "command".to_owned()));
        }
        found
    }

    #[test]
    fn the_table_names_what_is_added_and_nothing_else() {
        let definition = json!({ "spec": { "containers": [{ "name": "agent", "command": ["agent"] }] } });
        let first = FirstImage { image: "kitepool:1".to_owned(), pull_secrets: vec!["registry".to_owned()] };
        let endpoint = Some("http://127.0.0.1:1/v3".to_owned());
        let given = Overrides { endpoint, first: Some(first), ..overrides() };
        let template = render(&definition, &given, "template").unwrap().template;
        let listed: BTreeSet<(String, String)> = crate::pods::contract::ADDITIONS
            .iter()
            // Whose pods they are is written when a generation is made of the template: `generation.rs` tests it.
            .filter(|addition| addition.name != "labels")
            .map(|addition| (addition.path.to_owned(), addition.name.to_owned()))
            .collect();
        assert_eq!(added(&definition, &template), listed);
    }

    #[test]
    fn an_agent_has_fifteen_minutes_to_register_and_is_ready_until_it_is_silent_for_one() {
        let template = rendered(&json!({ "spec": { "containers": [{ "name": "agent" }] } }));
        let agent = &template["spec"]["containers"][0];
        let lasts = |probe: &str| {
            assert_eq!(agent[probe]["httpGet"], json!({ "path": "/", "port": 3901 }));
            agent[probe]["periodSeconds"].as_u64().unwrap() * agent[probe]["failureThreshold"].as_u64().unwrap()
        };
        assert_eq!((lasts("startupProbe"), lasts("readinessProbe")), (900, 60));
        assert_eq!(agent.get("livenessProbe"), None, "it would kill running jobs while Buildkite is away");
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
        let template =
            render(&json!({ "spec": { "containers": [{ "name": "agent" }] } }), &given, "template").unwrap().template;
        let environment = environment(&template);
        assert!(environment.contains(&("BUILDKITE_AGENT_ENDPOINT".to_owned(), "http://127.0.0.1:1/v3".to_owned())));
        assert!(environment.contains(&("BUILDKITE_AGENT_TOKEN".to_owned(), "file:///mnt/token".to_owned())));
        assert!(template["spec"].get("volumes").is_none());
    }
}
