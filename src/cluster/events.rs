//! Kubernetes Events about pools: queued, published one at a time, dropped and counted when there are too many.
//!
//! The same sentence again within some minutes is counted up, as everywhere in Kubernetes; another sentence is another Event.
//! (kube's own recorder counts up whatever has the same reason and keeps the first sentence, so that nobody could read who
//! scaled a pool the second time, and it goes by the machine's clock.)

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        core::v1::ObjectReference,
        events::v1::{Event, EventSeries},
    },
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kitepool_api::AgentPool;
use kube::{
    Api, Client, Resource as _,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::sync::mpsc;

use super::{client::chain, fence::WRITE_DEADLINE};
use crate::clock::Clock;

/// A tick of 200 pools in which each has something to say; more than that at once is a storm and is cut.
const QUEUE_MAX: usize = 256;

/// So many of the last Events are known when they come again: some for each of 200 pools. What is no longer known is written anew.
const RECENT_MAX: usize = 1_000;

/// A sentence that comes again after longer is another Event: as long as `client-go` waits.
const SERIES_GAP_MAX: Duration = Duration::from_mins(6);

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
    pub fn new(client: Client, instance: &str, clock: Clock) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let (queue, mut waiting) = mpsc::channel::<Notice>(QUEUE_MAX);
        let mut publisher = Publisher { client, instance: instance.to_owned(), clock, recent: VecDeque::new() };
        let dropped = Arc::new(AtomicU64::new(0));
        let lost = Arc::clone(&dropped);
        let publishing = async move {
            while let Some(notice) = waiting.recv().await {
                let (reason, pool) = (notice.reason, notice.pool.name.clone());
                let failure = match tokio::time::timeout(WRITE_DEADLINE, publisher.publish(notice)).await {
                    Ok(Ok(())) => continue,
                    Ok(Err(error)) => chain(&error),
                    Err(_elapsed) => "no answer in time".to_owned(),
                };
                lost.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(error = failure, reason, pool, "event not published");
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

/// Writes Events, and knows those that it wrote a moment ago.
struct Publisher {
    client: Client,
    instance: String,
    clock: Clock,
    recent: VecDeque<Published>,
}

/// An Event that was written.
struct Published {
    notice: Notice,
    /// The Event's own.
    name: String,
    count: i32,
    at: Timestamp,
}

impl Publisher {
    async fn publish(&mut self, notice: Notice) -> Result<(), kube::Error> {
        let now = self.clock.now();
        self.recent.retain(|known| now.duration_since(known.at).unsigned_abs() < SERIES_GAP_MAX);
        let events: Api<Event> = Api::namespaced(self.client.clone(), &notice.pool.namespace);
        if let Some(known) = self.recent.iter_mut().find(|known| known.notice == notice) {
            (known.count, known.at) = (known.count.saturating_add(1), now);
            let series = EventSeries { count: known.count, last_observed_time: MicroTime(now) };
            let patch = Patch::Merge(json!({ "series": series }));
            return events.patch(&known.name, &PatchParams::default(), &patch).await.map(drop);
        }
        let name = self.fresh_name(&notice, now);
        events.create(&PostParams::default(), &event(notice.clone(), &name, &self.instance, now)).await?;
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(Published { notice, name, count: 1, at: now });
        Ok(())
    }

    /// The pool's name and the instant, as everybody names Events; two of one instant are told apart.
    fn fresh_name(&self, notice: &Notice, now: Timestamp) -> String {
        let named = |number: i128| format!("{}.{:x}", notice.pool.name, now.as_nanosecond().saturating_add(number));
        let is_taken = |name: &String| self.recent.iter().any(|known| known.name == *name);
        let most = u32::try_from(self.recent.len()).unwrap_or(u32::MAX);
        (0..=most).map(i128::from).map(named).find(|name| !is_taken(name)).unwrap_or_else(|| named(0))
    }
}

fn event(notice: Notice, name: &str, instance: &str, now: Timestamp) -> Event {
    let about = ObjectReference {
        api_version: Some(AgentPool::api_version(&()).into_owned()),
        kind: Some(AgentPool::kind(&()).into_owned()),
        name: Some(notice.pool.name),
        namespace: Some(notice.pool.namespace.clone()),
        uid: Some(notice.pool.uid),
        ..ObjectReference::default()
    };
    Event {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(notice.pool.namespace),
            ..ObjectMeta::default()
        },
        type_: Some(if notice.is_warning { "Warning" } else { "Normal" }.to_owned()),
        reason: Some(notice.reason.to_owned()),
        action: Some(notice.reason.to_owned()),
        note: Some(cut(notice.note)),
        regarding: Some(about),
        event_time: Some(MicroTime(now)),
        reporting_controller: Some("kitepool".to_owned()),
        reporting_instance: Some(instance.to_owned()),
        ..Event::default()
    }
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
    use kitepool_world::kubernetes::{Kind, Kubernetes, Settings, Shared, router};

    use super::*;

    #[tokio::test]
    async fn another_sentence_is_another_event_and_the_same_one_is_counted_up() {
        let clock = Clock::fixed(Timestamp::UNIX_EPOCH);
        let world = Shared::new(Kubernetes::new(Settings::default(), 1, Timestamp::UNIX_EPOCH));
        let client = Client::new(router(world.clone(), || Timestamp::UNIX_EPOCH), "ci");
        let mut publisher =
            Publisher { client, instance: "replica".to_owned(), clock: clock.clone(), recent: VecDeque::new() };
        let pool = PoolReference { namespace: "ci".to_owned(), name: "linux".to_owned(), uid: "1".to_owned() };
        for note in ["`kubectl` did", "`other` did", "`kubectl` did"] {
            let pool = pool.clone();
            let notice = Notice { pool, is_warning: true, reason: "ForeignScale", note: note.to_owned() };
            publisher.publish(notice).await.unwrap();
        }
        let events = world.peek(|kubernetes| kubernetes.objects(Kind::Event, "ci"));
        let told = events.iter().map(|event| (event["note"].as_str().unwrap(), event["series"]["count"].as_i64()));
        let mut told: Vec<_> = told.collect();
        told.sort_unstable();
        assert_eq!(told, [("`kubectl` did", Some(2)), ("`other` did", None)]);
    }

    #[test]
    fn a_long_note_is_cut_between_characters() {
        let note = cut("ä".repeat(1000));
        assert!(note.len() <= NOTE_BYTES_MAX && note.len() > NOTE_BYTES_MAX - 2);
    }
}
