//! Why a step gave what it gave: a sentence for the person on call, and a bounded word for everything that counts.

use std::{fmt, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    observation::Trouble,
    units::{Agents, Jobs, Pods},
};

/// Why a step gave what it gave. The text for people is its `Display`; the bounded word is [`Reason::category`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all_fields = "camelCase")]
#[expect(missing_docs, reason = "the fields are the nouns of the sentence that `Display` makes of them")]
pub enum Reason {
    /// Nothing to say: passed through.
    Unchanged,

    /// Trust: no reading yet.
    NeverRead { trouble: Option<Trouble> },
    /// Trust: the last attempt failed.
    ReadingFailed { trouble: Trouble, age: Duration },
    /// Trust: too old.
    ReadingStale { age: Duration, limit: Duration },
    /// Trust: our clock stepped back.
    ReadingFromFuture { ahead: Duration },

    /// Demand: what it is made of.
    Jobs {
        running: Jobs,
        scheduled: Jobs,
        unsure: Jobs,
        new: Jobs,
        unmatched: Jobs,
        ahead: Agents,
        started: Agents,
        draining: Agents,
    },

    /// Demand: jobs that no agent takes are left out of it.
    Unsatisfiable { jobs: Jobs, running: Jobs, queued: Agents, ahead: Agents },

    /// Share: other pools and standing agents have the rest.
    SharedOut { demand: Agents },
    /// Share: more than all pools of the queue may hold.
    BeyondAllPools { unplaced: Agents },

    /// Spare: idle agents on top.
    SpareOnTop { spare: Agents },

    /// Schedule: a floor above `min` holds at this hour.
    ScheduledFloor { floor: Pods },

    /// Stabilise: more was wanted within the window.
    WindowHolds { wanted: Pods, window: Duration },
    /// Stabilise: somebody else lowered it a moment ago.
    RaisedAgain { wanted: Pods },
    /// Stabilise: grew a moment ago.
    UpCooldown { wanted: Pods, remaining: Duration },
    /// Stabilise: changed a moment ago.
    DownCooldown { wanted: Pods, remaining: Duration },

    /// Limits: the floor raised it.
    AtMin { min: Pods, wanted: Pods },
    /// Limits: the ceiling cut it.
    AtMax { max: Pods, wanted: Pods },
    /// Limits: no further in this period.
    UpStep { wanted: Pods, step: Pods },
    /// Limits: no further in this period.
    DownStep { wanted: Pods, step: Pods },
    /// Limits: more of the same would fail as well.
    PodsFailing { wanted: Pods, failing: Pods },
    /// Limits: what is about to go is replaced at once.
    Replaces { leaving: Pods },
    /// Limits: enough pods wait for a node.
    NodesAwaited { wanted: Pods, unscheduled: Pods },
    /// Limits: a person stopped growth.
    PausedUp { wanted: Pods },
    /// Limits: a person stopped shrinking.
    PausedDown { wanted: Pods },

    /// Shrink: the reading is not believed.
    Untrusted,
    /// Shrink: somebody else keeps changing replicas.
    Contested { since: Timestamp },
    /// Shrink: a Deployment is not at rest.
    InMotion { generation: String },
    /// Shrink: no reading can know our last change yet.
    ReadingPredatesChange { changed_at: Timestamp },
    /// Shrink: pods are younger than `minAge`.
    TooYoung { generation: String, remaining: Duration },
    /// Shrink: pods are chosen; it is not yet written on them.
    Choosing { chosen: Pods },
    /// Shrink: the chosen ones are asked once more before they are taken.
    AskingAgain { chosen: Pods },
    /// Shrink: a pod that may be busy is not ready, and so would be taken before any other.
    UnreadyStays { generation: String },
    /// Shrink: agents that do not answer are not taken.
    AgentsUnknown { wanted_away: Pods, unknown: Pods },
    /// Shrink: pods that are not ready may be running a job.
    ReadyCannotHoldRunning { ready: Agents, running: Agents },
    /// Shrink: nobody is idle.
    NoneIdle { wanted_away: Pods, idle: Agents },
    /// Shrink: fewer are idle than could go.
    OnlyIdleGo { wanted_away: Pods, gone: Pods },
    /// Shrink: the definition cannot be rendered.
    DefinitionBroken,
    /// Shrink: a new generation replaces the old.
    Rolling { old: Pods, new: Pods },
    /// Shrink: the roll waits for new pods.
    RollWaitsForReady { old: Pods, starting: Pods },
    /// Shrink: the roll waits for a person.
    RollPaused { old: Pods },
}

impl Reason {
    /// A bounded `CamelCase` word, fit for a condition's or Event's reason and a label.
    pub const fn category(&self) -> &'static str {
        match self {
            Self::Unchanged => "Unchanged",
            Self::NeverRead { .. } => "NeverRead",
            Self::ReadingFailed { .. } => "ReadingFailed",
            Self::ReadingStale { .. } => "ReadingStale",
            Self::ReadingFromFuture { .. } => "ReadingFromFuture",
            Self::Jobs { .. } => "Jobs",
            Self::Unsatisfiable { .. } => "Unsatisfiable",
            Self::SharedOut { .. } => "SharedOut",
            Self::BeyondAllPools { .. } => "BeyondAllPools",
            Self::SpareOnTop { .. } => "SpareOnTop",
            Self::ScheduledFloor { .. } => "ScheduledFloor",
            Self::WindowHolds { .. } => "WindowHolds",
            Self::RaisedAgain { .. } => "RaisedAgain",
            Self::UpCooldown { .. } => "UpCooldown",
            Self::DownCooldown { .. } => "DownCooldown",
            Self::AtMin { .. } => "AtMin",
            Self::AtMax { .. } => "AtMax",
            Self::UpStep { .. } => "UpStep",
            Self::DownStep { .. } => "DownStep",
            Self::PodsFailing { .. } => "PodsFailing",
            Self::Replaces { .. } => "Replaces",
            Self::NodesAwaited { .. } => "NodesAwaited",
            Self::PausedUp { .. } => "PausedUp",
            Self::PausedDown { .. } => "PausedDown",
            Self::Untrusted => "Untrusted",
            Self::Contested { .. } => "Contested",
            Self::InMotion { .. } => "InMotion",
            Self::ReadingPredatesChange { .. } => "ReadingPredatesChange",
            Self::TooYoung { .. } => "TooYoung",
            Self::Choosing { .. } => "Choosing",
            Self::AskingAgain { .. } => "AskingAgain",
            Self::UnreadyStays { .. } => "UnreadyStays",
            Self::AgentsUnknown { .. } => "AgentsUnknown",
            Self::ReadyCannotHoldRunning { .. } => "ReadyCannotHoldRunning",
            Self::NoneIdle { .. } => "NoneIdle",
            Self::OnlyIdleGo { .. } => "OnlyIdleGo",
            Self::DefinitionBroken => "DefinitionBroken",
            Self::Rolling { .. } => "Rolling",
            Self::RollWaitsForReady { .. } => "RollWaitsForReady",
            Self::RollPaused { .. } => "RollPaused",
        }
    }

    /// Whether this says that something held the number back or moved it beyond the jobs' own wish, rather than only giving
    /// an account of it.
    pub const fn bound(&self) -> bool {
        !matches!(
            self,
            Self::Unchanged
                | Self::Jobs { .. }
                | Self::SharedOut { .. }
                | Self::SpareOnTop { .. }
                | Self::ScheduledFloor { .. }
        )
    }

    /// Whether this ends by itself in a while, so that looking again pays although nobody says that anything changed. What
    /// pods, readings and people end is told of.
    pub const fn ends_with_time(&self) -> bool {
        matches!(
            self,
            Self::WindowHolds { .. }
                | Self::RaisedAgain { .. }
                | Self::UpCooldown { .. }
                | Self::DownCooldown { .. }
                | Self::UpStep { .. }
                | Self::DownStep { .. }
                | Self::PodsFailing { .. }
                | Self::NodesAwaited { .. }
                | Self::InMotion { .. }
                | Self::ReadingPredatesChange { .. }
                | Self::TooYoung { .. }
                | Self::Choosing { .. }
                | Self::AskingAgain { .. }
                | Self::UnreadyStays { .. }
                | Self::Rolling { .. }
                | Self::RollWaitsForReady { .. }
        )
    }

    /// Whether this keeps idle pods for as long as something outside of the policy lasts: an excuse that no clock of ours
    /// ends.
    pub const fn waits_for_others(&self) -> bool {
        matches!(
            self,
            Self::NeverRead { .. }
                | Self::ReadingFailed { .. }
                | Self::ReadingStale { .. }
                | Self::ReadingFromFuture { .. }
                | Self::PausedUp { .. }
                | Self::PausedDown { .. }
                | Self::Untrusted
                | Self::Contested { .. }
                | Self::InMotion { .. }
                | Self::ReadingPredatesChange { .. }
                | Self::ReadyCannotHoldRunning { .. }
                | Self::NoneIdle { .. }
                | Self::OnlyIdleGo { .. }
                | Self::UnreadyStays { .. }
                | Self::AgentsUnknown { .. }
                | Self::Replaces { .. }
                | Self::DefinitionBroken
                | Self::RollWaitsForReady { .. }
                | Self::RollPaused { .. }
        )
    }
}

impl fmt::Display for Reason {
    #[expect(clippy::too_many_lines, reason = "one sentence each; a second function would only hide half of them")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unchanged => f.write_str("nothing changed"),

            Self::NeverRead { trouble: None } => {
                f.write_str("Buildkite has not been read yet; until it is, nothing shrinks and only events grow the pool")
            }
            Self::NeverRead { trouble: Some(trouble) } => write!(
                f,
                "Buildkite has never been read ({}); until it is, nothing shrinks and only events grow the pool",
                advice(*trouble)
            ),
            Self::ReadingFailed { trouble, age } => write!(
                f,
                "the last reading failed ({}); nothing shrinks, and growth goes by the one from {} ago and by events",
                advice(*trouble),
                Short(*age)
            ),
            Self::ReadingStale { age, limit } => write!(
                f,
                "the last reading is {} old, more than staleAfter ({}); nothing shrinks until a newer one comes",
                Short(*age),
                Short(*limit)
            ),
            Self::ReadingFromFuture { ahead } => write!(
                f,
                "the last reading lies {} in the future, so this machine's clock stepped back; nothing shrinks until a newer \
                 one comes: check its time service",
                Short(*ahead)
            ),

            Self::Jobs { running, scheduled, unsure, new, unmatched, ahead, started, draining } => {
                write!(f, "{running} jobs run and {scheduled} wait for an agent")?;
                if !started.is_zero() {
                    write!(f, "; {started} of those that waited have started since")?;
                }
                if !draining.is_zero() {
                    write!(f, "; {draining} are finished by agents on their way out")?;
                }
                if !unsure.is_zero() || !new.is_zero() {
                    write!(f, "; events tell of {new} newer ones, and of {unsure} that may be among them")?;
                }
                if !ahead.is_zero() {
                    write!(f, "; {ahead} agents are started ahead of waiting jobs")?;
                }
                if !unmatched.is_zero() {
                    write!(f, "; {unmatched} jobs ask for tags that no pool of this queue has")?;
                }
                Ok(())
            }
            Self::Unsatisfiable { jobs, running, queued, ahead } => {
                write!(
                    f,
                    "{jobs} jobs stay queued beside idle agents and none starts, so no pool grows for them until one does: compare \
                     their agent rules with the pools' tags, and see whether the queue is paused or a concurrency limit holds \
                     them; {running} jobs run and {queued} others wait for an agent"
                )?;
                if ahead.is_zero() { Ok(()) } else { write!(f, "; {ahead} agents are started ahead of waiting jobs") }
            }
            Self::SharedOut { demand } => {
                write!(f, "other pools or agents of the queue serve the rest of the {demand} agents wanted")
            }
            Self::BeyondAllPools { unplaced } => write!(
                f,
                "{unplaced} agents more are wanted than all pools of the queue may hold; raise max where that is not meant"
            ),
            Self::SpareOnTop { spare } => write!(f, "{spare} spare agents are kept on top"),
            Self::ScheduledFloor { floor } => write!(f, "a schedule asks for at least {floor} pods at this hour"),

            Self::WindowHolds { wanted, window } => {
                write!(f, "{wanted} pods would do now, but more were wanted within the last {}", Short(*window))
            }
            Self::RaisedAgain { wanted } => write!(
                f,
                "{wanted} pods would do now, but what somebody else took away is put back first; change min or max instead"
            ),
            Self::UpCooldown { wanted, remaining } => {
                write!(f, "{wanted} pods are wanted; the pool grew a moment ago and waits {} more", Short(*remaining))
            }
            Self::DownCooldown { wanted, remaining } => {
                write!(f, "{wanted} pods would do; the pool changed a moment ago and waits {} more", Short(*remaining))
            }
            Self::AtMin { min, wanted } => write!(f, "{wanted} pods would do; min keeps {min}"),
            Self::AtMax { max, wanted } => {
                write!(f, "{wanted} pods are wanted, max allows {max}; raise max if the jobs should not wait")
            }
            Self::UpStep { wanted, step } => {
                write!(f, "{wanted} pods are wanted; scaleUp.step lets {step} come in this period")
            }
            Self::DownStep { wanted, step } => {
                write!(f, "{wanted} pods would do; scaleDown.step lets {step} go in this period")
            }
            Self::PodsFailing { wanted, failing } => write!(
                f,
                "{wanted} pods are wanted, but {failing} fail and none has become ready since; the pool grows on as soon as one \
                 does: the condition PodsFailing says what is wrong with them"
            ),
            Self::Replaces { leaving } => {
                write!(f, "{leaving} pods are about to go (evicted, or their node is silent), so as many more are made at once")
            }
            Self::NodesAwaited { wanted, unscheduled } => write!(
                f,
                "{wanted} pods are wanted, and {unscheduled} wait for a node already; more come as those find one: look at what \
                 the pods ask for and at the cluster's room"
            ),
            Self::PausedUp { wanted } => write!(
                f,
                "{wanted} pods are wanted, but growth is paused; remove the annotation kitepool.dev/pause to go on"
            ),
            Self::PausedDown { wanted } => write!(
                f,
                "{wanted} pods would do, but shrinking is paused; remove the annotation kitepool.dev/pause to go on"
            ),

            Self::Untrusted => f.write_str("nothing is taken away while the reading is not believed"),
            Self::Contested { since } => write!(
                f,
                "somebody else has kept changing replicas since {since}; the pool does not shrink until a person has found out \
                 who, and says so"
            ),
            Self::InMotion { generation } => {
                write!(f, "waits until the pods of Deployment {generation} are as many as it asks for")
            }
            Self::ReadingPredatesChange { changed_at } => {
                write!(f, "waits for a reading that knows the change made at {changed_at}")
            }
            Self::TooYoung { generation, remaining } => write!(
                f,
                "idle pods of Deployment {generation} are younger than minAge; waits {} more",
                Short(*remaining)
            ),
            Self::Choosing { chosen } => write!(f, "{chosen} pods are chosen to go, which is now written on them"),
            Self::AskingAgain { chosen } => {
                write!(f, "{chosen} pods are chosen to go; they are asked once more whether they are still idle")
            }
            Self::UnreadyStays { generation } => write!(
                f,
                "a pod of Deployment {generation} is not ready and may be busy or is younger than minAge; Kubernetes would take it \
                 before the idle ones, so it is waited for"
            ),
            Self::AgentsUnknown { wanted_away, unknown } => write!(
                f,
                "{wanted_away} pods could go, but {unknown} do not say whether they are busy, and such are never taken; the \
                 condition AgentsUnknown says what keeps them from answering"
            ),
            Self::ReadyCannotHoldRunning { ready, running } => write!(
                f,
                "{running} jobs run and ready pods hold only {ready} agents, so a pod that is not ready may be busy; waits"
            ),
            Self::NoneIdle { wanted_away, idle } => write!(
                f,
                "{wanted_away} pods could go, but {idle} agents are idle beyond what is about to start; waits for jobs to finish"
            ),
            Self::OnlyIdleGo { wanted_away, gone } => write!(
                f,
                "{wanted_away} pods could go, of which {gone} go now; the others were busy when these were chosen, or come next"
            ),
            Self::DefinitionBroken => f.write_str(
                "the pod definition cannot be rendered, so what stands is kept as it is; the pool's conditions say what is wrong",
            ),
            Self::Rolling { old, new } => write!(f, "a new generation ({new} pods) replaces the old one ({old} pods)"),
            Self::RollWaitsForReady { old, starting } => write!(
                f,
                "{old} pods of the old generation stay until the {starting} new ones that start are ready; if they never are, \
                 look at their events"
            ),
            Self::RollPaused { old } => write!(
                f,
                "{old} pods of the old generation are left; the roll is paused by the annotation kitepool.dev/pause"
            ),
        }
    }
}

/// What is wrong with the readings, and whose turn it is.
const fn advice(trouble: Trouble) -> &'static str {
    match trouble {
        Trouble::NotRead => "the first attempt is under way",
        Trouble::NoToken => "there is no usable agent token: check the pool's token reference",
        Trouble::Refused => "the agent token was refused: replace it if it was revoked",
        Trouble::OtherIdentity => {
            "the agent token is of another cluster than the pool: check which one the Secret holds"
        }
        Trouble::RateLimited => "Buildkite asks for fewer calls",
        Trouble::Unreachable => "Buildkite does not answer: check the way out of the cluster",
        Trouble::ServerError => "Buildkite answers with an error of its own",
        Trouble::Malformed => "the answer is not understood: this version may be too old for it",
    }
}

/// A duration as people say it, in whole seconds.
struct Short(Duration);

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        match (seconds / 3_600, seconds / 60 % 60, seconds % 60) {
            (0, 0, seconds) => write!(f, "{seconds}s"),
            (0, minutes, 0) => write!(f, "{minutes}m"),
            (0, minutes, seconds) => write!(f, "{minutes}m {seconds}s"),
            (hours, 0, _) => write!(f, "{hours}h"),
            (hours, minutes, _) => write!(f, "{hours}h {minutes}m"),
        }
    }
}
