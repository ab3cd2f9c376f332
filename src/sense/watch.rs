//! The watches of one term: five kinds in each namespace.

use std::{collections::BTreeMap, sync::Arc};

use tokio::{sync::Notify, task::JoinSet};

use crate::{
    clock::Clock,
    cluster::{cell::NamespaceCells, client::Clients, read},
};

/// All watches. Dropping it ends them.
#[derive(Debug)]
pub struct ClusterWatch {
    /// What they know, by namespace.
    pub namespaces: BTreeMap<String, NamespaceCells>,
    _tasks: JoinSet<()>,
}

impl ClusterWatch {
    /// Begins to watch.
    pub fn begin(clients: &Clients, namespaces: &[String], wake: &Arc<Notify>, clock: &Clock) -> Self {
        let mut tasks = JoinSet::new();
        let mut known = BTreeMap::new();
        for namespace in namespaces {
            let cells = NamespaceCells::default();
            read::follow_all(&clients.read, namespace, &cells, wake, clock, &mut tasks);
            known.insert(namespace.clone(), cells);
        }
        Self { namespaces: known, _tasks: tasks }
    }
}
