//! Kitepool's decisions: one queue's observation and memory in, one decision per pool out.
//!
//! No async, I/O, clock, randomness or logging lives here; `now` is a parameter. The words are those of the
//! glossary in ARCHITECTURE.md.
//!
//! ```text
//!  observation ─┐                                                                    ┌─ intents (create, scale, delete)
//!  memory ──────┼─► trust ► demand ► share ► spare ► schedule ► stabilise ► limits ► shrink ─┼─ new memory
//!  now ─────────┘                                                                    └─ report, one entry per step
//! ```

pub mod check;
pub mod decide;
pub mod decision;
pub mod demand;
pub mod memory;
pub mod observation;
pub mod rules;
#[cfg(feature = "saboteurs")]
pub mod saboteur;
pub mod schedule;
pub mod share;
pub mod spec;
pub mod trust;
pub mod units;
pub mod violations;

mod age;
mod generations;
mod ledger;
mod limits;
mod reason;
mod shrink;
mod spare;
mod stabilise;

pub use self::{
    check::check,
    decide::decide,
    demand::{Standing, standing_of},
    violations::violations,
};
