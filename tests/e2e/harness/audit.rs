//! What the controllers of a run asked of the API server, from its audit log, and what the chart lets them ask.

use std::{collections::BTreeSet, fmt, io::BufRead as _, path::Path};

use serde_json::Value;

use super::chart::{self, RELEASE};

/// One right, as RBAC knows it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Right {
    verb: String,
    group: String,
    /// With the subresource, as a Role writes it.
    resource: String,
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let group = if self.group.is_empty() { "core" } else { &self.group };
        write!(f, "{} {group}/{}", self.verb, self.resource)
    }
}

/// The rights that the chart's Roles grant in the namespace of the release.
pub(crate) fn granted() -> BTreeSet<Right> {
    let documents = chart::documents("anywhere");
    let roles = documents.iter().filter(|document| document["kind"] == "Role");
    let mut rights = BTreeSet::new();
    for rule in roles.flat_map(|role| role["rules"].as_array().into_iter().flatten()) {
        for (verb, group, resource) in combinations(rule) {
            rights.insert(Right { verb, group, resource });
        }
    }
    rights
}

fn combinations(rule: &Value) -> impl Iterator<Item = (String, String, String)> {
    let words = |key: &str| -> Vec<String> {
        let listed = rule[key].as_array().into_iter().flatten();
        listed.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let (verbs, groups, resources) = (words("verbs"), words("apiGroups"), words("resources"));
    let mut all = Vec::new();
    for verb in &verbs {
        for group in &groups {
            for resource in &resources {
                all.push((verb.clone(), group.clone(), resource.clone()));
            }
        }
    }
    all.into_iter()
}

/// What a run's controllers asked for.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    /// Allowed.
    pub(crate) used: BTreeSet<Right>,
    /// Refused for want of a right, in namespaces of cases that do not take rights away on purpose.
    pub(crate) denied: BTreeSet<String>,
    /// How many lines were about our controllers.
    pub(crate) requests: usize,
}

/// Reads a whole audit log.
pub(crate) fn asked(log: &Path, is_deprived: impl Fn(&str) -> bool) -> Asked {
    let file = std::fs::File::open(log).expect("the audit log");
    let mut asked = Asked::default();
    for line in std::io::BufReader::new(file).lines() {
        let line = line.expect("a line");
        // A server that was killed may have left half a line.
        let Ok(event) = serde_json::from_str::<Value>(&line) else { continue };
        let user = event.pointer("/user/username").and_then(Value::as_str).unwrap_or_default();
        let Some(namespace) = controller_namespace(user) else { continue };
        let Some(right) = right(&event) else { continue };
        asked.requests += 1;
        match event.pointer("/annotations/authorization.k8s.io~1decision").and_then(Value::as_str) {
            Some("allow") => {
                asked.used.insert(right);
            }
            _ if is_deprived(namespace) => {}
            _ => {
                asked.denied.insert(format!("{right} in {namespace}"));
            }
        }
    }
    asked
}

/// The namespace, when the user is the controller of a case.
fn controller_namespace(user: &str) -> Option<&str> {
    let (namespace, account) = user.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    (account == RELEASE && namespace.starts_with("e2e-")).then_some(namespace)
}

/// `None` for what is no object, such as the `OpenAPI` document, which everybody may read.
fn right(event: &Value) -> Option<Right> {
    let object = event.get("objectRef")?;
    let text = |key: &str| object[key].as_str().unwrap_or_default();
    let resource = match text("subresource") {
        "" => text("resource").to_owned(),
        subresource => format!("{}/{subresource}", text("resource")),
    };
    Some(Right { verb: event["verb"].as_str()?.to_owned(), group: text("apiGroup").to_owned(), resource })
}
