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

/// The same hour in London, with only one bound inside of it.
#[test]
fn a_bound_in_the_repeated_hour_takes_effect_in_both_passes() {
    let sunday = [Weekday::Sunday];
    let begins = [schedule(&sunday, (1, 30), (5, 0), "Europe/London", 5)];
    assert_floors(
        &begins,
        &[
            ("2026-10-25T00:29:59Z", 0),
            ("2026-10-25T00:30:00Z", 5),
            ("2026-10-25T00:59:59Z", 5),
            ("2026-10-25T01:00:00Z", 0), // the wall shows 01:00 again
            ("2026-10-25T01:29:59Z", 0),
            ("2026-10-25T01:30:00Z", 5),
            ("2026-10-25T04:59:59Z", 5),
            ("2026-10-25T05:00:00Z", 0),
        ],
    );
    let ends = [schedule(&sunday, (0, 0), (1, 30), "Europe/London", 5)];
    assert_floors(
        &ends,
        &[
            ("2026-10-24T22:59:59Z", 0), // still Saturday in summer time
            ("2026-10-24T23:00:00Z", 5),
            ("2026-10-25T00:29:59Z", 5),
            ("2026-10-25T00:30:00Z", 0),
            ("2026-10-25T00:59:59Z", 0),
            ("2026-10-25T01:00:00Z", 5),
            ("2026-10-25T01:29:59Z", 5),
            ("2026-10-25T01:30:00Z", 0),
        ],
    );
}

/// Both bounds outside of the hour: nothing happens in between, and the night is shorter or longer.
#[test]
fn a_night_through_a_change_holds_without_a_break() {
    let night = [schedule(&[Weekday::Saturday], (22, 0), (6, 0), "Europe/London", 4)];
    assert_floors(
        &night,
        &[
            ("2026-03-28T21:59:59Z", 0),
            ("2026-03-28T22:00:00Z", 4),
            ("2026-03-29T00:59:59Z", 4),
            ("2026-03-29T01:00:00Z", 4),
            ("2026-03-29T04:59:59Z", 4),
            ("2026-03-29T05:00:00Z", 0), // seven hours
            ("2026-10-24T20:59:59Z", 0),
            ("2026-10-24T21:00:00Z", 4),
            ("2026-10-25T00:30:00Z", 4),
            ("2026-10-25T01:30:00Z", 4),
            ("2026-10-25T05:59:59Z", 4),
            ("2026-10-25T06:00:00Z", 0), // nine hours
        ],
    );
}

#[test]
fn a_night_that_ends_in_a_change_ends_as_any_span_does() {
    let night = [schedule(&[Weekday::Saturday], (22, 0), (1, 30), "Europe/London", 4)];
    assert_floors(
        &night,
        &[
            ("2026-03-29T00:59:59Z", 4),
            ("2026-03-29T01:00:00Z", 0), // 02:00: half past one never was
            ("2026-10-25T00:29:59Z", 4),
            ("2026-10-25T00:30:00Z", 0),
            ("2026-10-25T01:00:00Z", 4),
            ("2026-10-25T01:30:00Z", 0),
        ],
    );
    let from_the_change = [schedule(&[Weekday::Sunday], (1, 30), (0, 30), "Europe/London", 4)];
    assert_floors(
        &from_the_change,
        &[
            ("2026-03-29T00:59:59Z", 0),
            ("2026-03-29T01:00:00Z", 4),
            ("2026-03-29T23:29:59Z", 4), // Monday, 00:29:59 in summer time
            ("2026-03-29T23:30:00Z", 0),
        ],
    );
}

/// On Lord Howe Island the clock is moved by half an hour: from 02:00 to 02:30 on 4 October 2026, which is 15:30 UTC the day
/// before, and from 02:00 back to 01:30 on 5 April 2026, which is 15:00 UTC the day before.
#[test]
fn half_an_hour_is_missing_or_repeated_like_a_whole_one() {
    let sunday = [Weekday::Sunday];
    let lord_howe = |from, to| [schedule(&sunday, from, to, "Australia/Lord_Howe", 3)];
    assert_floors(
        &lord_howe((2, 10), (3, 0)),
        &[
            ("2026-10-03T15:29:59Z", 0),
            ("2026-10-03T15:30:00Z", 3),
            ("2026-10-03T15:59:59Z", 3),
            ("2026-10-03T16:00:00Z", 0),
        ],
    );
    assert_floors(&lord_howe((1, 0), (2, 20)), &[("2026-10-03T15:29:59Z", 3), ("2026-10-03T15:30:00Z", 0)]);
    assert_floors(&lord_howe((2, 5), (2, 25)), &[("2026-10-03T15:29:59Z", 0), ("2026-10-03T15:30:00Z", 0)]);
    assert_floors(
        &lord_howe((1, 45), (1, 55)),
        &[
            ("2026-04-04T14:44:59Z", 0),
            ("2026-04-04T14:45:00Z", 3),
            ("2026-04-04T14:55:00Z", 0),
            ("2026-04-04T15:14:59Z", 0),
            ("2026-04-04T15:15:00Z", 3),
            ("2026-04-04T15:24:59Z", 3),
            ("2026-04-04T15:25:00Z", 0),
        ],
    );
    assert_floors(
        &lord_howe((1, 0), (3, 0)),
        &[
            ("2026-04-04T13:59:59Z", 0),
            ("2026-04-04T14:00:00Z", 3),
            ("2026-04-04T16:29:59Z", 3),
            ("2026-04-04T16:30:00Z", 0),
        ],
    );
}

/// In Havana the clock goes from midnight to 01:00 on Sunday, 8 March 2026, which is 05:00 UTC. In Beirut it goes from midnight
/// back to 23:00 on Saturday, 24 October 2026, which is 21:00 UTC.
#[test]
fn a_change_at_midnight_leaves_each_day_its_own_spans() {
    let sunday = [schedule(&[Weekday::Sunday], (0, 0), (2, 0), "America/Havana", 2)];
    assert_floors(
        &sunday,
        &[
            ("2026-03-08T04:59:59Z", 0),
            ("2026-03-08T05:00:00Z", 2),
            ("2026-03-08T05:59:59Z", 2),
            ("2026-03-08T06:00:00Z", 0),
        ],
    );
    let saturday = [schedule(&[Weekday::Saturday], (22, 0), (0, 30), "America/Havana", 2)];
    assert_floors(
        &saturday,
        &[
            ("2026-03-08T02:59:59Z", 0),
            ("2026-03-08T03:00:00Z", 2),
            ("2026-03-08T04:59:59Z", 2),
            ("2026-03-08T05:00:00Z", 0),
        ],
    );
    let evening = [schedule(&[Weekday::Saturday], (23, 15), (23, 45), "Asia/Beirut", 2)];
    assert_floors(
        &evening,
        &[
            ("2026-10-24T20:15:00Z", 2),
            ("2026-10-24T20:45:00Z", 0),
            ("2026-10-24T21:15:00Z", 2),
            ("2026-10-24T21:45:00Z", 0),
        ],
    );
    let next_day = [schedule(&[Weekday::Sunday], (0, 0), (1, 0), "Asia/Beirut", 2)];
    assert_floors(
        &next_day,
        &[
            ("2026-10-24T21:00:00Z", 0),
            ("2026-10-24T21:59:59Z", 0),
            ("2026-10-24T22:00:00Z", 2),
            ("2026-10-24T23:00:00Z", 0),
        ],
    );
}

#[test]
fn the_day_is_that_of_the_time_zone() {
    let monday = |zone| [schedule(&[Weekday::Monday], (9, 0), (17, 0), zone, 6)];
    // Monday, 09:00 on Kiritimati is Sunday in London; on Pago Pago it is Monday evening there.
    assert_floors(
        &monday("Pacific/Kiritimati"),
        &[
            ("2026-01-04T18:59:59Z", 0),
            ("2026-01-04T19:00:00Z", 6),
            ("2026-01-05T03:00:00Z", 0),
            ("2026-01-05T12:00:00Z", 0),
        ],
    );
    assert_floors(
        &monday("Pacific/Pago_Pago"),
        &[
            ("2026-01-05T12:00:00Z", 0),
            ("2026-01-05T20:00:00Z", 6),
            ("2026-01-06T03:59:59Z", 6),
            ("2026-01-06T04:00:00Z", 0),
        ],
    );
}

#[test]
fn a_night_runs_over_the_ends_of_week_month_and_year() {
    let sunday = [schedule(&[Weekday::Sunday], (23, 0), (1, 0), "UTC", 2)];
    assert_floors(&sunday, &[("2026-02-01T00:30:00Z", 0), ("2026-02-01T23:30:00Z", 2), ("2026-02-02T00:30:00Z", 2)]);
    let thursday = [schedule(&[Weekday::Thursday], (23, 0), (1, 0), "Europe/London", 2)];
    assert_floors(
        &thursday,
        &[
            ("2026-12-31T22:59:59Z", 0),
            ("2026-12-31T23:00:00Z", 2),
            ("2027-01-01T00:59:59Z", 2),
            ("2027-01-01T01:00:00Z", 0),
        ],
    );
    let until_midnight = [schedule(&[Weekday::Monday], (20, 0), (0, 0), "UTC", 2)];
    assert_floors(
        &until_midnight,
        &[
            ("2026-01-05T00:00:00Z", 0),
            ("2026-01-05T20:00:00Z", 2),
            ("2026-01-05T23:59:59Z", 2),
            ("2026-01-06T00:00:00Z", 0),
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
