//! One instant's picture of a pool, out of the cells and of what our own writes left that the watch has not shown yet.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use kitepool_api::GENERATION_LABEL;
use kitepool_policy::{
    observation::{Generation, PodCounts},
    units::Pods,
};
use tokio::time::Instant;

use super::act::Landed;
use crate::{
    cluster::{
        cell::NamespaceCells,
        view::{DeploymentView, PodView, PoolView},
    },
    pods::generation::INPUTS_ANNOTATION,
};

/// A namespace's Deployments and the pods of each.
#[derive(Debug)]
pub struct NamespaceSnapshot {
    deployments: BTreeMap<String, Arc<DeploymentView>>,
    counts: BTreeMap<String, PodCounts>,
    strangers: Vec<Arc<PodView>>,
}

/// A generation with what the shell needs besides the policy.
#[derive(Debug, Clone)]
pub struct GenerationFacts {
    /// What the policy sees.
    pub seen: Generation,
    /// The Deployment's uid.
    pub uid: String,
    /// Who, other than us, last wrote its replicas.
    pub foreign_scaler: Option<String>,
    /// What it was made of.
    pub inputs: Option<String>,
}

/// An entry that the watch has not shown after this long never will: the Deployment changed again, or is gone. What the cell
/// says is then tried, and a wrong guess is a conflict that reads the Deployment again.
const OVERLAY_MAX: Duration = Duration::from_secs(30);

/// What our own writes left, until the cells show it.
#[derive(Debug, Default)]
pub struct Overlay(BTreeMap<(String, String), (Landed, Instant)>);

impl Overlay {
    /// A write of the pool with this uid landed.
    pub fn landed(&mut self, uid: &str, deployment: String, landed: Landed, at: Instant) {
        self.0.insert((uid.to_owned(), deployment), (landed, at));
    }

    /// What we left at this Deployment.
    fn get(&self, uid: &str, deployment: &str) -> Option<Landed> {
        self.0.get(&(uid.to_owned(), deployment.to_owned())).map(|(landed, _)| *landed)
    }

    fn of_pool<'a>(&'a self, uid: &'a str) -> impl Iterator<Item = (&'a str, Landed)> {
        let entries = self.0.iter().filter(move |((owner, _), _)| owner == uid);
        entries.map(|((_, deployment), (landed, _))| (deployment.as_str(), *landed))
    }

    /// Drops the entries of a pool that the cells show by now, and old ones.
    pub fn settle(&mut self, uid: &str, snapshot: &NamespaceSnapshot, now: Instant) {
        self.0.retain(|(owner, deployment), (landed, at)| {
            owner != uid || !(snapshot.shows(deployment, *landed) || now.saturating_duration_since(*at) > OVERLAY_MAX)
        });
    }

    /// Forgets pools that are gone.
    pub fn retain(&mut self, is_there: impl Fn(&str) -> bool) {
        self.0.retain(|(uid, _), _| is_there(uid));
    }
}

impl NamespaceSnapshot {
    /// Counts every pod once.
    pub fn take(cells: &NamespaceCells) -> Self {
        let mut counts: BTreeMap<String, PodCounts> = BTreeMap::new();
        let mut strangers = Vec::new();
        for pod in cells.pods.objects().into_values() {
            match pod.labels.get(GENERATION_LABEL) {
                Some(generation) => count(counts.entry(generation.clone()).or_default(), &pod),
                None => strangers.push(pod),
            }
        }
        Self { deployments: cells.deployments.objects(), counts, strangers }
    }

    /// The generations of a pool, oldest first, the adopted one before all.
    pub fn generations(&self, pool: &PoolView, adopt: Option<&str>, overlay: &Overlay) -> Vec<GenerationFacts> {
        let mut own: Vec<&Arc<DeploymentView>> =
            self.deployments.values().filter(|deployment| deployment.owner_uid.as_deref() == Some(pool.uid.as_str())).collect();
        own.sort_by(|a, b| (a.created_at, &a.name).cmp(&(b.created_at, &b.name)));
        let adopted = adopt.and_then(|name| self.deployments.get(name)).filter(|deployment| deployment.owner_uid.is_none());

        let mut facts = Vec::new();
        for (deployment, is_adopted) in adopted.into_iter().map(|d| (d, true)).chain(own.into_iter().map(|d| (d, false))) {
            facts.extend(self.facts(deployment, is_adopted, overlay.get(&pool.uid, &deployment.name)));
        }
        facts.extend(self.created(pool, overlay));
        facts
    }

    fn facts(&self, deployment: &DeploymentView, adopted: bool, landed: Option<Landed>) -> Option<GenerationFacts> {
        let pods = if adopted { self.count_selected(deployment) } else { self.counts_of(&deployment.name) };
        // Only a write that the cell does not show yet counts.
        let landed = match landed {
            Some(Landed::Deleted) => return None,
            Some(Landed::Replicas { replicas, resource_version }) if resource_version > deployment.resource_version => {
                Some(replicas)
            }
            Some(Landed::Replicas { .. }) | None => None,
        };
        let replicas = landed.unwrap_or(Pods(deployment.replicas));
        let living = pods.ready.plus(pods.unready);
        let settled = landed.is_none()
            && !deployment.is_deleting
            && deployment.is_observed
            && deployment.status_replicas == replicas.0
            && living == replicas;
        Some(GenerationFacts {
            seen: Generation { name: deployment.name.clone(), adopted, replicas, settled, pods },
            uid: deployment.uid.clone(),
            foreign_scaler: deployment.foreign_scaler.clone(),
            inputs: deployment.annotations.get(INPUTS_ANNOTATION).cloned(),
        })
    }

    /// Deployments that we created and the watch has not shown.
    fn created(&self, pool: &PoolView, overlay: &Overlay) -> Vec<GenerationFacts> {
        overlay
            .of_pool(&pool.uid)
            .filter(|(name, _)| !self.deployments.contains_key(*name))
            .filter_map(|(name, landed)| match landed {
                Landed::Replicas { replicas, .. } => Some(GenerationFacts {
                    seen: Generation {
                        name: name.to_owned(),
                        adopted: false,
                        replicas,
                        settled: false,
                        pods: self.counts_of(name),
                    },
                    uid: String::new(),
                    foreign_scaler: None,
                    inputs: None,
                }),
                Landed::Deleted => None,
            })
            .collect()
    }

    fn counts_of(&self, generation: &str) -> PodCounts {
        self.counts.get(generation).copied().unwrap_or_default()
    }

    fn count_selected(&self, deployment: &DeploymentView) -> PodCounts {
        let mut counts = PodCounts::default();
        for pod in self.strangers.iter().filter(|pod| deployment.selects(&pod.labels)) {
            count(&mut counts, pod);
        }
        counts
    }

    /// Whether the cell shows what our write left, so that the overlay's entry has done its work.
    fn shows(&self, name: &str, landed: Landed) -> bool {
        let seen = self.deployments.get(name);
        match landed {
            Landed::Replicas { resource_version, .. } => {
                seen.is_some_and(|deployment| deployment.resource_version >= resource_version)
            }
            Landed::Deleted => seen.is_none(),
        }
    }
}

fn count(counts: &mut PodCounts, pod: &PodView) {
    let one = Pods(1);
    if pod.is_finished {
        // Evicted or ended pods stay listed; they are no capacity and run nothing.
    } else if pod.is_deleting {
        counts.draining = counts.draining.plus(one);
    } else if pod.is_ready {
        counts.ready = counts.ready.plus(one);
    } else {
        counts.unready = counts.unready.plus(one);
    }
}
