//! Buildkite's webhook, from the delivery to the scale, and what a storm of them leaves behind.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpListener},
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
    sender::Sender,
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

/// How long the storm lasts and how many come a second, beside twenty other cases and not optimised;
/// `KITEPOOL_E2E_STORM_SECONDS` and `KITEPOOL_E2E_STORM_RATE` ask for more.
const STORM_SECONDS: u64 = 10;
const STORM_RATE: u32 = 300;
/// One connection for so many a second: an answer takes some 30 ms, since each waits for its hint. No more connections than the
/// usual 1,024 open files of a process and the controller's own bound have room for.
const STORM_RATE_OF_CONNECTION: u32 = 10;
const STORM_CONNECTIONS_MAX: u32 = 800;
/// What the chart allows.
const QUOTA: usize = 200;
/// The API server counts a quota anew while hints are deleted, without those that are being created at that moment
/// (`a_quota_is_exceeded_by_no_more_than…` shows it without a controller); the controller creates so many at once.
const CREATES_IN_FLIGHT: usize = 4;
/// What a controller may hold more after a storm than before, and after the second half of it than after the first.
const STORM_KIB_MAX: u64 = 64 * 1024;
const STORM_KIB_LATER_MAX: u64 = 16 * 1024;

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

/// The scales of these queues' pools since then, each with what it came to and when: the controller's own, as they landed.
fn scales(replica: &Replica, queues: &[String], since: Timestamp) -> BTreeMap<String, Vec<(Timestamp, u64)>> {
    let mut scales: BTreeMap<String, Vec<(Timestamp, u64)>> = BTreeMap::new();
    replica.proxy.look_since(since, |record| {
        if !record.is_scale() || record.status != Some(200) {
            return;
        }
        let generation = record.path.split('/').skip_while(|part| *part != "deployments").nth(1).unwrap_or_default();
        let queue = queues.iter().find(|queue| generation.rsplit_once('-').is_some_and(|(pool, _)| pool == **queue));
        let operations: Option<Value> = serde_json::from_str(&record.body).ok();
        let to = operations.and_then(|operations| operations[1]["value"].as_u64());
        if let (Some(queue), Some(to), Some(at)) = (queue, to, record.answered) {
            scales.entry(queue.clone()).or_default().push((at, to));
        }
    });
    scales
}

/// When the last of these queues' pools was first raised to at least so many, and how many scales one of them took, at most.
async fn until_raised(replica: &Replica, queues: &[String], replicas: u64, since: Timestamp) -> (Timestamp, usize) {
    for _ in 0..2_000 {
        let scales = scales(replica, queues, since);
        let raised =
            |scales: &Vec<(Timestamp, u64)>| scales.iter().filter(|(_, to)| *to >= replicas).map(|(at, _)| *at).min();
        let times: Vec<Timestamp> = scales.values().filter_map(raised).collect();
        if let Some(last) = times.iter().max().filter(|_| times.len() == queues.len()) {
            return (*last, scales.values().map(Vec::len).max().unwrap_or_default());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not all of {queues:?} were scaled to {replicas} within twenty seconds");
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
        let began = Timestamp::now();
        let jobs: Vec<String> = ["a", "b"].iter().map(|job| format!("{queue}-{job}")).collect();
        let accepted = join_all(jobs.iter().map(|job| webhook.deliver_until_stored(queue, job))).await;
        let at = Timestamp::now();
        accepted.into_iter().collect::<Result<(), String>>().expect("all are stored");
        let (scaled, _) = until_raised(replica, std::slice::from_ref(queue), 2, began).await;
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
        let (last, scales) = until_raised(&replica, &burst, each, began).await;
        println!(
            "{BURST_JOBS} jobs on {BURST_POOLS} pools: all accepted after {:.0} ms, last scale {:.0} ms after the first delivery, at most {scales} scales a pool",
            all_accepted.duration_since(began).as_secs_f64() * 1_000.0,
            last.duration_since(began).as_secs_f64() * 1_000.0,
        );

        // Five hundred agents that go again would be measured as well.
        eventually("only those are left that min keeps", Duration::from_mins(2), async || {
            let left = case.pods().list_metadata(&ListParams::default()).await.map_err(|error| error.to_string())?.items;
            if left.len() == QUEUES + BURST_POOLS { Ok(()) } else { Err(format!("{} pods", left.len())) }
        })
        .await;
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

/// A number from the environment, and whether it was given.
fn asked<T: std::str::FromStr>(name: &str, usually: T) -> (T, bool) {
    match std::env::var(name).ok().map(|text| text.parse()) {
        Some(Ok(number)) => (number, true),
        Some(Err(_)) => panic!("{name} is no number"),
        None => (usually, false),
    }
}

/// What Buildkite sends of a job of the storm; which minute it is does not matter.
fn storm_body(number: u64) -> String {
    let job = json!({
        "id": format!("storm-{number}"), "type": "script", "state": "scheduled",
        "agent_query_rules": ["queue=linux"], "runnable_at": Timestamp::now().to_string(),
    });
    json!({ "event": "job.scheduled", "job": job, "build": { "number": 1 } }).to_string()
}

/// The most hints that there ever were, and the memory now and then, until the storm is over.
async fn watch_storm(case: &Case, replica: &Replica, lasts: Duration) -> (usize, Vec<u64>) {
    let end = tokio::time::Instant::now() + lasts;
    let (mut most, mut memories) = (0, Vec::new());
    while tokio::time::Instant::now() < end {
        let hints = case.hints().list_metadata(&ListParams::default()).await.expect("a list").items.len();
        most = most.max(hints);
        memories.push(memory(replica.controller.pid()));
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    (most, memories)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn a_storm_of_webhooks_fills_no_more_than_the_quota_and_every_one_is_answered() {
    let (seconds, _) = asked("KITEPOOL_E2E_STORM_SECONDS", STORM_SECONDS);
    let (rate, has_to_keep_up) = asked("KITEPOOL_E2E_STORM_RATE", STORM_RATE);
    let lasts = Duration::from_secs(seconds);
    case("storm", lasts + Duration::from_mins(3), async |case| {
        case.takes_hints().await;
        let (webhook, flags) = Webhook::prepare(case);
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let replica = case.replica("a", &flags).await;
        case.create_pool(pool("linux")).await;
        case.condition("linux", "LoadFresh", "True", SOON).await;

        let before = memory(replica.controller.pid());
        let connections = rate.div_ceil(STORM_RATE_OF_CONNECTION).min(STORM_CONNECTIONS_MAX);
        let sender = Sender { address: webhook.address, secret: SECRET, rate, connections, lasts };
        let (sent, (most, memories)) = tokio::join!(sender.send(storm_body), watch_storm(case, &replica, lasts));
        let after = memory(replica.controller.pid());
        let half = memories.get(memories.len() / 2).copied().unwrap_or(before);
        let count = |statuses: &[u16]| statuses.iter().filter_map(|status| sent.answers.get(status)).sum::<u64>();
        let (accepted, shed) = (count(&[200, 201]), count(&[503]));
        println!(
            "{} deliveries in {seconds} s: {accepted} accepted, {shed} shed, {} held back; answered p50 {:?}, p99 {:?}; at most \
             {most} hints; {before} KiB before, {half} in the middle, {after} after",
            sent.sent(),
            sent.held_back,
            sent.within(50),
            sent.within(99),
        );
        assert_eq!((sent.unanswered, sent.trouble.as_deref()), (0, None));
        assert_eq!(accepted + shed, sent.sent(), "{:?}", sent.answers);
        assert!(accepted > 0 && most <= QUOTA + CREATES_IN_FLIGHT, "{most} hints");
        assert!(after < before + STORM_KIB_MAX, "{before} KiB before, {after} after");
        assert!(after < half + STORM_KIB_LATER_MAX, "{half} KiB in the middle, {after} after");
        let planned = seconds * u64::from(rate);
        assert!(!has_to_keep_up || sent.sent() * 100 >= planned * 95, "{} of {planned} were sent", sent.sent());

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
