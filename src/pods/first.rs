//! The first process of an agent's container, which withholds a second request to stop: whether a definition gets it, and how.
//!
//! An init container of Kitepool's image copies the program into a volume of the pod, and the agent's command is put behind it.
//! Nothing of the image stands in a generation's hash: another image rolls no pool, and what stands keeps the one that it was
//! made with.

use std::fmt::{self, Display};

use serde_json::{Map, Value, json};

use super::contract::AGENT_CONTAINER;

/// On a definition: whether a second request to stop reaches its agents.
pub const SECOND_SIGNAL_ANNOTATION: &str = "kitepool.dev/second-signal";
/// The default: it does not.
pub const WITHHOLD: &str = "Withhold";
/// It does, as without the first process.
pub const FORWARD: &str = "Forward";

/// On a generation: whether its agents have the first process, as a word of [`Presence`].
pub const FIRST_PROCESS_ANNOTATION: &str = "kitepool.dev/first-process";

/// The name of the volume and of the container that fills it.
pub(super) const NAME: &str = "kitepool-first";
/// Where the volume is mounted.
pub(super) const FOLDER: &str = "/var/run/kitepool/first";
/// The program in its image.
const IN_IMAGE: &str = "/kitepool-first";

/// What copying a megabyte takes; no limit may stand above its request, since a pod is `Guaranteed` only where all containers
/// are. None of it adds to what the agent asks for, since the two never run at once. Nothing is said of
/// ephemeral storage: a limit here would be that of a pod whose other containers have none.
const PROCESSOR: &str = "50m";
const MEMORY: &str = "32Mi";

/// Where the program comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirstImage {
    /// Kitepool's image, as agents' nodes find it.
    pub image: String,
    /// Secrets in the agents' namespaces to pull it with.
    pub pull_secrets: Vec<String>,
}

/// Whether agents have the first process, and why not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// They have it.
    Added,
    /// The definition does not want it.
    Declined,
    /// The controller was given no image to take it from.
    NoImage,
    /// What the container runs stands in its image alone, so there is no command to put behind it.
    NoCommand,
    /// It is a program for Linux.
    NotLinux,
}

impl Presence {
    /// The word for annotations.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Added => "Added",
            Self::Declined => "Declined",
            Self::NoImage => "NoImage",
            Self::NoCommand => "NoCommand",
            Self::NotLinux => "NotLinux",
        }
    }

    /// What a person is to know who expects the default and does not get it.
    pub const fn sentence(self) -> Option<&'static str> {
        match self {
            Self::NoCommand => Some(
                "a second SIGTERM would cancel the jobs of its agents: container `agent` has no `command`, so nothing can be put \
                 before it. Write the image's entrypoint there (for buildkite/agent `buildkite-agent-entrypoint`)",
            ),
            Self::NotLinux => Some(
                "a second signal would cancel the jobs of its agents: the process that withholds it runs on Linux alone",
            ),
            Self::Added | Self::Declined | Self::NoImage => None,
        }
    }

    fn read(word: &str) -> Option<Self> {
        let all = [Self::Added, Self::Declined, Self::NoImage, Self::NoCommand, Self::NotLinux];
        all.into_iter().find(|presence| presence.as_str() == word)
    }
}

impl Display for Presence {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// What comes of a definition.
pub fn presence(definition: &Value, image: Option<&FirstImage>) -> Presence {
    let has_command = agent(definition).is_some_and(|agent| !words(agent).is_empty());
    if wish(definition) == Some(FORWARD) {
        Presence::Declined
    } else if image.is_none() {
        Presence::NoImage
    } else if is_for_windows(definition) {
        Presence::NotLinux
    } else if has_command {
        Presence::Added
    } else {
        Presence::NoCommand
    }
}

/// What a generation's Deployment says of it.
pub fn of_generation(manifest: &Value) -> Option<Presence> {
    let annotations = manifest.get("metadata")?.get("annotations")?;
    annotations.get(FIRST_PROCESS_ANNOTATION)?.as_str().and_then(Presence::read)
}

/// Adds it to the template where [`presence`] says so. Its names are free in what the contract lets through.
pub fn add(template: &mut Value, image: Option<&FirstImage>) {
    let Some(image) = image.filter(|_| presence(template, image) == Presence::Added) else { return };
    let Some(spec) = template.get_mut("spec").and_then(Value::as_object_mut) else { return };
    let mut init = vec![copying(image, is_for_root(spec))];
    init.extend(taken(spec, "initContainers"));
    spec.insert("initContainers".to_owned(), Value::Array(init));
    append(spec, "volumes", [json!({ "name": NAME, "emptyDir": {} })]);
    let known = entries(spec, "imagePullSecrets").to_vec();
    let secrets = image.pull_secrets.iter().map(|name| json!({ "name": name }));
    let secrets: Vec<Value> = secrets.filter(|secret| !known.contains(secret)).collect();
    if !secrets.is_empty() {
        append(spec, "imagePullSecrets", secrets);
    }
    let mut containers = taken(spec, "containers");
    for agent in containers.iter_mut().filter(|container| name(container) == Some(AGENT_CONTAINER)) {
        if let Some(agent) = agent.as_object_mut() {
            put_behind(agent);
        }
    }
    spec.insert("containers".to_owned(), Value::Array(containers));
}

fn put_behind(agent: &mut Map<String, Value>) {
    let mut command = vec![json!(format!("{FOLDER}{IN_IMAGE}")), json!("--")];
    command.extend(taken(agent, "command"));
    agent.insert("command".to_owned(), Value::Array(command));
    append(agent, "volumeMounts", [json!({ "name": NAME, "mountPath": FOLDER, "readOnly": true })]);
}

/// The container that copies the program. Passes the `restricted` Pod Security Standard by itself.
fn copying(image: &FirstImage, is_for_root: bool) -> Value {
    let amounts = json!({ "cpu": PROCESSOR, "memory": MEMORY });
    let mut security = json!({
        "runAsNonRoot": true,
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "capabilities": { "drop": ["ALL"] },
        "seccompProfile": { "type": "RuntimeDefault" },
    });
    // Whatever user the pod has does; only root would be refused. Not said elsewhere, since some clusters give users themselves.
    if is_for_root && let Some(security) = security.as_object_mut() {
        security.insert("runAsUser".to_owned(), json!(NOBODY));
    }
    json!({
        "name": NAME,
        "image": image.image,
        // The tag of one version never changes, and images that were put on the nodes by hand are used.
        "imagePullPolicy": "IfNotPresent",
        "command": [IN_IMAGE, "--install", format!("{FOLDER}{IN_IMAGE}")],
        "volumeMounts": [{ "name": NAME, "mountPath": FOLDER }],
        "resources": { "requests": amounts, "limits": amounts },
        "securityContext": security,
    })
}

/// The user of Kitepool's image.
const NOBODY: i64 = 65532;

fn is_for_root(spec: &Map<String, Value>) -> bool {
    spec.get("securityContext").and_then(|security| security.get("runAsUser")).and_then(Value::as_i64) == Some(0)
}

pub(super) fn wish(definition: &Value) -> Option<&str> {
    definition.get("metadata")?.get("annotations")?.get(SECOND_SIGNAL_ANNOTATION)?.as_str()
}

fn is_for_windows(definition: &Value) -> bool {
    let spec = definition.get("spec");
    let os = spec.and_then(|spec| spec.get("os")).and_then(|os| os.get("name"));
    let node = spec.and_then(|spec| spec.get("nodeSelector")).and_then(|labels| labels.get("kubernetes.io/os"));
    [os, node].into_iter().flatten().any(|os| os == "windows")
}

fn agent(definition: &Value) -> Option<&Value> {
    let spec = definition.get("spec").and_then(Value::as_object)?;
    entries(spec, "containers").iter().find(|container| name(container) == Some(AGENT_CONTAINER))
}

fn words(container: &Value) -> &[Value] {
    container.get("command").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn name(entry: &Value) -> Option<&str> {
    entry.get("name").and_then(Value::as_str)
}

/// The list under `key`; nothing where there is none.
fn entries<'a>(object: &'a Map<String, Value>, key: &str) -> &'a [Value] {
    object.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The list under `key`, taken out.
fn taken(object: &mut Map<String, Value>, key: &str) -> Vec<Value> {
    match object.remove(key) {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    }
}

fn append(object: &mut Map<String, Value>, key: &str, more: impl IntoIterator<Item = Value>) {
    let mut list = taken(object, key);
    list.extend(more);
    object.insert(key.to_owned(), Value::Array(list));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> FirstImage {
        FirstImage { image: "registry/kitepool:1".to_owned(), pull_secrets: vec!["registry".to_owned()] }
    }

    fn definition() -> Value {
        json!({ "spec": {
            "initContainers": [{ "name": "docker", "restartPolicy": "Always" }],
            "imagePullSecrets": [{ "name": "agents" }],
            "containers": [{ "name": "other" }, { "name": "agent", "command": ["entry", "point"], "args": ["start"] }],
        } })
    }

    fn added(mut template: Value, image: &FirstImage) -> Value {
        add(&mut template, Some(image));
        template
    }

    #[test]
    fn the_agent_s_command_is_put_behind_a_program_that_is_copied_before_all_else() {
        let template = added(definition(), &image());
        let agent = &template["spec"]["containers"][1];
        assert_eq!(agent["command"], json!(["/var/run/kitepool/first/kitepool-first", "--", "entry", "point"]));
        assert_eq!(agent["args"], json!(["start"]));
        assert_eq!(agent["volumeMounts"][0]["readOnly"], true);
        assert!(template["spec"]["containers"][0].get("command").is_none(), "the others are left alone");
        let init = template["spec"]["initContainers"].as_array().unwrap();
        assert_eq!(init.iter().map(|init| name(init).unwrap()).collect::<Vec<_>>(), ["kitepool-first", "docker"]);
        assert_eq!(init[0]["image"], "registry/kitepool:1");
        assert_eq!(init[0]["resources"]["requests"], init[0]["resources"]["limits"], "a pod may stay Guaranteed");
        assert_eq!(template["spec"]["imagePullSecrets"], json!([{ "name": "agents" }, { "name": "registry" }]));
        assert_eq!(template["spec"]["volumes"], json!([{ "name": "kitepool-first", "emptyDir": {} }]));
    }

    #[test]
    fn a_pod_of_root_copies_as_somebody_else_and_others_as_they_are() {
        let mut of_root = definition();
        of_root["spec"]["securityContext"] = json!({ "runAsUser": 0 });
        let security = |template: Value| template["spec"]["initContainers"][0]["securityContext"].clone();
        assert_eq!(security(added(of_root, &image()))["runAsUser"], 65532);
        let plain = security(added(definition(), &image()));
        assert!(plain.get("runAsUser").is_none() && plain["runAsNonRoot"] == true, "{plain}");
    }

    #[test]
    fn nothing_is_added_where_it_is_not_wanted_or_cannot_be() {
        let mut declined = definition();
        declined["metadata"]["annotations"][SECOND_SIGNAL_ANNOTATION] = json!(FORWARD);
        let mut silent = definition();
        silent["spec"]["containers"][1]["command"] = json!([]);
        let mut windows = definition();
        windows["spec"]["nodeSelector"] = json!({ "kubernetes.io/os": "windows" });
        for (definition, expected) in
            [(declined, Presence::Declined), (silent, Presence::NoCommand), (windows, Presence::NotLinux)]
        {
            assert_eq!(presence(&definition, Some(&image())), expected);
            assert_eq!(added(definition.clone(), &image()), definition, "{expected}");
        }
        let mut template = definition();
        add(&mut template, None);
        assert_eq!((presence(&template, None), template), (Presence::NoImage, definition()));
    }

    #[test]
    fn the_default_may_be_written_down() {
        let mut spelt = definition();
        spelt["metadata"]["annotations"][SECOND_SIGNAL_ANNOTATION] = json!(WITHHOLD);
        assert_eq!(presence(&spelt, Some(&image())), Presence::Added);
    }

    #[test]
    fn a_generation_says_whether_its_agents_have_it() {
        for presence in
            [Presence::Added, Presence::NoCommand, Presence::Declined, Presence::NoImage, Presence::NotLinux]
        {
            let manifest = json!({ "metadata": { "annotations": { FIRST_PROCESS_ANNOTATION: presence.as_str() } } });
            assert_eq!(of_generation(&manifest), Some(presence));
        }
        assert_eq!(of_generation(&json!({ "metadata": {} })), None);
    }
}
