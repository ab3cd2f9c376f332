//! The hints of all namespaces, put together for each queue, and told from those that are over.
//!
//! A tick comes twenty times a second or more and hints seldom change, so what is made of them is kept until they do.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use kitepool_api::job_hint::HintedJob;
use kitepool_policy::{Standing, hints::Hints, spec::PoolName, standing_of};
use tokio::time::Instant;

use super::{queues::Queue, readings::QueueKey};
use crate::{
    buildkite::Identity,
    cluster::{cell::NamespaceCells, view::HintView},
};

/// The namespaces as they are known.
type Watched = BTreeMap<String, NamespaceCells>;

/// A hint for a queue that no pool serves is kept this long, so that a pool which is being mended still gets it. The default
/// of `hintTtl`.
const ORPHAN_TTL: SignedDuration = SignedDuration::from_mins(2);

/// How often hints are looked through for those that are over: each job of each hint, which is work in a storm, and nobody
/// waits for it.
const REVIEW_INTERVAL: Duration = Duration::from_secs(1);

/// Pools of one queue in one namespace at which an unmatched job is told; more are hardly read.
const POOLS_TOLD_MAX: usize = 10;

/// What is known of all hints.
#[derive(Debug, Default)]
pub struct HintIndex {
    namespaces: BTreeMap<String, Shelf>,
    queues: BTreeMap<QueueKey, Page>,
    /// Of all namespaces, as far as they were taken in.
    arrivals: u64,
    /// When the last of them were.
    came_at: Option<Instant>,
    reviewed_at: Option<Instant>,
    /// Jobs that were found to be unmatched, as long as their hints are there. A new term tells of them once more.
    told: BTreeSet<String>,
}

/// A job that asks for what no pool of its queue has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unmatched {
    /// Its uuid.
    pub job: String,
    /// Its queue.
    pub queue: String,
    /// What it asks for.
    pub rules: Vec<String>,
    /// The pools of the queue beside the hint, with their uids.
    pub pools: Vec<(PoolName, String)>,
}

/// The hints of a namespace.
#[derive(Debug)]
struct Shelf {
    revision: u64,
    hints: Arc<BTreeMap<String, Arc<HintView>>>,
    /// By the queue's key, hints that hold a job for it.
    by_queue: BTreeMap<String, Vec<Arc<HintView>>>,
    review: HintReview,
}

/// The jobs for a queue, and which shelves they are from.
#[derive(Debug)]
struct Page {
    shelves: Vec<(String, u64)>,
    hints: Hints,
    /// When they were last others than before; `None`: there were none, and are none.
    changed_at: Option<Instant>,
}

/// What the hints of a namespace came to.
#[derive(Debug, Default)]
pub struct HintReview {
    /// Hints that there are.
    pub all: usize,
    /// Names and uids of hints all of whose jobs are over.
    pub over: BTreeMap<String, String>,
    /// Jobs whose rules no pool of their queue satisfies.
    pub unmatched: Vec<Unmatched>,
}

impl HintIndex {
    /// Takes in what changed.
    pub fn take_in(&mut self, watched: &Watched, at: Instant) {
        // Before the objects: what comes in between is taken in again, not missed.
        let arrivals = arrivals(watched);
        if self.arrivals != arrivals {
            (self.arrivals, self.came_at) = (arrivals, Some(at));
        }
        self.namespaces.retain(|namespace, _| watched.contains_key(namespace));
        for (namespace, cells) in watched {
            // Before the objects: what comes in between is taken in again, not missed.
            let revision = cells.hints.revision();
            let known = self.namespaces.get_mut(namespace);
            if known.as_ref().is_some_and(|known| known.revision == revision) {
                continue;
            }
            let review = known.map(|known| std::mem::take(&mut known.review)).unwrap_or_default();
            self.namespaces.insert(namespace.clone(), Shelf::new(revision, cells.hints.objects(), review));
        }
    }

    /// The jobs for a queue whose pools are in these namespaces.
    pub fn of_queue(&mut self, key: &QueueKey, namespaces: &BTreeSet<&str>, at: Instant) -> Hints {
        if !self.concern(key) {
            return Hints::default();
        }
        let stacks = || {
            let named = |shelf: &(&String, &Shelf)| namespaces.contains(shelf.0.as_str());
            self.namespaces.iter().filter(named)
        };
        let is_current = |page: &Page| {
            let known = page.shelves.iter().map(|(namespace, revision)| (namespace.as_str(), *revision));
            known.eq(stacks().map(|(namespace, shelf)| (namespace.as_str(), shelf.revision)))
        };
        if let Some(page) = self.queues.get(key).filter(|page| is_current(page)) {
            return page.hints.clone();
        }
        let hints: Hints = stacks()
            .filter_map(|(_, shelf)| shelf.by_queue.get(key.queue()))
            .flatten()
            .flat_map(|hint| jobs_for(hint, key).map(|job| job.as_seen(hint.stored_at)))
            .collect();
        let shelves = stacks().map(|(namespace, shelf)| (namespace.clone(), shelf.revision)).collect();
        let (before, changed_at) =
            self.queues.get(key).map(|page| (page.hints.clone(), page.changed_at)).unwrap_or_default();
        let changed_at = if before == hints { changed_at } else { Some(at) };
        self.queues.insert(key.clone(), Page { shelves, hints: hints.clone(), changed_at });
        hints
    }

    /// Whether one came that was not taken in yet. Those that go leave nothing to hurry for, and a hundred go at once.
    pub fn lags(&self, watched: &Watched) -> bool {
        self.arrivals != arrivals(watched)
    }

    /// When the last hint came, whatever queue it is for.
    pub const fn came_at(&self) -> Option<Instant> {
        self.came_at
    }

    /// When the hints of a queue were last others than before, as far as there are any.
    pub fn changed_at(&self, key: &QueueKey) -> Option<Instant> {
        self.queues.get(key)?.changed_at
    }

    /// Whether there is any for a queue of this name.
    pub fn concern(&self, key: &QueueKey) -> bool {
        self.namespaces.values().any(|shelf| shelf.by_queue.contains_key(key.queue()))
    }

    /// Looks at every hint against the queues that its jobs are for, if it is time to; other queues are not asked for. Where the
    /// pools are not known yet, no hint can be told to be over.
    pub fn review(&mut self, queues: &BTreeMap<QueueKey, Queue>, watched: &Watched, now: Timestamp, at: Instant) {
        self.queues.retain(|key, _| queues.contains_key(key));
        let is_recent = |reviewed: Instant| at.saturating_duration_since(reviewed) < REVIEW_INTERVAL;
        if self.reviewed_at.is_some_and(is_recent) {
            return;
        }
        self.reviewed_at = Some(at);
        let mut by_name: ByName<'_> = BTreeMap::new();
        for (key, queue) in queues {
            by_name.entry(key.queue()).or_default().push((key, queue));
        }
        for (namespace, shelf) in &mut self.namespaces {
            let is_known = watched.get(namespace).is_some_and(NamespaceCells::is_synced);
            shelf.review =
                if is_known { review(namespace, &shelf.hints, &by_name, now) } else { HintReview::default() };
        }
    }

    /// The unmatched jobs that were not told yet.
    pub fn take_unmatched(&mut self) -> Vec<Unmatched> {
        let all = || self.namespaces.values().flat_map(|shelf| &shelf.review.unmatched);
        let new: Vec<Unmatched> = all().filter(|found| !self.told.contains(&found.job)).cloned().collect();
        // Bounded by the hints that there are, and so by their quota.
        self.told = all().map(|found| found.job.clone()).collect();
        new
    }

    /// The last review of each namespace.
    pub fn reviews(&self) -> impl Iterator<Item = (&str, &HintReview)> {
        self.namespaces.iter().map(|(namespace, shelf)| (namespace.as_str(), &shelf.review))
    }
}

/// Another number where some came.
fn arrivals(watched: &Watched) -> u64 {
    watched.values().fold(0, |sum: u64, cells| sum.wrapping_add(cells.hints.arrivals()))
}

impl Shelf {
    fn new(revision: u64, hints: Arc<BTreeMap<String, Arc<HintView>>>, review: HintReview) -> Self {
        let mut by_queue: BTreeMap<String, Vec<Arc<HintView>>> = BTreeMap::new();
        for hint in hints.values() {
            let queues: BTreeSet<&str> = hint.jobs.iter().map(|job| job.queue.as_str()).collect();
            for queue in queues {
                by_queue.entry(queue.to_owned()).or_default().push(Arc::clone(hint));
            }
        }
        Self { revision, hints, by_queue, review }
    }
}

type ByName<'a> = BTreeMap<&'a str, Vec<(&'a QueueKey, &'a Queue)>>;

fn review(namespace: &str, hints: &BTreeMap<String, Arc<HintView>>, queues: &ByName<'_>, now: Timestamp) -> HintReview {
    let mut review = HintReview { all: hints.len(), ..HintReview::default() };
    for (name, hint) in hints {
        let is_old = now.duration_since(hint.stored_at) > ORPHAN_TTL;
        let mut is_over = true;
        for job in &hint.jobs {
            let named = queues.get(job.queue.as_str()).into_iter().flatten();
            let serving: Vec<&Queue> = named
                .filter(|(key, queue)| is_for(job, key) && queue.serves(namespace))
                .map(|(_, queue)| *queue)
                .collect();
            let seen = job.as_seen(hint.stored_at);
            let standings: Vec<Standing> =
                serving.iter().map(|queue| standing_of(&seen, &queue.observation, now)).collect();
            if !standings.is_empty() && standings.iter().all(|standing| *standing == Standing::Unmatched) {
                review.unmatched.push(unmatched(job, namespace, &serving));
            }
            // A queue that no pool serves has nobody to settle its hints; time does.
            is_over &= match standings.as_slice() {
                [] => is_old,
                some => some.iter().all(|standing| matches!(standing, Standing::Settled | Standing::Expired)),
            };
        }
        if is_over && (!hint.jobs.is_empty() || is_old) {
            if let Some(problem) = hint.problem.as_ref().filter(|_| is_old) {
                tracing::warn!(hint = name, problem, "a hint could not be read");
            }
            review.over.insert(name.clone(), hint.uid.clone());
        }
    }
    review
}

fn unmatched(job: &HintedJob, namespace: &str, serving: &[&Queue]) -> Unmatched {
    let pools = serving.iter().flat_map(|queue| &queue.members).filter(|(pool, _)| pool.namespace == namespace);
    Unmatched {
        job: job.id.clone(),
        queue: job.queue.clone(),
        rules: job.rules.iter().filter(|rule| !rule.starts_with("queue=")).cloned().collect(),
        pools: pools.map(|(pool, member)| (pool.clone(), member.uid.clone())).take(POOLS_TOLD_MAX).collect(),
    }
}

fn jobs_for<'a>(hint: &'a HintView, key: &'a QueueKey) -> impl Iterator<Item = &'a HintedJob> {
    hint.jobs.iter().filter(|job| is_for(job, key))
}

fn is_for(job: &HintedJob, key: &QueueKey) -> bool {
    job.queue == key.queue()
        && match key {
            QueueKey::Known(_, identity) => may_be_of(job, identity),
            QueueKey::Unknown(..) => true,
        }
}

/// What the event says of organization and cluster must not contradict what is known of the queue; silence contradicts
/// nothing.
///
/// Nor does what cannot be compared: events name a cluster by its uuid, and where Buildkite's API does not say whose a token is
/// we know the cluster by its name alone. To leave such a job out would take the events from every pool there, for good and
/// without a word; to count it costs, where another cluster has a queue of the same key, some pods until the next reading.
pub fn may_be_of(job: &HintedJob, identity: &Identity) -> bool {
    let is_elsewhere = |told: &Option<String>, known: Option<&String>| match (told, known) {
        (Some(told), Some(known)) => told != known && is_uuid(told) == is_uuid(known),
        (None, _) | (_, None) => false,
    };
    let is_other_organization = job.organization.as_ref().is_some_and(|told| *told != identity.organization);
    !is_other_organization && !is_elsewhere(&job.cluster, identity.cluster.as_ref())
}

/// Digits in groups of 8, 4, 4, 4 and 12: nobody names a cluster so.
fn is_uuid(text: &str) -> bool {
    let groups = text.split('-').map(|group| (group.len(), group.chars().all(|c| c.is_ascii_hexdigit())));
    groups.eq([8, 4, 4, 4, 12].map(|length| (length, true)))
}

#[cfg(test)]
mod tests {
    use kitepool_policy::units::Jobs;

    use super::*;

    fn hint(jobs: &[(&str, &str)]) -> HintView {
        let job = |(id, queue): &(&str, &str)| HintedJob {
            id: (*id).to_owned(),
            queue: (*queue).to_owned(),
            rules: Vec::new(),
            runnable_at: Timestamp::UNIX_EPOCH,
            cluster: None,
            organization: None,
        };
        HintView {
            uid: "1".to_owned(),
            stored_at: Timestamp::UNIX_EPOCH,
            jobs: jobs.iter().map(job).collect(),
            problem: None,
        }
    }

    fn now() -> Instant {
        crate::clock::Clock::fixed(Timestamp::UNIX_EPOCH).mono()
    }

    fn key(queue: &str) -> QueueKey {
        let token = crate::sense::poll::TokenKey::File("/mnt/token".to_owned());
        QueueKey::Unknown(queue.to_owned(), token)
    }

    #[test]
    fn an_unmatched_job_is_told_once_as_long_as_its_hint_is_there() {
        let found = |job: &str| Unmatched {
            job: job.to_owned(),
            queue: "linux".to_owned(),
            rules: vec!["gpu=true".to_owned()],
            pools: Vec::new(),
        };
        let mut index = HintIndex::default();
        let review = HintReview { unmatched: vec![found("1"), found("2")], ..HintReview::default() };
        index.namespaces.insert("ci".to_owned(), Shelf::new(0, Arc::default(), review));
        assert_eq!(index.take_unmatched().len(), 2);
        assert_eq!(index.take_unmatched(), []);
        let review = HintReview { unmatched: vec![found("2"), found("3")], ..HintReview::default() };
        index.namespaces.insert("ci".to_owned(), Shelf::new(1, Arc::default(), review));
        assert_eq!(index.take_unmatched(), [found("3")]);
    }

    #[test]
    fn a_queue_has_the_hints_of_its_pools_namespaces_each_job_once_and_follows_their_changes() {
        let watched: Watched = ["ci", "other"].map(|name| (name.to_owned(), NamespaceCells::default())).into();
        watched["ci"].hints.put("a".to_owned(), hint(&[("1", "linux"), ("2", "linux"), ("3", "mac")]));
        watched["ci"].hints.put("b".to_owned(), hint(&[("2", "linux")]));
        watched["other"].hints.put("c".to_owned(), hint(&[("4", "linux")]));
        let (mut index, at) = (HintIndex::default(), now());
        index.take_in(&watched, at);
        let here = BTreeSet::from(["ci"]);
        assert_eq!(index.of_queue(&key("linux"), &here, at).jobs(), Jobs(2));
        assert_eq!(index.of_queue(&key("mac"), &here, at).jobs(), Jobs(1));
        assert_eq!(index.of_queue(&key("linux"), &BTreeSet::from(["ci", "other"]), at).jobs(), Jobs(3));

        watched["ci"].hints.put("d".to_owned(), hint(&[("5", "linux")]));
        assert_eq!(index.of_queue(&key("linux"), &here, at).jobs(), Jobs(2), "not taken in yet");
        assert!(index.lags(&watched));
        index.take_in(&watched, at);
        assert_eq!(index.of_queue(&key("linux"), &here, at).jobs(), Jobs(3));
        assert!(!index.lags(&watched));
        watched["ci"].hints.remove("a");
        assert!(!index.lags(&watched), "one that goes is nothing to hurry for");
        index.take_in(&watched, at);
        assert_eq!(index.of_queue(&key("linux"), &here, at).jobs(), Jobs(2));
    }

    #[test]
    fn a_queues_hints_change_when_its_own_do() {
        let watched: Watched = [("ci".to_owned(), NamespaceCells::default())].into();
        let (mut index, start) = (HintIndex::default(), now());
        let (linux, mac) = (key("linux"), key("mac"));
        let mut at = start;
        let mut look = |index: &mut HintIndex| {
            at += Duration::from_millis(10);
            index.take_in(&watched, at);
            index.of_queue(&linux, &BTreeSet::from(["ci"]), at);
            index.of_queue(&mac, &BTreeSet::from(["ci"]), at);
            [&linux, &mac].map(|key| index.changed_at(key).map(|at| (at - start).as_millis()))
        };
        assert_eq!(look(&mut index), [None, None]);
        watched["ci"].hints.put("a".to_owned(), hint(&[("1", "linux")]));
        assert_eq!(look(&mut index), [Some(20), None]);
        watched["ci"].hints.put("b".to_owned(), hint(&[("2", "mac")]));
        assert_eq!(look(&mut index), [Some(20), Some(30)]);
        watched["ci"].hints.put("c".to_owned(), hint(&[("1", "linux")]));
        assert_eq!(look(&mut index), [Some(20), Some(30)], "the same job again");
        watched["ci"].hints.put("d".to_owned(), hint(&[("3", "linux")]));
        assert_eq!(look(&mut index), [Some(50), Some(30)]);
        watched["ci"].hints.remove("a");
        assert_eq!(look(&mut index), [Some(50), Some(30)], "what another one tells of as well");
        assert_eq!(index.came_at().map(|at| (at - start).as_millis()), Some(50));
    }

    #[test]
    fn a_cluster_that_is_known_by_name_alone_is_contradicted_by_no_uuid() {
        let (ours, other) = ("0190a0a0-0000-4000-8000-00000000000a", "0190a0a0-0000-4000-8000-00000000000B");
        let identity =
            |cluster: Option<&str>| Identity { organization: "acme".to_owned(), cluster: cluster.map(str::to_owned) };
        let job = |organization: Option<&str>, cluster: Option<&str>| HintedJob {
            organization: organization.map(str::to_owned),
            cluster: cluster.map(str::to_owned),
            ..hint(&[("1", "linux")]).jobs.remove(0)
        };
        for (told, known, expected) in [
            (Some(ours), Some(ours), true),
            (Some(other), Some(ours), false),
            (Some(ours), Some("Default cluster"), true),
            (Some("Default cluster"), Some(ours), true),
            (Some("Default cluster"), Some("Default cluster"), true),
            (Some("Default cluster"), Some("Other cluster"), false),
            (None, Some(ours), true),
            (Some(ours), None, true),
            (Some("0190a0a0-0000-4000-8000-00000000000"), Some("Default cluster"), false),
        ] {
            assert_eq!(may_be_of(&job(Some("acme"), told), &identity(known)), expected, "{told:?} {known:?}");
            assert_eq!(may_be_of(&job(None, told), &identity(known)), expected, "{told:?} {known:?}");
            assert!(!may_be_of(&job(Some("globex"), told), &identity(known)), "{told:?} {known:?}");
        }
    }

    #[test]
    fn a_hint_with_a_uuid_raises_the_queue_of_a_cluster_that_is_known_by_name() {
        let watched: Watched = [("ci".to_owned(), NamespaceCells::default())].into();
        let mut told = hint(&[("1", "linux"), ("2", "mac")]);
        told.jobs.iter_mut().for_each(|job| job.cluster = Some("0190a0a0-0000-4000-8000-00000000000a".to_owned()));
        watched["ci"].hints.put("a".to_owned(), told);
        let (mut index, at) = (HintIndex::default(), now());
        index.take_in(&watched, at);
        let identity = Identity { organization: "acme".to_owned(), cluster: Some("Default cluster".to_owned()) };
        let key = QueueKey::Known("linux".to_owned(), identity);
        assert_eq!(index.of_queue(&key, &BTreeSet::from(["ci"]), at).jobs(), Jobs(1));
    }
}
