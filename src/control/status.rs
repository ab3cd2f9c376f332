//! How the controller itself is doing: what `/readyz` says, shared between the loop and the server.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

/// What the controller is up to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// Not yet contending for the lease.
    Starting,
    /// The lease cannot be read or made, so nobody knows who leads.
    NoLease {
        /// The sentence.
        why: String,
    },
    /// Another replica leads.
    Standby,
    /// Leading, but something that must be mended keeps it from deciding.
    Blocked {
        /// The sentences.
        why: Vec<String>,
    },
    /// Leading and deciding.
    Leading {
        /// Things that are wrong without stopping everything.
        troubles: Vec<String>,
    },
    /// A signal came.
    Stopping,
}

/// The board. Clones are the same board.
#[derive(Debug, Clone)]
pub struct Board(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    phase: Phase,
    last_tick: Option<Instant>,
}

impl Default for Board {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(State { phase: Phase::Starting, last_tick: None })))
    }
}

impl Board {
    /// Writes the phase. Answers whether it is news.
    pub fn set(&self, phase: Phase) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = state.phase != phase;
        state.phase = phase;
        is_news
    }

    /// A tick ended at this instant.
    pub fn ticked(&self, at: Instant) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).last_tick = Some(at);
    }

    /// The phase.
    pub fn phase(&self) -> Phase {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).phase.clone()
    }

    /// When the last tick ended.
    pub fn last_tick(&self) -> Option<Instant> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).last_tick
    }
}
