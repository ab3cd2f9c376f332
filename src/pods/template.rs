//! Looks into a pod template: JSON of any shape, of which what is not there is simply absent.

use serde_json::{Map, Value};

use super::contract::AGENT_CONTAINER;

/// The text under `key`.
pub(super) fn text<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value.get(key).and_then(Value::as_str)
}

/// The entries under `key`.
pub(super) fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The fields under `key`.
pub(super) fn fields<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    value.get(key).and_then(Value::as_object).into_iter().flat_map(Map::iter)
}

/// The container named `agent`.
pub(super) fn agent(template: &Value) -> Option<&Value> {
    list(template.get("spec")?, "containers").iter().find(|container| text(container, "name") == Some(AGENT_CONTAINER))
}

/// A variable of a container's environment.
pub(super) fn variable<'a>(container: &'a Value, name: &str) -> Option<&'a Value> {
    list(container, "env").iter().find(|variable| text(variable, "name") == Some(name))
}

/// What a container runs, as far as the definition says it: its command, and its arguments.
pub(super) fn words(container: &Value) -> Vec<&str> {
    let (command, arguments) = (list(container, "command"), list(container, "args"));
    command.iter().chain(arguments).filter_map(Value::as_str).collect()
}

/// All containers with the list that each stands in.
pub(super) fn containers(template: &Value) -> impl Iterator<Item = (&'static str, &Value)> {
    let lists = ["containers", "initContainers"];
    let spec = template.get("spec");
    lists.into_iter().flat_map(move |kind| {
        spec.map_or(&[][..], |spec| list(spec, kind)).iter().map(move |container| (kind, container))
    })
}

/// Where a container stands, for people.
pub(super) fn place(path: &str, kind: &str, container: &Value) -> String {
    format!("{path}.spec.{kind}[{}]", text(container, "name").unwrap_or_default())
}
