//! The loop: observe, decide, check, act, record.
//!
//! ```text
//!  cells, readings ─► snapshot ─► policy::decide ─► policy::check ─► status (intent first) ─► act ─► API server
//!       ▲                                                                                   │
//!       └────────────────────────────── what really landed ◄────────────────────────────────┘
//! ```

pub mod act;
mod agents;
pub mod announce;
pub mod conditions;
pub mod departures;
pub mod hint_sweep;
pub mod hints;
pub mod joined;
pub mod metrics;
mod observe;
mod outcomes;
pub mod overlay;
mod pace;
pub mod pool;
pub mod pool_status;
pub mod queues;
pub mod readings;
pub mod record;
mod report;
pub mod run;
mod show;
pub mod signs;
pub mod snapshot;
pub mod status;
pub mod tick;
mod turns;
pub mod verdict;
