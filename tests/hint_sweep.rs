//! Hints that are over are deleted in few calls, and none that is not: the controller's sweep against the simulated API server.

#![cfg(test)]

use std::{collections::BTreeSet, num::NonZeroU32, sync::Arc, time::Duration};

use jiff::Timestamp;
use kitepool::{
    clock::Clock,
    cluster::{cell::Cell, view::HintView, write::Writer},
    control::{hint_sweep::HintSweep, hints::HintReview, metrics::Metrics},
};
use kitepool_world::kubernetes::{Fault, Kind, Kubernetes, Requests, Route, Settings, Shared, Verb, drive, router};
use kube::core::DynamicObject;
use serde_json::{Value, json};

const NAMESPACE: &str = "ci";

struct Stage {
    kubernetes: Shared,
    clock: Clock,
    cell: Cell<HintView>,
    sweep: HintSweep,
    /// Names of hints that are not over.
    kept: BTreeSet<String>,
}

impl Stage {
    fn begin() -> Self {
        let clock = Clock::fixed(Timestamp::UNIX_EPOCH);
        let definitions = kitepool_api::crds().into_iter().map(|crd| serde_json::to_value(crd).unwrap()).collect();
        let settings = Settings { definitions, ..Settings::default() };
        let kubernetes = Shared::new(Kubernetes::new(settings, 1, clock.now()));
        let driving = clock.clone();
        tokio::spawn(drive(kubernetes.clone(), move || driving.now()));
        let moving = clock.clone();
        let client = kube::Client::new(router(kubernetes.clone(), move || moving.now()), NAMESPACE);
        let writer = Arc::new(Writer::new(client, NonZeroU32::new(400).unwrap(), clock.clone()));
        let sweep = HintSweep::new(writer, Metrics::new(&[]).0, clock.clone());
        Self { kubernetes, clock, cell: Cell::default(), sweep, kept: BTreeSet::new() }
    }

    fn create(&self, name: &str) {
        let hint = json!({
            "apiVersion": "kitepool.dev/v1alpha1", "kind": "JobHint",
            "metadata": { "name": name, "namespace": NAMESPACE },
            "spec": { "source": "test", "jobs": [{ "id": name, "queue": "linux", "runnableAt": "1970-01-01T00:00:00Z" }] },
        });
        let now = self.clock.now();
        self.kubernetes.with(now, |kubernetes| kubernetes.put("writer", hint, now).unwrap());
    }

    fn keep(&mut self, name: &str) {
        self.create(name);
        self.kept.insert(name.to_owned());
    }

    fn objects(&self) -> Vec<Arc<Value>> {
        self.kubernetes.peek(|kubernetes| kubernetes.objects(Kind::JobHint, NAMESPACE))
    }

    fn names(&self) -> BTreeSet<String> {
        self.objects().iter().map(|hint| hint["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    }

    /// As the watch does.
    fn look(&self) {
        self.cell.begin();
        for object in self.objects() {
            let object: DynamicObject = serde_json::from_value(Value::clone(&object)).unwrap();
            self.cell.collect(object.metadata.name.clone().unwrap(), HintView::from(object));
        }
        self.cell.complete();
    }

    /// As the index of hints does.
    fn review(&self) -> HintReview {
        let hints = self.cell.objects();
        let over = hints.iter().filter(|(name, _)| !self.kept.contains(*name));
        let over = over.map(|(name, hint)| (name.clone(), hint.uid.clone())).collect();
        HintReview { all: hints.len(), over, ..HintReview::default() }
    }

    async fn tick(&mut self) {
        let review = self.review();
        self.sweep.sweep(NAMESPACE, &review, &self.cell);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    async fn ticks(&mut self, count: usize) {
        for _ in 0..count {
            self.look();
            self.tick().await;
        }
        assert_eq!(self.kubernetes.peek(|kubernetes| kubernetes.unknown().to_vec()), [""; 0]);
    }

    fn calls(&self, verb: Verb, status: u16) -> u64 {
        let requests: Requests = self.kubernetes.peek(|kubernetes| kubernetes.requests().clone());
        requests
            .get(&Route::new(verb, "jobhints"))
            .and_then(|answers| answers.get(&status))
            .copied()
            .unwrap_or_default()
    }
}

#[tokio::test(start_paused = true)]
async fn two_hundred_hints_that_are_over_go_in_two_calls() {
    let mut stage = Stage::begin();
    (0..200).for_each(|number| stage.create(&format!("over-{number}")));
    stage.ticks(10).await;
    assert_eq!(stage.names().len(), 0);
    assert_eq!((stage.calls(Verb::DeleteCollection, 200), stage.calls(Verb::Delete, 200)), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn hints_that_are_not_over_stay_among_those_that_go() {
    let mut stage = Stage::begin();
    for number in 0..60 {
        stage.create(&format!("h{number:02}-over"));
        if number % 3 == 0 {
            stage.keep(&format!("h{number:02}-open"));
        }
    }
    stage.ticks(10).await;
    assert_eq!(stage.names(), stage.kept);
    assert_eq!((stage.calls(Verb::DeleteCollection, 200), stage.calls(Verb::Delete, 200)), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn one_hint_goes_by_itself() {
    let mut stage = Stage::begin();
    stage.create("over");
    stage.keep("open");
    stage.ticks(3).await;
    assert_eq!(stage.names(), BTreeSet::from(["open".to_owned()]));
    assert_eq!((stage.calls(Verb::DeleteCollection, 200), stage.calls(Verb::Delete, 200)), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_hint_that_the_watch_has_not_shown_yet_stays() {
    let mut stage = Stage::begin();
    (0..10).for_each(|number| stage.create(&format!("over-{number}")));
    stage.look();
    stage.create("meanwhile");
    stage.tick().await;
    assert_eq!(stage.names(), BTreeSet::from(["meanwhile".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn a_job_that_is_told_again_while_the_watch_lags_keeps_its_new_hint() {
    let mut stage = Stage::begin();
    for name in ["a", "b"] {
        stage.create(name);
    }
    for name in ["c", "d"] {
        stage.keep(name);
    }
    stage.look();
    stage.tick().await;
    assert_eq!(stage.names(), BTreeSet::from(["c", "d"].map(str::to_owned)));
    // The watch shows none of that yet, and now all that it shows is over. At the version of `d` there was an `a`.
    stage.create("a");
    stage.kept.clear();
    for _ in 0..3 {
        stage.tick().await;
    }
    assert!(stage.names().contains("a"), "{:?}", stage.names());
    stage.kept.insert("a".to_owned());
    stage.ticks(5).await;
    assert_eq!(stage.names(), BTreeSet::from(["a".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn a_call_for_many_waits_for_those_that_go_one_by_one() {
    let mut stage = Stage::begin();
    let slow = Fault { delay: Duration::from_secs(2), ..Fault::default() };
    let now = stage.clock.now();
    stage.kubernetes.with(now, |kubernetes| kubernetes.set_fault(Route::new(Verb::Delete, "jobhints"), Some(slow)));
    stage.create("a");
    stage.ticks(1).await;
    for name in ["b", "c"] {
        stage.create(name);
    }
    stage.ticks(10).await;
    assert_eq!(stage.calls(Verb::DeleteCollection, 200), 0, "the first is still on its way");
    stage.ticks(20).await;
    assert_eq!((stage.names().len(), stage.calls(Verb::DeleteCollection, 200)), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn where_a_call_for_many_is_refused_they_go_one_by_one_and_later_together_again() {
    let mut stage = Stage::begin();
    let refused = Fault { status: Some(403), ..Fault::default() };
    let route = || Route::new(Verb::DeleteCollection, "jobhints");
    let now = stage.clock.now();
    stage.kubernetes.with(now, |kubernetes| kubernetes.set_fault(route(), Some(refused)));
    (0..20).for_each(|number| stage.create(&format!("over-{number}")));
    stage.ticks(20).await;
    assert_eq!(stage.names().len(), 0);
    assert_eq!((stage.calls(Verb::DeleteCollection, 403), stage.calls(Verb::Delete, 200)), (1, 20));

    let now = stage.clock.now();
    stage.kubernetes.with(now, |kubernetes| kubernetes.set_fault(route(), None));
    tokio::time::sleep(Duration::from_mins(1)).await;
    (0..20).for_each(|number| stage.create(&format!("later-{number}")));
    stage.ticks(5).await;
    assert_eq!((stage.names().len(), stage.calls(Verb::DeleteCollection, 200)), (0, 1));
}
