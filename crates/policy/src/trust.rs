//! Step 1: is the reading believed?
//!
//! What is not believed takes nothing away: the pool keeps at least what it has. It still grows, from the last load that was
//! known and from hints, since a job waits for every second that a reading is missing.

use std::time::Duration;

use jiff::Timestamp;

use crate::{
    age::distance,
    decision::Reason,
    observation::{GoodReading, Reading},
};

/// Whether one pool believes the queue's reading. `stale_after` is the pool's own, and so is the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// Recent, and nothing has gone wrong since.
    Known(GoodReading),
    /// Not believed, for this reason.
    Unknown(Doubt),
}

/// What stands against a reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// There never was a good one.
    Missing,
    /// A newer attempt failed.
    Troubled,
    /// Older than the pool's `staleAfter`.
    Stale,
    /// Further in the future than `staleAfter`: our clock stepped back, and its age is anybody's guess.
    Future,
}

impl Trust {
    /// What a pool with this `stale_after` makes of the reading at `now`.
    pub fn of(reading: &Reading, stale_after: Duration, now: Timestamp) -> Self {
        let Some(good) = reading.last_good else {
            return Self::Unknown(Doubt::Missing);
        };
        if reading.trouble.is_some() {
            return Self::Unknown(Doubt::Troubled);
        }
        if distance(now, good.at) <= stale_after {
            Self::Known(good)
        } else if good.at > now {
            Self::Unknown(Doubt::Future)
        } else {
            Self::Unknown(Doubt::Stale)
        }
    }

    /// The reading, if it is believed.
    pub const fn known(self) -> Option<GoodReading> {
        match self {
            Self::Known(reading) => Some(reading),
            Self::Unknown(_) => None,
        }
    }

    /// The entry's reason.
    pub(crate) fn reason(self, reading: &Reading, stale_after: Duration, now: Timestamp) -> Reason {
        let age = reading.last_good.map(|good| distance(now, good.at));
        match self {
            Self::Known(_) => Reason::Unchanged,
            Self::Unknown(Doubt::Missing) => Reason::NeverRead { trouble: reading.trouble },
            Self::Unknown(Doubt::Troubled) => match reading.trouble {
                Some(trouble) => Reason::ReadingFailed { trouble, age: age.unwrap_or_default() },
                None => Reason::NeverRead { trouble: None },
            },
            Self::Unknown(Doubt::Stale) => Reason::ReadingStale { age: age.unwrap_or_default(), limit: stale_after },
            Self::Unknown(Doubt::Future) => Reason::ReadingFromFuture { ahead: age.unwrap_or_default() },
        }
    }
}
