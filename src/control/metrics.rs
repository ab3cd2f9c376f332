//! The controller's own numbers, every series present from the start.

use std::sync::atomic::{AtomicI64, AtomicU64};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use super::{act::Act, conditions::ConditionType, departures::Cause};
use crate::cluster::error::Error;

/// Which pool a series is about: as many as there are pools.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, EncodeLabelSet)]
pub struct PoolLabels {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub pool: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReplicaLabels {
    namespace: String,
    pool: String,
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct JobLabels {
    namespace: String,
    pool: String,
    state: &'static str,
}

const REPLICAS: [&str; 4] = ["desired", "current", "ready", "draining"];
const JOB_STATES: [&str; 3] = ["scheduled", "running", "waiting"];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ConditionLabels {
    namespace: String,
    pool: String,
    condition: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WriteLabels {
    verb: &'static str,
    outcome: &'static str,
}

/// A queue that has a pool: as many as there are pools.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QueueLabels {
    queue: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct GoneLabels {
    namespace: String,
    pool: String,
    cause: &'static str,
}

/// What is shown of one pool.
#[derive(Debug, Clone, Copy, Default)]
pub struct PoolNumbers {
    /// Replicas wanted.
    pub desired: u32,
    /// Replicas asked for.
    pub current: u32,
    /// Ready pods.
    pub ready: u32,
    /// Pods with a deletion timestamp.
    pub draining: u32,
    /// Agents that jobs want.
    pub demand: u32,
    /// Scheduled, running and waiting jobs by the last good reading.
    pub load: Option<(u32, u32, u32)>,
    /// Seconds since the last good reading.
    pub reading_age_seconds: Option<f64>,
}

/// Seconds since the last good reading of a pool.
pub type ReadingAge = Gauge<f64, AtomicU64>;

/// A tick of a few pools takes well below a millisecond, one of hundreds some ten.
const TICK_BUCKETS_SECONDS: [f64; 9] = [0.000_1, 0.000_5, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0];

/// Buildkite answers in tens to hundreds of milliseconds; the deadline is around ten seconds.
const REQUEST_BUCKETS_SECONDS: [f64; 8] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// All series. Clones share them.
#[derive(Debug, Clone)]
pub struct Metrics {
    leader: Gauge,
    ticks: Counter,
    tick_seconds: Histogram,
    replicas: Family<ReplicaLabels, Gauge>,
    jobs: Family<JobLabels, Gauge>,
    demand: Family<PoolLabels, Gauge>,
    reading_age: Family<PoolLabels, ReadingAge>,
    conditions: Family<ConditionLabels, Gauge>,
    writes: Family<WriteLabels, Counter>,
    buildkite_requests: Family<OutcomeLabels, Counter>,
    buildkite_seconds: Histogram,
    hints: Gauge,
    hints_unmatched: Family<QueueLabels, Counter>,
    events_dropped: Gauge<i64, AtomicI64>,
    gone: Family<GoneLabels, Counter>,
    refused: Counter,
    clock_jumps: Counter,
    record_lost: Counter,
    webhooks: Family<OutcomeLabels, Counter>,
}

impl Metrics {
    /// Series, and the registry that shows them. `buildkite_outcomes` are all the outcomes that a request can have.
    pub fn new(buildkite_outcomes: &[&'static str]) -> (Self, Registry) {
        let metrics = Self {
            leader: Gauge::default(),
            ticks: Counter::default(),
            tick_seconds: Histogram::new(TICK_BUCKETS_SECONDS),
            replicas: Family::default(),
            jobs: Family::default(),
            demand: Family::default(),
            reading_age: Family::default(),
            conditions: Family::default(),
            writes: Family::default(),
            buildkite_requests: Family::default(),
            buildkite_seconds: Histogram::new(REQUEST_BUCKETS_SECONDS),
            hints: Gauge::default(),
            hints_unmatched: Family::default(),
            events_dropped: Gauge::default(),
            gone: Family::default(),
            refused: Counter::default(),
            clock_jumps: Counter::default(),
            record_lost: Counter::default(),
            webhooks: Family::default(),
        };
        for verb in Act::VERBS {
            for outcome in std::iter::once("ok").chain(Error::CATEGORIES) {
                drop(metrics.writes.get_or_create(&WriteLabels { verb, outcome }));
            }
        }
        for outcome in buildkite_outcomes {
            drop(metrics.buildkite_requests.get_or_create(&OutcomeLabels { outcome }));
        }
        let registry = metrics.register();
        (metrics, registry)
    }

    fn register(&self) -> Registry {
        let mut all = Registry::with_prefix("kitepool");
        all.register("leader", "Whether this replica leads", self.leader.clone());
        all.register("ticks", "Ticks", self.ticks.clone());
        all.register_with_unit("tick_duration", "Time a tick took", Unit::Seconds, self.tick_seconds.clone());
        all.register("pool_replicas", "Replicas of a pool", self.replicas.clone());
        all.register("pool_jobs", "Jobs on the pool's queue at the last good reading", self.jobs.clone());
        all.register("pool_demand_agents", "Agents that jobs want of the queue, before any limit", self.demand.clone());
        let help = "Age of the last good reading; NaN where there is none";
        all.register_with_unit("reading_age", help, Unit::Seconds, self.reading_age.clone());
        all.register("pool_condition", "1 where the condition of the pool is True", self.conditions.clone());
        all.register("writes", "Writes to the API server", self.writes.clone());
        all.register("buildkite_requests", "Requests to Buildkite", self.buildkite_requests.clone());
        let help = "Time that Buildkite took to answer";
        all.register_with_unit("buildkite_request_duration", help, Unit::Seconds, self.buildkite_seconds.clone());
        all.register("hints", "JobHints in the watched namespaces", self.hints.clone());
        all.register(
            "hints_unmatched",
            "Hinted jobs that ask for what no pool of their queue has",
            self.hints_unmatched.clone(),
        );
        all.register("events_dropped", "Events that were not published", self.events_dropped.clone());
        all.register("agents_gone", "Agents that were taken or lost, by cause", self.gone.clone());
        all.register("decisions_refused", "Decisions that would have broken an invariant", self.refused.clone());
        all.register("clock_jumps", "Jumps of the wall clock", self.clock_jumps.clone());
        all.register("webhooks", "Deliveries to the webhook", self.webhooks.clone());
        all.register("record_lines_lost", "Lines of the record that could not be written", self.record_lost.clone());
        all
    }

    /// Whether this replica leads.
    pub fn leads(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// Ticks so far.
    pub fn ticks(&self) -> u64 {
        self.ticks.get()
    }

    /// A tick ended.
    pub fn ticked(&self, took: std::time::Duration) {
        self.ticks.inc();
        self.tick_seconds.observe(took.as_secs_f64());
    }

    /// One pool's numbers.
    pub fn pool(&self, labels: &PoolLabels, numbers: PoolNumbers) {
        let replicas = [numbers.desired, numbers.current, numbers.ready, numbers.draining];
        for (kind, value) in REPLICAS.into_iter().zip(replicas) {
            self.replicas.get_or_create(&labels.replicas(kind)).set(i64::from(value));
        }
        let (scheduled, running, waiting) = numbers.load.unwrap_or_default();
        for (state, value) in JOB_STATES.into_iter().zip([scheduled, running, waiting]) {
            self.jobs.get_or_create(&labels.jobs(state)).set(i64::from(value));
        }
        for cause in Cause::ALL {
            drop(self.gone.get_or_create(&labels.gone(cause)));
        }
        self.demand.get_or_create(labels).set(i64::from(numbers.demand));
        self.reading_age.get_or_create(labels).set(numbers.reading_age_seconds.unwrap_or(f64::NAN));
    }

    /// The age of a pool's reading, to be set as often as it is looked at.
    pub fn reading_age(&self, labels: &PoolLabels) -> ReadingAge {
        self.reading_age.get_or_create(labels).clone()
    }

    /// One condition of a pool.
    pub fn condition(&self, labels: &PoolLabels, condition: ConditionType, is_true: bool) {
        self.conditions.get_or_create(&labels.condition(condition)).set(i64::from(is_true));
    }

    /// Agents of a pool are gone.
    pub fn gone(&self, labels: &PoolLabels, cause: Cause, agents: u64) {
        self.gone.get_or_create(&labels.gone(cause)).inc_by(agents);
    }

    /// A pool is gone: so are its series.
    pub fn forget(&self, labels: &PoolLabels) {
        for cause in Cause::ALL {
            self.gone.remove(&labels.gone(cause));
        }
        for kind in REPLICAS {
            self.replicas.remove(&labels.replicas(kind));
        }
        for state in JOB_STATES {
            self.jobs.remove(&labels.jobs(state));
        }
        self.demand.remove(labels);
        self.reading_age.remove(labels);
        for condition in ConditionType::ALL {
            self.conditions.remove(&labels.condition(condition));
        }
    }

    /// Deliveries are counted from now on; these are all the outcomes that one can have.
    pub fn webhooks_are_on(&self, outcomes: &[&'static str]) {
        for outcome in outcomes {
            drop(self.webhooks.get_or_create(&OutcomeLabels { outcome }));
        }
    }

    /// A delivery to the webhook ended.
    pub fn webhook(&self, outcome: &'static str) {
        self.webhooks.get_or_create(&OutcomeLabels { outcome }).inc();
    }

    /// A write ended.
    pub fn wrote(&self, verb: &'static str, outcome: &'static str) {
        self.writes.get_or_create(&WriteLabels { verb, outcome }).inc();
    }

    /// Buildkite answered, or did not.
    pub fn asked_buildkite(&self, outcome: &'static str, took: std::time::Duration) {
        self.buildkite_requests.get_or_create(&OutcomeLabels { outcome }).inc();
        self.buildkite_seconds.observe(took.as_secs_f64());
    }

    /// A job was hinted that no pool of its queue can run.
    pub fn hint_unmatched(&self, queue: &str) {
        self.hints_unmatched.get_or_create(&QueueLabels { queue: queue.to_owned() }).inc();
    }

    /// Hints that there are.
    pub fn hints(&self, all: usize) {
        self.hints.set(i64::try_from(all).unwrap_or(i64::MAX));
    }

    /// Events that were not published, so far.
    pub fn events_dropped(&self, so_far: u64) {
        self.events_dropped.set(i64::try_from(so_far).unwrap_or(i64::MAX));
    }

    /// A decision was refused by the check.
    pub fn refused(&self) {
        self.refused.inc();
    }

    /// The wall clock jumped.
    pub fn clock_jumped(&self) {
        self.clock_jumps.inc();
    }

    /// A line of the record was lost.
    pub fn record_lost(&self) {
        self.record_lost.inc();
    }
}

impl PoolLabels {
    fn replicas(&self, kind: &'static str) -> ReplicaLabels {
        ReplicaLabels { namespace: self.namespace.clone(), pool: self.pool.clone(), kind }
    }

    fn jobs(&self, state: &'static str) -> JobLabels {
        JobLabels { namespace: self.namespace.clone(), pool: self.pool.clone(), state }
    }

    fn gone(&self, cause: Cause) -> GoneLabels {
        GoneLabels { namespace: self.namespace.clone(), pool: self.pool.clone(), cause: cause.as_str() }
    }

    fn condition(&self, condition: ConditionType) -> ConditionLabels {
        ConditionLabels { namespace: self.namespace.clone(), pool: self.pool.clone(), condition: condition.as_str() }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    #[test]
    fn every_series_that_needs_no_pool_is_there_from_the_start() {
        let (_metrics, registry) = Metrics::new(&["ok", "refused"]);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for series in [
            "kitepool_leader 0",
            "kitepool_ticks_total 0",
            "kitepool_writes_total{verb=\"scale\",outcome=\"conflict\"} 0",
            "kitepool_buildkite_requests_total{outcome=\"refused\"} 0",
            "kitepool_tick_duration_seconds_count 0",
            "kitepool_decisions_refused_total 0",
        ] {
            assert!(text.contains(series), "{series} is not in\n{text}");
        }
    }

    /// The metrics as the README lists them.
    fn table(registry: &Registry) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
        let mut table = "| metric | type | meaning |\n|---|---|---|\n".to_owned();
        let mut help = ("", "");
        for line in text.lines() {
            if let Some((name, meaning)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
                help = (name, meaning.trim_end_matches('.'));
            } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
                assert_eq!(name, help.0, "a metric without help");
                let suffix = if kind == "counter" { "_total" } else { "" };
                writeln!(table, "| `{name}{suffix}` | {kind} | {} |", help.1).unwrap();
            }
        }
        table
    }

    #[test]
    fn the_readme_lists_every_metric() {
        const BEGIN: &str = "<!-- metrics:begin -->\n";
        const END: &str = "<!-- metrics:end -->";
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
        let readme = std::fs::read_to_string(&path).unwrap();
        let (before, rest) = readme.split_once(BEGIN).unwrap();
        let (listed, after) = rest.split_once(END).unwrap();
        let (metrics, registry) = Metrics::new(&["ok"]);
        let labels = PoolLabels { namespace: "n".to_owned(), pool: "p".to_owned() };
        metrics.pool(&labels, PoolNumbers::default());
        metrics.condition(&labels, ConditionType::Ready, true);
        metrics.webhooks_are_on(&["stored"]);
        metrics.hint_unmatched("linux");
        let wanted = table(&registry);
        if update_is_asked_for() {
            std::fs::write(&path, format!("{before}{BEGIN}{wanted}{END}{after}")).unwrap();
        } else {
            assert_eq!(listed, wanted, "run UPDATE=1 cargo test --lib the_readme_lists_every_metric");
        }
    }

    #[expect(clippy::disallowed_methods, reason = "how a person asks a test to write")]
    fn update_is_asked_for() -> bool {
        std::env::var_os("UPDATE").is_some()
    }

    #[test]
    fn a_pool_that_is_gone_leaves_no_series() {
        let (metrics, registry) = Metrics::new(&[]);
        let labels = PoolLabels { namespace: "ci".to_owned(), pool: "linux".to_owned() };
        metrics.pool(&labels, PoolNumbers::default());
        metrics.condition(&labels, ConditionType::Ready, true);
        metrics.webhooks_are_on(&["stored"]);
        metrics.forget(&labels);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        assert!(!text.contains("linux"), "{text}");
    }
}
