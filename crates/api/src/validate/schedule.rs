//! `spec.scaling.schedules[]`: days, times of day and time zones.

use jiff::{
    civil::{Time, Weekday},
    tz::TimeZone,
};
use kitepool_policy::{spec::Schedule, units::Pods};

use super::check::Check;
use crate::{
    ScheduleSpec, rules,
    scaling::{COUNT_MAX, DAYS_MAX, TIME_MAX, TIME_ZONE_MAX},
};

const WEEK: [(&str, Weekday); 7] = [
    ("Mon", Weekday::Monday),
    ("Tue", Weekday::Tuesday),
    ("Wed", Weekday::Wednesday),
    ("Thu", Weekday::Thursday),
    ("Fri", Weekday::Friday),
    ("Sat", Weekday::Saturday),
    ("Sun", Weekday::Sunday),
];

/// `None` if a problem was found.
pub(super) fn validate(check: &mut Check, path: &str, spec: &ScheduleSpec) -> Option<Schedule> {
    let chosen = check.text(&format!("{path}.days"), &spec.days, DAYS_MAX, &rules::DAYS, |text| days(text).is_some());
    let mut time_of_day = |field: &str, text: &str| {
        check
            .text(&format!("{path}.{field}"), text, TIME_MAX, &rules::TIME, |text| time(text).is_some())
            .and_then(|text| time(&text))
    };
    let from = time_of_day("from", &spec.from);
    let to = time_of_day("to", &spec.to);
    let differ = check.holds(spec.from != spec.to, &rules::FROM_TO, path);
    let time_zone = time_zone(check, &format!("{path}.timeZone"), &spec.time_zone);
    let min = check.count(&format!("{path}.min"), spec.min, 0, COUNT_MAX);
    let days = chosen.as_deref().and_then(days);
    let valid = Schedule { days: days?, from: from?, to: to?, time_zone: time_zone?, min: Pods(min?) };
    differ.then_some(valid)
}

/// Days and spans of days, each day once, Monday first. Rule `DAYS`.
fn days(text: &str) -> Option<Vec<Weekday>> {
    if text == "daily" {
        return Some(WEEK.iter().map(|(_, day)| *day).collect());
    }
    let mut chosen = Vec::new();
    for (index, part) in text.split(',').enumerate() {
        let part = if index == 0 { part } else { part.strip_prefix(' ').unwrap_or(part) };
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        chosen.extend(stretch(first, last)?);
    }
    Some(WEEK.iter().map(|(_, day)| *day).filter(|day| chosen.contains(day)).collect())
}

/// From the first day to the last, past Sunday if need be.
fn stretch(first: &str, last: &str) -> Option<Vec<Weekday>> {
    let position = |name: &str| WEEK.iter().position(|(known, _)| *known == name);
    let (first, last) = (position(first)?, position(last)?);
    let days = (last + WEEK.len() - first) % WEEK.len() + 1;
    Some(WEEK.iter().cycle().skip(first).take(days).map(|(_, day)| *day).collect())
}

/// `HH:MM`. Rule `TIME`. By hand, since `strptime` takes a space for a digit.
fn time(text: &str) -> Option<Time> {
    let number = |text: &str| {
        let two_digits = text.len() == 2 && text.chars().all(|c| c.is_ascii_digit());
        two_digits.then(|| text.parse().ok()).flatten()
    };
    let (hour, minute) = text.split_once(':')?;
    Time::new(number(hour)?, number(minute)?, 0, 0).ok()
}

/// From the database that is built in, so that a pool means the same in every image.
fn time_zone(check: &mut Check, path: &str, name: &str) -> Option<TimeZone> {
    let name = check.text(path, name, TIME_ZONE_MAX, &rules::TIME_ZONE, is_zone_name)?;
    let zone = TimeZone::get(&name).ok();
    if zone.is_none() {
        check.refuse(path, format!("{name:?} is no time zone"), suggestion(&name));
    }
    zone
}

/// Rule `TIME_ZONE`.
fn is_zone_name(text: &str) -> bool {
    let part = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || "_+-".contains(c));
    text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.split('/').all(part)
}

/// The nearest name, when there is one that is near: the same but for case and spelling of spaces, the same place, or one that
/// differs in a few characters.
fn suggestion(wrong: &str) -> String {
    let fold = |name: &str| name.to_ascii_lowercase().replace([' ', '-'], "_");
    let wanted = fold(wrong);
    let last = wanted.rsplit('/').next().unwrap_or_default().to_owned();
    let mut names: Vec<String> = jiff::tz::db().available().map(|name| name.to_string()).collect();
    names.sort();
    let near = names
        .iter()
        .find(|name| fold(name) == wanted)
        .or_else(|| names.iter().find(|name| !last.is_empty() && fold(name).rsplit('/').next() == Some(last.as_str())))
        .map(String::as_str)
        .or_else(|| crate::problem::nearest(wrong, names.iter().map(String::as_str)));
    match near {
        Some(name) => format!("did you mean {name}?"),
        None => rules::TIME_ZONE.remedy.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use Weekday::{Friday, Monday, Saturday, Sunday, Thursday, Tuesday, Wednesday};

    use super::*;

    #[test]
    fn days_are_read_in_every_form() {
        let week = [Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday];
        let cases: [(&str, &[Weekday]); 9] = [
            ("daily", &week),
            ("Mon-Fri", &[Monday, Tuesday, Wednesday, Thursday, Friday]),
            ("Sat,Sun", &[Saturday, Sunday]),
            ("Fri-Mon", &[Monday, Friday, Saturday, Sunday]),
            ("Tue-Mon", &week),
            ("Mon, Wed-Thu", &[Monday, Wednesday, Thursday]),
            ("Sun,Mon-Tue,Mon", &[Monday, Tuesday, Sunday]),
            ("Wed", &[Wednesday]),
            ("Wed-Wed", &[Wednesday]),
        ];
        for (text, expected) in cases {
            assert_eq!(days(text).as_deref(), Some(expected), "{text}");
        }
        for text in [
            "",
            "Monday",
            "Mon-",
            "-Mon",
            "Mon-Xyz",
            "mon",
            "Mon,",
            ",Mon",
            " Mon",
            "Mon,  Tue",
            "Mon-Tue-Wed",
            "daily,Mon",
        ] {
            assert_eq!(days(text), None, "{text:?}");
        }
    }

    #[test]
    fn times_of_day_have_two_digits_each() {
        assert_eq!(time("08:05"), Some(Time::constant(8, 5, 0, 0)));
        assert_eq!(time("23:59"), Some(Time::constant(23, 59, 0, 0)));
        for text in ["", "8:00", "08:0", "24:00", "12:60", "0800", "+8:00", "-1:00", " 8:00", "08: 0", "08:00:00"] {
            assert_eq!(time(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_wrong_time_zone_is_answered_with_the_nearest() {
        assert_eq!(suggestion("US/Berlin"), "did you mean Europe/Berlin?");
        assert_eq!(suggestion("Europe/Lodnon"), "did you mean Europe/London?");
        assert!(suggestion("Mars/Olympus").contains("IANA"));
        // The names are looked up whatever their case.
        assert!(TimeZone::get("europe/london").is_ok());
    }
}
