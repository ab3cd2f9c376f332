//! The one wall clock of the function, as a value: a test says what time it is.
//!
//! Wall time throughout, also for ages: Lambda freezes the process between invocations, and what a monotonic clock did
//! meanwhile is nobody's promise.

use std::{fmt, sync::Arc};

use jiff::Timestamp;

/// A clock. Clones are the same clock.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Clock {
    /// The machine's.
    pub fn machine() -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "the one place that asks the machine; everything else is given a `Clock`"
        )]
        Self(Arc::new(Timestamp::now))
    }

    /// Whatever a test wants.
    pub fn of(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// What time it is.
    pub fn now(&self) -> Timestamp {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}
