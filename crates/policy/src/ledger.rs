//! What we asked of each Deployment against what stands there: our own writes, late ones, and those of somebody else.
//!
//! ```text
//!   replicas seen          │ what it is                    │ what follows
//!  ────────────────────────┼───────────────────────────────┼──────────────────────────────────────────────
//!   what stood there       │ our write has not landed      │ decided again, its cooldown is paid for
//!   what was asked for     │ it landed                     │ remembered as settled
//!   in between             │ an earlier write of ours      │ remembered as settled
//!   more, scaled by us     │ ours, and not recorded in time│ remembered as if raised now, reported once
//!   anything else          │ somebody else's               │ reported once; the third in ten minutes: contested
//!   never asked            │ first seen, or adopted        │ taken as it is
//! ```

use jiff::Timestamp;

use crate::{
    age::elapsed,
    decision::{ForeignChange, Intent, UnrecordedRaise},
    limits,
    memory::{Asked, CONTESTED_AFTER, CONTESTED_WITHIN, Memory},
    observation::PoolObservation,
    spec::Mode,
    units::Pods,
};

/// What the books say once they agree with what is seen.
#[derive(Debug, Default)]
pub(crate) struct Audit {
    /// Changes by somebody else, each reported once.
    pub foreign: Vec<ForeignChange>,
    /// Raises of ours without a record, each reported once.
    pub unrecorded: Vec<UnrecordedRaise>,
    /// What stood before somebody else lowered it.
    pub before_foreign: Option<Pods>,
    /// Growth that was decided and has not landed.
    pub pending_up: Pods,
    /// Shrinking that was decided and has not landed.
    pub pending_down: Pods,
}

/// Brings the books into agreement with what is seen.
pub(crate) fn audit(pool: &PoolObservation, memory: &mut Memory, now: Timestamp) -> Audit {
    let mut audit = Audit::default();
    forget_the_gone(pool, memory);

    let mut lost = Pods::ZERO;
    for (name, asked) in &mut memory.asked {
        let replicas = pool.generation(name).map_or(Pods::ZERO, |generation| generation.replicas);
        if asked.from != asked.to && asked.from == replicas {
            // Paid for is what was charged to the pool when it was asked for; a roll's moves were not.
            if pool.wanted_generation.as_deref() == Some(name) {
                let paid = |at: Option<Timestamp>, last: Option<Timestamp>, pods: Pods| {
                    if at == last { pods } else { Pods::ZERO }
                };
                audit.pending_up = paid(asked.raised_at, memory.last_up, asked.to.minus(replicas));
                audit.pending_down = paid(asked.lowered_at, memory.last_down, replicas.minus(asked.to));
            }
            continue;
        }
        // Where nothing is ever written, every change is somebody else's, and none is news.
        if !asked.explains(replicas) && pool.spec.mode == Mode::Active {
            let is_ours = pool.generation(name).is_some_and(|found| found.scaled_by_us);
            if is_ours && replicas > asked.to {
                audit.unrecorded.push(UnrecordedRaise { generation: name.clone(), from: asked.to, to: replicas });
                asked.raised_at = Some(now);
            } else {
                let change = ForeignChange { generation: name.clone(), expected: asked.to, found: replicas };
                lost = lost.plus(change.expected.minus(change.found));
                audit.foreign.push(change);
            }
        }
        (asked.from, asked.to) = (replicas, replicas);
    }
    if !lost.is_zero() {
        audit.before_foreign = Some(pool.replicas().plus(lost));
    }
    note(&audit.foreign, memory, now);
    for raise in &audit.unrecorded {
        make_up_for(raise, pool, memory, now);
    }

    for generation in &pool.generations {
        // Pods of ours whose beginnings are forgotten may be young. Those of an adopted Deployment are not of our making.
        let may_be_young = !generation.adopted && !generation.replicas.is_zero();
        let first_seen = || Asked { raised_at: may_be_young.then_some(now), ..Asked::found(generation.replicas) };
        memory.asked.entry(generation.name.clone()).or_insert_with(first_seen);
    }
    audit
}

/// The pool was raised, and whoever did it ended before that was recorded. When it was nobody knows, so cooldown, step and window count from
/// now: never less than they are.
fn make_up_for(raise: &UnrecordedRaise, pool: &PoolObservation, memory: &mut Memory, now: Timestamp) {
    limits::charge_up(memory, pool.spec.scale_up.step, raise.from, now);
    // It was raised because that was wanted.
    let want = raise.to.min(pool.spec.limits.max()).max(memory.want.unwrap_or_default());
    memory.want = Some(want);
    memory.peaks.retain(|peak| peak.want > want);
}

/// Drops what is known of generations that are no more. Their agents went at their last change at the latest, and a reading
/// must still know that.
fn forget_the_gone(pool: &PoolObservation, memory: &mut Memory) {
    let Memory { asked, last_down, .. } = memory;
    asked.retain(|name, asked| {
        let is_there = pool.generation(name).is_some() || pool.wanted_generation.as_deref() == Some(name);
        if !is_there {
            *last_down = (*last_down).max(asked.lowered_at).max(asked.raised_at);
        }
        is_there
    });
}

/// Remembers foreign changes, and that the pool is contested.
fn note(foreign: &[ForeignChange], memory: &mut Memory, now: Timestamp) {
    if foreign.is_empty() {
        return;
    }
    memory.foreign.retain(|at| elapsed(*at, now) < CONTESTED_WITHIN);
    memory.foreign.extend(foreign.iter().map(|_| now));
    let surplus = memory.foreign.len().saturating_sub(CONTESTED_AFTER);
    memory.foreign.drain(..surplus);
    if memory.foreign.len() >= CONTESTED_AFTER {
        memory.contested_since.get_or_insert(now);
    }
}

/// Enters intents into the books, before they are carried out. Returns whether any of them is news.
///
/// A pool that acts enters every attempt, also one that repeats what did not land: what it raises is no older than the last
/// attempt. Where nothing is ever carried out, the same intent is the same news at every tick, and worth no write.
pub(crate) fn enter(intents: &[Intent], mode: Mode, memory: &mut Memory, now: Timestamp) -> bool {
    let mut is_news = false;
    for intent in intents {
        let (generation, from, to) = match intent {
            Intent::Create { generation, replicas } => (generation, Pods::ZERO, *replicas),
            Intent::Scale { generation, from, to } => (generation, *from, *to),
            Intent::Delete { .. } => continue,
        };
        let asked = memory.asked.entry(generation.clone()).or_insert_with(|| Asked::found(from));
        let is_covered = asked.covers(from, to);
        if is_covered && mode == Mode::Observe {
            continue;
        }
        is_news = true;
        // Less than before in the same direction: the larger write may still land, and would be ours as well.
        if !is_covered {
            (asked.from, asked.to) = (from, to);
        }
        if to > from {
            asked.raised_at = Some(now);
        } else {
            asked.lowered_at = Some(now);
        }
    }
    is_news
}
