//! Real agents taken away by the thousand while jobs come and go: none loses its job.
//!
//! One pool gives up its agents in rounds, and a round takes its twenty-odd seconds however many it takes: a reading that knows
//! the last change, ten seconds; a second answer a ping after the choice, ten more. So several pools shrink side by side, each
//! with a queue of its own.

use std::{collections::BTreeMap, path::Path, time::Duration};

use futures::future::join_all;
use jiff::Timestamp;
use kitepool_world::buildkite::PickUp;
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use super::{SHRINKS, SOON, agents_picked::gone};
use crate::{
    harness::{
        account::account,
        agents::Agents,
        case::Replica,
        pools::{pool, with},
        processes::process_case,
        stranded::{Scales, Stranded, last, last_asked, stranded},
        stream::{LONG, Shape, Stream},
        told::told_as,
    },
    process_kubelet::ledger::{What, Why, is_signal},
};

/// How many agents are to be taken away; `KITEPOOL_E2E_REMOVALS` asks for more.
const REMOVALS: u32 = 1_000;
/// The same streams of jobs again; `KITEPOOL_E2E_SEED` asks for others.
const SEED: u32 = 1;
/// Between two pings of an agent; `KITEPOOL_E2E_PING_SECONDS` asks for another. Buildkite's usual one is ten seconds.
const PING_SECS: u32 = 1;
/// Idle agents that each pool keeps: what a pool has that says nothing. `KITEPOOL_E2E_SPARE` asks for others.
const SPARE: u32 = 1;
/// So many pools keep two cores busy with starting agents; `KITEPOOL_E2E_POOLS` asks for more.
const POOLS: u32 = 12;
/// The largest wave of jobs in a queue, a long one and a few stragglers apart.
const WAVE: u32 = 12;
/// So many of a thousand jobs take half a minute to ten: some five agents are busy with one all the time.
const LONG_PERMILLE: u32 = 20;
const MAX: u32 = WAVE + 4;
/// What one removal takes of the time, over all pools: for what is over by when.
const EACH: Duration = Duration::from_millis(600);

fn setting(name: &str, otherwise: u32) -> u32 {
    std::env::var(name).map_or(otherwise, |text| text.parse().expect("a number"))
}

/// Submits a queue's jobs at their times until enough agents are gone. Answers how many of them were long.
async fn submit(agents: &Agents<'_>, queue: &str, stream: Stream, is_enough: impl Fn() -> bool) -> usize {
    let began = Instant::now();
    let mut long = 0;
    for job in stream {
        sleep_until(began + job.at).await;
        if is_enough() {
            break;
        }
        agents.submit_to(queue, job.seconds);
        long += usize::from(Duration::from_secs(job.seconds.into()) >= LONG);
    }
    long
}

/// So many jobs may be stranded that were given away before replicas were lowered: twice what was measured on a busy machine, one in
/// a hundred. One in a thousand is the goal, and it is not reached: of agents that fell idle within the same ten seconds nobody knows
/// which was the last, so one that has just been given a job may be among the chosen although as many are let go.
fn stranded_max(removed: usize) -> usize {
    1 + removed / 50
}

/// The pods that the controller says went in the place of a chosen one.
fn not_chosen(log: &Path) -> Vec<String> {
    let gone = told_as(log, "agent gone").into_iter().filter(|line| line["cause"] != "chosen");
    gone.filter_map(|line| line["pod"].as_str().map(str::to_owned)).collect()
}

/// What was asked for.
#[derive(Debug)]
struct Plan {
    wanted: u32,
    seed: u32,
    ping: u32,
    spare: u32,
    /// Whether events tell of jobs.
    with_events: bool,
    queues: Vec<String>,
}

impl Plan {
    fn read() -> Self {
        Self {
            wanted: setting("KITEPOOL_E2E_REMOVALS", REMOVALS),
            seed: setting("KITEPOOL_E2E_SEED", SEED),
            ping: setting("KITEPOOL_E2E_PING_SECONDS", PING_SECS),
            spare: setting("KITEPOOL_E2E_SPARE", SPARE),
            with_events: setting("KITEPOOL_E2E_EVENTS", 1) > 0,
            queues: (0..setting("KITEPOOL_E2E_POOLS", POOLS)).map(|number| format!("q{number}")).collect(),
        }
    }

    /// Whether it is the load that the goals are about.
    fn is_usual(&self) -> bool {
        self.ping <= PING_SECS && self.spare >= SPARE && self.with_events
    }

    fn shape(&self) -> Shape {
        // The last long job is over by then.
        Shape { largest: WAVE, long_permille: LONG_PERMILLE, over_by: EACH * self.wanted }
    }
}

/// How many agents got their signal so far.
fn removed(agents: &Agents<'_>) -> usize {
    agents.kubelet.ledger().count(|what| *what == What::Signalled(15, Why::Deleted))
}

/// All queues at once. Answers how many jobs were long.
async fn submit_all(agents: &Agents<'_>, plan: &Plan) -> usize {
    let wanted = usize::try_from(plan.wanted).expect("a number");
    let streams = plan.queues.iter().map(|queue| {
        let stream = Stream::new(plan.seed.into(), queue, plan.shape());
        submit(agents, queue, stream, || removed(agents) >= wanted)
    });
    join_all(streams).await.into_iter().sum()
}

/// What the run came to, in the words of its last line; and what must hold.
fn judge(agents: &Agents<'_>, replica: &Replica, log: &Path, gone: &BTreeMap<String, u64>, plan: &Plan, line: &str) {
    let removed = removed(agents);
    let stranded = stranded(agents, replica, log);
    for each in &stranded {
        println!("stranded: {each}");
    }
    let (scales, by_pod) = (Scales::of(replica), agents.kubelet.ledger().by_pod());
    let signals: BTreeMap<&str, Timestamp> = by_pod
        .iter()
        .filter_map(|(pod, told)| Some((pod.as_str(), told.iter().find(|entry| is_signal(entry))?.at)))
        .collect();
    let mut ways: Vec<f64> = signals
        .iter()
        .filter_map(|(pod, at)| Some(at.duration_since(scales.before(*at, pod)?).as_secs_f64()))
        .collect();
    ways.sort_by(f64::total_cmp);
    let way = |percent: usize| ways.get((ways.len() * percent / 100).min(ways.len() - 1)).copied().unwrap_or_default();
    // Busy when they were picked, which is when they said for the last time that they are idle: a job may be accepted between
    // that and the write, and again between the write and the signal.
    let asked = last_asked(log);
    let (mut busy_when_told, mut busy_when_lowered) = (0, 0);
    let busy_when_picked = agents.signalled_during().into_iter().filter(|record| {
        busy_when_told += 1;
        let pod = record.attempts.last().and_then(|last| last.hostname.clone()).unwrap_or_default();
        let lowered_at = signals.get(pod.as_str()).and_then(|at| scales.before(*at, &pod));
        let picked_at = signals.get(pod.as_str()).and_then(|at| last(&asked, Some(*at), &pod));
        let is_before =
            |moment: Option<Timestamp>| record.accepted_at.zip(moment).is_none_or(|(job, moment)| job < moment);
        busy_when_lowered += usize::from(is_before(lowered_at));
        is_before(picked_at)
    });
    let busy_when_picked: Vec<_> = busy_when_picked.collect();
    let busy_pods = busy_when_picked.iter().filter_map(|job| job.attempts.last()?.hostname.clone());
    for pod in busy_pods.chain(not_chosen(log)) {
        println!("{}", account(agents, replica, log, &pod));
    }
    let known = stranded.iter().filter(|each| each.was_given_before()).count();
    let longest = stranded.iter().filter_map(Stranded::delay).max().unwrap_or_default();
    agents.tell(&format!(
        "{plan:?}: {removed} agents taken away {line}; 0 jobs killed; {} agents busy when they were picked, \
         {busy_when_lowered} when replicas were lowered, {busy_when_told} when the signal came; {} jobs stranded, \
         {known} of them given away before replicas were lowered, for {longest:.1?} at the most; from there to the signal {:.2} s (median), {:.2} s (longest); gone by cause: {gone:?}",
        busy_when_picked.len(),
        stranded.len(),
        way(50),
        way(100),
    ));
    assert!(busy_when_picked.len() <= removed / 1_000, "{busy_when_picked:#?}");
    let others: BTreeMap<_, _> = gone.iter().filter(|(cause, _)| *cause != "chosen").collect();
    assert!(others.is_empty(), "all that went were chosen: {others:?}");
    // A machine that stands still for a quarter of a minute loses its lease. What goes until it leads again is not counted.
    let terms = told_as(log, "leading").len();
    let counted = gone.values().sum::<u64>();
    let removed_by_us = u64::try_from(removed).expect("a number");
    assert!(counted == removed_by_us || (terms > 1 && counted < removed_by_us), "{counted} counted in {terms} terms");
    if plan.is_usual() {
        assert!(known <= stranded_max(removed), "{known} jobs stranded by the controller's doing");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane and the real agent: tests/e2e/run"]
async fn agents_are_taken_away_by_the_thousand_and_no_job_is_lost() {
    let plan = Plan::read();
    // A slow machine gets three times as long.
    let usual = EACH * plan.wanted;
    process_case("agents-removals", 4, usual * 3 + Duration::from_mins(10), async |case| {
        let ping = Duration::from_secs(plan.ping.into());
        let agents = Agents::start(case, 2, |settings| settings.pick_up = PickUp::Polling { interval: ping }).await;
        // What is taken down of so many ticks would fill the record.
        let replica = case.replica_for(&agents.endpoint(), false).await;
        for queue in &plan.queues {
            case.history.bound(queue, 0..=i32::try_from(MAX).expect("small"));
            let scaling = json!({ "max": MAX, "spare": { "agents": plan.spare } });
            case.create_pool(with(pool(queue), json!({ "spec": { "scaling": scaling } }))).await;
        }
        for queue in &plan.queues {
            case.condition(queue, "LoadFresh", "True", SOON).await;
        }
        let events = async {
            if plan.with_events {
                agents.carry_events().await;
            }
            std::future::pending().await
        };
        let began = Instant::now();
        let course = async {
            let long = submit_all(&agents, &plan).await;
            let enough_after = began.elapsed();
            agents.all_end(usual + Duration::from_mins(5)).await;
            (long, enough_after)
        };
        let (long, enough_after) = tokio::select! {
            ended = course => ended,
            never = events => never,
        };
        for queue in &plan.queues {
            case.change_pool(queue, json!({ "spec": { "scaling": { "spare": { "agents": 0 } } } })).await;
        }
        for queue in &plan.queues {
            case.reaches(queue, 0, SHRINKS * 2).await;
        }
        agents.all_leave(SOON * 2).await;

        agents.ran_once(|_, _| true);
        agents.left_in_peace();
        let gone = gone(&replica).await;
        let line = format!(
            "in {:.0?}, the first {} in {enough_after:.0?}, beside {long} long jobs",
            began.elapsed(),
            plan.wanted
        );
        judge(&agents, &replica, &case.log("a"), &gone, &plan, &line);
    })
    .await;
}
