//! Kitepool keeps the right number of long-polling Buildkite agents running on Kubernetes.
//!
//! The decisions are `kitepool-policy`'s, the resources `kitepool-api`'s; here is the shell around them. ARCHITECTURE.md has
//! the picture and says which module may use which.

pub mod agents;
pub mod budget;
pub mod buildkite;
pub mod cli;
pub mod clock;
pub mod cluster;
pub mod control;
pub mod explain;
pub mod ingest;
pub mod pods;
pub mod sense;
pub mod serve;
pub mod shutdown;
pub mod simulate;
pub mod telemetry;
