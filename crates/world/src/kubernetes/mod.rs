//! A simulated Kubernetes: the API server, controllers, scheduler and kubelets that the controller under test meets, as one
//! state machine that a clock moves.
//!
//! ```text
//!  answer(request) ──► verbs ──► commit ──► store (objects, versions, past)
//!                                  │  └───► watches (a queue of lines each)
//!                                  ▼
//!                               agenda ──advance(now)──► deployments, replica sets, scheduler, kubelets, garbage ──► commit
//!                                                                                           └──► signals
//! ```
//!
//! It knows the requests that the controller sends; any other is answered 501 and kept in [`Kubernetes::unknown`]. There is no
//! schema validation, no CEL and no authorization: what those do is learned from a real API server.

mod answer;
mod defaults;
mod deployment;
mod fault;
mod fields;
mod garbage;
mod hands;
mod journal;
mod kind;
mod kubelet;
mod list;
mod names;
mod object;
mod patch;
mod pod_status;
mod quota;
mod refusal;
mod replica_set;
mod request;
mod router;
mod scheduler;
mod selector;
mod settings;
mod signal;
mod store;
mod verbs;
mod watch;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use serde_json::Value;

use self::{
    answer::Waiting,
    fault::Faults,
    journal::Journal,
    kubelet::{Deed, Kept},
    names::Names,
    object::{Key, controller, list, owner_key, stamp, text, uid},
    store::{Change, Store},
    watch::Watches,
};
use crate::{Agenda, Chance};

pub use self::{
    answer::{ApiAnswer, Ticket},
    fault::Fault,
    journal::{Requests, Write},
    kind::Kind,
    request::{ApiRequest, Route, Verb},
    router::{Shared, drive, router},
    settings::{Delay, PodFault, Readiness, Settings},
    signal::{PodSeen, PodSignal},
    watch::{WatchEnd, WatchId, WatchNews},
};

/// The simulated Kubernetes.
#[derive(Debug)]
pub struct Kubernetes {
    settings: Settings,
    definitions: Vec<Value>,
    now: Timestamp,
    store: Store,
    watches: Watches,
    agenda: Agenda<Event>,
    waiting: BTreeMap<Ticket, Waiting>,
    answered: BTreeSet<Ticket>,
    tickets: u64,
    faults: Faults,
    journal: Journal,
    names: Names,
    pace: Chance,
    /// The objects that a controller is going to look at: once, however often they changed meanwhile.
    to_sync: BTreeSet<Key>,
    kubelets: BTreeMap<String, Kept>,
    signals: Vec<PodSignal>,
    pod_faults: BTreeMap<String, PodFault>,
    unschedulable: BTreeSet<String>,
    /// Labels that no node carries.
    lacking: BTreeSet<(String, String)>,
    lost_nodes: BTreeSet<String>,
    /// How many pods are on each node.
    crowds: BTreeMap<String, usize>,
    /// Nodes that take no more pods.
    cordoned: BTreeSet<String>,
    /// Whether `ReplicaSet`s take pods whatever is written on them.
    is_contrary: bool,
}

/// What is going to happen.
#[derive(Debug, Clone)]
enum Event {
    Bookmark(WatchId),
    WatchEnds(WatchId),
    Perform(Ticket),
    Sync(Key),
    /// What the object of this uid owned is looked through.
    Collect(String),
    Schedule(Key, String),
    Kubelet(String, Deed),
    PodsUnheard(Vec<(Key, String)>),
    PodsLost(Vec<(Key, String)>),
    Recount(Key),
}

impl Kubernetes {
    /// An empty one. The same seed and the same calls give the same bytes.
    pub fn new(settings: Settings, seed: u64, start: Timestamp) -> Self {
        Self {
            definitions: settings.definitions.clone(),
            now: start,
            store: Store::new(settings.history),
            watches: Watches::new(settings.watch_lines),
            agenda: Agenda::default(),
            waiting: BTreeMap::new(),
            answered: BTreeSet::new(),
            tickets: 0,
            faults: Faults::new(seed),
            journal: Journal::default(),
            names: Names::new(seed),
            pace: Chance::new(seed, "pace of the cluster"),
            to_sync: BTreeSet::new(),
            kubelets: BTreeMap::new(),
            signals: Vec::new(),
            pod_faults: BTreeMap::new(),
            unschedulable: BTreeSet::new(),
            lacking: BTreeSet::new(),
            lost_nodes: BTreeSet::new(),
            crowds: BTreeMap::new(),
            cordoned: BTreeSet::new(),
            is_contrary: false,
            settings,
        }
    }

    /// When something happens by itself.
    pub fn next_at(&self) -> Option<Timestamp> {
        self.agenda.next_at()
    }

    /// Lets happen what is due at `now`.
    pub fn advance(&mut self, now: Timestamp) {
        while let Some((at, event)) = self.agenda.due(now) {
            self.now = self.now.max(at);
            self.happen(event);
        }
        self.now = self.now.max(now);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Bookmark(id) => {
                if let Some(ends_at) = self.watches.bookmark(id, self.store.version()) {
                    self.plan_bookmark(id, ends_at);
                }
            }
            Event::WatchEnds(id) => self.watches.end(id),
            Event::Perform(ticket) => self.perform_later(ticket),
            Event::Sync(key) => {
                self.to_sync.remove(&key);
                match key.kind {
                    Kind::Deployment => self.sync_deployment(&key),
                    Kind::ReplicaSet => self.sync_replica_set(&key),
                    Kind::ResourceQuota => self.count_quota(&key),
                    Kind::AgentPool
                    | Kind::JobHint
                    | Kind::Pod
                    | Kind::Secret
                    | Kind::PodTemplate
                    | Kind::Event
                    | Kind::Lease => {}
                }
            }
            Event::Collect(owner) => self.collect(&owner),
            Event::Schedule(key, uid) => self.schedule(&key, &uid),
            Event::Kubelet(uid, deed) => self.kubelet(&uid, deed),
            Event::PodsUnheard(pods) => self.notice_lost(&pods),
            Event::PodsLost(pods) => self.remove_lost(&pods),
            Event::Recount(quota) => self.recount(&quota),
        }
    }

    fn after(&self, delay: Duration) -> Timestamp {
        self.now.checked_add(delay).unwrap_or(Timestamp::MAX)
    }

    fn drawn(&mut self, delay: Delay) -> Timestamp {
        let delay = delay.draw(&mut self.pace);
        self.after(delay)
    }

    fn stamp(&self) -> Value {
        stamp(self.now)
    }

    /// Writes an object and tells everybody.
    fn commit(&mut self, key: Key, object: Value) -> Arc<Value> {
        let change = self.store.write(key, object);
        self.tell_all(&change);
        change.object
    }

    /// Takes an object away and tells everybody.
    fn remove(&mut self, key: &Key) -> Option<Arc<Value>> {
        let change = self.store.remove(key)?;
        self.tell_all(&change);
        Some(change.object)
    }

    /// Tells watches, controllers, scheduler and kubelets.
    fn tell_all(&mut self, change: &Change) {
        self.watches.tell(change);
        let kind = change.key.kind;
        let specified = |object: &Value| object.get("spec").cloned();
        let is_new = change.before.as_deref().is_none_or(|before| specified(before) != specified(&change.object));
        // A quota's own count is no reason to count anew.
        if !change.is_gone && (kind != Kind::ResourceQuota || is_new) {
            self.plan_sync(change.key.clone());
        }
        if matches!(kind, Kind::ReplicaSet | Kind::Pod)
            && let Some(owner) = controller(&change.object).and_then(|owner| owner_key(owner, &change.key.namespace))
        {
            self.plan_sync(owner);
        }
        if kind == Kind::Pod {
            self.count_on_node(change);
            self.pod_changed(change);
        }
        if kind == Kind::ResourceQuota && change.before.is_none() {
            self.begin_counting(&change.key);
        }
        if change.is_gone {
            let quotas = self.store.of(Kind::ResourceQuota, &change.key.namespace).map(|(quota, _)| quota.clone());
            for quota in quotas.collect::<Vec<_>>() {
                self.plan_sync(quota);
            }
        }
        self.plan_collection(change);
    }

    fn plan_sync(&mut self, key: Key) {
        let has_controller = matches!(key.kind, Kind::Deployment | Kind::ReplicaSet | Kind::ResourceQuota);
        if has_controller && self.to_sync.insert(key.clone()) {
            let at = self.drawn(self.settings.controllers);
            self.agenda.enter(at, Event::Sync(key));
        }
    }

    /// What is gone may have owned something; what is new may have an owner that is gone already.
    fn plan_collection(&mut self, change: &Change) {
        let namespace = &change.key.namespace;
        let owners = list(&change.object, "/metadata/ownerReferences");
        let mut gone: Vec<String> = Vec::new();
        if change.is_gone && matches!(change.key.kind, Kind::AgentPool | Kind::Deployment | Kind::ReplicaSet) {
            gone.push(uid(&change.object).to_owned());
        } else if change.before.is_none() {
            let absent = owners.iter().filter(|owner| !self.owner_is_there(owner, namespace));
            gone.extend(absent.map(|owner| text(owner, "/uid").to_owned()));
        }
        for owner in gone {
            let at = self.drawn(self.settings.controllers);
            self.agenda.enter(at, Event::Collect(owner));
        }
    }
}
