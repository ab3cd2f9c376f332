//! What can go wrong at the API server, with a bounded word for labels and a sentence for people.

use super::fence::Fenced;

/// A failed call.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The object changed under us, or exists already: read again, decide again.
    #[error("the object changed in between (HTTP {status})")]
    Conflict {
        /// 409 or 422.
        status: u16,
    },
    /// The object is not there.
    #[error("not found")]
    NotFound,
    /// RBAC, or a quota.
    #[error("the API server refuses: {message}{}", rbac_remedy(.message))]
    Forbidden {
        /// Its own words, which name user, verb and resource.
        message: String,
    },
    /// The token of the kubeconfig or service account is not accepted.
    #[error("the API server does not accept our credentials: {message}")]
    Unauthorized {
        /// Its own words.
        message: String,
    },
    /// Held back by the fence.
    #[error(transparent)]
    Fenced(#[from] Fenced),
    /// No answer in time.
    #[error("no answer within {seconds} s")]
    Deadline {
        /// The deadline.
        seconds: u64,
    },
    /// Too many writes for the flag.
    #[error("the budget of writes is spent; raise --write-budget if this goes on")]
    BudgetSpent,
    /// It refuses the object itself.
    #[error("the API server refuses the object: {message}")]
    Invalid {
        /// Its own words.
        message: String,
    },
    /// Everything else: connection, 5xx.
    #[error("the API server cannot be reached or fails")]
    Transport(#[source] kube::Error),
}

/// RBAC says it so; a quota or an admission policy says other things, and the Role does not help there.
fn rbac_remedy(message: &str) -> &'static str {
    if message.contains(" cannot ") { "; grant it in the Role of the chart" } else { "" }
}

impl Error {
    /// What a person has to mend, in a sentence; `None` for what passes by itself.
    pub fn refusal(&self) -> Option<String> {
        match self {
            Self::Forbidden { .. } | Self::Unauthorized { .. } | Self::Invalid { .. } => Some(self.to_string()),
            Self::Conflict { .. }
            | Self::NotFound
            | Self::Fenced(_)
            | Self::Deadline { .. }
            | Self::BudgetSpent
            | Self::Transport(_) => None,
        }
    }

    /// Whether a write that ended so may have been made all the same, or be made yet.
    pub const fn may_have_landed(&self) -> bool {
        match self {
            Self::Deadline { .. } | Self::Transport(_) => true,
            Self::Forbidden { .. }
            | Self::Unauthorized { .. }
            | Self::Invalid { .. }
            | Self::Conflict { .. }
            | Self::NotFound
            | Self::Fenced(_)
            | Self::BudgetSpent => false,
        }
    }

    /// A bounded word for labels and fields.
    pub const fn category(&self) -> &'static str {
        match self {
            Self::Conflict { .. } => "conflict",
            Self::NotFound => "not_found",
            Self::Forbidden { .. } => "forbidden",
            Self::Unauthorized { .. } => "unauthorized",
            Self::Fenced(_) => "fenced",
            Self::Deadline { .. } => "deadline",
            Self::BudgetSpent => "budget_spent",
            Self::Invalid { .. } => "invalid",
            Self::Transport(_) => "transport",
        }
    }

    /// All of [`Self::category`], for series that are present from the start.
    pub const CATEGORIES: [&'static str; 9] = [
        "conflict",
        "not_found",
        "forbidden",
        "unauthorized",
        "fenced",
        "deadline",
        "budget_spent",
        "invalid",
        "transport",
    ];
}

impl From<kube::Error> for Error {
    fn from(error: kube::Error) -> Self {
        if let kube::Error::Service(source) = error {
            return match source.downcast::<Fenced>() {
                Ok(fenced) => Self::Fenced(*fenced),
                Err(source) => Self::Transport(kube::Error::Service(source)),
            };
        }
        if let kube::Error::Api(status) = error {
            return match status.code {
                404 => Self::NotFound,
                409 => Self::Conflict { status: 409 },
                400 | 422 => Self::Invalid { message: status.message },
                401 => Self::Unauthorized { message: status.message },
                403 => Self::Forbidden { message: status.message },
                _ => Self::Transport(kube::Error::Api(status)),
            };
        }
        Self::Transport(error)
    }
}
