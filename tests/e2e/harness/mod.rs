//! What the cases stand on, one responsibility a file.

pub(crate) mod account;
pub(crate) mod agents;
pub(crate) mod audit;
pub(crate) mod case;
pub(crate) mod chart;
pub(crate) mod control_plane;
pub(crate) mod controller;
pub(crate) mod deployments;
pub(crate) mod disturbance;
pub(crate) mod history;
pub(crate) mod jobs_metric;
pub(crate) mod kill_points;
pub(crate) mod library;
mod logs;
pub(crate) mod pools;
pub(crate) mod private_repository;
pub(crate) mod processes;
pub(crate) mod proxy;
pub(crate) mod records;
pub(crate) mod sender;
pub(crate) mod simulated_agents;
pub(crate) mod simulated_buildkite;
pub(crate) mod stranded;
pub(crate) mod stream;
pub(crate) mod told;
pub(crate) mod wait;

pub(crate) use case::{Case, case, case_on};
pub(crate) use wait::{eventually, stays};
