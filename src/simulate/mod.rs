//! The real controller in a simulated world: for tests, the demonstration and benchmarks.
//!
//! ```text
//!  story ──acts──► stage: Kubernetes + Buildkite (crates/world), one clock
//!                    ▲ events as JobHints: courier      │ requests, in process or over loopback
//!                    │                                  ▼
//!                    └────────────── controller: a replica in process, or the program's own way over loopback
//!  what happened ──► transcript (lines), tally (numbers), verdict (invariants); news, for whoever watches
//! ```
//!
//! Everything goes by the runtime's time: under a paused runtime a day takes a second or two, and the same seed gives the same
//! bytes; under a running one it is a demonstration.

mod acts;
pub mod agents;
mod controller;
pub mod courier;
pub mod demo;
mod expectation;
pub mod loopback;
pub mod news;
pub mod pace;
pub mod random;
pub mod replica;
pub mod speed;
pub mod stage;
pub mod storm;
pub mod story;
pub mod tally;
pub mod transcript;
pub mod verdict;
