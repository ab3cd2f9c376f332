//! How a delivery ended: one word for the counter, one status and one sentence for the sender.

use axum::{
    http::{HeaderValue, StatusCode, header::RETRY_AFTER},
    response::{IntoResponse, Response},
};
use kitepool_api::events::Unusable;

use super::signature::Unproven;

/// Seconds after which a sender may try again: by then a full quota has been swept, a flood has passed, or an API server has
/// another leader.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("5");

/// How one delivery ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The hint is stored.
    Stored,
    /// It was stored before.
    Duplicate,
    /// Nothing to hint at.
    Unusable(Unusable),
    /// Not from Buildkite, as far as can be told.
    Unproven(Unproven),
    /// The body is longer than one of Buildkite's can be.
    TooLarge,
    /// The body did not come in time.
    TooSlow,
    /// One address sends too much.
    TooMany,
    /// More waits to be stored than can be.
    Busy,
    /// The namespace's quota of hints is used up.
    QuotaFull,
    /// The API server did not take it.
    NotStored {
        /// Its words.
        why: String,
    },
}

impl Outcome {
    /// All words of [`Self::word`].
    pub const WORDS: [&'static str; 13] = [
        "stored",
        "duplicate",
        "other_event",
        "not_script",
        "malformed",
        "unproven",
        "no_secret",
        "too_large",
        "too_slow",
        "too_many",
        "busy",
        "quota",
        "not_stored",
    ];

    /// One word of a fixed set.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Duplicate => "duplicate",
            Self::Unusable(unusable) => unusable.category(),
            Self::Unproven(Unproven::NoSecret) => "no_secret",
            Self::Unproven(_) => "unproven",
            Self::TooLarge => "too_large",
            Self::TooSlow => "too_slow",
            Self::TooMany => "too_many",
            Self::Busy => "busy",
            Self::QuotaFull => "quota",
            Self::NotStored { .. } => "not_stored",
        }
    }

    const fn status(&self) -> StatusCode {
        match self {
            Self::Stored => StatusCode::CREATED,
            // Not an error of the sender's: a webhook may be set up for more events than are of use here.
            Self::Duplicate | Self::Unusable(Unusable::OtherEvent { .. } | Unusable::NotScript { .. }) => {
                StatusCode::OK
            }
            Self::Unusable(Unusable::Malformed(_)) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Unproven(Unproven::NoSecret) | Self::Busy | Self::QuotaFull | Self::NotStored { .. } => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Unproven(_) => StatusCode::UNAUTHORIZED,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::TooMany => StatusCode::TOO_MANY_REQUESTS,
        }
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stored => f.write_str("the job is hinted"),
            Self::Duplicate => f.write_str("the job was hinted before"),
            Self::Unusable(unusable) => write!(f, "nothing to hint at: {unusable}"),
            Self::Unproven(unproven) => unproven.fmt(f),
            Self::TooLarge => f.write_str("the body is too long; Buildkite's are some ten KiB"),
            Self::TooSlow => f.write_str("the body did not come in time; send it at once"),
            Self::TooMany => f.write_str("too many requests from this address; send fewer, or raise --webhook-rate"),
            Self::Busy => f.write_str("too much at once; polling will find the job"),
            Self::QuotaFull => f.write_str(
                "the quota of JobHints is used up; polling will find the job. If this goes on, raise hints.quota of the chart",
            ),
            // Whoever asks may be anybody; the log has the API server's words.
            Self::NotStored { .. } => f.write_str("the hint could not be stored; polling will find the job"),
        }
    }
}

impl IntoResponse for Outcome {
    fn into_response(self) -> Response {
        let status = self.status();
        let mut response = (status, format!("{self}\n")).into_response();
        if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            response.headers_mut().insert(RETRY_AFTER, RETRY_AFTER_SECONDS);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_has_a_word_of_the_set_and_shedding_says_when_to_come_again() {
        let unusable = |kind: &str| Unusable::OtherEvent { kind: kind.to_owned() };
        let all = [
            (Outcome::Stored, 201),
            (Outcome::Duplicate, 200),
            (Outcome::Unusable(unusable("ping")), 200),
            (Outcome::Unproven(Unproven::NoSecret), 503),
            (Outcome::Unproven(Unproven::Nothing), 401),
            (Outcome::TooLarge, 413),
            (Outcome::TooSlow, 408),
            (Outcome::TooMany, 429),
            (Outcome::Busy, 503),
            (Outcome::QuotaFull, 503),
            (Outcome::NotStored { why: "x".to_owned() }, 503),
        ];
        for (outcome, status) in all {
            assert!(Outcome::WORDS.contains(&outcome.word()), "{outcome:?}");
            let response = outcome.into_response();
            assert_eq!(response.status(), status);
            assert_eq!(response.headers().contains_key(RETRY_AFTER), matches!(status, 429 | 503));
        }
    }
}
