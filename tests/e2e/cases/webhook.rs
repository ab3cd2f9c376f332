//! Buildkite's webhook, from the delivery to the scale, and what a storm of them leaves behind.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::future::join_all;
use jiff::Timestamp;
use kube::api::{DeleteParams, ListParams};
use reqwest::Client;
use serde_json::{Value, json};

use super::SOON;
use crate::harness::{
    Case, case,
    case::Replica,
    eventually,
    pools::{pool, with},
};

const SECRET: &str = "the-webhook-s-token";

/// One delivery each, so that every pool is quiet when its job comes.
const QUEUES: usize = 60;
/// Pools that have nothing to do with it.
const OTHERS: usize = 1_000;
/// A burst: so many jobs at once, on so many pools.
const BURST_JOBS: usize = 500;
const BURST_POOLS: usize = 50;

/// The budget of the architecture: a pool is raised within a second.
const WITHIN_MILLISECONDS: f64 = 1_000.0;

/// How long the storm lasts; `KITEPOOL_E2E_STORM_SECONDS` asks for more.
const STORM_SECONDS: u64 = 10;
/// Deliveries of the storm on their way at once.
const STORM_SENDERS: usize = 64;
/// What the chart allows.
const QUOTA: usize = 200;

struct Webhook {
    client: Client,
    address: SocketAddr,
}

impl Webhook {
    /// Flags for a controller that receives, and the sender for it.
    fn prepare(case: &Case) -> (Self, Vec<String>) {
        let secret = case.log("webhook-secret");
        std::fs::write(&secret, SECRET).expect("a file");
        let free = TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr()).expect("a free port");
        let flags = [
            "--webhook-listen",
            &free.to_string(),
            "--webhook-secret-file",
            secret.to_str().expect("text"),
            "--webhook-rate",
            "1000000",
        ];
        let client = Client::builder().timeout(Duration::from_secs(20)).build().expect("a client");
        (Self { client, address: free }, flags.map(str::to_owned).to_vec())
    }

    /// As a sender does that is told to come again: on a machine that does much besides, the API server may not answer in time.
    async fn deliver_until_stored(&self, queue: &str, job: &str) -> Result<(), String> {
        for _ in 0..5 {
            match self.deliver(queue, job).await {
                Ok(200 | 201) => return Ok(()),
                Ok(503) => tokio::time::sleep(Duration::from_millis(500)).await,
                other => return Err(format!("{other:?}")),
            }
        }
        Err("503 five times".to_owned())
    }

    async fn deliver(&self, queue: &str, job: &str) -> Result<u16, reqwest::Error> {
        let body = json!({
            "event": "job.scheduled",
            "job": {
                "id": job,
                "type": "script",
                "agent_query_rules": [format!("queue={queue}")],
                "runnable_at": Timestamp::now().to_string(),
            },
        });
        let request = self.client.post(format!("http://{}/webhook", self.address)).body(body.to_string());
        Ok(request.header("X-Buildkite-Token", SECRET).send().await?.status().as_u16())
    }
}

/// When the pool of a queue was first raised to at least so many, and how many scales or creations it took.
fn raised(replica: &Replica, queue: &str, replicas: u64) -> Option<Timestamp> {
    let path = format!("/deployments/{queue}-");
    let records = replica.proxy.records();
    let mut scales = records.iter().filter(|record| record.is_scale() && record.path.contains(&path));
    let is_raise = |body: &str| {
        let operations: Option<Value> = serde_json::from_str(body).ok();
        operations.and_then(|operations| operations[1]["value"].as_u64()).is_some_and(|value| value >= replicas)
    };
    scales.find(|record| record.status == Some(200) && is_raise(&record.body))?.answered
}

async fn until_raised(replica: &Replica, queue: &str, replicas: u64) -> Timestamp {
    for _ in 0..2_000 {
        if let Some(at) = raised(replica, queue, replicas) {
            return at;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("no scale of {queue} to {replicas} within twenty seconds");
}

/// Pools with a Deployment that stands at one pod.
async fn standing(case: &Case, prefix: &str, count: usize) -> Vec<String> {
    let queues: Vec<String> = (0..count).map(|number| format!("{prefix}{number}")).collect();
    for queue in &queues {
        case.create_pool(with(pool(queue), json!({ "spec": { "scaling": { "min": 1, "max": 100 } } }))).await;
    }
    for queue in &queues {
        case.reaches(queue, 1, Duration::from_mins(1)).await;
    }
    queues
}

/// One job for each queue, one after another; the milliseconds from its acceptance to the scale.
async fn one_by_one(webhook: &Webhook, replica: &Replica, queues: &[String]) -> Vec<f64> {
    let mut times = Vec::new();
    for queue in queues {
        // Two: the spare pod that stands may take one.
        let jobs: Vec<String> = ["a", "b"].iter().map(|job| format!("{queue}-{job}")).collect();
        let accepted = join_all(jobs.iter().map(|job| webhook.deliver_until_stored(queue, job))).await;
        let at = Timestamp::now();
        accepted.into_iter().collect::<Result<(), String>>().expect("all are stored");
        let scaled = until_raised(replica, queue, 2).await;
        times.push(scaled.duration_since(at).as_secs_f64() * 1_000.0);
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    times
}

fn report(what: &str, mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    let at = |percent: usize| times[(times.len() * percent).div_ceil(100) - 1];
    println!(
        "webhook accepted to scale written, {what}, {} times: p50 {:.0} ms, p90 {:.0} ms, p99 {:.0} ms",
        times.len(),
        at(50),
        at(90),
        at(99)
    );
    at(50)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn a_webhook_is_answered_by_a_scale_within_a_second_beside_a_thousand_pools() {
    case("webhook", Duration::from_mins(9), async |case| {
        case.takes_hints().await;
        let (webhook, flags) = Webhook::prepare(case);
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let endpoint = case.buildkite.endpoint();
        let usual = ["--namespace", &case.namespace, "--buildkite-endpoint", &endpoint, "--poll-interval", "10s"];
        let replica = case.unrecorded_replica("a", &[usual.as_slice(), &flags].concat()).await;

        let queues = standing(case, "q", QUEUES).await;
        let alone = report("alone", one_by_one(&webhook, &replica, &queues).await);
        assert!(alone < WITHIN_MILLISECONDS, "p50 is {alone} ms");

        let burst = standing(case, "b", BURST_POOLS).await;
        let jobs: Vec<(String, String)> =
            (0..BURST_JOBS).map(|job| (burst[job % BURST_POOLS].clone(), format!("burst-{job}"))).collect();
        let began = Timestamp::now();
        let accepted = join_all(jobs.iter().map(|(queue, job)| webhook.deliver_until_stored(queue, job))).await;
        let all_accepted = Timestamp::now();
        accepted.into_iter().collect::<Result<(), String>>().expect("all are stored");
        let each = u64::try_from(BURST_JOBS / BURST_POOLS).expect("a small number");
        let last = join_all(burst.iter().map(|queue| until_raised(&replica, queue, each))).await.into_iter().max();
        let scales = burst.iter().map(|queue| {
            let path = format!("/deployments/{queue}-");
            let records = replica.proxy.records();
            records.iter().filter(|r| r.is_scale() && r.path.contains(&path) && r.at >= began).count()
        });
        println!(
            "{BURST_JOBS} jobs on {BURST_POOLS} pools: all accepted after {:.0} ms, last scale {:.0} ms after the first delivery, at most {} scales a pool",
            all_accepted.duration_since(began).as_secs_f64() * 1_000.0,
            last.expect("a burst").duration_since(began).as_secs_f64() * 1_000.0,
            scales.max().expect("a burst"),
        );

        for number in 0..OTHERS {
            case.create_pool(with(pool(&format!("other{number}")), json!({ "spec": { "mode": "Observe" } }))).await;
        }
        let last = format!("other{}", OTHERS - 1);
        case.condition(&last, "LoadFresh", "True", Duration::from_mins(2)).await;
        let queues = standing(case, "r", QUEUES).await;
        report(&format!("beside {OTHERS} other pools"), one_by_one(&webhook, &replica, &queues).await);
    })
    .await;
}

/// Resident KiB of a process.
fn memory(pid: rustix::process::Pid) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS")).expect("a size");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn a_storm_of_webhooks_fills_no_more_than_the_quota_and_every_one_is_answered() {
    let seconds =
        std::env::var("KITEPOOL_E2E_STORM_SECONDS").map_or(STORM_SECONDS, |text| text.parse().expect("seconds"));
    case("storm", Duration::from_secs(seconds) + Duration::from_mins(3), async |case| {
        case.takes_hints().await;
        let (webhook, flags) = Webhook::prepare(case);
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let replica = case.replica("a", &flags).await;
        case.create_pool(pool("linux")).await;
        case.condition("linux", "LoadFresh", "True", SOON).await;

        let before = memory(replica.controller.pid());
        let end = tokio::time::Instant::now() + Duration::from_secs(seconds);
        let number = Arc::new(AtomicU64::new(0));
        let senders = (0..STORM_SENDERS).map(|_| async {
            let mut answers: BTreeMap<u16, u64> = BTreeMap::new();
            while tokio::time::Instant::now() < end {
                let job = number.fetch_add(1, Ordering::Relaxed);
                let status = webhook.deliver("linux", &format!("storm-{job}")).await.expect("every one is answered");
                *answers.entry(status).or_default() += 1;
            }
            answers
        });
        let mut most = 0;
        let watching = async {
            while tokio::time::Instant::now() < end {
                let hints = case.hints().list(&ListParams::default()).await.expect("a list").items.len();
                most = most.max(hints);
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        };
        let (answers, ()) = tokio::join!(join_all(senders), watching);
        let mut all: BTreeMap<u16, u64> = BTreeMap::new();
        for (status, count) in answers.into_iter().flatten() {
            *all.entry(status).or_default() += count;
        }
        let sent = number.load(Ordering::Relaxed);
        let after = memory(replica.controller.pid());
        println!("{sent} deliveries in {seconds} s: {all:?}; at most {most} hints; {before} KiB before, {after} after");
        assert_eq!(all.values().sum::<u64>(), sent);
        assert!(all.keys().all(|status| matches!(status, 200 | 201 | 503)), "{all:?}");
        assert!(all.contains_key(&201) && most <= QUOTA, "{most} hints");
        assert!(after < before + 64 * 1024, "{before} KiB before, {after} after");

        // It goes on as if nothing had been.
        case.hints().delete_collection(&DeleteParams::default(), &ListParams::default()).await.expect("they go");
        eventually("a job is taken in again", SOON, async || {
            let status = webhook.deliver("linux", "after-the-storm").await.map_err(|error| error.to_string())?;
            if matches!(status, 200 | 201) { Ok(()) } else { Err(status.to_string()) }
        })
        .await;
    })
    .await;
}
