//! Step 3: each pool's part of the queue's demand.
//!
//! First what runs stays where it runs, then the rest goes to the pools in their order, each up to what it may grow to. What
//! agents say themselves comes first; running jobs beyond that, of which nobody says where they are, are placed on ready pods
//! in order, then on pods that are not ready, and what is left counts with the rest.
//!
//! Pools that only observe never take from pools that act: they decide as though all pools acted, while the pools that act
//! count the ready agents of the others as standing ones, since nobody here can move them.
//!
//! A pool whose pods [fail](crate::breaker) serves what its other pods can; the rest is the next pool's as well.

use crate::{
    breaker,
    decision::Reason,
    demand::Demand,
    observation::{PoolObservation, QueueObservation},
    spec::Mode,
    units::Agents,
};

/// One pool's part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Agents.
    pub agents: Agents,
    /// What no pool of the queue can hold. It is part of the last pool's `agents`, so that its limits say so.
    pub unplaced: Agents,
}

impl Share {
    /// The entry's reason.
    pub(crate) fn reason(self, demand: Agents) -> Reason {
        if !self.unplaced.is_zero() {
            Reason::BeyondAllPools { unplaced: self.unplaced }
        } else if self.agents == demand {
            Reason::Unchanged
        } else {
            Reason::SharedOut { demand }
        }
    }
}

/// The queue's pools as they are filled: by order, then by name.
pub fn in_order(queue: &QueueObservation) -> Vec<&PoolObservation> {
    let mut pools: Vec<&PoolObservation> = queue.pools.iter().collect();
    pools.sort_by(|a, b| (a.spec.order, &a.spec.name).cmp(&(b.spec.order, &b.spec.name)));
    pools
}

/// Agents of ours that serve the queue and that the pools of this mode cannot move.
pub(crate) fn standing_for(mode: Mode, queue: &QueueObservation) -> Agents {
    match mode {
        Mode::Observe => queue.standing,
        Mode::Active => queue
            .pools
            .iter()
            .filter(|pool| pool.spec.mode == Mode::Observe)
            .fold(queue.standing, |sum, pool| sum.plus(pool.ready_agents())),
    }
}

/// One share per pool, in the pools' order.
pub fn divide(demand: &Demand, queue: &QueueObservation, pools: &[&PoolObservation]) -> Vec<Share> {
    let of_those_that_act = part(demand, standing_for(Mode::Active, queue), pools, |mode| mode == Mode::Active);
    if pools.iter().all(|pool| pool.spec.mode == Mode::Active) {
        return of_those_that_act;
    }
    let of_all = part(demand, standing_for(Mode::Observe, queue), pools, |_| true);
    pools
        .iter()
        .zip(of_those_that_act.into_iter().zip(of_all))
        .map(|(pool, (acting, observing))| if pool.spec.mode == Mode::Active { acting } else { observing })
        .collect()
}

/// Divides the demand among the pools whose mode takes part; the others get nothing.
fn part(demand: &Demand, standing: Agents, pools: &[&PoolObservation], takes_part: fn(Mode) -> bool) -> Vec<Share> {
    let waiting = demand.queued.plus(demand.ahead);
    // Standing agents take queued jobs first: which running jobs are theirs is not known, and a running job whose agent is
    // taken away is worse than a queued one that starts a little later.
    let mut running = demand.busy.minus(standing.minus(waiting));
    let mut rest = waiting.minus(standing);

    let mut given: Vec<Agents> =
        pools.iter().map(|pool| if takes_part(pool.spec.mode) { pool.busy_agents() } else { Agents::ZERO }).collect();
    running = running.minus(given.iter().copied().fold(Agents::ZERO, Agents::plus));
    let mut place = |amount: &mut Agents, room: fn(&PoolObservation) -> Agents| {
        for (pool, given) in pools.iter().zip(&mut given).filter(|(pool, _)| takes_part(pool.spec.mode)) {
            let taken = room(pool).minus(*given).min(*amount);
            *given = given.plus(taken);
            *amount = amount.minus(taken);
        }
    };
    place(&mut running, PoolObservation::ready_agents);
    place(&mut running, PoolObservation::living_agents);
    rest = rest.plus(running);

    // A pool whose pods fail keeps its part, and what it cannot provide of it goes to the next one as well: it must neither
    // starve the queue nor forget what it is to come to.
    let mut kept = Agents::ZERO;
    for (pool, given) in pools.iter().zip(&mut given).filter(|(pool, _)| takes_part(pool.spec.mode)) {
        let taken = pool.reachable_agents().minus(*given).min(rest);
        let provided = breaker::dependable_agents(pool).minus(*given).min(taken);
        *given = given.plus(taken);
        kept = taken.minus(provided);
        rest = rest.minus(provided);
    }

    let mut shares: Vec<Share> = given.into_iter().map(|agents| Share { agents, unplaced: Agents::ZERO }).collect();
    let last = pools.iter().zip(&mut shares).rfind(|(pool, _)| takes_part(pool.spec.mode));
    if let Some((_, last)) = last {
        // The last one has asked for what it cannot provide already.
        let unplaced = rest.minus(kept);
        last.agents = last.agents.plus(unplaced);
        last.unplaced = unplaced;
    }
    shares
}
