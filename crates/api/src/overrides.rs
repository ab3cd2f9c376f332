//! What a pool changes of its pod definition, so that one definition serves pools of several shapes.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use k8s_openapi::api::core::v1::{EnvFromSource, EnvVar, Toleration};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    agent_pool::NAME_MAX,
    rules::{self, validations},
};

/// The longest reference of an image: registries take 255 characters for the name, and a digest has 71.
pub const IMAGE_MAX: usize = 512;
/// The longest prefix: with the pod's name behind it an agent's name still is one that people read.
pub const PREFIX_MAX: usize = 63;
/// The most entries of a list or map in here.
pub const ENTRIES_MAX: usize = 100;
/// The longest quantity.
pub const AMOUNT_MAX: usize = 32;
/// The longest text that Kubernetes' own types have in here: the value of a variable.
const TEXT_MAX: usize = 32_768;

/// Changes of the pod definition, for this pool alone. Those of the container are made to the one named `agent`.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PodOverrides {
    /// The agent's image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = IMAGE_MAX), extend("x-kubernetes-validations" = validations(&[rules::IMAGE])))]
    pub image: Option<String>,
    /// The agent's requests and limits: each that is named replaces the definition's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// The agent's variables: each replaces the definition's of the same name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = ENTRIES_MAX),
        transform = bounded,
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub env: Vec<EnvVar>,
    /// More sources of the agent's variables, behind the definition's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = ENTRIES_MAX), transform = bounded)]
    pub env_from: Vec<EnvFromSource>,
    /// Labels that the pods' nodes must have: each replaces the definition's of the same name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(transform = bounded, extend("maxProperties" = ENTRIES_MAX))]
    pub node_selector: BTreeMap<String, String>,
    /// More tolerations, behind the definition's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = ENTRIES_MAX), transform = bounded)]
    pub tolerations: Vec<Toleration>,
    /// The pods' service account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = NAME_MAX), extend("x-kubernetes-validations" = validations(&[rules::OBJECT_NAME])))]
    pub service_account_name: Option<String>,
    /// What the agents' names begin with, before `%hostname-%spawn`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = PREFIX_MAX), extend("x-kubernetes-validations" = validations(&[rules::NAME_PREFIX])))]
    pub name_prefix: Option<String>,
    /// Everything else: a strategic merge patch of the pod template (`metadata`, `spec`), after all of the above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_patch: Option<PodPatch>,
}

impl PodOverrides {
    /// Whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Requests and limits.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// What is set aside for it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = ENTRIES_MAX))]
    pub requests: BTreeMap<String, Amount>,
    /// The most it gets.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = ENTRIES_MAX))]
    pub limits: BTreeMap<String, Amount>,
}

/// A quantity as people write it: `2` or `"500m"` or `1Gi`.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(untagged)]
pub enum Amount {
    /// Without quotes.
    Whole(i64),
    /// With a unit.
    Text(String),
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(number) => number.fmt(f),
            Self::Text(text) => text.fmt(f),
        }
    }
}

impl JsonSchema for Amount {
    fn schema_name() -> Cow<'static, str> {
        "Amount".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "maxLength": AMOUNT_MAX,
            "x-kubernetes-validations": validations(&[rules::AMOUNT]),
        })
    }
}

/// A part of a pod template, kept as it was written.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(transparent)]
pub struct PodPatch(pub Value);

impl JsonSchema for PodPatch {
    fn schema_name() -> Cow<'static, str> {
        "PodPatch".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
    }
}

/// Kubernetes' own types have no bounds, and the API server reckons a rule beside an unbounded text with the worst case.
fn bounded(schema: &mut Schema) {
    if let Some(object) = schema.as_object_mut() {
        for value in object.values_mut() {
            bound(value);
        }
    }
}

fn bound(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            let is_free = ["maxLength", "enum", "format"].iter().all(|key| !fields.contains_key(*key));
            match fields.get("type").and_then(Value::as_str) {
                Some("string") if is_free => {
                    fields.insert("maxLength".to_owned(), TEXT_MAX.into());
                }
                Some("array") if !fields.contains_key("maxItems") => {
                    fields.insert("maxItems".to_owned(), ENTRIES_MAX.into());
                }
                _ => {}
            }
            fields.values_mut().for_each(bound);
        }
        Value::Array(values) => values.iter_mut().for_each(bound),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
