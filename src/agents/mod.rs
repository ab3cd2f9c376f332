//! What an agent says of itself: `GET /status.json` on its health port, the words that it may answer with, and why it may not.
//!
//! ```text
//!  direct: pod's address ──────────────┐
//!  through the API server (cluster) ───┼──► a bounded body ──► understood: how many workers are busy ──► sense::probe
//!  a simulated one (simulate) ─────────┘        └─ or a silence with its reason
//! ```

pub mod direct;
mod silence;
mod wire;

use std::{net::IpAddr, pin::Pin, time::Duration};

use kitepool_policy::units::Agents;

pub use self::silence::Silence;

/// What is asked for.
pub const STATUS_PATH: &str = "/status.json";

/// An agent answers from memory, so one that takes longer is in trouble; it is asked again soon.
pub const DEADLINE: Duration = Duration::from_secs(2);

/// A worker takes 150 bytes in the answer, so this is over four hundred of them; a pod has a few.
pub const BODY_MAX: usize = 64 * 1024;

/// An agent's health port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Its pod's namespace.
    pub namespace: String,
    /// Its pod.
    pub pod: String,
    /// The pod's uid.
    pub uid: String,
    /// The pod's address.
    pub ip: IpAddr,
    /// The port.
    pub port: u16,
}

/// What an agent process said: how many of its workers run a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Said {
    /// So many.
    pub busy: Agents,
}

/// A body on its way.
pub type Asking<'a> = Pin<Box<dyn Future<Output = Result<Vec<u8>, Silence>> + Send + 'a>>;

/// A way to agents.
pub trait Ask: Send + Sync {
    /// Gets the body of [`STATUS_PATH`], no more than [`BODY_MAX`] of it.
    fn ask<'a>(&'a self, address: &'a Address) -> Asking<'a>;
}

/// Asks one agent, within the [`DEADLINE`].
pub async fn status(way: &dyn Ask, address: &Address) -> Result<Said, Silence> {
    let body = tokio::time::timeout(DEADLINE, way.ask(address)).await.map_err(|_elapsed| Silence::TimedOut)??;
    wire::understood(&body).ok_or(Silence::NotUnderstood)
}
