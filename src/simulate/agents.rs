//! The agents of a simulated world, asked without a connection: the real prober in virtual time.

use kitepool_world::Joined;

use crate::agents::{Address, Ask, Asking, Silence};

/// Agents of this world.
#[derive(Debug, Clone)]
pub struct SimulatedAgents(Joined);

impl SimulatedAgents {
    /// Of this world.
    pub const fn new(world: Joined) -> Self {
        Self(world)
    }
}

impl Ask for SimulatedAgents {
    fn ask<'a>(&'a self, address: &'a Address) -> Asking<'a> {
        Box::pin(async move {
            let uid = &address.uid;
            if !self.0.kubernetes().peek(|kubernetes| kubernetes.is_reachable(uid)) {
                // Its node is gone: nobody is there even to refuse.
                return std::future::pending().await;
            }
            let status = self.0.buildkite().peek(|buildkite| buildkite.status(uid)).ok_or(Silence::Refused)?;
            serde_json::to_vec(&status).map_err(|_never| Silence::NotUnderstood)
        })
    }
}
