//! What happened to processes, and when: starts, signals, ends. The cases ask it; a person reads it after a failure.

use std::{
    collections::BTreeMap,
    fmt,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use tokio::time::Instant;

/// Far more than any case makes: ten thousand pods with twenty entries each, of which most have three.
const ENTRIES_MAX: usize = 200_000;

const FULL: &str = "the ledger is full: what it says is not all that happened";

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It ended itself.
    Exit(i32),
    /// A signal ended it.
    Signal(i32),
}

impl Ending {
    /// As a container's status shows it.
    pub(crate) fn exit_code(self) -> i32 {
        match self {
            Self::Exit(code) => code,
            Self::Signal(number) => 128 + number,
        }
    }
}

/// Why a process got a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// Its pod is deleted.
    Deleted,
    /// It was signalled before, by a kubelet that has forgotten it.
    SignalledAgain,
    /// It was still there when the grace period was over.
    GraceOver,
    /// A sidecar: what it was there for is done.
    MainEnded,
    /// Its liveness probe failed.
    Unhealthy,
    /// Its startup probe failed.
    NotStarted,
    /// Its postStart hook failed.
    HookFailed,
    /// Its node is gone.
    PowerCut,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    Started,
    /// A start that did not come about, and why.
    NotStarted(String),
    /// The number of a signal that was sent to the main process, and why.
    Signalled(i32, Why),
    Ended(Ending),
    /// A hook or a probe that failed, in its own words.
    Failed(String),
}

/// One line.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) at: Timestamp,
    /// The same moment, for differences.
    pub(crate) moment: Instant,
    pub(crate) node: String,
    pub(crate) pod: String,
    pub(crate) container: String,
    /// Of the main process, as the machine counts.
    pub(crate) pid: Option<i32>,
    pub(crate) what: What,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, node, pod, container, pid, what, .. } = self;
        write!(f, "{at} {node} {pod}/{container} {} {what:?}", pid.map_or("-".to_owned(), |pid| pid.to_string()))
    }
}

#[derive(Debug, Default)]
struct Book {
    entries: Vec<Entry>,
    lost: u64,
}

/// Whether this is a signal that was sent.
pub(crate) fn is_signal(entry: &Entry) -> bool {
    matches!(entry.what, What::Signalled(..))
}

/// The shared book. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ledger(Arc<Mutex<Book>>);

impl Ledger {
    pub(crate) fn enter(&self, entry: Entry) {
        let mut book = self.book();
        if book.entries.len() < ENTRIES_MAX {
            book.entries.push(entry);
        } else {
            book.lost += 1;
        }
    }

    pub(crate) fn entries(&self) -> Vec<Entry> {
        let book = self.book();
        assert_eq!(book.lost, 0, "{FULL}");
        book.entries.clone()
    }

    /// The same by pod.
    pub(crate) fn by_pod(&self) -> BTreeMap<String, Vec<Entry>> {
        let mut by_pod: BTreeMap<String, Vec<Entry>> = BTreeMap::new();
        for entry in self.entries() {
            by_pod.entry(entry.pod.clone()).or_default().push(entry);
        }
        by_pod
    }

    /// How many entries are like this.
    pub(crate) fn count(&self, is_meant: impl Fn(&What) -> bool) -> usize {
        self.book().entries.iter().filter(|entry| is_meant(&entry.what)).count()
    }

    /// What happened to a pod's containers, in its order.
    pub(crate) fn of(&self, pod: &str) -> Vec<Entry> {
        let book = self.book();
        assert_eq!(book.lost, 0, "{FULL}");
        book.entries.iter().filter(|entry| entry.pod == pod).cloned().collect()
    }

    /// The signals that the main processes of a pod got.
    pub(crate) fn signals(&self, pod: &str) -> Vec<Entry> {
        self.of(pod).into_iter().filter(is_signal).collect()
    }

    /// The first entry of a container that is meant.
    pub(crate) fn first(&self, pod: &str, container: &str, is_meant: impl Fn(&What) -> bool) -> Option<Entry> {
        self.of(pod).into_iter().find(|entry| entry.container == container && is_meant(&entry.what))
    }

    /// Writes all of it into a file.
    pub(crate) fn dump(&self, path: &Path) -> std::io::Result<()> {
        let book = self.book();
        let lines: Vec<String> = book.entries.iter().map(ToString::to_string).collect();
        std::fs::write(path, format!("{}\n{} entries are not here\n", lines.join("\n"), book.lost))
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
