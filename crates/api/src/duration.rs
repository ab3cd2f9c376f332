//! Durations the way people say them: `90s`, `5m`, `4h 30m`.

use std::{borrow::Cow, fmt, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A duration as written: whole seconds, minutes, hours, days and weeks, joined at will. [`Span::get`] says what it comes to.
///
/// Fractions, milliseconds, months and years are left out: nothing here is that fine or that long, and the schema, which
/// takes the same texts, can count whole seconds only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Span(String);

/// `1week 6days 23hours 59minutes 59seconds` and room to spare.
const TEXT_MAX: usize = 64;

/// The most digits of one number. Nine keep every sum far from overflow, here and in the API server's 64 bits.
const DIGITS_MAX: usize = 9;

impl Span {
    /// From a text, checked only when it is read.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// What it comes to, or why it comes to nothing.
    pub fn get(&self) -> Result<Duration, String> {
        let no_duration = || format!("{:?} is no duration", self.0);
        if !is_in_grammar(&self.0) {
            return Err(no_duration());
        }
        humantime::parse_duration(&self.0).map_err(|error| format!("{} ({error})", no_duration()))
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

    /// Its rules stand at the fields, since each has bounds of its own.
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "maxLength": TEXT_MAX })
    }
}

/// The grammar of `duration_pattern!` in [`crate::rules`], by hand: `DIGITS ?UNIT( ?DIGITS ?UNIT)*`.
fn is_in_grammar(text: &str) -> bool {
    let mut rest = text;
    if rest.is_empty() || rest.len() > TEXT_MAX {
        return false;
    }
    while !rest.is_empty() {
        let (digits, after) = split(rest, |c| c.is_ascii_digit());
        let (unit, after) = split(after.strip_prefix(' ').unwrap_or(after), |c| c.is_ascii_alphabetic());
        if digits.is_empty() || digits.len() > DIGITS_MAX || !is_unit(unit) {
            return false;
        }
        rest = match after.strip_prefix(' ') {
            Some("") => return false,
            Some(next) => next,
            None => after,
        };
    }
    true
}

fn is_unit(word: &str) -> bool {
    let small = ["s", "sec", "secs", "second", "seconds", "m", "min", "mins", "minute", "minutes"];
    let large = ["h", "hr", "hrs", "hour", "hours", "d", "day", "days", "w", "wk", "wks", "week", "weeks"];
    small.contains(&word) || large.contains(&word)
}

/// The longest beginning of such characters, and what follows.
fn split(text: &str, is_part: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !is_part(c)).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_say_them() {
        for (text, seconds) in [
            ("0s", 0),
            ("90s", 90),
            ("5m", 300),
            ("4h 30m", 16_200),
            ("4h30m", 16_200),
            ("30m 4h", 16_200),
            ("1 h 30 min", 5_400),
            ("1day", 86_400),
            ("2 weeks 3 days 4 hours", 1_483_200),
            ("1wk1d1hr1min1sec", 694_861),
            ("999999999s", 999_999_999),
        ] {
            assert_eq!(Span::new(text).get().unwrap(), Duration::from_secs(seconds), "{text}");
        }
    }

    #[test]
    fn what_is_no_whole_number_of_seconds_with_its_unit_is_no_duration() {
        let odd = [
            "",
            " ",
            "s",
            "90",
            "0",
            "-1s",
            "+1s",
            "five minutes",
            "1 parsec",
            "5m3",
            "5m,3s",
            "1.5h",
            "５m",
            "1000000000s",
        ];
        let spaced = [" 5m", "5m ", "5  m", "5m  3s"];
        let fine_or_long = ["500ms", "5us", "1 month", "1M", "1y", "5S"];
        for text in odd.into_iter().chain(spaced).chain(fine_or_long) {
            assert!(Span::new(text).get().is_err(), "{text:?}");
        }
        assert!(Span::new("1s ".repeat(22).trim_end()).get().is_err());
    }
}
