//! `kitepool explain`, from a simulated API server to the text that a person reads.

#![cfg(test)]

use std::io::Write as _;

use jiff::{SignedDuration, Timestamp};
use kitepool::{
    cluster::look,
    control::record::{Line, Seen},
    explain::{Account, read_record, text::Text},
};
use kitepool_policy::{
    decision::{Decision, Entry, Reason, Report, StepName},
    hints::Hints,
    memory::Memory,
    observation::{QueueObservation, Reading, Trouble},
    spec::PoolName,
    units::{Agents, Pods},
    unsatisfiable::Watch,
};
use kitepool_world::kubernetes::{Fault, Kubernetes, Route, Settings, Shared, Verb, router};
use serde_json::{Value, json};

const NAMESPACE: &str = "ci";

fn now() -> Timestamp {
    "2026-01-05T12:00:00Z".parse().unwrap()
}

struct Stage(Shared);

impl Stage {
    fn begin() -> Self {
        let definitions = kitepool_api::crds().into_iter().map(|crd| serde_json::to_value(crd).unwrap()).collect();
        Self(Shared::new(Kubernetes::new(Settings { definitions, ..Settings::default() }, 1, now())))
    }

    fn put(&self, object: &Value) {
        self.0.with(now(), |kubernetes| kubernetes.put("test", object.clone(), now()).unwrap());
    }

    fn pool(&self, name: &str, queue: &str, tags: &[&str]) {
        self.put(&json!({
            "apiVersion": "kitepool.dev/v1alpha1", "kind": "AgentPool",
            "metadata": { "name": name, "namespace": NAMESPACE },
            "spec": { "queue": queue, "tags": tags, "token": { "secretRef": { "name": "t" } },
                      "podTemplateRef": { "name": "basic" }, "scaling": { "min": 1, "max": 9 } },
        }));
    }

    async fn status(&self, name: &str, status: &Value) {
        let path = format!("/apis/kitepool.dev/v1alpha1/namespaces/{NAMESPACE}/agentpools/{name}/status");
        let request = http::Request::patch(path).header("content-type", "application/merge-patch+json");
        let body = json!({ "status": status }).to_string().into_bytes();
        self.client().request::<Value>(request.body(body).unwrap()).await.unwrap();
    }

    fn hint(&self, name: &str, jobs: &[(&str, &str, &[&str])], cluster: Option<&str>) {
        let job = |(id, queue, rules): &(&str, &str, &[&str])| {
            let mut job = json!({ "id": id, "queue": queue, "rules": rules, "runnableAt": now().to_string(), "organization": "acme" });
            if let Some(cluster) = cluster {
                job["cluster"] = json!(cluster);
            }
            job
        };
        self.put(&json!({
            "apiVersion": "kitepool.dev/v1alpha1", "kind": "JobHint",
            "metadata": { "name": name, "namespace": NAMESPACE },
            "spec": { "source": "test", "jobs": jobs.iter().map(job).collect::<Vec<_>>() },
        }));
    }

    fn event(&self, kind: &str, pool: &str, minutes_ago: i64, count: u32, reason: &str) {
        let at = now() - SignedDuration::from_mins(minutes_ago);
        self.put(&json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event",
            "metadata": { "name": format!("{pool}.{reason}.{minutes_ago}"), "namespace": NAMESPACE },
            "eventTime": "2026-01-05T08:00:00.000000Z", "reason": reason, "note": format!("{reason}!"), "type": "Warning",
            "series": { "count": count, "lastObservedTime": format!("{}", at.strftime("%Y-%m-%dT%H:%M:%S.000000Z")) },
            "regarding": { "kind": kind, "name": pool },
        }));
    }

    fn client(&self) -> kube::Client {
        kube::Client::new(router(self.0.clone(), now), NAMESPACE)
    }

    async fn account(&self) -> Account {
        let account = Account::of(NAMESPACE, look::look_through(&self.client(), NAMESPACE).await.unwrap());
        assert_eq!(self.0.peek(|kubernetes| kubernetes.unknown().to_vec()), [""; 0]);
        account
    }
}

fn text(account: &Account) -> String {
    Text { account, with_pools: true, now: now() }.to_string()
}

#[tokio::test]
async fn a_pool_is_explained_by_what_the_controller_wrote_of_it() {
    let stage = Stage::begin();
    stage.pool("linux", "linux", &["os=linux"]);
    let condition = json!({ "type": "Ready", "status": "True", "reason": "Deciding", "message": "decides",
                            "lastTransitionTime": "2026-01-05T11:00:00Z" });
    let status = json!({
        "replicas": { "desired": 3, "current": 3, "ready": 2, "draining": 1 },
        "load": { "scheduled": 5, "running": 2, "waiting": 4 },
        "agents": { "idle": 0, "busy": 2, "starting": 1 },
        "identity": { "organization": "acme", "cluster": "uuid-1" },
        "lastDecision": { "from": 1, "to": 3, "reason": "Jobs", "message": "2 run and 5 are queued" },
        "memory": { "secretSauce": 1 },
        "conditions": [condition],
    });
    stage.status("linux", &status).await;
    stage.hint("a", &[("1", "linux", &["os=linux"]), ("2", "linux", &[])], None);
    stage.event("AgentPool", "linux", 3, 7, "ScaledUp");
    stage.event("Pod", "linux", 1, 1, "NotAboutAPool");
    let account = stage.account().await;
    assert_eq!(
        text(&account),
        "\
ci/linux: 3 wanted, 3 asked for, 2 ready, 1 draining (min 1, max 9)
  queue        linux of acme, cluster uuid-1; tags os=linux
  load         5 scheduled, 2 running, 4 waiting jobs; agents 0 idle, 2 busy, 1 starting
  hinted       2 jobs that it may run, by events that no reading has settled
  last change  1 -> 3, Jobs: 2 run and 5 are queued
  Ready          True    Deciding, for 60m: decides
  events
  ! 3m ago, 7 times, ScaledUp: ScaledUp!

every hinted job on a served queue finds a pool with its tags
"
    );
    let json = serde_json::to_string(&account).unwrap();
    assert!(!json.contains("secretSauce"), "the memory is the policy's own");
    assert!(json.contains(r#""lastDecision":{"from":1,"to":3"#), "{json}");
}

#[tokio::test]
async fn rules_that_no_pool_of_the_queue_has_are_counted_each_set_by_itself_and_each_job_once() {
    let stage = Stage::begin();
    stage.pool("large", "linux", &["os=linux", "size=large"]);
    stage.pool("small", "linux", &["os=linux"]);
    stage.pool("mac", "mac", &[]);
    stage.hint("a", &[("1", "linux", &["gpu=true", "queue=linux"]), ("2", "linux", &["gpu=true"])], None);
    stage.hint("b", &[("2", "linux", &["gpu=true"]), ("3", "linux", &["size=large"])], None);
    stage.hint("c", &[("4", "mac", &["xcode=16"]), ("5", "windows", &[])], None);
    let account = stage.account().await;
    let sets: Vec<_> = account.unmatched.iter().map(|set| (set.queue.as_str(), set.jobs, set.rules.clone())).collect();
    assert_eq!(sets, [("linux", 2, vec!["gpu=true".to_owned()]), ("mac", 1, vec!["xcode=16".to_owned()])]);
    let hinted: Vec<_> = account.pools.iter().map(|pool| (pool.name.as_str(), pool.hinted_jobs)).collect();
    assert_eq!(hinted, [("large", 1), ("mac", 0), ("small", 0)]);
    let rules = Text { account: &account, with_pools: false, now: now() }.to_string();
    assert_eq!(
        rules,
        "\
hinted jobs that no pool of their queue can run:
  2 on queue linux ask for gpu=true; its pools: large, small
  1 on queue mac ask for xcode=16; its pools: mac
  1 on queue windows, which no pool here serves
"
    );
    let mac = account.clone().only("mac").unwrap();
    assert_eq!((mac.pools.len(), mac.unmatched.len(), mac.unserved.len()), (1, 1, 0));
    assert_eq!(account.only("nothing").unwrap_err(), ["large", "mac", "small"]);
}

#[tokio::test]
async fn a_job_of_another_cluster_is_none_of_the_pools() {
    let stage = Stage::begin();
    stage.pool("linux", "linux", &[]);
    let (ours, other) = ("0190a0a0-0000-4000-8000-00000000000a", "0190a0a0-0000-4000-8000-00000000000b");
    stage.status("linux", &json!({ "identity": { "organization": "acme", "cluster": ours } })).await;
    stage.hint("a", &[("1", "linux", &[])], Some(ours));
    stage.hint("b", &[("2", "linux", &[])], Some(other));
    let account = stage.account().await;
    assert_eq!((account.pools[0].hinted_jobs, account.unserved["linux"]), (1, 1));
}

#[tokio::test]
async fn what_cannot_be_read_is_said_and_the_rest_told() {
    let stage = Stage::begin();
    stage.pool("linux", "linux", &[]);
    let refused = Fault { status: Some(403), ..Fault::default() };
    stage.0.with(now(), |kubernetes| kubernetes.set_fault(Route::new(Verb::List, "events"), Some(refused)));
    let text = text(&stage.account().await);
    assert!(text.starts_with("ci/linux: no controller has looked at it yet (min 1, max 9)\n"), "{text}");
    assert!(text.contains("note: events in namespace ci cannot be read, and are left out"), "{text}");
}

#[tokio::test]
async fn a_pool_that_is_wrong_or_held_says_so() {
    let stage = Stage::begin();
    let mut pool = kitepool_api::valid_manifest("linux");
    pool["metadata"]["namespace"] = json!(NAMESPACE);
    pool["metadata"]["annotations"] = json!({ "kitepool.dev/pause": "up" });
    pool["spec"]["mode"] = json!("Observe");
    stage.put(&pool);
    pool["metadata"]["name"] = json!("wrong");
    pool["spec"]["scaling"] = json!({ "min": 5, "max": 2 });
    stage.put(&pool);
    let account = stage.account().await;
    assert_eq!(account.pools[0].held, ["growth is paused (kitepool.dev/pause=up)", "only observed (spec.mode)"]);
    assert_eq!(account.pools[1].problems.len(), 1, "{account:?}");
    assert!(text(&account).contains("  wrong        "), "{}", text(&account));
}

fn line(seconds_ago: i64, target: u32) -> String {
    let entry = |step| Entry { step, input: 1, output: target, reason: Reason::SpareOnTop { spare: Agents(1) } };
    let decision = Decision {
        pool: PoolName { namespace: NAMESPACE.to_owned(), name: "linux".to_owned() },
        target: Pods(target),
        intents: Vec::new(),
        signs: Vec::new(),
        foreign: Vec::new(),
        unrecorded: Vec::new(),
        spared: Vec::new(),
        memory: Memory::default(),
        report: Report { entries: StepName::ALL.into_iter().map(entry).collect() },
    };
    let observation = QueueObservation {
        queue: "linux".to_owned(),
        reading: Reading { last_good: None, trouble: Some(Trouble::NotRead) },
        hints: Hints::default(),
        standing: Agents::ZERO,
        pools: Vec::new(),
        watch: Watch::default(),
    };
    let line = Line {
        now: now() - SignedDuration::from_secs(seconds_ago),
        identity: "a".to_owned(),
        term: now(),
        queue: "linux".to_owned(),
        lost: 0,
        seen: Some(Seen { observation, decisions: vec![decision] }),
    };
    serde_json::to_string(&line).unwrap()
}

#[tokio::test]
async fn the_last_decision_of_a_record_is_told_step_by_step() {
    let stage = Stage::begin();
    stage.pool("linux", "linux", &[]);
    let mut file = tempfile::NamedTempFile::new().unwrap();
    // The last line was being written when somebody looked.
    write!(file, "{}\n{}\n{{\"now\": \"2026-", line(20, 3), line(10, 4)).unwrap();
    let mut account = stage.account().await;
    account.add_record(read_record(file.path(), NAMESPACE).unwrap());
    assert_eq!(account.pools[0].recorded.clone().expect("it is in the record").steps.len(), StepName::ALL.len());
    let text = text(&account);
    assert!(
        text.contains("  steps to 4 replicas, recorded 10s ago\n    trust          1 -> 4     SpareOnTop: "),
        "{text}"
    );
    assert!(read_record(file.path(), "elsewhere").unwrap().is_empty());
}
