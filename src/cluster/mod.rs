//! Kubernetes: the only place that names `kube`.
//!
//! ```text
//!  read   watch ──► views (plain values) in cells          write ──► fence ──► API server
//!  lease  renew ──► fence (how long a write may still land)
//! ```

pub mod cell;
pub mod clear;
pub mod client;
pub mod error;
pub mod events;
pub mod fence;
pub mod hindrance;
pub mod hints;
pub mod lease;
pub mod library;
pub mod look;
pub mod proxy;
pub mod read;
pub mod schema;
pub mod sign;
pub mod trial;
pub mod view;
pub mod write;
