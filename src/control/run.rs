//! The life of a replica: contend for the lease, lead for a term, stand by again.
//!
//! ```text
//!  start ─► standby ──lease is ours, fence open──► term: sensors from scratch, tick … tick
//!             ▲                                       │
//!             └──── lease lost, or fence closed ◄─────┤
//!  stop: finish writes in flight, give up the lease ◄─┘
//! ```
//!
//! A term takes nothing from the one before: what a restart would miss, a new term would miss too.

use std::{net::SocketAddr, num::NonZeroU32, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use tokio::{
    sync::{Notify, mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{
    metrics::Metrics,
    pace::{self, Pace},
    readings::DEFAULT_ENDPOINT,
    record::{Line, Recorder},
    status::{Board, Phase},
    tick::{Next, Term},
};
use crate::{
    agents::{Ask, direct::Direct},
    buildkite,
    clock::Clock,
    cluster::{
        client::{self, Clients},
        events::Announcer,
        fence::{Fence, WRITE_DEADLINE},
        lease::{self, Leadership},
        proxy::Proxy,
        read::Reader,
        schema,
        write::Writer,
    },
    ingest,
    pods::first::FirstImage,
    serve,
};

/// What the flags came to.
#[derive(Debug, Clone)]
pub struct Config {
    /// Namespaces to look after, sorted.
    pub namespaces: Vec<String>,
    /// Buildkite's agent API, where it was given.
    pub endpoint: Option<String>,
    /// Where to serve.
    pub listen: SocketAddr,
    /// How often to poll.
    pub poll_interval: Duration,
    /// How long an answer may take.
    pub poll_deadline: Duration,
    /// Requests to Buildkite a minute.
    pub buildkite_budget: NonZeroU32,
    /// Writes to the API server a second.
    pub write_budget: NonZeroU32,
    /// Where the token files of pools may lie.
    pub token_folder: String,
    /// Write nothing but the lease.
    pub is_dry_run: bool,
    /// The lease.
    pub lease_name: String,
    /// Its namespace.
    pub lease_namespace: String,
    /// Our name in it.
    pub identity: String,
    /// Where the ticks are taken down.
    pub record: Option<PathBuf>,
    /// The webhook, where there is one.
    pub webhook: Option<ingest::Config>,
    /// Which way agents are asked.
    pub probe: ProbeWay,
    /// Where the first process of agents' containers comes from.
    pub first: Option<FirstImage>,
}

/// The way to agents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeWay {
    /// By their pods' addresses.
    Direct,
    /// Through the API server.
    Proxy,
}

/// Cooldowns, windows and steps end without anybody waking us; nobody sets them finer than a second.
const TICK_INTERVAL_MAX: Duration = Duration::from_secs(1);

/// Where nothing goes on, only schedules and the wall clock are left to look at. As often as a reading comes, which wakes us
/// anyway.
const TICK_INTERVAL_CALM: Duration = Duration::from_secs(10);

/// How often the definitions are looked at while they are missing or old.
const SCHEMA_RETRY: Duration = Duration::from_secs(5);

/// How long nobody contests a lead that nobody contends for: longer than any simulation.
const ALONE: Duration = Duration::from_hours(24 * 365 * 10);

/// Writes in flight at the end are waited for as long as one may take, and a little for the lease and for what they leave to be recorded;
/// a raise that is not recorded in that time the next one finds.
const STOP_DEADLINE: Duration = Duration::from_secs(WRITE_DEADLINE.as_secs() + 2);

/// What all terms share.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) config: Arc<Config>,
    pub(super) clock: Clock,
    pub(super) clients: Clients,
    pub(super) fence: Fence,
    pub(super) board: Board,
    pub(super) metrics: Metrics,
    pub(super) buildkite: buildkite::Client,
    pub(super) agents: Arc<dyn Ask>,
    pub(super) recorder: Recorder,
}

/// What a controller has to do with outside of its process, and the time.
pub struct Outside {
    /// The API server.
    pub clients: Clients,
    /// What the writing client asks before it writes.
    pub fence: Fence,
    /// Buildkite.
    pub buildkite: buildkite::Client,
    /// Agents.
    pub agents: Arc<dyn Ask>,
    /// The clock of all of them.
    pub clock: Clock,
}

impl Shared {
    fn new(config: Config, outside: Outside, metrics: Metrics, recorder: Recorder) -> Self {
        let Outside { clients, fence, buildkite, agents, clock } = outside;
        let (config, board) = (Arc::new(config), Board::default());
        Self { config, clock, clients, fence, board, metrics, buildkite, agents, recorder }
    }
}

/// Leads until `stop` without contending for a lease: for a simulation, in which nobody else could lead. Nothing is served;
/// what each tick saw and decided goes to `record`, if anybody wants it.
pub async fn lead_alone(
    config: Config,
    outside: Outside,
    metrics: Metrics,
    record: Option<mpsc::Sender<Line>>,
    stop: CancellationToken,
) {
    let recorder = record.map(|lines| Recorder::to(lines, &config.identity, &metrics)).unwrap_or_default();
    let shared = Shared::new(config, outside, metrics, recorder);
    shared.fence.renewed("alone", shared.clock.mono(), ALONE);
    lead_a_term(&shared, &CancellationToken::new(), &stop).await;
}

/// The way to agents that the configuration asks for.
fn way(config: &Config, clients: &Clients) -> anyhow::Result<Arc<dyn Ask>> {
    Ok(match config.probe {
        ProbeWay::Direct => Arc::new(Direct::new().context("agents cannot be asked: the HTTP client cannot be made")?),
        ProbeWay::Proxy => Arc::new(Proxy::new(clients.read.clone())),
    })
}

/// Runs until `stop`. Agents are asked this way, or as the configuration says.
pub async fn run(
    config: Config,
    kubernetes: client::Config,
    agents: Option<Arc<dyn Ask>>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let clock = Clock::machine();
    let fence = Fence::closed(clock.clone());
    let clients = Clients::new(&kubernetes, &fence, &config.identity).context("the kubeconfig cannot be used")?;
    let endpoint = config.endpoint.as_deref().unwrap_or(DEFAULT_ENDPOINT);
    let buildkite = buildkite::Client::over_the_network(endpoint, config.poll_deadline, clock.clone())
        .with_context(|| format!("--buildkite-endpoint {endpoint}"))?;
    let agents = match agents {
        Some(agents) => agents,
        None => way(&config, &clients)?,
    };
    let (metrics, registry) = Metrics::new(buildkite::OUTCOMES);
    let mut tasks = JoinSet::new();
    let recorder = match &config.record {
        None => Recorder::default(),
        Some(path) => {
            let (recorder, writing) = Recorder::open(path, &config.identity, &metrics, &clock)
                .with_context(|| format!("--record {}: cannot be written to", path.display()))?;
            // It ends when nobody is left to record.
            tasks.spawn_blocking(|| {
                writing.until_the_end();
                Ok(())
            });
            recorder
        }
    };
    let listen = config.listen;
    let shared = Shared::new(config, Outside { clients, fence, buildkite, agents, clock }, metrics, recorder);
    let serving = serve::listen(listen, shared.board.clone(), registry, shared.clock.clone(), stop.clone()).await?;

    if let Some(webhook) = shared.config.webhook.clone() {
        let hints = client::for_hints(&kubernetes).context("the kubeconfig cannot be used")?;
        let (_, receiving) = ingest::open(webhook, hints, shared.metrics.clone(), stop.clone()).await?;
        tasks.spawn(receiving);
    }
    tasks.spawn(serving);
    // They end only after `stop`, or because something is badly wrong: then the program ends, and Kubernetes starts it again.
    let others = async {
        while let Some(ended) = tasks.join_next().await {
            let outcome = ended.context("a task ended abnormally").flatten();
            stop.cancel();
            outcome?;
        }
        anyhow::Ok(())
    };
    // Not one of them: a tick over many pools takes milliseconds, and what is spawned from a worker's thread may wait until that thread is free
    // again. From the program's first thread, which awaits this, the writes that a tick begins are on their way while it goes on.
    let leading = async {
        let ended = Box::pin(lead(shared, stop.clone())).await;
        stop.cancel();
        ended
    };
    tokio::try_join!(leading, others).map(drop)
}

async fn lead(shared: Shared, stop: CancellationToken) -> anyhow::Result<()> {
    let Some(mut leadership) = contend(&shared, &stop).await else {
        return Ok(());
    };
    loop {
        if shared.board.set(Phase::Standby) {
            tracing::info!(identity = shared.config.identity, "standing by");
        }
        shared.metrics.leads(false);
        let Leadership { leading, task } = &mut leadership;
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            ended = task => anyhow::bail!("the lease task ended: {ended:?}"),
            gained = until(leading, true) => gained?,
            () = given_back(&shared) => {
                // A new task looks at once; the old one ends with its receiver, and holds nothing to give back.
                match contend(&shared, &stop).await {
                    Some(anew) => leadership = anew,
                    None => break,
                }
                continue;
            }
        }
        if !shared.fence.holds() {
            // The task still believes in a lease whose end this process slept through; its next renewal tells.
            tokio::time::sleep(TICK_INTERVAL_MAX).await;
            continue;
        }
        tracing::info!(identity = shared.config.identity, "leading");
        shared.metrics.leads(true);
        let lost = CancellationToken::new();
        let term = lead_a_term(&shared, &lost, &stop);
        let mut term = std::pin::pin!(term);
        let Leadership { leading, task } = &mut leadership;
        tokio::select! {
            biased;
            ended = &mut term => ended,
            ended = task => anyhow::bail!("the lease task ended while leading: {ended:?}"),
            _ = until(leading, false) => {
                tracing::warn!("the lease is lost");
                lost.cancel();
                term.await;
            }
        }
        if stop.is_cancelled() {
            break;
        }
    }
    shared.board.set(Phase::Stopping);
    shared.metrics.leads(false);
    // Dropping the receiver tells the lease task to give the lease up, so that the next leader need not wait for its end.
    let Leadership { leading, task } = leadership;
    drop(leading);
    if tokio::time::timeout(STOP_DEADLINE, task).await.is_err() {
        tracing::warn!("the lease could not be given up in time; it ends by itself");
    }
    shared.fence.close();
    Ok(())
}

/// Until nobody holds the lease.
async fn given_back(shared: &Shared) {
    let Config { lease_namespace, lease_name, .. } = &*shared.config;
    loop {
        tokio::time::sleep(lease::LOOK_EVERY).await;
        if lease::is_given_back(&shared.clients.read, lease_namespace, lease_name).await {
            return;
        }
    }
}

/// Until the lease task believes that we lead, or that we do not.
async fn until(leading: &mut watch::Receiver<bool>, wanted: bool) -> anyhow::Result<()> {
    leading.wait_for(|leading| *leading == wanted).await.map(drop).context("the lease task is gone")
}

/// Until the lease can be read or `stop`: what keeps us from it (no such namespace, no right, no server) can be mended while
/// we run.
async fn contend(shared: &Shared, stop: &CancellationToken) -> Option<Leadership> {
    let Config { lease_namespace, lease_name, identity, .. } = &*shared.config;
    loop {
        let attempt = lease::contend(shared.clients.lease.clone(), lease_namespace, lease_name, identity);
        let why = tokio::select! {
            biased;
            () = stop.cancelled() => return None,
            attempt = tokio::time::timeout(WRITE_DEADLINE, attempt) => match attempt {
                Ok(Ok(leadership)) => return Some(leadership),
                Ok(Err(error)) => format!("{error:#}"),
                Err(_elapsed) => format!("the lease {lease_namespace}/{lease_name}: no answer in time"),
            },
        };
        tracing::error!(why, "cannot contend for the lease; trying again");
        shared.board.set(Phase::NoLease { why });
        tokio::select! {
            biased;
            () = stop.cancelled() => return None,
            () = tokio::time::sleep(SCHEMA_RETRY) => {}
        }
    }
}

async fn lead_a_term(shared: &Shared, lost: &CancellationToken, stop: &CancellationToken) {
    let over = || lost.is_cancelled() || stop.is_cancelled() || !shared.fence.holds();
    while let Some(why) = schema::problem(&shared.clients.read).await {
        if shared.board.set(Phase::Blocked { why: vec![why.clone()] }) {
            tracing::error!(why, "waiting until it is mended");
        }
        shared.board.ticked(shared.clock.mono());
        tokio::select! {
            biased;
            () = lost.cancelled() => return,
            () = stop.cancelled() => return,
            () = tokio::time::sleep(SCHEMA_RETRY) => {}
        }
        if over() {
            return;
        }
    }
    let wake = Arc::new(Notify::new());
    let writer = Writer::new(shared.clients.write.clone(), shared.config.write_budget, shared.clock.clone());
    let (announcer, publishing) =
        Announcer::new(shared.clients.write.clone(), &shared.config.identity, shared.clock.clone());
    let mut background = JoinSet::new();
    background.spawn(publishing);
    let reader = Reader::new(shared.clients.read.clone());
    let mut term = Term::begin(shared.clone(), writer, reader, announcer, &wake, &mut background);
    let mut pace = Pace::new(shared.clock.mono());
    while !over() {
        let began = shared.clock.mono();
        let latest = match term.tick() {
            Next::At(at) => at.min(began + TICK_INTERVAL_MAX),
            Next::Soon => began + TICK_INTERVAL_MAX,
            Next::Calm => began + TICK_INTERVAL_CALM,
        };
        let ended = shared.clock.mono();
        shared.metrics.ticked(ended.saturating_duration_since(began));
        shared.board.ticked(ended);
        let soonest = pace.rest(began, ended);
        let is_urgent = || term.is_urgent();
        let rest = pace::rest(&wake, is_urgent, soonest, latest);
        tokio::select! {
            biased;
            () = lost.cancelled() => {}
            () = stop.cancelled() => {}
            is_hurried = rest => if is_hurried { pace.hurries(shared.clock.mono()) },
        }
    }
    let still_leads = !lost.is_cancelled() && shared.fence.holds();
    if tokio::time::timeout(STOP_DEADLINE, term.drain(still_leads)).await.is_err() {
        tracing::warn!("writes in flight did not end in time");
    }
    term.end();
}
