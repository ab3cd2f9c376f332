//! What can go wrong on the way to an API: what happened, what to do about it, and never a secret.

use std::time::Duration;

/// The most characters of an API's own words that are repeated.
const WORDS_MAX: usize = 300;

/// A call that did not bring what it was made for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// No connection.
    #[error("{origin} cannot be reached: {detail}; check the endpoint, its certificate authority, and the way there")]
    Unreachable {
        /// Where.
        origin: String,
        /// What the system said.
        detail: String,
    },
    /// A connection that ended before the answer did.
    #[error("{origin} broke off the connection: {detail}")]
    BrokenOff {
        /// Where.
        origin: String,
        /// What the protocol said.
        detail: String,
    },
    /// No answer in time; it may have been done nevertheless.
    #[error("{origin} did not answer within {} ms", .within.as_millis())]
    Deadline {
        /// Where.
        origin: String,
        /// How long was waited.
        within: Duration,
    },
    /// An answer beyond all measure.
    #[error("{origin} answered with more than {limit} bytes")]
    TooLarge {
        /// Where.
        origin: String,
        /// The bound.
        limit: usize,
    },
    /// An answer that says no.
    #[error("{origin} answered {status}: {words}")]
    Refused {
        /// Where.
        origin: String,
        /// The status.
        status: u16,
        /// What the API said.
        words: String,
    },
    /// An answer that cannot be read.
    #[error("{origin} answered with something that cannot be read: {detail}")]
    Unreadable {
        /// Where.
        origin: String,
        /// What is missing.
        detail: String,
    },
    /// A request that cannot be made of what there is.
    #[error("{0}")]
    Unusable(String),
}

impl Trouble {
    /// One word of a fixed set.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "unreachable",
            Self::BrokenOff { .. } => "broken_off",
            Self::Deadline { .. } => "deadline",
            Self::TooLarge { .. } => "too_large",
            Self::Refused { status: 401, .. } => "unauthorized",
            Self::Refused { status: 403, .. } => "forbidden",
            Self::Refused { status: 404, .. } => "not_found",
            Self::Refused { status: 409, .. } => "conflict",
            Self::Refused { status: 429, .. } => "too_many_requests",
            Self::Refused { status: 500.., .. } => "server_error",
            Self::Refused { .. } => "refused",
            Self::Unreadable { .. } => "unreadable",
            Self::Unusable(_) => "unusable",
        }
    }

    pub(crate) fn refused(origin: &str, status: u16, words: &str) -> Self {
        Self::Refused { origin: origin.to_owned(), status, words: shortened(words) }
    }
}

/// An API's own words: one line, and not longer than a log can bear.
pub(crate) fn shortened(words: &str) -> String {
    words.chars().map(|c| if c.is_control() { ' ' } else { c }).take(WORDS_MAX).collect()
}
