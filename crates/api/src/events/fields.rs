//! One field of a JSON object at a time, by its path: absent and `null` are the same, and a sentence never repeats what came in.

use serde_json::Value;

use super::Unusable;
use crate::Problem;

/// The most characters of an outsider's word that are repeated.
const WORD_MAX: usize = 64;

/// The value at a path such as `detail.job.uuid`; `null` on the way is absence.
pub(super) fn at<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(object, |value, key| value.get(key)).filter(|value| !value.is_null())
}

/// A text that must be there.
pub(super) fn text<'a>(object: &'a Value, path: &str, remedy: &str) -> Result<&'a str, Unusable> {
    optional_text(object, path, remedy)?.ok_or_else(|| malformed(path, "it is missing", remedy))
}

/// A text that may be missing, but must be one if it is there.
pub(super) fn optional_text<'a>(object: &'a Value, path: &str, remedy: &str) -> Result<Option<&'a str>, Unusable> {
    let Some(value) = at(object, path) else { return Ok(None) };
    value.as_str().map(Some).ok_or_else(|| malformed(path, format!("it is {}, not a text", kind_of(value)), remedy))
}

/// A text that is a welcome extra: of another form it is as good as missing.
pub(super) fn extra<'a>(object: &'a Value, path: &str) -> Option<&'a str> {
    at(object, path).and_then(Value::as_str).filter(|text| !text.is_empty())
}

/// A list of texts that may be missing.
pub(super) fn texts(object: &Value, path: &str, remedy: &str) -> Result<Vec<String>, Unusable> {
    let Some(value) = at(object, path) else { return Ok(Vec::new()) };
    let list =
        value.as_array().ok_or_else(|| malformed(path, format!("it is {}, not a list", kind_of(value)), remedy))?;
    let texts = list.iter().enumerate().map(|(index, value)| {
        let text = value.as_str().map(str::to_owned);
        text.ok_or_else(|| {
            malformed(format!("{path}[{index}]"), format!("it is {}, not a text", kind_of(value)), remedy)
        })
    });
    texts.collect()
}

/// A uuid that is a welcome extra. Anything else that stands there is no identity that the controller could compare.
pub(super) fn uuid(object: &Value, path: &str) -> Option<String> {
    const GROUPS: [usize; 5] = [8, 4, 4, 4, 12];
    let text = extra(object, path)?;
    let is_hex = |group: &str| group.chars().all(|c| c.is_ascii_hexdigit());
    let is_uuid = text.split('-').map(str::len).eq(GROUPS) && text.split('-').all(is_hex);
    is_uuid.then(|| text.to_ascii_lowercase())
}

/// JSON, or where it stops being some.
pub(super) fn json(body: &[u8], path: &str, remedy: &str) -> Result<Value, Unusable> {
    // serde_json's own words hold a position and no text of the input.
    serde_json::from_slice(body).map_err(|error| malformed(path, format!("it is no JSON: {error}"), remedy))
}

/// An outsider's word, short enough for a log.
pub(super) fn word(text: &str) -> String {
    text.chars().take(WORD_MAX).collect()
}

pub(super) fn malformed(path: impl Into<String>, what: impl Into<String>, remedy: &str) -> Unusable {
    Unusable::Malformed(Problem::new(path, what, remedy))
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_missing_field_and_null_are_the_same_and_another_form_is_a_problem() {
        let object = json!({ "a": { "b": "c", "n": null, "i": 1 } });
        assert_eq!(text(&object, "a.b", "").unwrap(), "c");
        for path in ["a.x", "a.n", "a.n.m", "x", "a.b.c"] {
            assert_eq!(optional_text(&object, path, "").unwrap(), None, "{path}");
            assert!(text(&object, path, "").is_err(), "{path}");
        }
        let Err(Unusable::Malformed(problem)) = optional_text(&object, "a.i", "send it") else { panic!() };
        assert_eq!(problem.to_string(), "a.i: it is a number, not a text; send it");
    }

    #[test]
    fn only_a_uuid_is_an_identity() {
        let object = json!({
            "good": "01A2B3C4-0000-4000-8000-0123456789ab",
            "graphql": "Q2x1c3Rlci0tLTAxYTJiM2M0LTAwMDAtNDAwMC04MDAwLTAxMjM0NTY3ODlhYg==",
            "short": "01a2b3c4-0000-4000-8000",
            "wide": "01a2b3c4-0000-4000-8000-0123456789é",
            "number": 7,
        });
        assert_eq!(uuid(&object, "good").as_deref(), Some("01a2b3c4-0000-4000-8000-0123456789ab"));
        for path in ["graphql", "short", "wide", "number", "none"] {
            assert_eq!(uuid(&object, path), None, "{path}");
        }
    }

    #[test]
    fn what_nests_without_end_is_no_json() {
        let deep = "[".repeat(100_000);
        assert!(json(deep.as_bytes(), "body", "").is_err());
    }
}
