//! Step 5: the floor that holds at a certain hour.
//!
//! A span is compared with the clock on the wall of its time zone, and with nothing else: from `from`, up to but not including
//! `to`, and one that runs past midnight belongs to the day it begins on. Where the clock changes, that means:
//!
//! - **Gap** (it is put forward: an hour is missing, in some zones half of one). A bound inside it takes effect at the jump, and
//!   a span that lies within it does not happen that day.
//! - **Fold** (it is put back: the hour comes twice). A span within it holds in both passes. A bound inside it takes effect in
//!   both: with `from` inside, the span begins, ends when the clock is put back, and begins again; with `to` inside, it ends,
//!   begins again when the clock is put back, and ends again.
//! - **Overnight.** A span through a change is shorter or longer by as much as the clock was moved.
//! - **The day** is the wall's as well: a midnight that comes twice belongs to one day both times.
//!
//! No floor is ever missed where the wall shows its hours, and none holds where it does not: what a person reads off a clock is
//! what holds. Whoever needs a floor that neither starts twice nor is cut short chooses bounds outside of the hours in which
//! clocks change, or a zone without changes such as UTC.

use jiff::{Timestamp, civil};

use crate::{
    decision::Reason,
    spec::{PoolSpec, Schedule},
    units::Pods,
};

/// The largest floor of the schedules that hold now.
pub fn floor(spec: &PoolSpec, now: Timestamp) -> Pods {
    spec.schedules
        .iter()
        .filter(|schedule| holds(schedule, schedule.time_zone.to_datetime(now)))
        .map(|schedule| schedule.min)
        .max()
        .unwrap_or(Pods::ZERO)
}

/// Whether the span holds when the wall shows this.
fn holds(schedule: &Schedule, wall: civil::DateTime) -> bool {
    let (today, time) = (wall.weekday(), wall.time());
    let begins = |day: civil::Weekday| schedule.days.contains(&day);
    if schedule.from < schedule.to {
        begins(today) && schedule.from <= time && time < schedule.to
    } else {
        (begins(today) && schedule.from <= time) || (begins(today.previous()) && time < schedule.to)
    }
}

/// The entry's reason.
pub(crate) fn reason(spec: &PoolSpec, floor: Pods) -> Reason {
    if floor > spec.limits.min() { Reason::ScheduledFloor { floor } } else { Reason::Unchanged }
}
