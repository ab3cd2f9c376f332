use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicUsize, Ordering},
};

use jiff::Timestamp;
use kitepool_policy::units::Agents;

use super::*;
use crate::agents::Asking;

/// Pods that answer as they are told to, and when each was asked.
#[derive(Default)]
struct Pods {
    busy: Mutex<BTreeMap<String, Result<u32, Silence>>>,
    asked: Mutex<BTreeMap<String, Vec<Duration>>>,
    waiting: AtomicUsize,
    most_waiting: AtomicUsize,
    hang: Mutex<BTreeSet<String>>,
    began: Mutex<Option<Instant>>,
}

impl Ask for Pods {
    fn ask<'a>(&'a self, address: &'a Address) -> Asking<'a> {
        Box::pin(async move {
            let now = Clock::fixed(Timestamp::UNIX_EPOCH).mono();
            let began = *self.began.lock().unwrap().get_or_insert(now);
            self.asked.lock().unwrap().entry(address.uid.clone()).or_default().push(now - began);
            self.most_waiting.fetch_max(self.waiting.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
            if self.hang.lock().unwrap().contains(&address.uid) {
                std::future::pending::<()>().await;
            }
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            let said = self.busy.lock().unwrap().get(&address.uid).copied().unwrap_or(Ok(0));
            said.map(|busy| {
                let word = if busy > 0 { "busy" } else { "idle" };
                format!(r#"{{"workers":[{{"status":"{word}"}}]}}"#).into_bytes()
            })
        })
    }
}

impl Pods {
    fn says(&self, uid: &str, what: Result<u32, Silence>) {
        self.busy.lock().unwrap().insert(uid.to_owned(), what);
    }

    fn seconds(&self, uid: &str) -> Vec<u64> {
        self.asked.lock().unwrap().get(uid).into_iter().flatten().map(Duration::as_secs).collect()
    }
}

fn pod(uid: &str, is_ready: bool) -> Arc<PodView> {
    let conditions = serde_json::json!([{ "type": "Ready", "status": if is_ready { "True" } else { "False" } }]);
    let object = serde_json::json!({ "metadata": { "name": uid, "uid": uid }, "status": { "conditions": conditions } });
    Arc::new(PodView::of_json(object))
}

fn address(pod: &PodView) -> Address {
    let (namespace, uid) = ("ci".to_owned(), pod.uid.clone());
    Address { namespace, pod: uid.clone(), uid, ip: [10, 0, 0, 1].into(), port: 3901 }
}

/// A round in which these ready pods are wanted.
fn want(probes: &ProbeSet, of: &[(&str, Pace)]) {
    let pods: Vec<(Arc<PodView>, Pace)> = of.iter().map(|(uid, pace)| (pod(uid, true), *pace)).collect();
    probes.want(pods.iter().map(|(pod, pace)| (pod, *pace)), |pod| Some(address(pod)));
    probes.end_round();
}

fn begin() -> (Arc<Pods>, ProbeSet, Clock) {
    let (pods, clock) = (Arc::<Pods>::default(), Clock::fixed(Timestamp::UNIX_EPOCH));
    let way: Arc<dyn Ask> = Arc::<Pods>::clone(&pods);
    let probes = ProbeSet::begin(way, clock.clone(), Arc::default());
    (pods, probes, clock)
}

async fn seconds(count: u64) {
    tokio::time::sleep(Duration::from_secs(count)).await;
}

const fn idle() -> Heard {
    Heard::Said(Said { busy: Agents(0) })
}

#[tokio::test(start_paused = true)]
async fn each_pod_is_asked_at_its_pace_and_at_once_when_it_comes_or_its_pool_shrinks() {
    let (pods, probes, _) = begin();
    want(&probes, &[("near", Pace::Near), ("usual", Pace::Usual), ("seldom", Pace::Seldom)]);
    seconds(31).await;
    assert_eq!(pods.seconds("near").len(), 16);
    assert_eq!(pods.seconds("usual"), [0, 10, 20, 30]);
    assert_eq!(pods.seconds("seldom"), [0, 30]);
    want(&probes, &[("usual", Pace::Usual), ("seldom", Pace::Near)]);
    seconds(6).await;
    assert_eq!(pods.seconds("seldom"), [0, 30, 32, 34, 36]);
    assert_eq!(pods.seconds("near").len(), 16, "nobody wants to know of it any more");
    probes.want([(&pod("usual", false), Pace::Usual)].into_iter(), |pod| Some(address(pod)));
    probes.end_round();
    seconds(1).await;
    assert_eq!(pods.seconds("usual"), [0, 10, 20, 30, 37]);
}

#[tokio::test(start_paused = true)]
async fn what_a_pod_said_is_dated_by_when_that_began_and_by_when_it_was_said_last() {
    let (pods, probes, clock) = begin();
    let start = clock.now();
    let after = |seconds| start + Duration::from_secs(seconds);
    want(&probes, &[("a", Pace::Usual)]);
    assert_eq!(probes.look("a"), None);
    seconds(25).await;
    assert_eq!(probes.look("a"), Some(Look { heard: idle(), since: start, at: after(20) }));
    pods.says("a", Ok(1));
    seconds(10).await;
    let busy = Heard::Said(Said { busy: Agents(1) });
    assert_eq!(probes.look("a"), Some(Look { heard: busy, since: after(30), at: after(30) }));
    assert_eq!(probes.look("b"), None);
}

#[tokio::test(start_paused = true)]
async fn one_answer_that_is_missed_is_chance_and_two_are_not() {
    let (pods, probes, _) = begin();
    want(&probes, &[("a", Pace::Usual)]);
    seconds(9).await;
    pods.hang.lock().unwrap().insert("a".to_owned());
    seconds(4).await;
    assert_eq!(probes.look("a").unwrap().heard, idle(), "it was asked at 10 and may answer yet");
    seconds(3).await;
    assert_eq!(probes.look("a").unwrap().heard, Heard::Silent(Silence::TimedOut));
    pods.hang.lock().unwrap().clear();
    pods.says("a", Err(Silence::Refused));
    seconds(20).await;
    let silent = probes.look("a").unwrap();
    assert_eq!(silent.heard, Heard::Silent(Silence::Refused));
    assert!(silent.at > silent.since, "another reason is the same silence");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_believed_at_once() {
    let (pods, probes, _) = begin();
    pods.says("a", Err(Silence::Refused));
    want(&probes, &[("a", Pace::Usual)]);
    seconds(1).await;
    assert_eq!(probes.look("a").unwrap().heard, Heard::Silent(Silence::Refused));
}

#[tokio::test(start_paused = true)]
async fn a_thousand_pods_are_asked_within_the_budget_and_the_near_ones_first() {
    let (pods, probes, _) = begin();
    let names: Vec<String> = (0..1_000).map(|number| format!("pod-{number:04}")).collect();
    let mut all: Vec<(&str, Pace)> = names.iter().map(|name| (name.as_str(), Pace::Usual)).collect();
    all.push(("zz-near", Pace::Near));
    want(&probes, &all);
    seconds(30).await;
    let asked: Vec<u64> = pods.asked.lock().unwrap().values().flatten().map(Duration::as_secs).collect();
    for second in 0..30 {
        let within = asked.iter().filter(|at| **at == second).count();
        assert!(within <= 100, "{within} in second {second}");
    }
    assert!(names.iter().all(|name| pods.seconds(name).len() >= 2), "everybody has his turn");
    assert!(pods.seconds("zz-near").len() >= 13, "{:?}", pods.seconds("zz-near"));
}

#[tokio::test(start_paused = true)]
async fn pods_that_hang_do_not_keep_others_waiting() {
    let (pods, probes, _) = begin();
    let names: Vec<String> = (0..150).map(|number| format!("hangs-{number:04}")).collect();
    pods.hang.lock().unwrap().extend(names.iter().cloned());
    let mut all: Vec<(&str, Pace)> = names.iter().map(|name| (name.as_str(), Pace::Near)).collect();
    all.push(("a", Pace::Near));
    want(&probes, &all);
    seconds(20).await;
    assert!(pods.seconds("a").len() >= 5, "{:?}", pods.seconds("a"));
    assert!(pods.most_waiting.load(Ordering::Relaxed) > 0);
    drop(probes);
    seconds(1).await;
    assert_eq!(Arc::strong_count(&pods), 1, "the asking ends with the set");
}

#[tokio::test(start_paused = true)]
async fn a_last_word_names_the_busy_ones_waits_for_nobody_that_hangs_and_is_remembered() {
    let (pods, probes, clock) = begin();
    want(&probes, &[("works", Pace::Usual), ("idles", Pace::Usual), ("hangs", Pace::Usual)]);
    seconds(1).await;
    pods.says("works", Ok(1));
    pods.says("silent", Err(Silence::Refused));
    pods.hang.lock().unwrap().insert("hangs".to_owned());
    let before = clock.mono();
    let addresses = ["idles", "hangs", "silent", "works"].map(|uid| address(&pod(uid, true)));
    assert_eq!(probes.last_word().busy_among(&addresses).await, ["works"]);
    assert_eq!(clock.mono() - before, LAST_WORD_MAX);
    assert_eq!(probes.look("works").unwrap().heard, Heard::Said(Said { busy: Agents(1) }));
    assert_eq!(probes.look("hangs").unwrap().heard, idle(), "that it says nothing once is no news");
    assert_eq!(probes.look("silent"), None, "one that nobody else asks is not kept");
    seconds(10).await;
    assert_eq!(pods.seconds("idles"), [0, 1, 10], "its own turns stay as they were");
}

#[tokio::test(start_paused = true)]
async fn a_pod_whose_address_is_another_is_asked_there_at_once_and_one_without_is_not_asked() {
    let (pods, probes, _) = begin();
    let same = pod("a", true);
    let round = |pod: &Arc<PodView>, address: &dyn Fn(&PodView) -> Option<Address>| {
        probes.want([(pod, Pace::Usual)].into_iter(), address);
        probes.end_round();
    };
    round(&same, &|pod| Some(address(pod)));
    seconds(3).await;
    round(&same, &|_| None);
    seconds(1).await;
    assert_eq!(pods.seconds("a"), [0], "the same object has the same address, so nobody looks for it again");
    let moved = |pod: &PodView| Some(Address { port: 3902, ..address(pod) });
    round(&pod("a", true), &moved);
    seconds(1).await;
    assert_eq!(pods.seconds("a"), [0, 4]);
    round(&pod("a", true), &|_| None);
    assert_eq!(probes.look("a"), None);
}
