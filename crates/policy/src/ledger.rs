//! What we asked of each Deployment against what stands there: our own writes, late ones, and those of somebody else.
//!
//! ```text
//!   replicas seen          │ what it is                    │ what follows
//!  ────────────────────────┼───────────────────────────────┼──────────────────────────────────────────────
//!   what stood there       │ our write has not landed      │ decided again, its cooldown is paid for
//!   what was asked for     │ it landed                     │ remembered as settled
//!   in between             │ an earlier write of ours      │ remembered as settled
//!   anything else          │ somebody else's               │ reported once; the third in ten minutes: contested
//!   never asked            │ first seen, or adopted        │ taken as it is
//! ```

use jiff::Timestamp;

use crate::{
    age::elapsed,
    decision::{ForeignChange, Intent},
    limits,
    memory::{Asked, CONTESTED_AFTER, CONTESTED_WITHIN, Memory, Period},
    observation::PoolObservation,
    spec::Mode,
    units::Pods,
};

/// What the books say once they agree with what is seen.
#[derive(Debug, Default)]
pub(crate) struct Audit {
    /// Changes by somebody else, each reported once.
    pub foreign: Vec<ForeignChange>,
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

    let Memory { asked: books, last_up, last_down, .. } = memory;
    let is_rolling = pool.is_rolling();
    let (mut lost, mut landed) = (Pods::ZERO, Landed::default());
    for (name, asked) in books {
        let replicas = pool.generation(name).map_or(Pods::ZERO, |generation| generation.replicas);
        if asked.from != asked.to && asked.from == replicas {
            // Of the others, growth is not decided again; and what they lose is no matter of cooldowns.
            if pool.wanted_generation.as_deref() == Some(name) {
                audit.pending_up = asked.to.minus(replicas);
                audit.pending_down = replicas.minus(asked.to);
            }
            continue;
        }
        if asked.from != asked.to && asked.explains(replicas) {
            landed.book(asked, replicas, (last_up, last_down), is_rolling, now);
        }
        // Where nothing is ever written, every change is somebody else's, and none is news.
        if !asked.explains(replicas) && pool.spec.mode == Mode::Active {
            let change = ForeignChange { generation: name.clone(), expected: asked.to, found: replicas };
            lost = lost.plus(change.expected.minus(change.found));
            audit.foreign.push(change);
        }
        (asked.from, asked.to) = (replicas, replicas);
    }
    if !lost.is_zero() {
        audit.before_foreign = Some(pool.replicas().plus(lost));
    }
    landed.begin_periods(pool, memory, now);
    note(&audit.foreign, memory, now);

    for generation in &pool.generations {
        // Pods of ours whose beginnings are forgotten may be young. Those of an adopted Deployment are not of our making.
        let may_be_young = !generation.adopted && !generation.replicas.is_zero();
        let first_seen = || Asked { raised_at: may_be_young.then_some(now), ..Asked::found(generation.replicas) };
        memory.asked.entry(generation.name.clone()).or_insert_with(first_seen);
    }
    audit
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

/// Writes that were seen to land in this tick.
///
/// A write may land long after it was asked for: after errors, or when a pool that only observed begins to act. Ages and
/// cooldowns count from here, then. It costs no write to status, since landing changes the books anyway.
#[derive(Default)]
struct Landed {
    up: Pods,
    down: Pods,
}

impl Landed {
    fn book(
        &mut self,
        asked: &mut Asked,
        replicas: Pods,
        (last_up, last_down): (&mut Option<Timestamp>, &mut Option<Timestamp>),
        is_rolling: bool,
        now: Timestamp,
    ) {
        // While a pool rolls, its generation's last change is the pool's only if both happened at once.
        let renew = |pool: &mut Option<Timestamp>, generation: &mut Option<Timestamp>| {
            let is_one = !is_rolling || pool == generation;
            *generation = Some(now);
            if is_one {
                *pool = Some(now);
            }
            is_one
        };
        if replicas > asked.from && renew(last_up, &mut asked.raised_at) {
            self.up = self.up.plus(replicas.minus(asked.from));
        } else if replicas < asked.from && renew(last_down, &mut asked.lowered_at) {
            self.down = self.down.plus(asked.from.minus(replicas));
        }
    }

    /// A step's period that was over by the time begins anew, from what stood before.
    fn begin_periods(&self, pool: &PoolObservation, memory: &mut Memory, now: Timestamp) {
        let before = pool.replicas().minus(self.up).plus(self.down);
        let begun = Some(Period { start: now, base: before });
        if !self.up.is_zero() {
            memory.up_period = limits::running(memory.up_period, pool.spec.scale_up.step, now).or(begun);
        }
        if !self.down.is_zero() {
            memory.down_period = limits::running(memory.down_period, pool.spec.scale_down.step, now).or(begun);
        }
    }
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

/// Enters intents into the books, before they are carried out. Returns whether any of them is news: one that was asked for
/// already and has not landed is asked for again as it was, its time and its cooldown are those of the first asking.
pub(crate) fn enter(intents: &[Intent], memory: &mut Memory, now: Timestamp) -> bool {
    let mut is_news = false;
    for intent in intents {
        let (generation, from, to) = match intent {
            Intent::Create { generation, replicas } => (generation, Pods::ZERO, *replicas),
            Intent::Scale { generation, from, to } => (generation, *from, *to),
            Intent::Delete { .. } => continue,
        };
        let asked = memory.asked.entry(generation.clone()).or_insert_with(|| Asked::found(from));
        if asked.covers(from, to) {
            continue;
        }
        is_news = true;
        (asked.from, asked.to) = (from, to);
        if to > from {
            asked.raised_at = Some(now);
        } else {
            asked.lowered_at = Some(now);
        }
    }
    is_news
}
