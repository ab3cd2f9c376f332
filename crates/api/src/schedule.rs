//! Floors at certain hours, as people write them.

#![expect(unreachable_pub, reason = "the derived shadow of each struct is public within a function")]

use jiff::{
    civil::{Time, Weekday},
    tz::TimeZone,
};
use kitepool_policy::{spec::Schedule, units::Pods};
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::Problem;

/// On these days, from one time of day to another, keep at least so many pods.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.from != self.to").message("from and to of a schedule are the same, so it is unclear whether it holds always or never; make them differ"))]
pub struct ScheduleSpec {
    /// `Mon-Fri`, `Sat,Sun`, `Fri-Mon`, or `daily`.
    #[schemars(length(min = 3, max = 64))]
    #[x_kube(validation = Rule::new("self.matches('^(daily|((Mon|Tue|Wed|Thu|Fri|Sat|Sun)(-(Mon|Tue|Wed|Thu|Fri|Sat|Sun))?)(, ?(Mon|Tue|Wed|Thu|Fri|Sat|Sun)(-(Mon|Tue|Wed|Thu|Fri|Sat|Sun))?)*)$')").message("days of a schedule cannot be read; write them like Mon-Fri, or Sat,Sun, or daily"))]
    pub days: String,
    /// `08:00`.
    #[schemars(length(max = 5))]
    #[x_kube(validation = Rule::new("self.matches('^([01][0-9]|2[0-3]):[0-5][0-9]$')").message("from of a schedule is no time of day; write it like 08:00"))]
    pub from: String,
    /// `19:00`; at or before `from` it is the next day's.
    #[schemars(length(max = 5))]
    #[x_kube(validation = Rule::new("self.matches('^([01][0-9]|2[0-3]):[0-5][0-9]$')").message("to of a schedule is no time of day; write it like 19:00"))]
    pub to: String,
    /// A name of the IANA time zone database, such as `Europe/London`.
    #[serde(default = "utc")]
    #[schemars(length(min = 1, max = 64))]
    pub time_zone: String,
    /// The floor, in pods.
    #[schemars(range(min = 0, max = 10_000))]
    pub min: i32,
}

fn utc() -> String {
    "UTC".to_owned()
}

const WEEK: [(&str, Weekday); 7] = [
    ("Mon", Weekday::Monday),
    ("Tue", Weekday::Tuesday),
    ("Wed", Weekday::Wednesday),
    ("Thu", Weekday::Thursday),
    ("Fri", Weekday::Friday),
    ("Sat", Weekday::Saturday),
    ("Sun", Weekday::Sunday),
];

/// The valid schedule, with all that is wrong appended to `problems`.
pub(crate) fn validate(spec: &ScheduleSpec, path: &str, problems: &mut Vec<Problem>) -> Option<Schedule> {
    let count = problems.len();
    let days = days(&spec.days);
    if days.is_none() {
        problems.push(Problem::new(
            format!("{path}.days"),
            format!("{:?} cannot be read as days", spec.days),
            "write them like Mon-Fri, or Sat,Sun, or daily",
        ));
    }
    let from = time(&spec.from, &format!("{path}.from"), problems);
    let to = time(&spec.to, &format!("{path}.to"), problems);
    if from.is_some() && from == to {
        problems.push(Problem::new(
            path,
            "from and to are the same, so it is unclear whether it holds always or never",
            "make them differ",
        ));
    }
    let time_zone = TimeZone::get(&spec.time_zone).ok();
    if time_zone.is_none() {
        problems.push(Problem::new(
            format!("{path}.timeZone"),
            format!("{:?} is no time zone", spec.time_zone),
            suggestion(&spec.time_zone),
        ));
    }
    let min = u32::try_from(spec.min).ok().filter(|min| *min <= crate::agent_pool::PODS_MAX);
    if min.is_none() {
        problems.push(Problem::new(
            format!("{path}.min"),
            format!("{} is out of bounds", spec.min),
            format!("give something from 0 to {}", crate::agent_pool::PODS_MAX),
        ));
    }
    if problems.len() > count {
        return None;
    }
    Some(Schedule { days: days?, from: from?, to: to?, time_zone: time_zone?, min: Pods(min?) })
}

fn time(text: &str, path: &str, problems: &mut Vec<Problem>) -> Option<Time> {
    let parsed = (text.len() == 5).then(|| Time::strptime("%H:%M", text).ok()).flatten();
    if parsed.is_none() {
        problems.push(Problem::new(path, format!("{text:?} is no time of day"), "write it like 08:00"));
    }
    parsed
}

fn days(text: &str) -> Option<Vec<Weekday>> {
    if text == "daily" {
        return Some(WEEK.iter().map(|(_, day)| *day).collect());
    }
    let index = |name: &str| WEEK.iter().position(|(known, _)| *known == name);
    let mut chosen = [false; WEEK.len()];
    for part in text.split(',') {
        let part = part.trim();
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (index(first)?, index(last)?);
        let length = (last + WEEK.len() - first) % WEEK.len();
        for offset in 0..=length {
            *chosen.get_mut((first + offset) % WEEK.len())? = true;
        }
    }
    let days: Vec<Weekday> = WEEK.iter().zip(chosen).filter(|(_, chosen)| *chosen).map(|((_, day), _)| *day).collect();
    Some(days)
}

/// The nearest name, when there is one that is near.
fn suggestion(wrong: &str) -> String {
    let fold = |name: &str| name.to_ascii_lowercase().replace([' ', '-'], "_");
    let wanted = fold(wrong);
    let last = wanted.rsplit('/').next().unwrap_or_default().to_owned();
    let mut names: Vec<String> = jiff::tz::db().available().map(|name| name.to_string()).collect();
    names.sort();
    let near = names
        .iter()
        .find(|name| fold(name) == wanted)
        .or_else(|| names.iter().find(|name| !last.is_empty() && fold(name).rsplit('/').next() == Some(last.as_str())));
    match near {
        Some(name) => format!("did you mean {name}?"),
        None => "use a name of the IANA database such as Europe/London or UTC".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_read_in_every_form() {
        let names = |text: &str| days(text).map(|days| days.len());
        for (text, count) in [("daily", 7), ("Mon-Fri", 5), ("Sat,Sun", 2), ("Fri-Mon", 4), ("Mon, Wed-Thu", 3), ("Sun", 1)] {
            assert_eq!(names(text), Some(count), "{text}");
        }
        for text in ["", "Monday", "Mon-", "Mon-Xyz", "mon"] {
            assert_eq!(names(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_wrong_time_zone_is_answered_with_the_nearest() {
        assert_eq!(suggestion("europe/london"), "did you mean Europe/London?");
        assert_eq!(suggestion("US/Berlin"), "did you mean Europe/Berlin?");
        assert!(suggestion("Mars/Olympus").contains("IANA"));
    }
}
