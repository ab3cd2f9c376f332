//! What can be wrong with a call to Buildkite: what happened and what to do about it, and never the token.

use std::time::Duration;

use kitepool_policy::observation::Trouble;

/// Every way a call can end, for labels: `ok` and each [`Error::category`].
pub const OUTCOMES: &[&str] = &[
    "ok",
    "unusable_token",
    "refused",
    "not_found",
    "rate_limited",
    "server_error",
    "redirect",
    "unexpected_status",
    "unreachable",
    "deadline",
    "cut_off",
    "too_large",
    "malformed",
    "budget_spent",
];

/// A call that brought nothing usable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The token has characters that no header can carry, so nothing was sent.
    #[error(
        "the agent token has characters that cannot be sent; store the token alone, without quotes or line breaks inside"
    )]
    UnusableToken,
    /// 401 or 403.
    #[error(
        "Buildkite refused the agent token ({status}); check that it was not revoked and belongs to this organization"
    )]
    Refused {
        /// The status.
        status: u16,
    },
    /// 404.
    #[error("Buildkite has nothing at {path} (404); check that the endpoint is the agent API's, ending in /v3")]
    NotFound {
        /// What was asked for, below the endpoint.
        path: &'static str,
    },
    /// 429.
    #[error(
        "Buildkite asks for fewer requests (429); they slow down by themselves, lengthen the interval if this stays"
    )]
    RateLimited {
        /// How long to stay away, if it said so.
        retry_after: Option<Duration>,
    },
    /// 5xx.
    #[error("Buildkite failed to answer ({status}); it is asked again, see its status page if this stays")]
    ServerError {
        /// The status.
        status: u16,
        /// How long to stay away, if it said so.
        retry_after: Option<Duration>,
    },
    /// 3xx.
    #[error(
        "Buildkite answered with a redirect ({status}), which is not followed lest the token go elsewhere; set the endpoint to the final address"
    )]
    Redirect {
        /// The status.
        status: u16,
    },
    /// Any other status.
    #[error(
        "Buildkite answered with a status that means nothing here ({status}); check the endpoint and any proxy before it"
    )]
    UnexpectedStatus {
        /// The status.
        status: u16,
    },
    /// The request did not get as far as an answer.
    #[error("Buildkite cannot be reached: {detail}; check name resolution, network policy, proxy and certificates")]
    Unreachable {
        /// The innermost reason, bounded.
        detail: String,
    },
    /// Not done in time.
    #[error("Buildkite did not finish its answer within {}; check the network, or raise the deadline", human(.after))]
    Deadline {
        /// The time it had.
        after: Duration,
    },
    /// The body ended early.
    #[error("Buildkite's answer broke off in the middle; it is asked again, check any proxy before it if this stays")]
    CutOff,
    /// The body is beyond all reason.
    #[error(
        "Buildkite's answer is larger than {limit} bytes and was dropped; check that the endpoint is the agent API"
    )]
    TooLarge {
        /// The bound.
        limit: usize,
    },
    /// The body is not what the API promises.
    #[error("Buildkite's answer is not understood: {detail}; check that the endpoint is the agent API")]
    Malformed {
        /// Where it went wrong; no word of the body.
        detail: String,
    },
    /// Our own budget of calls is spent; nothing was sent.
    #[error("the budget of calls to Buildkite is spent; raise the budget, or lengthen the interval")]
    BudgetSpent,
}

fn human(duration: &Duration) -> humantime::FormattedDuration {
    humantime::format_duration(*duration)
}

impl Error {
    /// A bounded word for labels; one of [`OUTCOMES`].
    pub const fn category(&self) -> &'static str {
        match self {
            Self::UnusableToken => "unusable_token",
            Self::Refused { .. } => "refused",
            Self::NotFound { .. } => "not_found",
            Self::RateLimited { .. } => "rate_limited",
            Self::ServerError { .. } => "server_error",
            Self::Redirect { .. } => "redirect",
            Self::UnexpectedStatus { .. } => "unexpected_status",
            Self::Unreachable { .. } => "unreachable",
            Self::Deadline { .. } => "deadline",
            Self::CutOff => "cut_off",
            Self::TooLarge { .. } => "too_large",
            Self::Malformed { .. } => "malformed",
            Self::BudgetSpent => "budget_spent",
        }
    }

    /// What it means to a decision.
    pub const fn trouble(&self) -> Trouble {
        match self {
            Self::UnusableToken => Trouble::NoToken,
            Self::Refused { .. } => Trouble::Refused,
            Self::RateLimited { .. } | Self::BudgetSpent => Trouble::RateLimited,
            Self::Unreachable { .. } | Self::Deadline { .. } | Self::CutOff => Trouble::Unreachable,
            Self::NotFound { .. }
            | Self::ServerError { .. }
            | Self::Redirect { .. }
            | Self::UnexpectedStatus { .. } => Trouble::ServerError,
            Self::TooLarge { .. } | Self::Malformed { .. } => Trouble::Malformed,
        }
    }

    /// How long Buildkite asked to be left alone.
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after } | Self::ServerError { retry_after, .. } => *retry_after,
            Self::UnusableToken
            | Self::Refused { .. }
            | Self::NotFound { .. }
            | Self::Redirect { .. }
            | Self::UnexpectedStatus { .. }
            | Self::Unreachable { .. }
            | Self::Deadline { .. }
            | Self::CutOff
            | Self::TooLarge { .. }
            | Self::Malformed { .. }
            | Self::BudgetSpent => None,
        }
    }

    /// Whether asking again at the same pace would make matters worse. A refusal or a strange body costs Buildkite nothing.
    pub const fn backs_off(&self) -> bool {
        match self {
            Self::RateLimited { .. }
            | Self::ServerError { .. }
            | Self::Unreachable { .. }
            | Self::Deadline { .. }
            | Self::CutOff => true,
            Self::UnusableToken
            | Self::Refused { .. }
            | Self::NotFound { .. }
            | Self::Redirect { .. }
            | Self::UnexpectedStatus { .. }
            | Self::TooLarge { .. }
            | Self::Malformed { .. }
            | Self::BudgetSpent => false,
        }
    }
}
