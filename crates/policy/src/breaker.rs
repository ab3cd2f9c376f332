//! What keeps a pool from making more and more pods that do not come up: the failing-pod breaker, and room for pods without a node.
//!
//! While pods of the wanted generation fail and none has become ready since, more of the same would fail as well. So that
//! generation has no more than [`PROBES`] pods beyond the ready ones; what stands stays, and is what recovery shows by, since
//! the kubelet tries again by itself. One pod that becomes ready opens the breaker at once: those that fail at that moment are
//! *tolerated* (a bad node, a slow one), and only more than those close it again. With no pod ready at all, none is tolerated.
//! Another generation starts afresh.
//!
//! The breaker only ever stands against growth. Pods that fail go as pods do that are not needed: first, when fewer are wanted.
//!
//! Pods that no node has room for do not fail yet, since a cluster autoscaler takes minutes to add one, and needs to see them
//! to know how many to add. So growth goes on beside them, up to [`UNSCHEDULED_MAX`].

use crate::{
    decision::Reason,
    memory::Failing,
    observation::{Generation, PodCounts, PoolObservation},
    units::{Agents, Pods},
};

/// The most pods beyond the ready ones while pods fail: enough that one bad node among three does not pass for a bad
/// definition, and few enough to cost nothing.
pub const PROBES: Pods = Pods(3);

/// The most pods of a generation that wait for a node at the same time: the `max` of a pool that does not set any. Fewer would
/// hold up an autoscaler that could add all their nodes at once, more would only fill the API server.
pub const UNSCHEDULED_MAX: Pods = Pods(100);

/// The pods that may still come, and what stands against more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    /// Nothing does.
    Free,
    /// Pods fail.
    Failing { left: Pods, failing: Pods },
    /// Pods wait for nodes.
    Unscheduled { left: Pods, unscheduled: Pods },
}

impl Room {
    /// In the wanted generation of this pool.
    pub(crate) fn of(pool: &PoolObservation) -> Self {
        let Some(generation) = wanted(pool) else { return Self::Free };
        let Generation { replicas, pods, .. } = *generation;
        let failing = holds(pool).then(|| {
            let left = pods.ready.plus(PROBES).minus(replicas);
            Self::Failing { left, failing: pods.failing }
        });
        let unscheduled = (!pods.unscheduled.is_zero()).then(|| {
            // Those that do not exist yet will have no node either.
            let unscheduled = pods.unscheduled.plus(replicas.minus(pods.living()));
            Self::Unscheduled { left: UNSCHEDULED_MAX.minus(unscheduled), unscheduled }
        });
        [failing, unscheduled]
            .into_iter()
            .flatten()
            .min_by_key(|room| room.at_most(Pods(u32::MAX)))
            .unwrap_or(Self::Free)
    }

    /// As many of these as may come.
    pub(crate) fn at_most(self, pods: Pods) -> Pods {
        match self {
            Self::Free => pods,
            Self::Failing { left, .. } | Self::Unscheduled { left, .. } => pods.min(left),
        }
    }

    /// The entry's reason, where it holds growth back.
    pub(crate) const fn reason(self, wanted: Pods) -> Reason {
        match self {
            Self::Free => Reason::Unchanged,
            Self::Failing { failing, .. } => Reason::PodsFailing { wanted, failing },
            Self::Unscheduled { unscheduled, .. } => Reason::NodesAwaited { wanted, unscheduled },
        }
    }
}

/// What is to be remembered of the pods that fail now. The same observation again gives the same.
pub(crate) fn remember(pool: &PoolObservation) -> Option<Failing> {
    let Generation { name, pods: PodCounts { ready, failing, .. }, .. } = wanted(pool)?;
    if failing.is_zero() {
        return None;
    }
    let known = pool.memory.failing.as_ref().filter(|known| known.generation == *name);
    let (was_ready, tolerated) = known.map_or((*ready, Pods::ZERO), |known| (known.ready, known.tolerated));
    let (ready, tolerated) = if ready.is_zero() {
        (Pods::ZERO, Pods::ZERO)
    } else if *ready > was_ready {
        (*ready, *failing)
    } else if *failing > tolerated {
        // Closed: the fewest that were ready since. Whatever is above that has become ready.
        (*ready, tolerated)
    } else {
        (*ready, tolerated.min(*failing))
    };
    Some(Failing { generation: name.clone(), ready, tolerated })
}

/// Whether pods fail and none has become ready since.
pub fn holds(pool: &PoolObservation) -> bool {
    let failing = wanted(pool).map_or(Pods::ZERO, |generation| generation.pods.failing);
    remember(pool).is_some_and(|known| known.holds(failing))
}

/// Agents that the pool can provide, of those that it may come to: what fails provides none, and what would come next neither.
pub(crate) fn dependable_agents(pool: &PoolObservation) -> Agents {
    let reachable = pool.reachable_agents();
    if !holds(pool) {
        return reachable;
    }
    let failing = wanted(pool).map_or(Pods::ZERO, |generation| generation.pods.failing);
    pool.living_agents().minus(pool.spec.agents_per_pod.agents_in(failing)).min(reachable)
}

fn wanted(pool: &PoolObservation) -> Option<&Generation> {
    pool.generation(pool.wanted_generation.as_deref()?)
}
