//! The generation that a pool asks for: its name, and the Deployment to create under it.

use std::{collections::BTreeMap, fmt::Write as _};

use kitepool_api::{GENERATION_LABEL, MANAGED_BY_LABEL, POOL_LABEL, Problem, QUEUE_LABEL};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::{
    contract::INJECTION_VERSION,
    first::{FIRST_PROCESS_ANNOTATION, Presence},
    render::{Overrides, Rendered, render},
};

/// The annotation under which a generation keeps the hash of what it was made of, the controller's additions apart.
pub const INPUTS_ANNOTATION: &str = "kitepool.dev/inputs";

/// Ten hexadecimal digits: with two generations at a time a chance of one in a million million that two are alike.
const NAME_HASH_DIGITS: usize = 10;

/// The value of the managed-by label.
pub const MANAGED_BY: &str = "kitepool";

/// Which pool a generation is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The pool's namespace.
    pub namespace: String,
    /// The pool's name.
    pub name: String,
    /// The pool's uid.
    pub uid: String,
}

impl Owner {
    /// What is the pool's is deleted with it. Not blocking: that would take a right on the pool's finalizers.
    pub(super) fn reference(&self) -> Value {
        json!({
            "apiVersion": "kitepool.dev/v1alpha1",
            "kind": "AgentPool",
            "name": self.name,
            "uid": self.uid,
            "controller": true,
            "blockOwnerDeletion": false,
        })
    }
}

/// A generation to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// The Deployment's name.
    pub name: String,
    /// See [`INPUTS_ANNOTATION`].
    pub inputs: String,
    /// Whether its agents have the first process, if it is created now.
    pub first_process: Presence,
    template: Value,
}

/// Renders the definition and names the generation. `existing` are the inputs and names of the pool's generations: one made
/// of the same inputs stays the wanted one, whatever this version of the controller would add, so that an upgrade touches no
/// agent.
pub fn plan(
    owner: &Owner,
    definition: &Value,
    overrides: &Overrides,
    path: &str,
    existing: &BTreeMap<String, String>,
) -> Result<Planned, Vec<Problem>> {
    let Rendered { template, first_process } = render(definition, overrides, path)?;
    let mut made_of = json!({
        "definition": definition,
        "queue": overrides.queue,
        "tags": overrides.tags,
        "token": token(overrides),
        "agentsPerPod": overrides.agents_per_pod,
        "longestJobSeconds": overrides.longest_job.as_secs(),
        "endpoint": overrides.endpoint,
    });
    // Left out where there are none, so that pools keep the generation that they had before there could be any.
    if !overrides.pod.is_empty()
        && let Some(inputs) = made_of.as_object_mut()
    {
        inputs.insert("overrides".to_owned(), json!(overrides.pod));
    }
    let inputs = digest(&made_of);
    let name = existing.get(&inputs).cloned().unwrap_or_else(|| {
        let hash = digest(&json!({ "inputs": inputs, "injection": INJECTION_VERSION }));
        let short: String = hash.chars().take(NAME_HASH_DIGITS).collect();
        format!("{}-{short}", owner.name)
    });
    Ok(Planned { name, inputs, first_process, template })
}

fn token(overrides: &Overrides) -> Value {
    match &overrides.token {
        kitepool_api::validate::TokenSource::Secret { name, key } => json!({ "secret": name, "key": key }),
        kitepool_api::validate::TokenSource::File(path) => json!({ "file": path }),
    }
}

/// SHA-256 in hexadecimal. `serde_json` keeps objects in the order of their keys, so equal values give equal digests.
fn digest(value: &Value) -> String {
    let bytes = Sha256::digest(value.to_string().as_bytes());
    bytes.iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

impl Planned {
    /// What its pods are made of, but for the labels that say whose they are.
    pub const fn template(&self) -> &Value {
        &self.template
    }

    /// The Deployment. Its template never changes after this.
    pub fn manifest(&self, owner: &Owner, queue: &str, replicas: u32) -> Value {
        let mut labels = Map::new();
        labels.insert(POOL_LABEL.to_owned(), json!(owner.name));
        labels.insert(GENERATION_LABEL.to_owned(), json!(self.name));
        labels.insert(MANAGED_BY_LABEL.to_owned(), json!(MANAGED_BY));
        labels.insert(QUEUE_LABEL.to_owned(), json!(kitepool_api::label_value(queue)));
        let selector = json!({ POOL_LABEL: owner.name, GENERATION_LABEL: self.name });

        let mut template = self.template.clone();
        if let Some(template) = template.as_object_mut() {
            let metadata = template.entry("metadata").or_insert_with(|| json!({}));
            if let Some(metadata) = metadata.as_object_mut() {
                // A template has no identity of its own.
                metadata.retain(|key, _| matches!(key.as_str(), "labels" | "annotations"));
                let theirs = metadata.entry("labels").or_insert_with(|| json!({}));
                match theirs.as_object_mut() {
                    Some(theirs) => theirs.extend(labels.clone()),
                    None => *theirs = Value::Object(labels.clone()),
                }
            }
        }
        json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {
                "name": self.name,
                "namespace": owner.namespace,
                "labels": labels,
                "annotations": { INPUTS_ANNOTATION: self.inputs, FIRST_PROCESS_ANNOTATION: self.first_process.as_str() },
                "ownerReferences": [owner.reference()],
            },
            "spec": {
                "replicas": replicas,
                "revisionHistoryLimit": 0,
                "selector": { "matchLabels": selector },
                "template": template,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, time::Duration};

    use kitepool_api::{PodOverrides, validate::TokenSource};

    use super::{super::first, *};

    fn owner() -> Owner {
        Owner { namespace: "ci".to_owned(), name: "linux".to_owned(), uid: "u".to_owned() }
    }

    fn overrides() -> Overrides {
        Overrides {
            queue: "linux/big".to_owned(),
            tags: BTreeSet::new(),
            token: TokenSource::Secret { name: "agent-token".to_owned(), key: "token".to_owned() },
            agents_per_pod: 1,
            longest_job: Duration::from_mins(1),
            endpoint: None,
            first: None,
            pod: PodOverrides::default(),
        }
    }

    fn planned(definition: &Value, overrides: &Overrides, existing: &BTreeMap<String, String>) -> Planned {
        plan(&owner(), definition, overrides, "template", existing).unwrap()
    }

    #[test]
    fn the_same_definition_and_overrides_give_the_same_generation() {
        let one = json!({ "spec": { "containers": [{ "name": "agent", "image": "i" }] } });
        let reordered: Value =
            serde_json::from_str(r#"{"spec":{"containers":[{"image":"i","name":"agent"}]}}"#).unwrap();
        let nothing = BTreeMap::new();
        assert_eq!(planned(&one, &overrides(), &nothing), planned(&reordered, &overrides(), &nothing));
        let longer = Overrides { longest_job: Duration::from_secs(61), ..overrides() };
        assert_ne!(planned(&one, &overrides(), &nothing).name, planned(&one, &longer, &nothing).name);
        let changed = PodOverrides { image: Some("j".to_owned()), ..PodOverrides::default() };
        let changed = Overrides { pod: changed, ..overrides() };
        assert_ne!(planned(&one, &overrides(), &nothing).name, planned(&one, &changed, &nothing).name);
    }

    #[test]
    fn a_generation_made_of_the_same_stays_wanted_whatever_its_name() {
        let definition = json!({ "spec": { "containers": [{ "name": "agent" }] } });
        let fresh = planned(&definition, &overrides(), &BTreeMap::new());
        let made_by_an_older_version = BTreeMap::from([(fresh.inputs, "linux-0123456789".to_owned())]);
        assert_eq!(planned(&definition, &overrides(), &made_by_an_older_version).name, "linux-0123456789");
    }

    #[test]
    fn another_image_of_the_first_process_or_none_is_no_other_generation() {
        let definition = json!({ "spec": { "containers": [{ "name": "agent", "command": ["buildkite-agent"] }] } });
        let from = |image: &str| Overrides {
            first: Some(first::FirstImage { image: image.to_owned(), pull_secrets: Vec::new() }),
            ..overrides()
        };
        let planned = |overrides: &Overrides| planned(&definition, overrides, &BTreeMap::new());
        let (none, old, new) = (planned(&overrides()), planned(&from("kitepool:1")), planned(&from("kitepool:2")));
        assert_eq!((&none.inputs, &none.name), (&old.inputs, &old.name));
        assert_eq!((&old.inputs, &old.name), (&new.inputs, &new.name));
        // What is created now is made of what there is now.
        let manifest = new.manifest(&owner(), "linux", 0);
        assert_eq!(manifest["spec"]["template"]["spec"]["initContainers"][0]["image"], "kitepool:2");
        assert_eq!(first::of_generation(&manifest), Some(Presence::Added));
        assert_eq!(first::of_generation(&none.manifest(&owner(), "linux", 0)), Some(Presence::NoImage));
    }

    #[test]
    fn a_name_and_its_labels_are_the_pools_own() {
        let definition = json!({
            "metadata": { "name": "x", "labels": { "team": "a", "kitepool.dev/pool": "forged" } },
            "spec": { "containers": [{ "name": "agent" }] },
        });
        let planned = planned(&definition, &overrides(), &BTreeMap::new());
        let manifest = planned.manifest(&owner(), "linux/big", 3);
        assert_eq!(manifest["spec"]["replicas"], 3);
        let labels = &manifest["spec"]["template"]["metadata"]["labels"];
        assert_eq!(labels["team"], "a");
        assert_eq!(labels["kitepool.dev/pool"], "linux");
        assert!(manifest["spec"]["template"]["metadata"].get("name").is_none());
        for (key, value) in manifest["spec"]["selector"]["matchLabels"].as_object().unwrap() {
            assert_eq!(&labels[key], value);
        }
    }
}
