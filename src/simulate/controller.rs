//! The controller of a simulation: in this process and in virtual time, or over loopback as it runs in a cluster.

use super::{loopback::Loopback, replica::Replica};

/// Either of the two.
pub(super) enum Controller {
    /// Its clients call the world as functions, so it runs in virtual time as well.
    Replica(Replica),
    /// The program's own way in, over connections.
    Loopback(Loopback),
}

/// Why a controller does not run any more although nobody stopped it.
#[derive(Debug)]
pub(super) enum Ended {
    /// It reached its kill point.
    Killed,
    /// It gave up, and says why.
    Failed(String),
}

impl Controller {
    /// Starts it; one that runs is killed before.
    pub(super) fn start(&mut self) {
        match self {
            Self::Replica(replica) => replica.start(),
            Self::Loopback(loopback) => loopback.start(),
        }
    }

    /// Ends it without a word to it.
    pub(super) fn kill(&mut self) {
        match self {
            Self::Replica(replica) => replica.kill(),
            Self::Loopback(loopback) => loopback.kill(),
        }
    }

    /// Ends it at the end of a story: over loopback its writes in flight come to their end, and it gives up its lease.
    pub(super) async fn stop(&mut self) {
        match self {
            Self::Replica(replica) => replica.kill(),
            Self::Loopback(loopback) => loopback.stop().await,
        }
    }

    /// Until it does not run any more although nobody stopped it.
    pub(super) async fn ended(&mut self) -> Ended {
        match self {
            Self::Replica(replica) => {
                replica.kill_point().reached().await;
                Ended::Killed
            }
            Self::Loopback(loopback) => Ended::Failed(loopback.failed().await),
        }
    }

    /// How many writes it made that a kill point counted.
    pub(super) fn writes(&self) -> usize {
        match self {
            Self::Replica(replica) => replica.kill_point().seen(),
            Self::Loopback(_) => 0,
        }
    }
}
