//! Kitepool keeps the right number of long-polling Buildkite agents running on Kubernetes.

pub mod budget;
pub mod buildkite;
pub mod clock;
pub mod sense;
