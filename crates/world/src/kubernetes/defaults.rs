//! The few defaults of the API server that the controller meets.

use serde_json::{Map, Value, json};

use super::{
    Kubernetes,
    kind::Kind,
    object::{assign, number, set, text, texts},
    verbs::DEFAULT_GRACE,
};

/// Fills in what was left out.
pub(super) fn fill_in(kind: Kind, object: &mut Value) {
    for field in ["labels", "annotations"] {
        let is_empty = |map: &Value| map.is_null() || map.as_object().is_some_and(Map::is_empty);
        if object.get("metadata").and_then(|metadata| metadata.get(field)).is_some_and(is_empty) {
            assign(object, &["metadata", field], None);
        }
    }
    match kind {
        Kind::Deployment | Kind::ReplicaSet => {
            if number(object, "/spec/replicas").is_none() {
                set(object, &["spec", "replicas"], json!(1));
            }
            if object.get("status").is_none() {
                set(object, &["status"], json!({}));
            }
            pod_spec(object, &["spec", "template", "spec"]);
        }
        Kind::PodTemplate => pod_spec(object, &["template", "spec"]),
        Kind::Pod => {
            pod_spec(object, &["spec"]);
            if text(object, "/status/phase").is_empty() {
                set(object, &["status", "phase"], json!("Pending"));
            }
        }
        Kind::Secret => {
            written_as_text(kind, object);
            if text(object, "/type").is_empty() {
                set(object, &["type"], json!("Opaque"));
            }
        }
        Kind::Lease if object.get("spec").is_none() => set(object, &["spec"], json!({})),
        Kind::AgentPool | Kind::JobHint | Kind::ResourceQuota | Kind::Event | Kind::Lease => {}
    }
}

impl Kubernetes {
    /// Fills in what the definition of a kind has a default for.
    pub(super) fn fill_in_schema(&self, kind: Kind, object: &mut Value) {
        let definition = kind.is_custom().then(|| self.definition(kind)).flatten();
        if let Some(schema) = definition.and_then(|it| it.pointer("/spec/versions/0/schema/openAPIV3Schema")) {
            defaults_of(schema, object);
        }
    }
}

/// Down to where the object has nothing; a default is filled in itself.
fn defaults_of(schema: &Value, value: &mut Value) {
    if let (Some(properties), Some(map)) = (schema.get("properties").and_then(Value::as_object), value.as_object_mut())
    {
        for (name, property) in properties {
            if let (false, Some(default)) = (map.contains_key(name), property.get("default")) {
                map.insert(name.clone(), default.clone());
            }
            if let Some(value) = map.get_mut(name) {
                defaults_of(property, value);
            }
        }
    }
    if let (Some(items), Some(list)) = (schema.get("items"), value.as_array_mut()) {
        for item in list {
            defaults_of(items, item);
        }
    }
}

fn pod_spec(object: &mut Value, path: &[&str]) {
    for (field, default) in
        [("terminationGracePeriodSeconds", json!(DEFAULT_GRACE)), ("restartPolicy", json!("Always"))]
    {
        let pointer = format!("/{}/{field}", path.join("/"));
        if object.pointer(&pointer).is_none_or(Value::is_null) {
            set(object, &[path, &[field]].concat(), default);
        }
    }
}

/// The `stringData` of a Secret is written as `data` and never read.
pub(super) fn written_as_text(kind: Kind, secret: &mut Value) {
    if kind != Kind::Secret {
        return;
    }
    for (key, value) in texts(secret, "/stringData") {
        set(secret, &["data", &key], json!(base64(value.as_bytes())));
    }
    assign(secret, &["stringData"], None);
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let bits = (0..3).fold(0_usize, |bits, index| bits << 8 | usize::from(three.get(index).copied().unwrap_or(0)));
        for place in 0..4 {
            let digit = DIGITS.get(bits >> (18 - 6 * place) & 63).copied().unwrap_or(b'=');
            text.push(char::from(if place > three.len() { b'=' } else { digit }));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_written_as_text_is_read_as_base64() {
        for (plain, coded) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("token-1", "dG9rZW4tMQ==")] {
            let mut secret = json!({ "stringData": { "k": plain } });
            fill_in(Kind::Secret, &mut secret);
            assert_eq!(secret, json!({ "data": { "k": coded }, "type": "Opaque" }));
        }
    }

    #[test]
    fn a_deployment_that_says_nothing_has_one_replica_and_half_a_minute() {
        let mut deployment = json!({});
        fill_in(Kind::Deployment, &mut deployment);
        assert_eq!(deployment["spec"]["replicas"], 1);
        assert_eq!(deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"], 30);
    }
}
