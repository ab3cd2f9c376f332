//! A simulated Buildkite: the two calls of the agent API that the controller makes, over loads that a case sets.

use std::{
    collections::{BTreeMap, BTreeSet},
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

/// What a case says of one queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Load {
    /// Jobs that are runnable or run. As many as there are agents run.
    pub(crate) jobs: u32,
    /// Jobs that are counted as scheduled and never run.
    pub(crate) stuck: u32,
    /// Jobs that are not runnable yet.
    pub(crate) waiting: u32,
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
    /// Connected agents of the home cluster, by queue.
    agents: BTreeMap<String, u32>,
    requests: usize,
    /// Tokens that a request came with.
    tokens: BTreeSet<String>,
}

/// The running simulation; it ends when it is dropped.
pub(crate) struct SimulatedBuildkite {
    pub(crate) address: SocketAddr,
    world: Arc<Mutex<World>>,
    _ends: DropGuard,
}

/// Where agents of the home cluster register.
pub(crate) struct Registry(Arc<Mutex<World>>);

impl Registry {
    /// These agents are connected; agents of queues that are not named are gone.
    pub(crate) fn connect(&self, agents: BTreeMap<String, u32>) {
        self.0.lock().expect("no panic while it is held").agents = agents;
    }

    /// How many of a queue's agents run a job.
    pub(crate) fn running(&self, queue: &str) -> u32 {
        let world = self.0.lock().expect("no panic while it is held");
        let jobs = world.loads.get(&(HOME, queue.to_owned())).map_or(0, |load| load.jobs);
        jobs.min(world.agents.get(queue).copied().unwrap_or(0))
    }
}

/// The cluster of [`TOKEN`].
const HOME: &str = "11111111-1111-4111-8111-111111111111";
const ABROAD: &str = "22222222-2222-4222-8222-222222222222";

impl SimulatedBuildkite {
    pub(crate) async fn start() -> Self {
        let world = Arc::new(Mutex::new(World::default()));
        let router =
            Router::new().route("/metrics", get(metrics)).route("/token", get(token)).with_state(Arc::clone(&world));
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

    /// So many jobs are runnable or run from now on.
    pub(crate) fn jobs(&self, queue: &str, jobs: u32) {
        self.set(queue, Load { jobs, ..Load::default() });
    }

    /// Where agents register.
    pub(crate) fn registry(&self) -> Registry {
        Registry(Arc::clone(&self.world))
    }

    pub(crate) fn feel(&self, mood: Mood) {
        self.world().mood = mood;
    }

    /// How many requests there were so far.
    pub(crate) fn requests(&self) -> usize {
        self.world().requests
    }

    pub(crate) fn was_asked_with(&self, token: &str) -> bool {
        self.world().tokens.contains(token)
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().expect("no panic while it is held")
    }
}

fn token_of(headers: &HeaderMap) -> Option<&str> {
    headers.get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("Token ")
}

/// Whose token it is: the organization and the cluster.
fn owner(headers: &HeaderMap) -> Option<(&'static str, &'static str)> {
    match token_of(headers)? {
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
        world.tokens.extend(token_of(headers).map(ToOwned::to_owned));
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
    let (mut agents, mut jobs) = (Map::new(), Map::new());
    let connected = world.agents.iter().filter(|_| cluster == HOME);
    for (queue, load) in here(&world, cluster) {
        let workers = connected.clone().find(|(of, _)| *of == queue).map_or(0, |(_, agents)| *agents);
        let running = load.jobs.min(workers);
        let (scheduled, waiting) = (load.jobs - running + load.stuck, load.waiting);
        if scheduled + running + waiting > 0 {
            let total = scheduled + running;
            let counts = json!({ "scheduled": scheduled, "running": running, "waiting": waiting, "total": total });
            jobs.insert(queue.clone(), counts);
        }
    }
    // A queue without jobs or without agents is missing on that side.
    for (queue, workers) in connected.filter(|(_, workers)| **workers > 0) {
        let jobs = here(&world, cluster).find(|(of, _)| *of == queue).map_or(0, |(_, load)| load.jobs);
        let busy = jobs.min(*workers);
        agents.insert(queue.clone(), json!({ "idle": workers - busy, "busy": busy, "total": workers }));
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

/// The loads of one cluster.
fn here<'a>(world: &'a World, cluster: &'a str) -> impl Iterator<Item = (&'a String, &'a Load)> {
    world.loads.iter().filter(move |((of, _), _)| *of == cluster).map(|((_, queue), load)| (queue, load))
}

fn sum(counts: &Map<String, Value>, key: &str) -> u64 {
    counts.values().filter_map(|count| count[key].as_u64()).sum()
}
