//! Kitepool's decisions: one queue's observation and memory in, one decision per pool out.
//!
//! No async, I/O, clock, randomness or logging lives here; `now` is a parameter. The words are those of the
//! glossary in ARCHITECTURE.md, the invariants those of its section 9.
//!
//! ```text
//!  observation ─┐                                                                             ┌─ intents (create, scale, delete)
//!  memory ──────┼─► trust ► demand ► share ► spare ► schedule ► stabilise ► limits ► shrink ─┼─ new memory
//!  now ─────────┘                                                                             └─ report, one entry per step
//! ```
//!
//! What the shell does with it, in each tick and for each queue:
//!
//! 1. A [`Watch`](unsatisfiable::Watch) of the queue, kept from tick to tick, looks at the observation and becomes part of it.
//! 2. [`decide`](fn@decide) gives one [`Decision`](decision::Decision) per pool.
//! 3. [`check`](fn@check) refuses those that break an invariant; a refused pool keeps what it has.
//! 4. The new memory is recorded, then the intents are carried out in their order, each with its precondition. What does not
//!    land is decided again in the next tick.
//! 5. Hints that are [`Settled`](Standing::Settled) or [`Expired`](Standing::Expired) by [`standing_of`] are deleted.
//!
//! Deciding again after acting decides nothing, and while nothing happens the memory stays as it is.
//!
//! Where things go: a new way to want more or less is a step of its own between `demand` and `stabilise`; a new ceiling or
//! floor belongs into `limits`; a new reason to keep pods is one more line in the gate of `shrink`; and each of them is one
//! more [`Reason`](decision::Reason). What must never happen is written down in [`check`](mod@check) if one tick shows it,
//! and in [`violations`](mod@violations) if it takes a history, each time with a saboteur that breaks it.

pub mod breaker;
pub mod check;
pub mod decide;
pub mod decision;
pub mod demand;
pub mod hints;
pub mod memory;
pub mod observation;
pub mod protocol;
pub mod rules;
#[cfg(feature = "saboteurs")]
pub mod saboteur;
pub mod schedule;
pub mod share;
pub mod spec;
pub mod trust;
pub mod units;
pub mod unsatisfiable;
pub mod violations;

mod age;
mod generations;
mod ledger;
mod limits;
mod reason;
mod recorded;
mod shrink;
mod spare;
mod stabilise;

pub use self::{
    check::check,
    decide::decide,
    demand::{Standing, standing_of},
    violations::violations,
};
