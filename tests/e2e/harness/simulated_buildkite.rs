//! A simulated Buildkite: the two calls of the agent API that the controller makes, over loads that a case sets.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
};

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode, header::AUTHORIZATION},
    response::{IntoResponse as _, Response},
    routing::get,
};
use serde_json::{Map, Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};

/// The token that each case's Secret holds from the start.
pub(crate) const TOKEN: &str = "bkct_simulated-first";
/// A good token of another organization.
pub(crate) const FOREIGN_TOKEN: &str = "bkct_simulated-foreign";
/// Another token of the same cluster as [`TOKEN`].
pub(crate) const SECOND_TOKEN: &str = "bkct_simulated-second";

/// What Buildkite counts for one queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) scheduled: u32,
    pub(crate) running: u32,
    pub(crate) waiting: u32,
    pub(crate) idle: u32,
    pub(crate) busy: u32,
}

impl Load {
    pub(crate) fn scheduled(jobs: u32) -> Self {
        Self { scheduled: jobs, ..Self::default() }
    }

    /// So many jobs, each on an agent.
    pub(crate) fn running(jobs: u32) -> Self {
        Self { running: jobs, busy: jobs, ..Self::default() }
    }
}

/// How requests are answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Mood {
    #[default]
    Answers,
    /// With this status.
    Fails(u16),
    /// Not at all; the connection stays open.
    Hangs,
}

#[derive(Debug, Default)]
struct World {
    mood: Mood,
    /// By cluster and queue.
    loads: BTreeMap<(&'static str, String), Load>,
    requests: usize,
}

/// The running simulation; it ends when it is dropped.
pub(crate) struct SimulatedBuildkite {
    pub(crate) address: SocketAddr,
    world: Arc<Mutex<World>>,
    _ends: DropGuard,
}

/// The cluster of [`TOKEN`].
const HOME: &str = "11111111-1111-4111-8111-111111111111";
const ABROAD: &str = "22222222-2222-4222-8222-222222222222";

impl SimulatedBuildkite {
    pub(crate) async fn start() -> Self {
        let world = Arc::new(Mutex::new(World::default()));
        let router = Router::new()
            .route("/metrics", get(metrics))
            .route("/token", get(token))
            .with_state(Arc::clone(&world));
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let end = CancellationToken::new();
        tokio::spawn(end.clone().run_until_cancelled_owned(async move { axum::serve(listener, router).await }));
        Self { address, world, _ends: end.drop_guard() }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn set(&self, queue: &str, load: Load) {
        self.world().loads.insert((HOME, queue.to_owned()), load);
    }

    pub(crate) fn feel(&self, mood: Mood) {
        self.world().mood = mood;
    }

    /// How many requests there were so far.
    pub(crate) fn requests(&self) -> usize {
        self.world().requests
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().expect("no panic while it is held")
    }
}

/// Whose token it is: the organization and the cluster.
fn owner(headers: &HeaderMap) -> Option<(&'static str, &'static str)> {
    let token = headers.get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("Token ")?;
    match token {
        TOKEN | SECOND_TOKEN => Some(("simulated", HOME)),
        FOREIGN_TOKEN => Some(("somebody-else", ABROAD)),
        _ => None,
    }
}

/// Refuses as the mood is, or finds the owner of the token.
async fn admit(world: &Mutex<World>, headers: &HeaderMap) -> Result<(&'static str, &'static str), Response> {
    let mood = {
        let mut world = world.lock().expect("no panic while it is held");
        world.requests += 1;
        world.mood
    };
    match mood {
        Mood::Answers => owner(headers).ok_or_else(|| refusal(StatusCode::UNAUTHORIZED)),
        Mood::Fails(status) => Err(refusal(StatusCode::from_u16(status).expect("a status"))),
        Mood::Hangs => std::future::pending().await,
    }
}

fn refusal(status: StatusCode) -> Response {
    (status, Json(json!({ "message": status.canonical_reason() }))).into_response()
}

async fn token(State(world): State<Arc<Mutex<World>>>, headers: HeaderMap) -> Response {
    match admit(&world, &headers).await {
        Ok((organization, cluster)) => Json(json!({
            "uuid": format!("token-of-{cluster}"),
            "description": "simulated",
            "token_type": "cluster",
            "organization_slug": organization,
            "organization_uuid": format!("organization-of-{cluster}"),
            "cluster_uuid": cluster,
            "cluster_name": "simulated",
            "organization_queue_uuid": null,
            "organization_queue_key": null,
        }))
        .into_response(),
        Err(refusal) => refusal,
    }
}

async fn metrics(State(world): State<Arc<Mutex<World>>>, headers: HeaderMap) -> Response {
    let (organization, cluster) = match admit(&world, &headers).await {
        Ok(owner) => owner,
        Err(refusal) => return refusal,
    };
    let world = world.lock().expect("no panic while it is held");
    let here = world.loads.iter().filter(|((of, _), _)| *of == cluster);
    let (mut agents, mut jobs) = (Map::new(), Map::new());
    for ((_, queue), load) in here {
        let Load { scheduled, running, waiting, idle, busy } = *load;
        // A queue without jobs or without agents is missing on that side.
        if idle + busy > 0 {
            agents.insert(queue.clone(), json!({ "idle": idle, "busy": busy, "total": idle + busy }));
        }
        if scheduled + running + waiting > 0 {
            let total = scheduled + running;
            let counts = json!({ "scheduled": scheduled, "running": running, "waiting": waiting, "total": total });
            jobs.insert(queue.clone(), counts);
        }
    }
    Json(json!({
        "agents": { "idle": sum(&agents, "idle"), "busy": sum(&agents, "busy"), "total": sum(&agents, "total"), "queues": agents },
        "jobs": {
            "scheduled": sum(&jobs, "scheduled"), "running": sum(&jobs, "running"), "waiting": sum(&jobs, "waiting"),
            "total": sum(&jobs, "total"), "queues": jobs,
        },
        "cluster": { "name": "simulated" },
        "organization": { "slug": organization },
    }))
    .into_response()
}

fn sum(counts: &Map<String, Value>, key: &str) -> u64 {
    counts.values().filter_map(|count| count[key].as_u64()).sum()
}
