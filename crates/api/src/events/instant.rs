//! Instants as Buildkite writes them: `2019-08-11 06:01:14 UTC` on EventBridge, RFC 3339 elsewhere.

use std::borrow::Cow;

use jiff::Timestamp;
use serde_json::Value;

use super::{Unusable, fields};

/// The longest text that is tried; the same bound as the resource has.
const INSTANT_MAX: usize = 40;

const REMEDY: &str = "send it like 2026-01-31T12:00:00Z or 2026-01-31 12:00:00 UTC";

/// The first of these paths that holds an instant. One that holds something else is a problem, lest a later field that means
/// something else quietly take its place.
pub(super) fn first(object: &Value, paths: &[&str]) -> Result<Option<Timestamp>, Unusable> {
    for path in paths {
        if let Some(text) = fields::optional_text(object, path, REMEDY)? {
            let instant = read(text).ok_or_else(|| fields::malformed(*path, "it is no instant", REMEDY))?;
            return Ok(Some(instant));
        }
    }
    Ok(None)
}

/// In either spelling. Nothing became runnable before 1970, and the API server takes no year below zero.
pub(super) fn read(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    if text.len() > INSTANT_MAX {
        return None;
    }
    let spelt =
        text.strip_suffix("UTC").map_or(Cow::Borrowed(text), |instant| Cow::Owned(format!("{}Z", instant.trim_end())));
    spelt.parse().ok().filter(|instant| *instant >= Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn both_spellings_of_an_instant_are_read_and_nothing_else() {
        let expected: Timestamp = "2019-08-11T06:01:14Z".parse().unwrap();
        for text in [
            "2019-08-11 06:01:14 UTC",
            "2019-08-11T06:01:14Z",
            "2019-08-11T06:01:14.000Z",
            "2019-08-11T08:01:14+02:00",
            " 2019-08-11 06:01:14 UTC ",
            "2019-08-11 06:01:14Z",
        ] {
            assert_eq!(read(text), Some(expected), "{text}");
        }
        for text in [
            "",
            "UTC",
            "yesterday",
            "2019-08-11 06:01:14",
            "2019-08-11",
            "1565503274",
            "2019-13-11 06:01:14 UTC",
            "-009998-01-31T12:00:00Z",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
        assert_eq!(read(&format!("2019-08-11 06:01:14{} UTC", " ".repeat(100))), None);
    }

    #[test]
    fn the_first_field_that_is_there_counts_and_a_broken_one_is_told() {
        let object = json!({ "a": null, "b": "2019-08-11 06:01:14 UTC", "c": "soon" });
        assert!(first(&object, &["a", "b", "c"]).unwrap().is_some());
        assert!(first(&object, &["a"]).unwrap().is_none());
        let Err(Unusable::Malformed(problem)) = first(&object, &["c", "b"]) else { panic!() };
        assert_eq!(problem.path, "c");
    }
}
