//! What a patch makes of an object.

use serde_json::Value;

use super::{kind::Kind, refusal::Refusal};

/// The format of a patch, by its content type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    Merge,
    Strategic,
    Apply,
}

const CUSTOM: &str = "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";
const BUILT_IN: &str = "application/json-patch+json, application/merge-patch+json, \
     application/strategic-merge-patch+json, application/apply-patch+yaml";

impl Format {
    /// Objects of a definition know no strategic patches.
    pub(super) fn of(content_type: &str, kind: Kind) -> Result<Self, Refusal> {
        let is_custom = kind.is_custom();
        match content_type.split(';').next().unwrap_or_default().trim() {
            "application/json-patch+json" => Ok(Self::Json),
            "application/merge-patch+json" => Ok(Self::Merge),
            "application/strategic-merge-patch+json" if !is_custom => Ok(Self::Strategic),
            "application/apply-patch+yaml" => Ok(Self::Apply),
            _ => Err(Refusal::unknown_format(if is_custom { CUSTOM } else { BUILT_IN })),
        }
    }
}

/// Patches a value in any way but by apply.
pub(super) fn patched(mut value: Value, patch: &Value, format: Format) -> Result<Value, Refusal> {
    match format {
        Format::Json => {
            let patch: json_patch::Patch =
                serde_json::from_value(patch.clone()).map_err(|error| Refusal::bad_request(error.to_string()))?;
            json_patch::patch(&mut value, &patch).map_err(|_does_not_fit| Refusal::patch_failed())?;
        }
        Format::Strategic if has_lists_or_directives(patch) => {
            return Err(Refusal::unknown("a strategic patch of a list, or one with a directive"));
        }
        // Without lists and directives the two are the same.
        Format::Merge | Format::Strategic => json_patch::merge(&mut value, patch),
        Format::Apply => return Err(Refusal::unknown("an apply of this")),
    }
    Ok(value)
}

fn has_lists_or_directives(patch: &Value) -> bool {
    match patch {
        Value::Array(_) => true,
        Value::Object(map) => map.iter().any(|(key, value)| key.starts_with('$') || has_lists_or_directives(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_failed_test_says_no_more_than_that_the_request_is_wrong() {
        let patch = json!([
            { "op": "test", "path": "/spec/replicas", "value": 2 },
            { "op": "replace", "path": "/spec/replicas", "value": 3 },
        ]);
        assert_eq!(patched(json!({ "spec": { "replicas": 2 } }), &patch, Format::Json).unwrap()["spec"]["replicas"], 3);
        let refusal = patched(json!({ "spec": { "replicas": 1 } }), &patch, Format::Json).unwrap_err();
        assert_eq!(refusal, Refusal::patch_failed());
    }

    #[test]
    fn a_null_takes_a_field_away_and_a_list_is_too_much_for_a_strategic_patch() {
        let patch = json!({ "spec": { "holder": null } });
        assert_eq!(
            patched(json!({ "spec": { "holder": "a", "n": 1 } }), &patch, Format::Strategic).unwrap(),
            json!({ "spec": { "n": 1 } })
        );
        assert_eq!(patched(json!({}), &json!({ "list": [] }), Format::Strategic).unwrap_err().code, 501);
    }

    #[test]
    fn objects_of_a_definition_take_no_strategic_patch() {
        let strategic = "application/strategic-merge-patch+json";
        assert_eq!(Format::of(strategic, Kind::Lease), Ok(Format::Strategic));
        assert_eq!(Format::of(strategic, Kind::AgentPool).unwrap_err().code, 415);
    }
}
