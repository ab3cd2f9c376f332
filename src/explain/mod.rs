//! Why pools have their size, told from what the API server holds and, where there is one, from a controller's record.
//!
//! ```text
//!  pools with their status, hints, Events ─┐
//!                                          ├─► Account ─► text, or JSON
//!  FILE of `kitepool controller --record` ─┘
//! ```
//!
//! It asks no controller: what a controller knows and people may want stands in the status, in Events and in the record. So it
//! also works when none runs.

mod recorded;
pub mod text;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use kitepool_api::{HintedJob, status::AgentPoolStatus, validate::ValidPool};
use kitepool_policy::rules::match_tags;
use serde::Serialize;

pub use self::recorded::{Recorded, Step, read as read_record};
use crate::{
    buildkite::Identity,
    cluster::{look::Look, view::PoolView},
    control::hints::may_be_of,
};

/// Events of a pool that are told; an hour of a troubled one has more, and the last ones say it all.
const EVENTS_MAX: usize = 10;

/// Sets of rules that are told, those of most jobs first.
const RULE_SETS_MAX: usize = 50;

/// What there is to tell of a namespace.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Account {
    /// The namespace.
    pub namespace: String,
    /// The pools, by name.
    pub pools: Vec<PoolAccount>,
    /// What hinted jobs ask for and no pool of their queue has, those of most jobs first.
    pub unmatched: Vec<RuleSet>,
    /// How many such sets are left out.
    pub unmatched_left_out: usize,
    /// Hinted jobs for queues that no pool serves, by the queue's key.
    pub unserved: BTreeMap<String, usize>,
    /// What could not be read.
    pub gaps: Vec<String>,
}

/// What there is to tell of a pool.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolAccount {
    /// Its name.
    pub name: String,
    /// Its queue, if it names one.
    pub queue: Option<String>,
    /// What its agents carry besides the queue.
    pub tags: BTreeSet<String>,
    /// Its smallest and its largest size.
    pub limits: Option<(u32, u32)>,
    /// Everything that is wrong with it.
    pub problems: Vec<String>,
    /// What a person stopped by an annotation, and whether it only observes.
    pub held: Vec<&'static str>,
    /// As the controller wrote it, without its memory.
    pub status: AgentPoolStatus,
    /// Hinted jobs that it may run and that no reading has settled yet.
    pub hinted_jobs: usize,
    /// The last Events, the oldest first.
    pub events: Vec<EventAccount>,
    /// The steps of the last decision, where a record was given that has one.
    pub recorded: Option<Recorded>,
}

/// An Event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EventAccount {
    /// When it was told last.
    pub at: Timestamp,
    /// How often.
    pub count: u32,
    /// Whether somebody should look at it.
    pub is_warning: bool,
    /// A word.
    pub reason: String,
    /// The sentence.
    pub note: String,
}

/// Rules that no pool of a queue satisfies.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleSet {
    /// The queue's key.
    pub queue: String,
    /// The rules besides the queue's own.
    pub rules: Vec<String>,
    /// Jobs that ask for them, each once.
    pub jobs: usize,
    /// The pools of the queue.
    pub pools: Vec<String>,
}

impl Account {
    /// Tells what was seen.
    pub fn of(namespace: &str, look: Look) -> Self {
        // A job that is told of in several hints is one job.
        let jobs: BTreeMap<String, HintedJob> =
            look.hints.into_iter().flat_map(|hint| hint.jobs).map(|job| (job.id.clone(), job)).collect();
        let mut events: BTreeMap<String, Vec<EventAccount>> = BTreeMap::new();
        for told in look.events {
            let (at, count, is_warning) = (told.at, told.count, told.is_warning);
            let event = EventAccount { at, count, is_warning, reason: told.reason, note: told.note };
            events.entry(told.pool).or_default().push(event);
        }
        let mut pools: Vec<PoolAccount> = look.pools.iter().map(PoolAccount::of).collect();
        pools.sort_by(|a, b| a.name.cmp(&b.name));
        let mut unmatched: BTreeMap<(String, Vec<String>), RuleSet> = BTreeMap::new();
        let mut unserved: BTreeMap<String, usize> = BTreeMap::new();
        for job in jobs.values() {
            let mut serving: Vec<&mut PoolAccount> = pools.iter_mut().filter(|pool| pool.may_serve(job)).collect();
            if serving.is_empty() {
                *unserved.entry(job.queue.clone()).or_default() += 1;
                continue;
            }
            let names = serving.iter().map(|pool| pool.name.clone()).collect();
            let fitting = serving.iter_mut().filter(|pool| match_tags(&job.rules, &pool.tags));
            if fitting.map(|pool| pool.hinted_jobs += 1).count() == 0 {
                let rules: BTreeSet<String> =
                    job.rules.iter().filter(|rule| !rule.starts_with("queue=")).cloned().collect();
                let rules: Vec<String> = rules.into_iter().collect();
                let set = unmatched.entry((job.queue.clone(), rules.clone())).or_insert_with(|| RuleSet {
                    queue: job.queue.clone(),
                    rules,
                    jobs: 0,
                    pools: names,
                });
                set.jobs += 1;
            }
        }
        for pool in &mut pools {
            let mut all = events.remove(&pool.name).unwrap_or_default();
            pool.events = all.split_off(all.len().saturating_sub(EVENTS_MAX));
        }
        let mut unmatched: Vec<RuleSet> = unmatched.into_values().collect();
        unmatched.sort_by(|a, b| b.jobs.cmp(&a.jobs).then_with(|| a.cmp(b)));
        let unmatched_left_out = unmatched.len().saturating_sub(RULE_SETS_MAX);
        unmatched.truncate(RULE_SETS_MAX);
        Self { namespace: namespace.to_owned(), pools, unmatched, unmatched_left_out, unserved, gaps: look.gaps }
    }

    /// Leaves out all pools but one, and the rules that others' queues lack. `Err`: the names that there are.
    pub fn only(mut self, name: &str) -> Result<Self, Vec<String>> {
        let Some(at) = self.pools.iter().position(|pool| pool.name == name) else {
            return Err(self.pools.into_iter().map(|pool| pool.name).collect());
        };
        self.pools = vec![self.pools.swap_remove(at)];
        self.unmatched.retain(|set| set.pools.iter().any(|pool| pool == name));
        self.unserved.clear();
        Ok(self)
    }

    /// Adds what a record says of the last decisions.
    pub fn add_record(&mut self, mut recorded: BTreeMap<String, Recorded>) {
        for pool in &mut self.pools {
            pool.recorded = recorded.remove(&pool.name);
        }
    }
}

impl PoolAccount {
    fn of(view: &PoolView) -> Self {
        let status = view.status.clone().and_then(|status| serde_json::from_value(status).ok());
        let status = AgentPoolStatus { memory: None, ..status.unwrap_or_default() };
        let valid = view.pool.as_deref();
        let problems = valid.err().into_iter().flatten().map(ToString::to_string).collect();
        let valid = valid.ok();
        Self {
            name: view.name.name.clone(),
            queue: valid.map(|valid| valid.queue.clone()).or_else(|| view.raw_queue.clone()),
            tags: valid.map(|valid| valid.spec.tags.clone()).unwrap_or_default(),
            limits: valid.map(|valid| (valid.spec.limits.min().0, valid.spec.limits.max().0)),
            problems,
            held: valid.map(held).unwrap_or_default(),
            status,
            hinted_jobs: 0,
            events: Vec::new(),
            recorded: None,
        }
    }

    /// Whether a job is for its queue, as the controller sees it.
    fn may_serve(&self, job: &HintedJob) -> bool {
        let identity = self
            .status
            .identity
            .as_ref()
            .map(|known| Identity { organization: known.organization.clone(), cluster: known.cluster.clone() });
        self.limits.is_some()
            && self.queue.as_ref() == Some(&job.queue)
            && identity.is_none_or(|identity| may_be_of(job, &identity))
    }
}

fn held(valid: &ValidPool) -> Vec<&'static str> {
    use kitepool_policy::spec::{Mode, Pause};
    let paused = match valid.spec.pause {
        Pause::None => None,
        Pause::Up => Some("growth is paused (kitepool.dev/pause=up)"),
        Pause::Down => Some("shrinking is paused (kitepool.dev/pause=down)"),
        Pause::All => Some("paused (kitepool.dev/pause=all)"),
    };
    let observes = (valid.spec.mode == Mode::Observe).then_some("only observed (spec.mode)");
    paused.into_iter().chain(observes).collect()
}
