//! What connected agents are answered, call by call. That the real one can live with it shows in `tests/agent`.

#![cfg(test)]

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, to_bytes},
    http::Request,
};
use jiff::Timestamp;
use kitepool_world::{
    Fault, Queue, Route, Token, World,
    buildkite::{
        AgentPod, Buildkite, Departed, End, JobId, Link, Loss, NewJob, NumbersAge, PickUp, Serving, Settings, Spread,
    },
    digest, router,
};
use serde_json::{Value, json};
use tower::Service as _;

const CLUSTER: &str = "uuid-1";
const TOKEN: &str = "bkct_1";

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

struct Api {
    world: World,
    router: Router,
    now: Arc<Mutex<Timestamp>>,
}

/// A worker that has connected.
#[derive(Debug, Clone)]
struct Agent {
    uuid: String,
    session: String,
}

impl Api {
    fn new() -> Self {
        let settings = Settings {
            pick_up: PickUp::Polling { interval: secs(7) },
            heartbeat: secs(11),
            job_status: Duration::from_millis(400),
            noticing: Spread::Exactly(secs(180)),
            numbers: NumbersAge { refresh: Duration::ZERO, lag: Duration::ZERO },
            ..Settings::default()
        };
        let world = World::from(Buildkite::new(settings, 1, Timestamp::UNIX_EPOCH));
        let now = Arc::new(Mutex::new(Timestamp::UNIX_EPOCH));
        let reading = Arc::clone(&now);
        world.set_clock(move || *reading.lock().unwrap());
        world.set_token(TOKEN, Some(Token::new("acme", Some(CLUSTER))));
        Self { router: router(world.clone()), world, now }
    }

    fn pass(&self, wait: Duration) {
        *self.now.lock().unwrap() += wait;
    }

    async fn send(&mut self, request: Request<Body>) -> (u16, Value) {
        let response = self.router.call(request).await.unwrap();
        let status = response.status().as_u16();
        let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        let text = || Value::String(String::from_utf8_lossy(&body).into_owned());
        (status, serde_json::from_slice(&body).unwrap_or_else(|_| text()))
    }

    async fn ask(&mut self, method: &str, path: &str, token: &str, body: Value) -> (u16, Value) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", format!("Token {token}"))
            .header("content-type", "application/json")
            .body(Body::from(body.to_string()))
            .unwrap();
        self.send(request).await
    }

    async fn status(&mut self, method: &str, path: &str, token: &str) -> u16 {
        self.ask(method, path, token, json!({ "sent_at": "now" })).await.0
    }

    async fn register(&mut self, name: &str, tags: &[&str]) -> Value {
        let said = json!({ "name": name, "hostname": "host", "pid": 7, "version": "3.137.2", "meta_data": tags });
        let (status, registered) = self.ask("POST", "/v3/register", TOKEN, said).await;
        assert_eq!(status, 200, "{registered}");
        registered
    }

    async fn agent(&mut self, name: &str) -> Agent {
        let registered = self.register(name, &["queue=q"]).await;
        let text = |key: &str| registered[key].as_str().unwrap().to_owned();
        let agent = Agent { uuid: text("id"), session: text("access_token") };
        assert_eq!(self.status("POST", "/v3/connect", &agent.session).await, 200);
        agent
    }

    async fn ping(&mut self, agent: &Agent) -> Value {
        let (status, answer) = self.ask("GET", "/v3/ping", &agent.session, Value::Null).await;
        assert_eq!(status, 200, "{answer}");
        answer
    }

    /// Accepts a job; the token that comes with it.
    async fn accept(&mut self, agent: &Agent, job: JobId) -> String {
        let (status, offer) = self.ask("PUT", &self.path(job, "/accept"), &agent.session, Value::Null).await;
        assert_eq!(status, 200, "{offer}");
        offer["token"].as_str().unwrap().to_owned()
    }

    async fn run(&mut self, agent: &Agent, job: JobId) -> String {
        self.ping(agent).await;
        let token = self.accept(agent, job).await;
        assert_eq!(self.status("PUT", &self.path(job, "/start"), &token).await, 200);
        token
    }

    async fn finish(&mut self, token: &str, job: JobId, said: Value) -> u16 {
        self.ask("PUT", &self.path(job, "/finish"), token, said).await.0
    }

    fn submit(&self) -> JobId {
        self.world.with(|buildkite| buildkite.submit(NewJob::new(CLUSTER, "q", secs(3)), buildkite.now()))
    }

    fn uuid(&self, job: JobId) -> String {
        self.world.with(|buildkite| buildkite.job(job).unwrap().uuid.clone())
    }

    fn path(&self, job: JobId, rest: &str) -> String {
        format!("/v3/jobs/{}{rest}", self.uuid(job))
    }

    fn state(&self, job: JobId) -> &'static str {
        self.world.with(|buildkite| buildkite.record(buildkite.job(job).unwrap()).state)
    }

    fn end(&self, job: JobId) -> (Option<End>, Option<Loss>) {
        self.world.with(|buildkite| {
            let job = buildkite.job(job).unwrap();
            (job.end(), job.outcome.loss)
        })
    }

    fn load(&self) -> Queue {
        self.world.with(|buildkite| buildkite.load(CLUSTER, "q"))
    }
}

#[tokio::test]
async fn registration_fills_in_the_name_and_tells_the_intervals_in_whole_seconds() {
    let mut api = Api::new();
    let registered = api.register("%hostname-%pid", &["queue=q", "os=linux"]).await;
    assert_eq!((&registered["name"], &registered["meta_data"][1]), (&json!("host-7"), &json!("os=linux")));
    let interval = |key: &str| registered[format!("{key}_interval")].as_u64().unwrap();
    assert_eq!((interval("ping"), interval("heartbeat"), interval("job_status")), (7, 11, 1));
    assert_eq!(api.load(), Queue::default(), "it is not connected yet");
    assert_eq!(api.ask("POST", "/v3/register", "another", json!({})).await.0, 401);
    assert_eq!(api.ask("POST", "/v3/register", TOKEN, json!("what")).await.0, 422);
}

#[tokio::test]
async fn a_job_goes_from_ping_to_finish_and_everything_about_it_is_written_down() {
    let mut api = Api::new();
    let agent = api.agent("a").await;
    assert_eq!(api.ping(&agent).await, json!({}));
    let job = api.submit();
    assert_eq!((api.load().running, api.load().busy), (1, 1), "assigned, and it does not know");
    api.pass(secs(2));
    assert_eq!(api.ping(&agent).await, json!({ "job": { "id": api.uuid(job) } }));
    let (_, offer) = api.ask("PUT", &api.path(job, "/accept"), &agent.session, Value::Null).await;
    assert_eq!(offer["env"]["BUILDKITE_COMMAND"], "sleep 3 && exit 0");
    assert_eq!(offer["env"]["BUILDKITE_AGENT_NAME"], "a");
    let token = offer["token"].as_str().unwrap();
    api.pass(secs(1));
    assert_eq!(api.status("PUT", &api.path(job, "/start"), token).await, 200);
    let (_, state) = api.ask("GET", &api.path(job, ""), token, Value::Null).await;
    assert_eq!(state, json!({ "state": "running" }));
    api.pass(secs(3));
    let said = json!({ "exit_status": "3", "chunks_failed_count": 1, "finished_at": "x" });
    assert_eq!(api.finish(token, job, said.clone()).await, 200);
    assert_eq!(api.finish(token, job, said).await, 422, "it is over already");
    let record = api.world.with(|buildkite| buildkite.record(buildkite.job(job).unwrap()));
    let second = |at: Option<Timestamp>| at.unwrap().as_second();
    let instants = [record.assigned_at, record.accepted_at, record.started_at, record.finished_at].map(second);
    assert_eq!((instants, record.end), ([0, 2, 3, 6], Some(End::Failed)));
    assert_eq!((record.exit_status.as_deref(), record.assignments), (Some("3"), 1));
    let attempt = &record.attempts[0];
    assert_eq!((&attempt.agent, attempt.name.as_str(), second(attempt.delivered_at)), (&agent.uuid, "a", 2));
    assert_eq!((api.load().idle, api.load().busy), (1, 0));
}

#[tokio::test]
async fn no_call_is_answered_that_comes_with_another_ones_token() {
    let mut api = Api::new();
    let (one, other) = (api.agent("one").await, api.agent("other").await);
    for (method, path) in
        [("POST", "/v3/connect"), ("GET", "/v3/ping"), ("POST", "/v3/heartbeat"), ("POST", "/v3/disconnect")]
    {
        for wrong in ["", "nobody", TOKEN] {
            assert_eq!(api.status(method, path, wrong).await, 401, "{path} {wrong}");
        }
    }
    let job = api.submit();
    let token = api.run(&one, job).await;
    for (method, rest) in
        [("PUT", "/start"), ("PUT", "/finish"), ("GET", ""), ("POST", "/chunks?sequence=1"), ("POST", "/header_times")]
    {
        let path = api.path(job, rest);
        assert_eq!(api.status(method, &path, &other.session).await, 401, "{rest}");
        assert_eq!(api.status(method, &path, "").await, 401, "{rest}");
    }
    assert_eq!(api.status("PUT", &api.path(job, "/accept"), &other.session).await, 422, "it is another one's");
    assert_eq!(api.status("PUT", "/v3/jobs/none/accept", &one.session).await, 404);
    assert_eq!(api.status("GET", "/v3/jobs/none", &token).await, 404);
    assert_eq!(api.state(job), "running");
    let disconnected = api.status("POST", "/v3/disconnect", &other.session).await;
    assert_eq!((disconnected, api.status("GET", "/v3/ping", &other.session).await), (200, 401));
}

#[tokio::test]
async fn a_job_that_is_not_accepted_in_time_goes_to_another_and_is_taken_once() {
    let mut api = Api::new();
    let (one, other) = (api.agent("one").await, api.agent("other").await);
    let job = api.submit();
    assert_eq!(api.ping(&one).await["job"]["id"], api.uuid(job));
    api.pass(secs(59));
    assert_eq!(api.ping(&other).await, json!({}));
    api.pass(secs(1));
    assert_eq!(api.status("PUT", &api.path(job, "/accept"), &one.session).await, 422, "too late");
    assert_eq!(api.ping(&other).await["job"]["id"], api.uuid(job));
    let token = api.accept(&other, job).await;
    assert_eq!(api.accept(&other, job).await, token, "its answer may have been lost");
    assert_eq!(api.status("PUT", &api.path(job, "/accept"), &one.session).await, 422);
    let first = format!("{}-1", token.strip_suffix("-2").unwrap());
    assert_eq!(api.status("PUT", &api.path(job, "/start"), &first).await, 401, "the token of another attempt");
    assert_eq!(api.status("PUT", &api.path(job, "/start"), &token).await, 200);
    api.finish(&token, job, json!({ "exit_status": "0" })).await;
    let record = api.world.with(|buildkite| buildkite.record(buildkite.job(job).unwrap()));
    let names: Vec<&str> = record.attempts.iter().map(|attempt| attempt.name.as_str()).collect();
    assert_eq!((record.end, record.assignments, names), (Some(End::Passed), 2, vec!["one", "other"]));
}

#[tokio::test]
async fn an_agent_that_leaves_gives_back_what_it_did_not_take_and_loses_what_it_did() {
    let mut api = Api::new();
    let agent = api.agent("one").await;
    let (begun, left) = (api.submit(), api.submit());
    let token = api.run(&agent, begun).await;
    api.status("POST", "/v3/disconnect", &agent.session).await;
    assert_eq!((api.end(begun), api.state(left)), ((Some(End::Lost), Some(Loss::Left)), "scheduled"));
    assert_eq!(api.finish(&token, begun, json!({ "exit_status": "0" })).await, 422);

    let next = api.agent("next").await;
    assert_eq!(api.ping(&next).await["job"]["id"], api.uuid(left));
    api.status("POST", "/v3/disconnect", &next.session).await;
    assert_eq!((api.state(left), api.load().scheduled), ("scheduled", 1), "told of, and not accepted");
    assert_eq!(api.world.with(|buildkite| buildkite.departed()), Departed { disconnected: 2, lost: 0 });
}

#[tokio::test]
async fn an_agent_of_which_nothing_is_heard_is_lost_with_its_job() {
    let mut api = Api::new();
    let agent = api.agent("one").await;
    let job = api.submit();
    let token = api.run(&agent, job).await;
    for _ in 0..3 {
        api.pass(secs(179));
        assert_eq!(api.status("POST", "/v3/heartbeat", &agent.session).await, 200);
    }
    // Asking for its job's state is no sign of life.
    api.pass(secs(100));
    assert_eq!(api.status("GET", &api.path(job, ""), &token).await, 200);
    api.pass(secs(79));
    assert_eq!((api.end(job), api.load().busy), ((None, None), 1));
    api.pass(secs(1));
    assert_eq!((api.end(job), api.load()), ((Some(End::Lost), Some(Loss::Silent)), Queue::default()));
    let connection = api.world.with(|buildkite| buildkite.connection(&agent.uuid).unwrap().clone());
    assert_eq!((connection.link, connection.heartbeats), (Link::Lost, 3));
    assert_eq!(connection.ended_at.unwrap().as_second(), 4 * 179 + 1);
    assert_eq!(api.status("POST", "/v3/heartbeat", &agent.session).await, 401);
    assert_eq!(api.finish(&token, job, json!({ "exit_status": "0" })).await, 422);
}

#[tokio::test]
async fn a_paused_agent_is_given_nothing_and_counts_as_idle() {
    let mut api = Api::new();
    let agent = api.agent("one").await;
    let set = |api: &Api, is_paused| {
        api.world.with(|buildkite| buildkite.set_agent_paused(&agent.uuid, is_paused, buildkite.now()))
    };
    let job = api.submit();
    assert!(set(&api, true));
    assert_eq!(api.state(job), "scheduled", "it had not heard of it");
    assert_eq!(api.ping(&agent).await, json!({ "action": "pause" }));
    assert_eq!((api.load().idle, api.load().scheduled), (1, 1));
    assert!(set(&api, false));
    assert_eq!(api.ping(&agent).await["job"]["id"], api.uuid(job));
    assert!(set(&api, true));
    let token = api.accept(&agent, job).await;
    api.finish(&token, job, json!({ "exit_status": "0" })).await;
    assert_eq!((api.end(job).0, api.load().idle), (Some(End::Passed), 1), "what it had heard of it could take");
    assert_eq!(api.ping(&agent).await, json!({ "action": "pause" }));
    assert!(!api.world.with(|buildkite| buildkite.set_agent_paused("nobody", true, buildkite.now())));
}

#[tokio::test]
async fn a_stopped_agent_is_told_to_disconnect_when_its_job_is_over_and_by_force_its_job_is_cancelled() {
    for by_force in [false, true] {
        let mut api = Api::new();
        let agent = api.agent("one").await;
        let (job, next) = (api.submit(), api.submit());
        let token = api.run(&agent, job).await;
        assert!(api.world.with(|buildkite| buildkite.stop_agent(&agent.uuid, by_force, buildkite.now())));
        let (_, state) = api.ask("GET", &api.path(job, ""), &token, Value::Null).await;
        assert_eq!(state["state"], if by_force { "canceling" } else { "running" });
        let said = if by_force {
            json!({ "exit_status": "-1", "signal_reason": "cancel" })
        } else {
            json!({ "exit_status": "0" })
        };
        api.finish(&token, job, said).await;
        assert_eq!(api.end(job).0, Some(if by_force { End::Cancelled } else { End::Passed }));
        assert_eq!((api.ping(&agent).await, api.state(next)), (json!({ "action": "disconnect" }), "scheduled"));
    }
}

#[tokio::test]
async fn an_agent_that_wants_no_more_is_given_no_more() {
    let mut api = Api::new();
    let agent = api.agent("one").await;
    let (job, next) = (api.submit(), api.submit());
    let token = api.run(&agent, job).await;
    api.finish(&token, job, json!({ "exit_status": "0", "ignore_agent_in_dispatches": true })).await;
    assert_eq!((api.ping(&agent).await, api.state(next)), (json!({}), "scheduled"));
}

#[tokio::test]
async fn a_job_that_was_stopped_ends_by_what_its_agent_says_of_the_signal() {
    for (said, expected) in [
        (json!({ "exit_status": "-1", "signal": "SIGTERM", "signal_reason": "agent_stop" }), End::Killed),
        (json!({ "exit_status": "-1", "signal": "SIGTERM", "signal_reason": "cancel" }), End::Cancelled),
        (json!({ "exit_status": "-1", "signal": "SIGKILL" }), End::Failed),
        (json!({ "exit_status": "0" }), End::Passed),
    ] {
        let mut api = Api::new();
        let agent = api.agent("one").await;
        let job = api.submit();
        let token = api.run(&agent, job).await;
        api.finish(&token, job, said).await;
        assert_eq!(api.end(job).0, Some(expected));
    }
}

#[tokio::test]
async fn connected_and_simulated_agents_are_of_one_dispatch_and_counted_together() {
    let mut api = Api::new();
    let agent = api.agent("real").await;
    api.world.with(|buildkite| buildkite.pod_started(AgentPod::new("pod-0", TOKEN, "q"), buildkite.now()));
    api.pass(secs(1));
    assert_eq!(api.load().idle, 2);
    let (first, second) = (api.submit(), api.submit());
    let names: Vec<String> = [first, second]
        .map(|job| api.world.with(|buildkite| buildkite.job(job).unwrap().pod.as_deref().unwrap().to_owned()))
        .into();
    assert_eq!(names, ["real", "pod-0"]);
    let token = api.run(&agent, first).await;
    let (_, numbers) = api.ask("GET", "/v3/metrics", TOKEN, Value::Null).await;
    assert_eq!(numbers["agents"]["queues"]["q"], json!({ "idle": 0, "busy": 2, "total": 2 }));
    api.finish(&token, first, json!({ "exit_status": "0" })).await;
    api.pass(secs(60));
    let summary = api.world.with(|buildkite| buildkite.summary());
    assert_eq!((summary.passed, api.load().idle), (2, 2));
    assert_eq!(api.world.requests()[&Route::Finish][&digest(TOKEN)], 1, "counted under what it registered with");
}

#[tokio::test]
async fn a_log_is_kept_whatever_order_its_pieces_come_in() {
    let mut api = Api::new();
    let agent = api.agent("one").await;
    let job = api.submit();
    let token = api.run(&agent, job).await;
    // `printf 'hello\n' | gzip -n`
    let packed: &[u8] = &[
        0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0xcb, 0x48, 0xcd, 0xc9, 0xc9, 0xe7, 2, 0, 0x20, 0x30, 0x3a, 0x36, 6, 0, 0,
        0,
    ];
    let chunk = |sequence: u64, encoding: &str, body: &[u8]| {
        Request::post(api.path(job, &format!("/chunks?sequence={sequence}&offset=0&size=1")))
            .header("authorization", format!("Token {token}"))
            .header("content-encoding", encoding)
            .body(Body::from(body.to_vec()))
            .unwrap()
    };
    let pieces = [chunk(2, "identity", b"world\n"), chunk(1, "gzip", packed), chunk(3, "gzip", b"not packed at all")];
    let mut statuses = Vec::new();
    for piece in pieces {
        statuses.push(api.send(piece).await.0);
    }
    assert_eq!(statuses, [201, 201, 422]);
    let (_, log) = api.ask("GET", &format!("/_world/jobs/{}/log", api.uuid(job)), "", Value::Null).await;
    assert_eq!(log, "hello\nworld\n");
}

#[tokio::test]
async fn meta_data_of_the_build_is_kept_and_annotations_are_taken() {
    let mut api = Api::new();
    let agent = api.agent("one").await;
    let job = api.submit();
    let token = api.run(&agent, job).await;
    let mut data = async |verb: &str, body: Value| {
        let path = api.path(job, &format!("/data/{verb}"));
        api.ask("POST", &path, &token, body).await
    };
    assert_eq!(data("get", json!({ "key": "a" })).await.0, 404);
    assert_eq!(data("set", json!({ "key": "a", "value": "b" })).await.0, 200);
    assert_eq!(data("get", json!({ "key": "a" })).await.1["value"], "b");
    assert_eq!(data("exists", json!({ "key": "b" })).await.1, json!({ "exists": false }));
    assert_eq!(data("keys", Value::Null).await.1, json!(["a"]));
    assert_eq!(data("set-batch", Value::Null).await.0, 404);
    assert_eq!(api.status("POST", &api.path(job, "/annotations"), &token).await, 200);
}

#[tokio::test]
async fn an_agent_that_asks_for_a_stream_is_told_that_there_is_none() {
    let mut api = Api::new();
    let agent = api.agent("one").await;
    let path = "/agentedge.v1.AgentEdgeService/StreamPings";
    assert_eq!(api.status("POST", path, &agent.session).await, 404);
}

#[tokio::test]
async fn jobs_and_agents_can_be_driven_from_another_process() {
    let mut api = Api::new();
    let agent = api.agent("one").await;
    let new = json!({ "cluster": CLUSTER, "queue": "q", "command": "make", "env": { "A": "b" }, "priority": 1 });
    let (status, submitted) = api.ask("POST", "/_world/jobs", "", new).await;
    assert_eq!(status, 201);
    let job = format!("/_world/jobs/{}", submitted["uuid"].as_str().unwrap());
    let (_, offer) = {
        api.ping(&agent).await;
        let path = format!("/v3/jobs/{}/accept", submitted["uuid"].as_str().unwrap());
        api.ask("PUT", &path, &agent.session, Value::Null).await
    };
    assert_eq!((&offer["env"]["BUILDKITE_COMMAND"], &offer["env"]["A"]), (&json!("make"), &json!("b")));
    let (_, jobs) = api.ask("GET", "/_world/jobs", "", Value::Null).await;
    assert_eq!((jobs.as_array().unwrap().len(), &jobs[0]["state"]), (1, &json!("accepted")));
    assert_eq!(jobs[0]["attempts"][0]["name"], "one");
    assert_eq!(api.ask("DELETE", &job, "", Value::Null).await.0, 204);
    assert_eq!(api.ask("GET", &job, "", Value::Null).await.1["state"], "canceling");

    let path = format!("/_world/agents/{}", agent.uuid);
    assert_eq!(api.ask("PUT", &format!("{path}/paused"), "", json!(true)).await.0, 204);
    assert_eq!(api.ask("PUT", &format!("{path}/stop"), "", json!(false)).await.0, 204);
    let (_, agents) = api.ask("GET", "/_world/agents", "", Value::Null).await;
    assert_eq!((&agents[0]["name"], &agents[0]["link"]), (&json!("one"), &json!("connected")));
    assert_eq!((&agents[0]["is_paused"], &agents[0]["is_stopping"]), (&json!(true), &json!(true)));
    assert!(agents[0]["session"].is_null() && agents[0]["token"].is_null(), "{agents}");

    assert_eq!(api.ask("PUT", &format!("/_world/queues/{CLUSTER}/q/paused"), "", json!(true)).await.0, 204);
    api.agent("two").await;
    let held = api.submit();
    assert_eq!(api.state(held), "scheduled");
    for (method, path) in [
        ("GET", "/_world/jobs/none"),
        ("GET", "/_world/jobs/none/log"),
        ("DELETE", "/_world/jobs/none"),
        ("PUT", "/_world/agents/none/paused"),
        ("PUT", "/_world/agents/none/stop"),
    ] {
        assert_eq!(api.ask(method, path, "", json!(true)).await.0, 404, "{method} {path}");
    }
    assert_eq!(api.ask("POST", "/_world/jobs", "", json!({ "cluster": CLUSTER })).await.0, 422);
}

#[tokio::test]
async fn a_fault_strikes_its_own_route_and_nothing_of_the_call_is_done() {
    let mut api = Api::new();
    let agent = api.agent("one").await;
    assert_eq!(api.ask("PUT", "/_world/faults/heartbeat", "", json!({ "status": 503 })).await.0, 204);
    assert_eq!(api.status("POST", "/v3/heartbeat", &agent.session).await, 503);
    assert_eq!(api.ping(&agent).await, json!({}));
    let beats = api.world.with(|buildkite| buildkite.connection(&agent.uuid).unwrap().heartbeats);
    api.ask("PUT", "/_world/faults/heartbeat", "", Value::Null).await;
    assert_eq!((beats, api.status("POST", "/v3/heartbeat", &agent.session).await), (0, 200));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_connection_ends_without_a_byte_and_nothing_is_done() {
    let api = Api::new();
    let serving = Serving::start(api.world.clone()).await.unwrap();
    let address = serving.address();
    let ask = move || {
        let mut stream = TcpStream::connect(address).unwrap();
        let head =
            format!("POST /v3/register HTTP/1.1\r\nhost: x\r\nauthorization: Token {TOKEN}\r\nconnection: close\r\n");
        stream.write_all(format!("{head}content-length: 2\r\n\r\n{{}}").as_bytes()).unwrap();
        let mut answer = Vec::new();
        let result = stream.read_to_end(&mut answer);
        (result.is_ok(), String::from_utf8(answer).unwrap())
    };
    api.world.set_fault(Route::Register, Some(Fault { drop: true, ..Fault::default() }));
    let (_, answer) = tokio::task::spawn_blocking(ask).await.unwrap();
    assert_eq!((answer.as_str(), api.world.with(|buildkite| buildkite.connections().len())), ("", 0));
    api.world.set_fault(Route::Register, None);
    let (is_whole, answer) = tokio::task::spawn_blocking(ask).await.unwrap();
    assert!(is_whole && answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert_eq!(api.world.with(|buildkite| buildkite.connections().len()), 1);
    assert!(serving.endpoint().ends_with("/v3"));
}
