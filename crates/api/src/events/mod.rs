//! What Buildkite sends when a job became runnable, read into a [`HintedJob`], or into the one reason why it is none.
//!
//! ```text
//!  SQS batch ─► records ─► EventBridge envelope ─┐
//!                                                ├─► HintedJob │ Unusable
//!                                 webhook body ──┘
//! ```
//!
//! Lenient where a sender is odd, strict about what a hint needs: an id, a queue, an instant. A field that nobody here needs
//! is never looked at. Nothing here panics whatever comes in; `fuzz/` goes on trying.

mod eventbridge;
mod fields;
mod instant;
mod lambda;
mod webhook;

#[cfg(test)]
mod properties;

pub use self::{
    eventbridge::{EVENT_KIND, job_of_event, read_event},
    lambda::{Invocation, Record, read_invocation},
    webhook::{WEBHOOK_EVENT, job_of_webhook},
};
use crate::{HintedJob, Job, Problem};

/// Why an event makes no hint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unusable {
    /// It tells of something else than a job that became runnable.
    OtherEvent {
        /// What it calls itself, cut short.
        kind: String,
    },
    /// A job that no agent runs: a block, wait or trigger step.
    NotScript {
        /// The job's type, cut short.
        kind: String,
    },
    /// Something that a hint needs is missing or cannot be read.
    Malformed(Problem),
}

impl Unusable {
    /// One word of a fixed set, for everything that counts.
    pub fn category(&self) -> &'static str {
        match self {
            Self::OtherEvent { .. } => "other_event",
            Self::NotScript { .. } => "not_script",
            Self::Malformed(_) => "malformed",
        }
    }
}

impl std::fmt::Display for Unusable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::OtherEvent { kind } => write!(f, "{kind:?} tells of no job that became runnable"),
            Self::NotScript { kind } => write!(f, "a job of type {kind:?} is run by no agent"),
            Self::Malformed(problem) => problem.fmt(f),
        }
    }
}

/// What a receiver knows that events do not say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assumed {
    /// The key of the default queue: a job that asks for no queue goes there, and its event does not say where that is.
    pub default_queue: String,
    /// The Buildkite cluster's uuid, where everything that this receiver gets is of one cluster. What an event says itself wins.
    pub cluster: Option<String>,
}

impl Default for Assumed {
    fn default() -> Self {
        // The key that Buildkite gives to the first queue of a new cluster.
        Self { default_queue: "default".to_owned(), cluster: None }
    }
}

/// What both senders tell in their own words.
struct Told {
    id: String,
    rules: Vec<String>,
    runnable_at: jiff::Timestamp,
    cluster: Option<String>,
    organization: Option<String>,
}

/// Where a sender writes what the hint holds, for sentences.
struct Places {
    id: &'static str,
    rules: &'static str,
    runnable_at: &'static str,
    other: &'static str,
}

impl Told {
    fn into_job(self, assumed: &Assumed, places: &Places) -> Result<HintedJob, Unusable> {
        let (queue, rules) = queue_and_rest(self.rules, places)?;
        let job = HintedJob {
            id: self.id,
            queue: queue.unwrap_or_else(|| assumed.default_queue.clone()),
            rules,
            runnable_at: self.runnable_at,
            cluster: self.cluster.or_else(|| assumed.cluster.clone()),
            organization: self.organization,
        };
        // The bounds of the resource: what the API server would refuse must not take the batch's other jobs along.
        let Some(mut problem) = Job::from(job.clone()).problem("") else { return Ok(job) };
        problem.path = match problem.path.as_str() {
            ".id" => places.id,
            ".queue" | ".rules" => places.rules,
            ".runnableAt" => places.runnable_at,
            _ => places.other,
        }
        .to_owned();
        Err(Unusable::Malformed(problem))
    }
}

/// The queue, wherever it stands in the list, and the other rules. `queue=*` takes any queue, so it names none.
fn queue_and_rest(rules: Vec<String>, places: &Places) -> Result<(Option<String>, Vec<String>), Unusable> {
    let (named, rest): (Vec<String>, Vec<String>) = rules.into_iter().partition(|rule| rule.starts_with("queue="));
    let mut queues: Vec<String> = named
        .iter()
        .filter_map(|rule| rule.strip_prefix("queue="))
        .filter(|key| *key != "*")
        .map(str::to_owned)
        .collect();
    queues.sort();
    queues.dedup();
    if queues.len() > 1 {
        let what = format!("it asks for {} queues at once, and an agent serves one", queues.len());
        return Err(Unusable::Malformed(Problem::new(places.rules, what, "give the step one `queue`")));
    }
    Ok((queues.pop(), rest))
}
