//! Counts that cannot be mistaken for one another.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! count {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u32);

        impl $name {
            /// None of them.
            pub const ZERO: Self = Self(0);

            /// The sum, or the largest number there is.
            #[must_use]
            pub const fn plus(self, other: Self) -> Self {
                Self(self.0.saturating_add(other.0))
            }

            /// The difference, or zero.
            #[must_use]
            pub const fn minus(self, other: Self) -> Self {
                Self(self.0.saturating_sub(other.0))
            }

            /// Whether there are none.
            #[must_use]
            pub const fn is_zero(self) -> bool {
                self.0 == 0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

count! {
    /// Jobs, as Buildkite counts them.
    Jobs
}
count! {
    /// Agent workers; each runs one job at a time.
    Agents
}
count! {
    /// Pods, and so replicas of a Deployment; each holds `agentsPerPod` agents.
    Pods
}

impl Jobs {
    /// One agent for each job.
    #[must_use]
    pub const fn agents(self) -> Agents {
        Agents(self.0)
    }
}

/// Agents in one pod, at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AgentsPerPod(std::num::NonZeroU32);

impl AgentsPerPod {
    /// One agent in each pod.
    pub const ONE: Self = Self(std::num::NonZeroU32::MIN);

    /// `None` for zero.
    #[must_use]
    pub const fn new(agents: u32) -> Option<Self> {
        match std::num::NonZeroU32::new(agents) {
            Some(agents) => Some(Self(agents)),
            None => None,
        }
    }

    /// The number itself.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0.get()
    }

    /// The pods that hold so many agents, rounded up.
    #[must_use]
    pub const fn pods_for(self, agents: Agents) -> Pods {
        Pods(agents.0.div_ceil(self.0.get()))
    }

    /// The pods that so many agents fill, rounded down.
    #[must_use]
    pub const fn pods_filled(self, agents: Agents) -> Pods {
        Pods(agents.0 / self.0.get())
    }

    /// The agents in so many pods, or the largest number there is.
    #[must_use]
    pub const fn agents_in(self, pods: Pods) -> Agents {
        Agents(pods.0.saturating_mul(self.0.get()))
    }
}
