//! Why an agent said nothing.

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Silence {
    /// The connection was refused: nothing listens there.
    Refused,
    /// Nothing came in time.
    TimedOut,
    /// The network says that there is no way.
    Unreachable,
    /// It has no such page (404).
    NoSuchPage,
    /// Another status.
    Status(u16),
    /// A body that is no agent's, or too large for one.
    NotUnderstood,
    /// The API server does not let us through.
    Forbidden,
}

impl Silence {
    /// All words of [`Self::category`].
    pub const CATEGORIES: [&'static str; 7] =
        ["refused", "timed_out", "unreachable", "no_such_page", "status", "not_understood", "forbidden"];

    /// A bounded word for labels.
    pub const fn category(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::TimedOut => "timed_out",
            Self::Unreachable => "unreachable",
            Self::NoSuchPage => "no_such_page",
            Self::Status(_) => "status",
            Self::NotUnderstood => "not_understood",
            Self::Forbidden => "forbidden",
        }
    }

    /// A bounded `CamelCase` word for a condition's reason.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Refused => "PortClosed",
            Self::TimedOut | Self::Unreachable => "NoAnswer",
            Self::NoSuchPage => "TooOld",
            Self::Status(_) | Self::NotUnderstood => "NotAnAgent",
            Self::Forbidden => "ProxyForbidden",
        }
    }

    /// Whether one more attempt could not end otherwise: not a packet that was lost or a moment without a processor.
    pub const fn is_definite(self) -> bool {
        !matches!(self, Self::TimedOut | Self::Unreachable)
    }

    /// What happened and what to do, for a person.
    pub const fn advice(self) -> &'static str {
        match self {
            Self::Refused => {
                "the port is closed: the agent's health server must listen on the pod's address \
                 (BUILDKITE_AGENT_HEALTH_CHECK_ADDR, which a definition best leaves to the controller), and its port must not \
                 be taken by another process of the pod"
            }
            Self::TimedOut | Self::Unreachable => {
                "nothing answers: see whether a NetworkPolicy keeps the controller from the agents' health port, and whether \
                 the pods' addresses can be reached from the controller (otherwise run it with --probe=proxy)"
            }
            Self::NoSuchPage => {
                "the agent has no /status.json: it is older than v3.72.0, or something else listens on its port"
            }
            Self::Status(_) | Self::NotUnderstood => {
                "the answer is no Buildkite agent's: something else listens on its port"
            }
            Self::Forbidden => {
                "the API server refuses `get` on `pods/proxy`: grant it in the Role of the chart (probe=proxy)"
            }
        }
    }
}
