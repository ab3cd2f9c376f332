//! Follows the Deployments of a namespace and writes down every moment at which a pool is larger or smaller than it may be.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    ops::RangeInclusive,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use futures::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use kube::{
    Api, Client, ResourceExt as _,
    runtime::watcher::{self, Event},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::deployments::{POOL_LABEL, replicas};

/// A running record; it ends when it is dropped.
pub(crate) struct History {
    book: Arc<Mutex<Book>>,
    _ends: DropGuard,
}

#[derive(Default)]
struct Book {
    /// What a pool's replicas may be together, from the moment at which a case says so.
    bounds: BTreeMap<String, RangeInclusive<i32>>,
    /// Deployments without our label that count for a pool: those that it adopts.
    adopted: BTreeMap<String, String>,
    deployments: BTreeMap<String, (String, i32)>,
    moments: Vec<(Timestamp, String, i32)>,
    violations: Vec<String>,
}

impl History {
    pub(crate) fn start(client: Client, namespace: &str) -> Self {
        let book = Arc::new(Mutex::new(Book::default()));
        let end = CancellationToken::new();
        let deployments = Api::namespaced(client, namespace);
        tokio::spawn(end.clone().run_until_cancelled_owned(follow(deployments, Arc::clone(&book))));
        Self { book, _ends: end.drop_guard() }
    }

    /// From now on the pool may have so many replicas.
    pub(crate) fn bound(&self, pool: &str, bounds: RangeInclusive<i32>) {
        self.book().bounds.insert(pool.to_owned(), bounds);
    }

    /// Counts a Deployment of somebody else for the pool that adopts it.
    pub(crate) fn count(&self, deployment: &str, pool: &str) {
        self.book().adopted.insert(deployment.to_owned(), pool.to_owned());
    }

    /// The sizes that the pool had, each once, in their order.
    pub(crate) fn sizes(&self, pool: &str) -> Vec<i32> {
        let mut sizes: Vec<i32> =
            self.book().moments.iter().filter(|(_, of, _)| of == pool).map(|(_, _, size)| *size).collect();
        sizes.dedup();
        sizes
    }

    /// When the pool had which size.
    pub(crate) fn moments(&self, pool: &str) -> Vec<(Timestamp, i32)> {
        self.book().moments.iter().filter(|(_, of, _)| of == pool).map(|(at, _, size)| (*at, *size)).collect()
    }

    /// What was out of bounds, as text; empty when nothing was.
    pub(crate) fn violations(&self) -> String {
        let book = self.book();
        if book.violations.is_empty() {
            return String::new();
        }
        let mut text = book.violations.join("\n");
        for (at, pool, size) in &book.moments {
            let _ = write!(text, "\n  {at} {pool} {size}");
        }
        text
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().expect("no panic while it is held")
    }
}

async fn follow(deployments: Api<Deployment>, book: Arc<Mutex<Book>>) {
    let mut events = pin!(watcher::watcher(deployments, watcher::Config::default()));
    while let Some(event) = events.next().await {
        let mut book = match &event {
            Ok(_) => book.lock().expect("no panic while it is held"),
            Err(_away) => {
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            }
        };
        match event {
            Ok(Event::Apply(deployment) | Event::InitApply(deployment)) => book.see(&deployment),
            Ok(Event::Delete(deployment)) => book.forget(&deployment.name_any()),
            Ok(Event::Init | Event::InitDone) | Err(_) => {}
        }
    }
}

impl Book {
    fn see(&mut self, deployment: &Deployment) {
        let name = deployment.name_any();
        let Some(pool) = deployment.labels().get(POOL_LABEL).or_else(|| self.adopted.get(&name)).cloned() else {
            return;
        };
        // One that is being deleted keeps its number, and its pods go with it.
        let now = if deployment.metadata.deletion_timestamp.is_some() { 0 } else { replicas(deployment) };
        self.deployments.insert(name, (pool.clone(), now));
        self.note(pool);
    }

    fn forget(&mut self, name: &str) {
        if let Some((pool, _)) = self.deployments.remove(name) {
            self.note(pool);
        }
    }

    fn note(&mut self, pool: String) {
        let size = self.deployments.values().filter(|(of, _)| *of == pool).map(|(_, replicas)| replicas).sum();
        let is_news = self.moments.iter().rev().find(|(_, of, _)| *of == pool).is_none_or(|(_, _, last)| *last != size);
        if !is_news {
            return;
        }
        let at = Timestamp::now();
        if let Some(bounds) = self.bounds.get(&pool)
            && !bounds.contains(&size)
        {
            self.violations.push(format!("{at}: pool {pool} has {size} replicas, outside {bounds:?}"));
        }
        self.moments.push((at, pool, size));
    }
}
