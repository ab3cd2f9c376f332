//! Step 5: the floor that holds at a certain hour.
//!
//! A span is compared with the clock on the wall of its time zone: from `from`, up to but not including `to`, and one that
//! runs past midnight belongs to the day it begins on. So where the clock is put back, the span holds in both passes of the
//! hour; where it is put forward, a bound inside the missing hour takes effect at the jump, and a span that lies within it
//! does not happen that day.

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
