//! How the containers of one pod are, for all that wait for them and for the pod's status.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use tokio::sync::watch;

use super::ledger::Ending;

/// The last end of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) exit_code: i32,
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) started: Option<Timestamp>,
    pub(crate) finished: Timestamp,
}

impl End {
    pub(crate) fn of(ending: Ending, started: Timestamp, finished: Timestamp) -> Self {
        let exit_code = ending.exit_code();
        let reason = if exit_code == 0 { "Completed" } else { "Error" };
        Self { exit_code, reason: reason.to_owned(), message: String::new(), started: Some(started), finished }
    }
}

/// As `state` of a container's status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum State {
    Waiting { reason: String, message: String },
    Running { since: Timestamp },
    Terminated(End),
}

/// What a container is in its pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Init,
    /// An init container that goes on running.
    Sidecar,
    Main,
}

/// One container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) kind: Kind,
    pub(crate) image: String,
    pub(crate) state: State,
    pub(crate) last: Option<End>,
    pub(crate) restarts: i32,
    pub(crate) is_started: bool,
    pub(crate) is_ready: bool,
    /// It will not run again.
    pub(crate) is_over: bool,
}

impl View {
    pub(crate) fn is_running(&self) -> bool {
        matches!(self.state, State::Running { .. })
    }
}

/// The containers of one pod, in the order of its spec, and what the pod's own status needs besides.
#[derive(Debug)]
pub(crate) struct Board {
    views: Mutex<BTreeMap<String, View>>,
    changes: watch::Sender<u64>,
}

impl Board {
    pub(crate) fn new(views: BTreeMap<String, View>) -> Self {
        Self { views: Mutex::new(views), changes: watch::Sender::new(0) }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, View>> {
        self.views.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn all(&self) -> BTreeMap<String, View> {
        self.lock().clone()
    }

    pub(crate) fn view(&self, name: &str) -> View {
        self.lock()[name].clone()
    }

    /// Changes one of them, and wakes who waits for that.
    pub(crate) fn change(&self, name: &str, change: impl FnOnce(&mut View)) {
        self.lock().get_mut(name).map(change);
        self.changes.send_modify(|changes| *changes += 1);
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Waits until it is so.
    pub(crate) async fn until(&self, is_so: impl Fn(&BTreeMap<String, View>) -> bool) {
        let mut changes = self.changes();
        while !is_so(&self.lock()) {
            // The sender lives as long as we do.
            drop(changes.changed().await);
        }
    }
}
