//! What a container finds in its environment, and how `$(NAME)` is replaced, as the kubelet does both.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource, Pod};
use kube::ResourceExt as _;

use super::objects::Objects;

/// What a pod knows of itself once it is on a node.
#[derive(Debug, Clone)]
pub(crate) struct Downward {
    pub(crate) pod: Pod,
    pub(crate) node: String,
    pub(crate) address: String,
    pub(crate) host_address: String,
}

impl Downward {
    /// The value of a `fieldRef`.
    pub(crate) fn field(&self, path: &str) -> Result<String, String> {
        let spec = self.pod.spec.as_ref();
        Ok(match path {
            "metadata.name" => self.pod.name_any(),
            "metadata.namespace" => self.pod.namespace().unwrap_or_default(),
            "metadata.uid" => self.pod.uid().unwrap_or_default(),
            "metadata.labels" => quoted_lines(self.pod.labels()),
            "metadata.annotations" => quoted_lines(self.pod.annotations()),
            "spec.nodeName" => self.node.clone(),
            "spec.serviceAccountName" => spec.and_then(|spec| spec.service_account_name.clone()).unwrap_or_default(),
            "status.podIP" | "status.podIPs" => self.address.clone(),
            "status.hostIP" | "status.hostIPs" => self.host_address.clone(),
            _ => self.entry(path).ok_or_else(|| format!("unsupported fieldPath: {path}"))?,
        })
    }

    /// `metadata.labels['key']` and `metadata.annotations['key']`; a key that is not there is empty.
    fn entry(&self, path: &str) -> Option<String> {
        let (map, key) = path.split_once("['")?;
        let key = key.strip_suffix("']")?;
        let map = match map {
            "metadata.labels" => self.pod.labels(),
            "metadata.annotations" => self.pod.annotations(),
            _ => return None,
        };
        Some(map.get(key).cloned().unwrap_or_default())
    }
}

/// As a volume of the downward API shows a map.
fn quoted_lines(map: &BTreeMap<String, String>) -> String {
    let lines: Vec<String> = map.iter().map(|(key, value)| format!("{key}={value:?}")).collect();
    lines.join("\n")
}

/// The variables that the pod's definition gives a container; what the image brings is not among them.
pub(crate) async fn variables(
    container: &Container,
    downward: &Downward,
    objects: &Objects,
) -> Result<BTreeMap<String, String>, String> {
    let mut known = BTreeMap::new();
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.clone().unwrap_or_default();
        let entries = if let Some(secret) = &source.secret_ref {
            objects.secret(&secret.name, secret.optional == Some(true)).await?
        } else if let Some(map) = &source.config_map_ref {
            objects.config_map(&map.name, map.optional == Some(true)).await?
        } else {
            BTreeMap::new()
        };
        known.extend(entries.into_iter().map(|(key, value)| (format!("{prefix}{key}"), text(&value))));
    }
    for variable in container.env.iter().flatten() {
        if let Some(value) = value(variable, &known, downward, objects).await? {
            known.insert(variable.name.clone(), value);
        }
    }
    Ok(known)
}

async fn value(
    variable: &EnvVar,
    known: &BTreeMap<String, String>,
    downward: &Downward,
    objects: &Objects,
) -> Result<Option<String>, String> {
    match (&variable.value, &variable.value_from) {
        (Some(value), _) if !value.is_empty() => Ok(Some(expand(value, known))),
        (_, Some(source)) => referred(source, downward, objects).await,
        _ => Ok(Some(String::new())),
    }
}

/// `None`: an optional reference to what is not there, so there is no variable.
async fn referred(source: &EnvVarSource, downward: &Downward, objects: &Objects) -> Result<Option<String>, String> {
    if let Some(field) = &source.field_ref {
        return downward.field(&field.field_path).map(Some);
    }
    let (entries, key, is_optional, what) = if let Some(secret) = &source.secret_key_ref {
        let is_optional = secret.optional == Some(true);
        (objects.secret(&secret.name, is_optional).await?, &secret.key, is_optional, format!("Secret {}", secret.name))
    } else if let Some(map) = &source.config_map_key_ref {
        let is_optional = map.optional == Some(true);
        (objects.config_map(&map.name, is_optional).await?, &map.key, is_optional, format!("ConfigMap {}", map.name))
    } else {
        return Err("this kubelet knows no resourceFieldRef".to_owned());
    };
    match entries.get(key) {
        Some(value) => Ok(Some(text(value))),
        None if is_optional => Ok(None),
        None => Err(format!("couldn't find key {key} in {what}")),
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Replaces `$(NAME)` by what is known; `$$` stands for `$`, and what is not known stays as it is.
pub(crate) fn expand(text: &str, known: &BTreeMap<String, String>) -> String {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push_str(before);
        rest = after;
        if let Some(after) = rest.strip_prefix('$') {
            expanded.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            if let Some(value) = known.get(name) {
                expanded.push_str(value);
            } else {
                expanded.push_str("$(");
                expanded.push_str(name);
                expanded.push(')');
            }
            rest = after;
        } else {
            expanded.push('$');
        }
    }
    expanded.push_str(rest);
    expanded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_replaced_as_the_documentation_of_kubernetes_says() {
        let known = BTreeMap::from([("A".to_owned(), "one".to_owned()), ("EMPTY".to_owned(), String::new())]);
        for (text, expected) in [
            ("$(A)", "one"),
            ("x$(A)y$(A)", "xoneyone"),
            ("$(EMPTY)!", "!"),
            ("$(UNKNOWN)", "$(UNKNOWN)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$one"),
            ("$$$$(A)", "$$(A)"),
            ("$A", "$A"),
            ("$(A", "$(A"),
            ("50$", "50$"),
            ("$()", "$()"),
            ("$($(A))", "$($(A))"),
            ("ä$(A)ö", "äoneö"),
        ] {
            assert_eq!(expand(text, &known), expected, "{text}");
        }
    }

    #[test]
    fn a_pod_finds_its_own_fields() {
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": { "name": "p", "namespace": "n", "uid": "u", "labels": { "a/b": "c" }, "annotations": { "d": "e f" } },
        }))
        .unwrap();
        let downward = Downward {
            pod,
            node: "m".to_owned(),
            address: "127.1.2.3".to_owned(),
            host_address: "127.0.0.1".to_owned(),
        };
        for (path, expected) in [
            ("metadata.name", "p"),
            ("metadata.namespace", "n"),
            ("metadata.uid", "u"),
            ("metadata.labels['a/b']", "c"),
            ("metadata.labels['x']", ""),
            ("metadata.annotations['d']", "e f"),
            ("metadata.annotations", "d=\"e f\""),
            ("spec.nodeName", "m"),
            ("status.podIP", "127.1.2.3"),
            ("status.podIPs", "127.1.2.3"),
            ("status.hostIP", "127.0.0.1"),
        ] {
            assert_eq!(downward.field(path).as_deref(), Ok(expected), "{path}");
        }
        assert!(downward.field("spec.schedulerName").is_err());
    }
}
