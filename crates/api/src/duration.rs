//! Durations the way people say them: `90s`, `5m`, `4h 30m`.

use std::{borrow::Cow, fmt, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A duration as written; [`Span::get`] says what it comes to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Span(String);

/// One or more numbers with their units. Months and years have no fixed length and are left out.
const PATTERN: &str = r"^ *([0-9]+ *(ms|msec|s|sec|secs|seconds?|m|min|mins|minutes?|h|hr|hrs|hours?|d|days?|w|weeks?) *)+$";

/// `1week 6days 23hours 59minutes 59seconds` and room to spare.
const BYTES_MAX: u32 = 64;

impl Span {
    /// From a text, checked only when it is read.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// What it comes to, or why it comes to nothing.
    pub fn get(&self) -> Result<Duration, String> {
        humantime::parse_duration(&self.0).map_err(|error| format!("{:?} is no duration ({error})", self.0))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl JsonSchema for Span {
    fn schema_name() -> Cow<'static, str> {
        "Span".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "maxLength": BYTES_MAX,
            "x-kubernetes-validations": [{
                "rule": format!("self.matches(r'{PATTERN}')"),
                "message": "this is no duration; write it like 90s, 5m or 4h 30m",
            }],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_say_them() {
        for (text, seconds) in [("90s", 90), ("5m", 300), ("4h 30m", 16_200), ("0s", 0), ("1day", 86_400)] {
            assert_eq!(Span::new(text).get().unwrap(), Duration::from_secs(seconds), "{text}");
        }
        for text in ["", "90", "five minutes", "-1s", "1 parsec"] {
            assert!(Span::new(text).get().is_err(), "{text:?}");
        }
    }
}
