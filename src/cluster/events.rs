//! Kubernetes Events about pools: queued, published one at a time, dropped and counted when there are too many.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use k8s_openapi::api::core::v1::ObjectReference;
use kitepool_api::AgentPool;
use kube::{
    Client, Resource as _,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use tokio::sync::mpsc;

use super::{client::chain, fence::WRITE_DEADLINE};

/// A tick of 200 pools in which each has something to say; more than that at once is a storm and is cut.
const QUEUE_MAX: usize = 256;

/// The API server refuses longer notes.
const NOTE_BYTES_MAX: usize = 1024;

/// Which pool an Event is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolReference {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

/// One Event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// About which pool.
    pub pool: PoolReference,
    /// Whether somebody should look at it.
    pub is_warning: bool,
    /// A bounded `CamelCase` word.
    pub reason: &'static str,
    /// The sentence.
    pub note: String,
}

/// Publishes Events in the background.
#[derive(Debug, Clone)]
pub struct Announcer {
    queue: mpsc::Sender<Notice>,
    dropped: Arc<AtomicU64>,
}

impl Announcer {
    /// An announcer, and the task that publishes: to be spawned.
    pub fn new(client: Client, instance: &str) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let (queue, mut waiting) = mpsc::channel::<Notice>(QUEUE_MAX);
        let reporter = Reporter { controller: "kitepool".to_owned(), instance: Some(instance.to_owned()) };
        let recorder = Recorder::new(client, reporter);
        let dropped = Arc::new(AtomicU64::new(0));
        let lost = Arc::clone(&dropped);
        let publishing = async move {
            while let Some(notice) = waiting.recv().await {
                let (event, about) = wire(notice);
                let failure = match tokio::time::timeout(WRITE_DEADLINE, recorder.publish(&event, &about)).await {
                    Ok(Ok(())) => continue,
                    Ok(Err(error)) => chain(&error),
                    Err(_elapsed) => "no answer in time".to_owned(),
                };
                lost.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(error = failure, reason = event.reason, pool = about.name, "event not published");
            }
        };
        (Self { queue, dropped }, publishing)
    }

    /// Queues one, or drops it when the queue is full.
    pub fn announce(&self, notice: Notice) {
        if self.queue.try_send(notice).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many were dropped or refused.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

fn wire(notice: Notice) -> (Event, ObjectReference) {
    let about = ObjectReference {
        api_version: Some(AgentPool::api_version(&()).into_owned()),
        kind: Some(AgentPool::kind(&()).into_owned()),
        name: Some(notice.pool.name),
        namespace: Some(notice.pool.namespace),
        uid: Some(notice.pool.uid),
        ..ObjectReference::default()
    };
    let event = Event {
        type_: if notice.is_warning { EventType::Warning } else { EventType::Normal },
        reason: notice.reason.to_owned(),
        note: Some(cut(notice.note)),
        action: notice.reason.to_owned(),
        secondary: None,
    };
    (event, about)
}

fn cut(mut note: String) -> String {
    if note.len() > NOTE_BYTES_MAX {
        let mut end = NOTE_BYTES_MAX;
        while !note.is_char_boundary(end) {
            end -= 1;
        }
        note.truncate(end);
    }
    note
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_note_is_cut_between_characters() {
        let note = cut("ä".repeat(1000));
        assert!(note.len() <= NOTE_BYTES_MAX && note.len() > NOTE_BYTES_MAX - 2);
    }
}
