//! How this Buildkite and its agents are: times, and what chance may do.

use std::time::Duration;

use crate::Chance;

/// What a world is made with. The defaults are what was measured on the real agent, or what Buildkite documents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The slug that events carry.
    pub organization: String,
    /// How an agent learns of its job.
    pub pick_up: PickUp,
    /// From the start of an agent's process until it is registered and connected, or refused.
    pub registration: Spread,
    /// From the delivery of a job until Buildkite has the agent's acceptance.
    pub accepting: Duration,
    /// From acceptance until the job's command runs.
    pub starting: Duration,
    /// From the disconnection of the last worker until the process is gone.
    pub leaving: Duration,
    /// From a second signal, or from when an agent learns that its job is cancelled, until the job is dead and reported.
    pub killing: Spread,
    /// An assigned job that is not accepted within this goes back to its queue.
    pub accept_within: Duration,
    /// From the death of an agent that could not say so until Buildkite notices; of a connected process, from when it was last
    /// heard of.
    pub noticing: Spread,
    /// How often an agent says that it is there: the server's `heartbeat_interval`, in whole seconds.
    pub heartbeat: Duration,
    /// How often an agent asks how it stands with its job: the server's `job_status_interval`, in whole seconds.
    pub job_status: Duration,
    /// How old the numbers of the metrics API are.
    pub numbers: NumbersAge,
    /// What becomes of events on their way.
    pub events: Delivery,
}

impl Default for Settings {
    fn default() -> Self {
        let (millis, secs) = (Duration::from_millis, Duration::from_secs);
        Self {
            organization: "acme".to_owned(),
            pick_up: PickUp::Polling { interval: secs(10) },
            registration: Spread::Between(millis(60), millis(200)),
            accepting: millis(10),
            starting: millis(60),
            leaving: millis(5),
            killing: Spread::Between(millis(10), millis(240)),
            accept_within: secs(60),
            noticing: Spread::Between(secs(180), secs(240)),
            heartbeat: secs(60),
            job_status: secs(1),
            numbers: NumbersAge::default(),
            events: Delivery::default(),
        }
    }
}

/// How an agent learns of its job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PickUp {
    /// It asks once in each interval, at an instant evenly drawn from it.
    Polling {
        /// The server's `ping_interval`.
        interval: Duration,
    },
    /// It is told at once over an open stream.
    Streaming,
}

/// A length of time that chance draws.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spread {
    /// Always the same.
    Exactly(Duration),
    /// Evenly from the first up to the second.
    Between(Duration, Duration),
    /// The least, and an exponential one of this mean on top; never more than the most.
    Tailed {
        /// What every one takes.
        least: Duration,
        /// The mean of what comes on top.
        mean: Duration,
        /// What none exceeds.
        most: Duration,
    },
}

impl Spread {
    /// One draw. Each takes one step of the stream, so that another kind of spread moves no other draw.
    pub fn draw(self, chance: &mut Chance) -> Duration {
        match self {
            Self::Exactly(wait) => chance.between(wait, wait),
            Self::Between(shortest, longest) => chance.between(shortest, longest),
            Self::Tailed { least, mean, most } => least.saturating_add(chance.exponential(mean)).min(most),
        }
    }
}

/// How old the numbers of the metrics API are. Without both they are those of the instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NumbersAge {
    /// They are counted once in this long, from the beginning of the world on.
    pub refresh: Duration,
    /// Those counted are told so much later.
    pub lag: Duration,
}

impl Default for NumbersAge {
    fn default() -> Self {
        Self { refresh: Duration::from_secs(10), lag: Duration::ZERO }
    }
}

/// What becomes of events on their way. Each kind of chance has a stream of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivery {
    /// From the instant a job becomes runnable until its event is there; drawn again for a second copy.
    pub delay: Spread,
    /// So many of a thousand are never delivered.
    pub lost_permille: u32,
    /// So many of a thousand of those delivered come twice.
    pub doubled_permille: u32,
    /// Whether a job that is dispatched again is announced again. What Buildkite does there is not documented.
    pub again: bool,
}

impl Default for Delivery {
    fn default() -> Self {
        let (least, mean) = (Duration::from_millis(200), Duration::from_millis(300));
        let most = Duration::from_secs(10);
        Self { delay: Spread::Tailed { least, mean, most }, lost_permille: 0, doubled_permille: 0, again: false }
    }
}
