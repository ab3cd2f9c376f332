//! Ten thousand random batches against a simulated API server that fails in every way an API server does: each record
//! has one fate, the fates add up, and nothing is said to be stored that is not.

#![cfg(test)]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;
use fastrand::Rng;
use http::HeaderMap;
use jiff::{SignedDuration, Timestamp};
use kitepool_api::{JobHint, events::Assumed};
use kitepool_lambda::{
    clock::Clock,
    deliver::Hints,
    function::{Done, Function},
    http_client::Reply,
    trouble::Trouble,
    verdict::{self, Verdict},
};
use serde_json::{Value, json};

const BATCHES: usize = 10_000;

/// As the template grants the function.
const TIME: Duration = Duration::from_secs(10);

/// A job with this queue is refused as invalid, alone or among others.
const REFUSED_QUEUE: &str = "refused";

fn now() -> Timestamp {
    "2026-01-31T12:00:00Z".parse().unwrap()
}

/// An API server that keeps hints and fails by chance.
#[derive(Debug)]
struct SimulatedApi {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    rng: Rng,
    /// Of a hundred calls, how many go wrong.
    failing: u8,
    is_full: bool,
    hints: BTreeMap<String, BTreeSet<String>>,
    calls: usize,
}

impl SimulatedApi {
    fn new(rng: Rng) -> Self {
        let inner = Inner { rng, failing: 0, is_full: false, hints: BTreeMap::new(), calls: 0 };
        Self { inner: Mutex::new(inner) }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    /// Hints that there are, and calls that there were.
    fn counts(&self) -> (usize, usize) {
        let inner = self.inner();
        (inner.hints.len(), inner.calls)
    }

    fn has(&self, job: &str) -> bool {
        self.inner().hints.values().any(|jobs| jobs.contains(job))
    }
}

impl Inner {
    /// The status, reason, message and whether an answer comes at all.
    fn answer(&mut self, hint: &JobHint) -> Option<(u16, &'static str, &'static str)> {
        let name = hint.metadata.name.clone().unwrap();
        if self.is_full {
            return Some((403, "Forbidden", "is forbidden: exceeded quota: kitepool-hints"));
        }
        if self.rng.u8(..100) < self.failing {
            return match self.rng.u8(..11) {
                0 => Some((403, "Forbidden", "is forbidden: exceeded quota: kitepool-hints")),
                1 => Some((403, "Forbidden", "is forbidden: status unknown for quota: kitepool-hints")),
                2 => Some((403, "Forbidden", "User cannot create resource")),
                3 => Some((401, "Unauthorized", "Unauthorized")),
                4 => Some((404, "NotFound", "the server could not find the requested resource")),
                5 => Some((409, "Conflict", "Operation cannot be fulfilled on resourcequotas")),
                6 => Some((429, "TooManyRequests", "")),
                7 => Some((500, "InternalError", "")),
                8 => None,
                // The worst ones: it is written, and nobody says so.
                9 => {
                    self.write(name, hint);
                    Some((500, "InternalError", ""))
                }
                _ => {
                    self.write(name, hint);
                    None
                }
            };
        }
        if self.hints.contains_key(&name) {
            return Some((409, "AlreadyExists", "already exists"));
        }
        if hint.spec.jobs.iter().any(|job| job.queue == REFUSED_QUEUE) {
            return Some((422, "Invalid", "is invalid"));
        }
        self.write(name, hint);
        Some((201, "", ""))
    }

    fn write(&mut self, name: String, hint: &JobHint) {
        if hint.spec.jobs.iter().all(|job| job.queue != REFUSED_QUEUE) {
            self.hints.insert(name, hint.spec.jobs.iter().map(|job| job.id.clone()).collect());
        }
    }
}

impl Hints for SimulatedApi {
    async fn create(&self, hint: &JobHint, within: Duration) -> Verdict {
        let (answer, takes) = {
            let mut inner = self.inner();
            inner.calls += 1;
            let takes = Duration::from_millis(inner.rng.u64(1..40));
            (inner.answer(hint), takes)
        };
        let Some((status, reason, message)) = answer else {
            tokio::time::sleep(within).await;
            return verdict::of_trouble(Trouble::Deadline { origin: "api".to_owned(), within });
        };
        tokio::time::sleep(takes.min(within)).await;
        let body = json!({ "kind": "Status", "reason": reason, "message": message }).to_string();
        let mut headers = HeaderMap::new();
        if status == 429 {
            headers.insert("retry-after", "1".parse().unwrap());
        }
        verdict::read("api", &Reply { status, headers, body: Bytes::from(body) })
    }
}

/// A record as it is sent, and what may become of it.
#[derive(Debug, Clone)]
struct Sent {
    message: Option<String>,
    body: String,
    /// Its job, if it is one that should be stored.
    job: Option<String>,
    /// The only reason by which it may be dropped, beside a full quota.
    reason: Option<&'static str>,
}

fn event(id: &str, queue: &str, runnable_at: Timestamp) -> Value {
    json!({
        "detail-type": "Job Scheduled",
        "detail": { "job": {
            "uuid": id, "type": "script", "state": "assigned", "agent_query_rules": ["os=linux", format!("queue={queue}")],
            "runnable_at": runnable_at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
        } },
    })
}

fn sent(rng: &mut Rng, number: usize) -> Sent {
    let message = (rng.u8(..50) > 0).then(|| format!("message-{number}"));
    // Some tell of the same job.
    let id = format!("job-{}", number - rng.usize(..3).min(number));
    let recently = now() - SignedDuration::from_secs(rng.i64(-60..299));
    let mut event = event(&id, "linux", recently);
    let (job, reason) = match rng.u8(..20) {
        0 => {
            event["detail"]["job"]["runnable_at"] = json!("2026-01-31 11:54:59 UTC");
            (None, Some("too_old"))
        }
        1 => {
            event["detail"]["job"]["type"] = json!("manual");
            (None, Some("not_script"))
        }
        2 => {
            event["detail"]["job"]["uuid"] = json!(null);
            (None, Some("malformed"))
        }
        3 => {
            event["detail-type"] = json!("Job Finished");
            (None, Some("other_event"))
        }
        4 => return Sent { message, body: "{\"detail".to_owned(), job: None, reason: Some("malformed") },
        5 => {
            let id = format!("{REFUSED_QUEUE}-{number}");
            event["detail"]["job"]["uuid"] = json!(id);
            event["detail"]["job"]["agent_query_rules"] = json!([format!("queue={REFUSED_QUEUE}")]);
            (Some(id), Some("malformed"))
        }
        _ => (Some(id), None),
    };
    Sent { message, body: event.to_string(), job, reason }
}

fn batch(sent: &[Sent]) -> Vec<u8> {
    let record = |sent: &Sent| match &sent.message {
        Some(message) => json!({ "messageId": message, "body": sent.body }),
        None => json!({ "body": sent.body }),
    };
    json!({ "Records": sent.iter().map(record).collect::<Vec<_>>() }).to_string().into_bytes()
}

/// What an invocation must have come to, whatever the API server did.
fn hold(sent: &[Sent], done: &Done, api: &SimulatedApi) -> BTreeMap<String, u64> {
    let log = serde_json::to_value(&done.log).unwrap();
    let count = |value: &Value| value.as_u64().unwrap();
    let dropped: BTreeMap<String, u64> =
        log["dropped"].as_object().unwrap().iter().map(|(reason, value)| (reason.clone(), count(value))).collect();
    let (created, redelivered) = (count(&log["created"]), count(&log["redelivered"]));
    let sum = created + redelivered + dropped.values().sum::<u64>();
    assert_eq!(sum, number(sent.len()), "the fates add up: {log}");
    assert_eq!(count(&log["records"]), sum);

    // What is certain of its reason has it, whatever the API server says.
    for reason in ["too_old", "not_script", "other_event"] {
        let expected = number(sent.iter().filter(|sent| sent.reason == Some(reason)).count());
        assert_eq!(dropped[reason], expected, "{reason}: {log}");
    }
    let jobless = number(sent.iter().filter(|sent| sent.reason == Some("malformed") && sent.job.is_none()).count());
    let refused = number(sent.iter().filter(|sent| sent.reason == Some("malformed") && sent.job.is_some()).count());
    assert!((jobless..=jobless + refused).contains(&dropped["malformed"]), "only what is at fault is: {log}");
    let stored = number(sent.iter().filter(|sent| sent.job.as_ref().is_some_and(|job| api.has(job))).count());
    assert!(created <= stored, "{created} records are said to be stored, and {stored} are: {log}");

    match &done.answer {
        Ok(answer) => {
            let named: BTreeSet<&str> = answer["batchItemFailures"]
                .as_array()
                .unwrap()
                .iter()
                .map(|failure| failure["itemIdentifier"].as_str().unwrap())
                .collect();
            assert_eq!(number(named.len()), redelivered, "each that comes again is named once: {log}");
            for sent in sent {
                let comes_again = sent.message.as_deref().is_some_and(|message| named.contains(message));
                let may_be_lost = sent.reason.is_some() || dropped["quota"] > 0;
                let is_kept = sent.job.as_ref().is_none_or(|job| api.has(job));
                assert!(comes_again || is_kept || may_be_lost, "{sent:?} is lost: {log}");
                assert!(!comes_again || sent.job.is_some(), "{sent:?} would come again for nothing");
            }
        }
        Err(_) => assert!(redelivered > 0, "failed for no reason: {log}"),
    }
    let mut fates = dropped;
    fates.insert("created".to_owned(), created);
    fates.insert("redelivered".to_owned(), redelivered);
    fates
}

fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap()
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_batches_come_to_one_fate_for_each_record_and_lose_none() {
    let mut rng = Rng::with_seed(20_260_131);
    let api = SimulatedApi::new(rng.fork());
    let function = Function::new(api, Assumed::default(), SignedDuration::from_mins(5), Clock::of(now));
    let mut fates: BTreeMap<String, u64> = BTreeMap::new();
    let mut records = 0;
    for round in 0..BATCHES {
        let size = if rng.u8(..100) == 0 { rng.usize(100..250) } else { rng.usize(..11) };
        let mut batch_of: Vec<Sent> = (0..size).map(|index| sent(&mut rng, round * 1_000 + index + 3)).collect();
        records += number(batch_of.len());
        {
            let mut api = function.hints().inner();
            api.hints.clear();
            api.failing = [0, 30, 100][rng.usize(..3)];
            api.is_full = rng.u8(..20) == 0;
        }
        let done = tokio::time::timeout(TIME, function.run("request", &batch(&batch_of), TIME)).await;
        let done = done.expect("it answers before its time is up");
        for (fate, count) in hold(&batch_of, &done, function.hints()) {
            *fates.entry(fate).or_default() += count;
        }

        // What comes again to a healthy API server is stored the second time, and what was stored before does not hurt.
        {
            let mut api = function.hints().inner();
            (api.failing, api.is_full) = (0, false);
        }
        if let Ok(answer) = &done.answer {
            let failures = answer["batchItemFailures"].as_array().unwrap();
            batch_of.retain(|sent| {
                failures.iter().any(|failure| failure["itemIdentifier"].as_str() == sent.message.as_deref())
            });
        }
        let done = function.run("again", &batch(&batch_of), TIME).await;
        let again = hold(&batch_of, &done, function.hints());
        assert_eq!((again["redelivered"], again["quota"]), (0, 0));
    }
    assert_eq!(fates.values().sum::<u64>(), records, "over all batches: {fates:?}");
    for (fate, count) in &fates {
        assert!(*count > 500, "{fate} was hardly tried: {fates:?}");
    }
    println!("{BATCHES} batches, {records} records, {} calls: {fates:?}", function.hints().inner().calls);
}

/// Runs one event for each of these jobs, all of which the API server gets in one batch.
async fn run(api: SimulatedApi, jobs: usize) -> (Done, Function<SimulatedApi>) {
    let sent: Vec<Sent> = (0..jobs)
        .map(|number| {
            let id = format!("job-{number}");
            let body = event(&id, "linux", now()).to_string();
            Sent { message: Some(format!("message-{number}")), body, job: Some(id), reason: None }
        })
        .collect();
    let function = Function::new(api, Assumed::default(), SignedDuration::from_mins(5), Clock::of(now));
    let done = function.run("request", &batch(&sent), TIME).await;
    (done, function)
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_one_hint_and_one_call_and_a_hundred_jobs_are_the_most_in_one() {
    let (_, function) = run(SimulatedApi::new(Rng::with_seed(1)), 10).await;
    let counts = function.hints().counts();
    assert_eq!(counts, (1, 1));
    let (_, function) = run(SimulatedApi::new(Rng::with_seed(1)), 201).await;
    let sizes: Vec<usize> = function.hints().inner().hints.values().map(BTreeSet::len).collect();
    assert_eq!((sizes.iter().sum::<usize>(), sizes.len()), (201, 3));
}

#[tokio::test(start_paused = true)]
async fn a_full_quota_drops_and_does_not_ask_again() {
    let api = SimulatedApi::new(Rng::with_seed(1));
    api.inner().is_full = true;
    let (done, function) = run(api, 3).await;
    assert_eq!(done.answer, Ok(json!({ "batchItemFailures": [] })));
    assert_eq!(serde_json::to_value(&done.log).unwrap()["dropped"]["quota"], 3);
    assert_eq!(function.hints().inner().calls, 1);
}
