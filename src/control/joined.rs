//! A namespace's Deployments and the pods of each, put together once for each change of theirs and not for each tick.

use std::{collections::BTreeMap, sync::Arc};

use kitepool_api::GENERATION_LABEL;

use crate::cluster::{
    cell::NamespaceCells,
    view::{DeploymentView, PodView},
};

/// Pods in the order of their names. Clones are the same.
pub type Pods = Arc<[Arc<PodView>]>;

/// Who belongs to whom. No clock is in it.
#[derive(Debug)]
pub struct Joined {
    /// Those that pools made, by the pool's uid, oldest first: a look at all of them for each pool would be a square.
    owned: BTreeMap<String, Vec<Arc<DeploymentView>>>,
    deployments: Arc<BTreeMap<String, Arc<DeploymentView>>>,
    /// By the generation that a pod says it is of.
    pods: BTreeMap<String, Pods>,
    none: Pods,
    strangers: Vec<Arc<PodView>>,
}

impl Joined {
    /// Out of the cells.
    pub fn of(cells: &NamespaceCells) -> Self {
        let mut pods: BTreeMap<&str, Vec<Arc<PodView>>> = BTreeMap::new();
        let mut strangers = Vec::new();
        let all = cells.pods.objects();
        for pod in all.values() {
            match pod.labels.get(GENERATION_LABEL) {
                Some(generation) => pods.entry(generation).or_default().push(Arc::clone(pod)),
                None => strangers.push(Arc::clone(pod)),
            }
        }
        let deployments = cells.deployments.objects();
        let mut owned: BTreeMap<String, Vec<Arc<DeploymentView>>> = BTreeMap::new();
        for deployment in deployments.values() {
            if let Some(owner) = &deployment.owner_uid {
                owned.entry(owner.clone()).or_default().push(Arc::clone(deployment));
            }
        }
        for own in owned.values_mut() {
            own.sort_by(|a, b| (a.created_at, &a.name).cmp(&(b.created_at, &b.name)));
        }
        let pods = pods.into_iter().map(|(generation, pods)| (generation.to_owned(), pods.into())).collect();
        Self { owned, deployments, pods, none: Arc::new([]), strangers }
    }

    /// The Deployments that a pool made, oldest first.
    pub fn owned_by(&self, pool: &str) -> impl Iterator<Item = &Arc<DeploymentView>> {
        self.owned.get(pool).into_iter().flatten()
    }

    /// A Deployment, whoever made it.
    pub fn deployment(&self, name: &str) -> Option<&Arc<DeploymentView>> {
        self.deployments.get(name)
    }

    /// The pods of a generation.
    pub fn pods_of(&self, generation: &str) -> &Pods {
        self.pods.get(generation).unwrap_or(&self.none)
    }

    /// The pods that are of no generation.
    pub fn strangers(&self) -> &[Arc<PodView>] {
        &self.strangers
    }
}

/// The same of each namespace, as long as it stays so.
#[derive(Debug, Default)]
pub struct Joins(BTreeMap<String, Known>);

#[derive(Debug)]
struct Known {
    revisions: Revisions,
    joined: Arc<Joined>,
}

/// Of Deployments and pods.
type Revisions = (u64, u64);

impl Joins {
    /// As it is now.
    pub fn of(&mut self, namespace: &str, cells: &NamespaceCells) -> Arc<Joined> {
        // Before the objects: what comes in between is put together again, not missed.
        let revisions = (cells.deployments.revision(), cells.pods.revision());
        if let Some(known) = self.0.get(namespace).filter(|known| known.revisions == revisions) {
            return Arc::clone(&known.joined);
        }
        let joined = Arc::new(Joined::of(cells));
        self.0.insert(namespace.to_owned(), Known { revisions, joined: Arc::clone(&joined) });
        joined
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn put(cells: &NamespaceCells, name: &str, is_ready: bool) {
        let status = if is_ready { "True" } else { "False" };
        let pod: k8s_openapi::api::core::v1::Pod = serde_json::from_value(json!({
            "metadata": { "name": name, "labels": { GENERATION_LABEL: "linux-a" } },
            "status": { "conditions": [{ "type": "Ready", "status": status }] },
        }))
        .unwrap();
        cells.pods.put(name.to_owned(), pod.into());
    }

    #[test]
    fn what_stays_is_put_together_once_and_what_changes_is_seen() {
        let cells = NamespaceCells::default();
        let mut joins = Joins::default();
        put(&cells, "b", false);
        let first = joins.of("ci", &cells);
        assert!(Arc::ptr_eq(&first, &joins.of("ci", &cells)));
        put(&cells, "b", true);
        put(&cells, "a", false);
        let names_and_readiness: Vec<(String, bool)> =
            joins.of("ci", &cells).pods_of("linux-a").iter().map(|pod| (pod.name.clone(), pod.is_ready)).collect();
        assert_eq!(names_and_readiness, [("a".to_owned(), false), ("b".to_owned(), true)]);
        cells.pods.remove("a");
        assert_eq!(joins.of("ci", &cells).pods_of("linux-a").len(), 1);
        assert!(!first.pods_of("linux-a")[0].is_ready, "what was taken stays as it was");
    }
}
