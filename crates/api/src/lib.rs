//! Kitepool's contract with the outside: the `AgentPool` and `JobHint` resources, their definitions, their way into the
//! policy's validated types, and the events that hints are made of.
//!
//! ```text
//!  object ─► parse (shape) ─► AgentPool ─► validate (meaning) ─► ValidPool
//!               └────────────── all problems at once ──────────────┘
//! ```
//!
//! The same rules stand in the definitions, so that `kubectl apply` refuses a wrong pool with the same sentence.

pub mod agent_pool;
pub mod definitions;
pub mod duration;
pub mod events;
pub mod job_hint;
pub mod names;
pub mod overrides;
pub mod parse;
pub mod pod_fields;
pub mod problem;
#[cfg(any(test, feature = "refusals"))]
pub mod refusals;
mod rules;
pub mod scaling;
pub mod status;
pub mod validate;

#[cfg(any(test, feature = "refusals"))]
pub use refusals::{Refusal, full_manifest, refusals, valid_hint, valid_manifest};

pub use self::{
    agent_pool::{AgentPool, AgentPoolSpec, FilledTemplate, Mode, OtherAgents, PodTemplateRef, SecretRef, Token},
    definitions::{crds, crds_yaml},
    duration::Span,
    job_hint::{HintedJob, JOBS_MAX, Job, JobHint, JobHintSpec, hint_name, parse_hint},
    names::{
        BUSY_LABEL, GENERATION_LABEL, MANAGED_BY_LABEL, PAUSE_ANNOTATION, POOL_LABEL, QUEUE_LABEL, RESOLVED_ANNOTATION,
        label_value,
    },
    overrides::{Amount, PodOverrides, PodPatch, Resources},
    parse::{parse, parse_strict, read_pools},
    pod_fields::unknown_fields,
    problem::{Problem, Rule},
    scaling::{ScaleDown, ScaleUp, Scaling, ScheduleSpec, SpareSpec, StepSpec},
    status::AgentPoolStatus,
    validate::{TemplateSource, TokenSource, ValidPool, validate},
};
