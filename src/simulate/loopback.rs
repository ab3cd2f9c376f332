//! The controller as it runs in a cluster, against a world that is served on this machine: the same clients, connections, lease
//! and health endpoints.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, serve::ListenerExt as _};
use kitepool_world::Joined;
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::agents::SimulatedAgents;
use crate::{
    agents::Ask,
    clock::Clock,
    cluster::client,
    control::run::{Config, run},
};

/// Writes on loopback take milliseconds. Whoever ends a demonstration should not wait for one that does not.
const STOP_PATIENCE: Duration = Duration::from_millis(500);

/// Ports of this machine for both halves of a world. They are taken before there is a world, so that a refusal comes first.
#[derive(Debug)]
pub struct Doors {
    kubernetes: Door,
    buildkite: Door,
}

#[derive(Debug)]
struct Door {
    listener: TcpListener,
    address: SocketAddr,
}

impl Doors {
    /// Takes two free ports.
    pub async fn open() -> io::Result<Self> {
        Ok(Self { kubernetes: Door::open().await?, buildkite: Door::open().await? })
    }

    /// Where the API server is.
    pub const fn kubernetes_port(&self) -> u16 {
        self.kubernetes.address.port()
    }

    /// Where Buildkite is.
    pub const fn buildkite_port(&self) -> u16 {
        self.buildkite.address.port()
    }
}

impl Door {
    async fn open() -> io::Result<Self> {
        let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    fn serve(self, router: Router) -> AbortOnDropHandle<()> {
        // Watches send many small pieces; without this each may wait for the receipt of the one before.
        let listener = self.listener.tap_io(|connection| drop(connection.set_nodelay(true)));
        AbortOnDropHandle::new(tokio::spawn(async move { drop(axum::serve(listener, router).await) }))
    }
}

/// A controller, and the world's doors.
pub(super) struct Loopback {
    config: Config,
    kubernetes: client::Config,
    agents: Arc<SimulatedAgents>,
    running: Option<Life>,
    _doors: [AbortOnDropHandle<()>; 2],
}

struct Life {
    task: AbortOnDropHandle<anyhow::Result<()>>,
    stop: CancellationToken,
}

impl Loopback {
    /// Opens the doors of this world. The controller is not started yet.
    pub(super) fn new(doors: Doors, world: &Joined, clock: &Clock, config: Config) -> anyhow::Result<Self> {
        let kubernetes = client::plain(&format!("http://{}", doors.kubernetes.address))?;
        let config = Config { endpoint: Some(format!("http://{}/v3", doors.buildkite.address)), ..config };
        let reading = clock.clone();
        let api_server = kitepool_world::kubernetes::router(world.kubernetes().clone(), move || reading.now());
        let buildkite = kitepool_world::router(world.buildkite().clone());
        let doors = [doors.kubernetes.serve(api_server), doors.buildkite.serve(buildkite)];
        let agents = Arc::new(SimulatedAgents::new(world.clone()));
        Ok(Self { config, kubernetes, agents, running: None, _doors: doors })
    }

    pub(super) fn start(&mut self) {
        let stop = CancellationToken::new();
        let agents: Arc<dyn Ask> = Arc::<SimulatedAgents>::clone(&self.agents);
        let life = run(self.config.clone(), self.kubernetes.clone(), Some(agents), stop.clone());
        self.running = Some(Life { task: AbortOnDropHandle::new(tokio::spawn(life)), stop });
    }

    pub(super) fn kill(&mut self) {
        self.running = None;
    }

    pub(super) async fn stop(&mut self) {
        if let Some(life) = self.running.take() {
            life.stop.cancel();
            drop(tokio::time::timeout(STOP_PATIENCE, life.task).await);
        }
    }

    /// Until it fails, and why.
    pub(super) async fn failed(&mut self) -> String {
        let Some(life) = &mut self.running else { return std::future::pending().await };
        let ended = (&mut life.task).await;
        self.running = None;
        match ended {
            Ok(Ok(())) => "it ended without being told to".to_owned(),
            Ok(Err(error)) => format!("{error:#}"),
            Err(error) => error.to_string(),
        }
    }
}
