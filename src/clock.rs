//! The one clock: wall time that follows the runtime's own time, so that virtual time moves everything.
//!
//! `now() = anchor + time the runtime has measured since`. Between two anchors the wall clock cannot step under a decision;
//! [`Clock::anchor`] takes it up again once a tick and tells of a jump.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

/// A smaller difference at an anchoring is drift; a larger one is reported. NTP slews stay far below it.
pub const JUMP_MIN: Duration = Duration::from_secs(2);

/// A shared clock. Clones are the same clock.
#[derive(Debug, Clone)]
pub struct Clock {
    anchor: Arc<Mutex<Anchor>>,
    source: Source,
}

#[derive(Debug, Clone, Copy)]
struct Anchor {
    wall: Timestamp,
    mono: Instant,
}

#[derive(Debug, Clone, Copy)]
enum Source {
    /// The machine's wall clock.
    Machine,
    /// Fixed at the beginning: wall time is runtime time from there on.
    Fixed,
}

impl Clock {
    /// The machine's clock.
    pub fn machine() -> Self {
        Self::starting_at(machine_now(), Source::Machine)
    }

    /// A clock that reads `start` now and moves with the runtime alone.
    pub fn fixed(start: Timestamp) -> Self {
        Self::starting_at(start, Source::Fixed)
    }

    fn starting_at(wall: Timestamp, source: Source) -> Self {
        let anchor = Anchor { wall, mono: monotonic() };
        Self { anchor: Arc::new(Mutex::new(anchor)), source }
    }

    /// Wall time.
    pub fn now(&self) -> Timestamp {
        let anchor = *self.anchor.lock().unwrap_or_else(PoisonError::into_inner);
        later(anchor, monotonic())
    }

    /// Time that never steps; for deadlines.
    pub fn mono(&self) -> Instant {
        monotonic()
    }

    /// Takes up the machine's wall clock again. Answers how far it jumped, when that is no mere drift.
    pub fn anchor(&self) -> Option<SignedDuration> {
        match self.source {
            Source::Fixed => None,
            Source::Machine => {
                let mut anchor = self.anchor.lock().unwrap_or_else(PoisonError::into_inner);
                let fresh = Anchor { wall: machine_now(), mono: monotonic() };
                let jump = fresh.wall.duration_since(later(*anchor, fresh.mono));
                *anchor = fresh;
                (jump.unsigned_abs() >= JUMP_MIN).then_some(jump)
            }
        }
    }
}

fn later(anchor: Anchor, mono: Instant) -> Timestamp {
    let elapsed = mono.saturating_duration_since(anchor.mono);
    anchor.wall.saturating_add(elapsed).unwrap_or(anchor.wall)
}

#[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
fn machine_now() -> Timestamp {
    Timestamp::now()
}

#[expect(clippy::disallowed_methods, reason = "the one place that reads the runtime's clock")]
fn monotonic() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_fixed_clock_moves_with_the_runtime() {
        let clock = Clock::fixed(Timestamp::UNIX_EPOCH);
        tokio::time::advance(Duration::from_secs(90)).await;
        assert_eq!(clock.now(), Timestamp::from_second(90).unwrap());
        assert_eq!(clock.anchor(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_machine_clock_that_stood_still_is_reported_as_a_jump() {
        let clock = Clock::machine();
        // The runtime says an hour, the machine says no time at all: the wall clock stepped back by an hour.
        tokio::time::advance(Duration::from_hours(1)).await;
        let jump = clock.anchor().unwrap();
        assert!(jump < SignedDuration::from_secs(-3590), "{jump:?}");
        assert_eq!(clock.anchor(), None);
    }
}
