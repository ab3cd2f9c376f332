//! The state machine under HTTP: its clock, its numbers and its agents' token.

use std::sync::{Arc, Mutex};

use axum::{
    body::{Body, to_bytes},
    http::Request,
};
use kitepool_world::{Queue, World, router};
use serde_json::{Value, json};
use tower::Service as _;

use super::*;

struct Clocked {
    world: World,
    now: Arc<Mutex<Timestamp>>,
}

impl Clocked {
    fn new(settings: Settings) -> Self {
        let (world, now) = (World::from(buildkite(settings, 1)), Arc::new(Mutex::new(START)));
        let clock = Arc::clone(&now);
        world.set_clock(move || *clock.lock().unwrap());
        Self { world, now }
    }

    /// The answer so many seconds after the beginning, and its date.
    async fn get(&self, second: u64, path: &str) -> (Value, String) {
        *self.now.lock().unwrap() = at(secs(second));
        let request = Request::get(path).header("authorization", format!("Token {TOKEN}")).body(Body::empty()).unwrap();
        let response = router(self.world.clone()).call(request).await.unwrap();
        let date = response.headers()["date"].to_str().unwrap().to_owned();
        let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (serde_json::from_slice(&body).unwrap(), date)
    }
}

#[tokio::test]
async fn the_metrics_route_tells_jobs_and_agents_by_the_clock_with_the_set_loads_on_top() {
    let clocked = Clocked::new(Settings { numbers: NumbersAge::default(), ..streaming() });
    clocked.world.with(|buildkite| {
        buildkite.pod_started(pod(0), START);
        buildkite.submit(job(60), START);
        buildkite.submit(job(60), START);
    });
    let (early, _) = clocked.get(9, "/v3/metrics").await;
    assert_eq!((&early["jobs"]["queues"], &early["agents"]["queues"]), (&json!({}), &json!({})), "not counted yet");
    let (counted, date) = clocked.get(12, "/v3/metrics").await;
    assert_eq!(counted["jobs"]["queues"]["q"], json!({ "scheduled": 1, "running": 1, "waiting": 0, "total": 2 }));
    assert_eq!(counted["agents"]["queues"]["q"], json!({ "idle": 0, "busy": 1, "total": 1 }));
    assert_eq!(counted["cluster"]["name"], CLUSTER, "a cluster that nobody named is called by its UUID");
    assert_eq!(date, "Thu, 01 Jan 1970 00:00:12 GMT");
    clocked.world.set_queue(CLUSTER, "q", Queue { scheduled: 7, ..Queue::default() });
    let (one, _) = clocked.get(13, "/v3/metrics/queue?name=q").await;
    assert_eq!((&one["jobs"]["scheduled"], &one["jobs"]["running"]), (&json!(8), &json!(1)));
    clocked.world.set_queue(CLUSTER, "q", Queue::default());
    let (later, _) = clocked.get(200, "/v3/metrics").await;
    assert_eq!(later["jobs"]["queues"], json!({}), "all is done, and a queue without jobs is absent");
    assert_eq!(later["agents"]["queues"]["q"], json!({ "idle": 1, "busy": 0, "total": 1 }));
    assert_eq!(clocked.world.with(|buildkite| buildkite.summary().passed), 2);
}

#[tokio::test]
async fn whoever_uses_the_state_machine_finds_it_at_the_clocks_instant() {
    let clocked = Clocked::new(streaming());
    clocked.get(500, "/v3/token").await;
    assert_eq!(clocked.world.with(|buildkite| buildkite.now()), at(secs(500)));
    *clocked.now.lock().unwrap() = at(secs(400));
    assert_eq!(clocked.world.with(|buildkite| buildkite.now()), at(secs(500)), "time does not go back");
}
