//! How long ago something was, by a clock that may step back.

use std::time::Duration;

use jiff::Timestamp;

/// From `since` to `now`; nothing when `since` lies in the future.
pub(crate) fn elapsed(since: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(since)).unwrap_or(Duration::ZERO)
}

/// Between two instants, whichever is the later.
pub(crate) fn distance(one: Timestamp, other: Timestamp) -> Duration {
    one.duration_since(other).unsigned_abs()
}
