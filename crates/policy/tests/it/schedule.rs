//! Schedules: floors by the clock on the wall.

use jiff::{Timestamp, civil, civil::Weekday, tz::TimeZone};
use kitepool_policy::{
    decision::StepName,
    schedule::floor,
    spec::{Limits, PoolSpec, Schedule},
    units::Pods,
};

use crate::build::{category, decide_one, entry, load, pool, queue, read_again, spec};

const WORKDAYS: [Weekday; 5] =
    [Weekday::Monday, Weekday::Tuesday, Weekday::Wednesday, Weekday::Thursday, Weekday::Friday];

fn schedule(days: &[Weekday], from: (i8, i8), to: (i8, i8), zone: &str, min: u32) -> Schedule {
    Schedule {
        days: days.to_vec(),
        from: civil::time(from.0, from.1, 0, 0),
        to: civil::time(to.0, to.1, 0, 0),
        time_zone: TimeZone::get(zone).unwrap(),
        min: Pods(min),
    }
}

fn floor_at(schedules: &[Schedule], now: &str) -> u32 {
    let spec = PoolSpec { schedules: schedules.to_vec(), ..spec() };
    floor(&spec, now.parse::<Timestamp>().unwrap()).0
}

fn assert_floors(schedules: &[Schedule], cases: &[(&str, u32)]) {
    for (now, expected) in cases {
        assert_eq!(floor_at(schedules, now), *expected, "at {now}");
    }
}

#[test]
fn a_span_holds_from_its_first_second_up_to_its_last() {
    let office = [schedule(&WORKDAYS, (8, 0), (19, 0), "Europe/London", 10)];
    assert_floors(
        &office,
        &[
            ("2026-01-05T07:59:59Z", 0),
            ("2026-01-05T08:00:00Z", 10),
            ("2026-01-05T18:59:59Z", 10),
            ("2026-01-05T19:00:00Z", 0),
            ("2026-01-04T12:00:00Z", 0),  // a Sunday
            ("2026-07-06T07:00:00Z", 10), // summer time
            ("2026-07-06T18:00:00Z", 0),
        ],
    );
}

#[test]
fn a_span_past_midnight_belongs_to_the_day_it_begins_on() {
    let night = [schedule(&[Weekday::Friday], (22, 0), (6, 0), "UTC", 4)];
    assert_floors(
        &night,
        &[
            ("2026-01-09T05:00:00Z", 0), // Friday morning: the span of Thursday, which has none
            ("2026-01-09T22:00:00Z", 4),
            ("2026-01-10T05:59:59Z", 4), // Saturday morning
            ("2026-01-10T06:00:00Z", 0),
            ("2026-01-10T22:30:00Z", 0),
        ],
    );
}

#[test]
fn equal_bounds_hold_for_a_day_and_night() {
    let whole = [schedule(&[Weekday::Monday], (9, 0), (9, 0), "UTC", 3)];
    assert_floors(
        &whole,
        &[
            ("2026-01-05T08:59:59Z", 0),
            ("2026-01-05T09:00:00Z", 3),
            ("2026-01-06T08:59:59Z", 3),
            ("2026-01-06T09:00:00Z", 0),
        ],
    );
}

#[test]
fn the_largest_of_the_floors_that_hold_counts() {
    let two = [schedule(&WORKDAYS, (8, 0), (19, 0), "UTC", 3), schedule(&WORKDAYS, (10, 0), (12, 0), "UTC", 8)];
    assert_floors(&two, &[("2026-01-05T09:00:00Z", 3), ("2026-01-05T11:00:00Z", 8), ("2026-01-05T12:00:00Z", 3)]);
}

/// In London the clock goes from 00:59:59 to 02:00:00 on 29 March 2026, which is 01:00:00 UTC.
#[test]
fn a_bound_in_the_missing_hour_takes_effect_at_the_jump() {
    let sunday = [Weekday::Sunday];
    let begins = [schedule(&sunday, (1, 30), (5, 0), "Europe/London", 5)];
    assert_floors(
        &begins,
        &[
            ("2026-03-29T00:59:59Z", 0),
            ("2026-03-29T01:00:00Z", 5),
            ("2026-03-29T03:59:59Z", 5),
            ("2026-03-29T04:00:00Z", 0),
        ],
    );
    let ends = [schedule(&sunday, (0, 0), (1, 30), "Europe/London", 5)];
    assert_floors(&ends, &[("2026-03-29T00:59:59Z", 5), ("2026-03-29T01:00:00Z", 0)]);
    let within = [schedule(&sunday, (1, 10), (1, 50), "Europe/London", 5)];
    assert_floors(&within, &[("2026-03-29T00:59:59Z", 0), ("2026-03-29T01:00:00Z", 0)]);
}

/// In London the clock goes from 01:59:59 back to 01:00:00 on 25 October 2026, which is 01:00:00 UTC.
#[test]
fn in_the_repeated_hour_a_span_holds_in_both_passes() {
    let span = [schedule(&[Weekday::Sunday], (1, 15), (1, 45), "Europe/London", 5)];
    assert_floors(
        &span,
        &[
            ("2026-10-25T00:14:59Z", 0),
            ("2026-10-25T00:15:00Z", 5),
            ("2026-10-25T00:45:00Z", 0),
            ("2026-10-25T01:14:59Z", 0),
            ("2026-10-25T01:15:00Z", 5),
            ("2026-10-25T01:44:59Z", 5),
            ("2026-10-25T01:45:00Z", 0),
        ],
    );
}

#[test]
fn a_scheduled_floor_raises_min_at_once_and_ends_at_max() {
    let now: Timestamp = "2026-01-05T08:00:00Z".parse().unwrap();
    let mut office = pool(1);
    office.spec.limits = Limits::new(Pods(1), Pods(6)).unwrap();
    office.spec.schedules = vec![schedule(&WORKDAYS, (8, 0), (19, 0), "Europe/London", 10)];
    let mut queue = queue(load(0, 0, 1), vec![office]);
    read_again(&mut queue, load(0, 0, 1), now);
    let decision = decide_one(&queue, now);
    assert_eq!(decision.target, Pods(6));
    assert_eq!(category(&decision, StepName::Schedule), "ScheduledFloor");
    assert_eq!(entry(&decision, StepName::Schedule).output, 6);
    assert_eq!(category(&decision, StepName::Limits), "AtMin");
}
