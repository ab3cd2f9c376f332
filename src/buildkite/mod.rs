//! Speaks Buildkite's agent API: one call at a time, bounded in time and size, every answer judged.
//!
//! Two endpoints are used: `GET {endpoint}/metrics` (public) and `GET {endpoint}/token` (used by Buildkite's own
//! Kubernetes stack). Both take `Authorization: Token <agent token>`.

pub mod client;
pub mod error;
pub mod identity;
pub mod wire;

pub use client::{Answer, Client, EndpointError, Transport};
pub use error::{Error, OUTCOMES};
pub use identity::{Identity, TokenIdentity};
pub use wire::MetricsReading;
