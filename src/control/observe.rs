//! What one pass sees: all pools by their queues, and each pool with all that is known of it when its queue's turn comes.

use std::{collections::BTreeSet, iter::Peekable, sync::Arc};

use jiff::Timestamp;
use kitepool_api::validate::ValidPool;
use kitepool_policy::{memory::Memory, spec::Mode};

use super::{
    pool::{PlanInputs, PlanResult, PoolFacts, PoolState},
    pool_status,
    readings::{QueueKey, Seen},
    snapshot::{Beside, NamespaceSnapshot},
    tick::Term,
};
use crate::{buildkite::Identity, cluster::view::PoolView};

/// A valid pool in this tick.
pub(super) struct Candidate {
    pub(super) facts: PoolFacts,
    pub(super) valid: Arc<ValidPool>,
    pub(super) plan: PlanResult,
    pub(super) seen: Seen,
    pub(super) memory: Memory,
}

impl Candidate {
    pub(super) fn view(&self) -> &PoolView {
        &self.facts.view
    }
}

/// A valid pool of which nothing was looked at yet but what says which queue it serves.
struct Found {
    snapshot: Arc<NamespaceSnapshot>,
    view: Arc<PoolView>,
    valid: Arc<ValidPool>,
    /// A person has said since the last tick that a contest is over, or that a new identity is right.
    is_new_word: bool,
    /// The identity that it has known so far.
    expected: Option<Identity>,
}

/// The same with its queue.
pub(super) struct Placed {
    found: Found,
    seen: Seen,
}

impl Placed {
    pub(super) fn queue(&self) -> &QueueKey {
        &self.seen.key
    }
}

/// Takes the pools of the next queue, where those of a queue come together; none when all were taken.
pub(super) fn next_queue(rest: &mut Peekable<impl Iterator<Item = Placed>>) -> Vec<Placed> {
    let mut queue: Vec<Placed> = Vec::new();
    let is_same = |queue: &[Placed], next: &Placed| queue.last().is_none_or(|last| last.seen.key == next.seen.key);
    while let Some(next) = rest.next_if(|next| is_same(&queue, next)) {
        queue.push(next);
    }
    queue
}

impl Term {
    /// All pools that there are now: the valid ones, in the order of their queues, those with hints first, and those that are broken.
    pub(super) fn look_around(&mut self, now: Timestamp) -> (Vec<Placed>, Vec<PoolFacts>) {
        let mut found = Vec::new();
        let mut broken = Vec::new();
        self.passes = self.passes.wrapping_add(1);
        let mut unseen = BTreeSet::new();
        let at = self.shared.clock.mono();
        for (namespace, cells) in &self.watch.namespaces {
            if !cells.is_synced() {
                unseen.insert(namespace.clone());
                continue;
            }
            let snapshot = Arc::new(NamespaceSnapshot::of(self.joins.of(namespace, cells), cells, now));
            for view in cells.pools.objects().values().filter(|view| !view.is_deleting) {
                if !self.pools.contains_key(&view.uid) {
                    self.pools.insert(view.uid.clone(), PoolState::load(view));
                }
                let Some(state) = self.pools.get_mut(&view.uid) else { continue };
                state.seen_in = self.passes;
                let Ok(valid) = &view.pool else {
                    self.overlay.settle(&view.uid, &snapshot, at);
                    let said = |uid: &str| self.probes.look(uid);
                    let beside = Beside { overlay: &self.overlay, said: &said, memory: &state.memory };
                    broken.push(PoolFacts::gather(Arc::clone(view), &snapshot, beside));
                    continue;
                };
                let mut valid = Arc::clone(valid);
                if self.shared.config.is_dry_run {
                    // Where nothing is written every change is somebody else's, and no news.
                    Arc::make_mut(&mut valid).spec.mode = Mode::Observe;
                }
                let word = pool_status::word(view);
                let is_new_word = word.is_some() && word != pool_status::resolved(state.status());
                let expected = state.identity().filter(|_| !is_new_word).cloned();
                let (snapshot, view) = (Arc::clone(&snapshot), Arc::clone(view));
                found.push(Found { snapshot, view, valid, is_new_word, expected });
            }
        }
        self.readings.want(found.iter().map(|found| (&*found.view, &*found.valid)));
        self.forget_all_but(self.passes, &unseen);
        let place = |mut found: Found| {
            let seen = self.readings.of(&found.view, &found.valid, found.expected.take());
            Placed { found, seen }
        };
        let mut placed: Vec<Placed> = found.into_iter().map(place).collect();
        // Stable: the pools of a queue stay in the order of their names.
        placed.sort_by(|a, b| a.seen.key.cmp(&b.seen.key));
        // Those that jobs were told for do not wait for the others.
        let (mut placed, others): (Vec<Placed>, Vec<Placed>) =
            placed.into_iter().partition(|placed| self.hints.concern(placed.queue()));
        placed.extend(others);
        (placed, broken)
    }

    /// A pool with all that is known of it.
    pub(super) fn observe(&mut self, placed: Placed) -> Option<Candidate> {
        let Placed { found: Found { snapshot, view, valid, is_new_word, expected: _ }, seen } = placed;
        self.overlay.settle(&view.uid, &snapshot, self.shared.clock.mono());
        let cells = self.watch.namespaces.get(&view.name.namespace)?;
        let state = self.pools.get_mut(&view.uid)?;
        let mut memory = self.writers.in_flight(&view.uid).unwrap_or(&state.memory).clone();
        // A person's word ends a contest and accepts a new identity.
        if is_new_word {
            memory.settle_contest();
        }
        let said = |uid: &str| self.probes.look(uid);
        let beside = Beside { overlay: &self.overlay, said: &said, memory: &memory };
        let facts = PoolFacts::gather(view, &snapshot, beside);
        let config = &self.shared.config;
        let plan = state.plan(&facts.view, &valid, &PlanInputs { cells, generations: &facts.generations, config });
        Some(Candidate { facts, valid, plan, seen, memory })
    }
}
