//! Faults of the API server, by route.

use std::{collections::BTreeMap, time::Duration};

use super::request::Route;
use crate::Chance;

/// What becomes of a request. First the delay, then the hanging, then the status; only what is left is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// It is done, or refused, so much later. A client that gave up meanwhile does not stop it.
    pub delay: Duration,
    /// It is neither done nor answered.
    pub hangs: bool,
    /// It is refused with this status.
    pub status: Option<u16>,
    /// It is done, and the connection breaks before the answer.
    pub loses_answer: bool,
    /// How many requests it meets, `None` for all until it is mended.
    pub times: Option<u32>,
    /// It meets so many of a thousand requests.
    pub permille: u32,
}

impl Default for Fault {
    /// Meets every request and does nothing to it.
    fn default() -> Self {
        Self { delay: Duration::ZERO, hangs: false, status: None, loses_answer: false, times: None, permille: 1_000 }
    }
}

/// The faults that there are.
#[derive(Debug)]
pub(super) struct Faults {
    by_route: BTreeMap<Route, Fault>,
    chance: Chance,
}

impl Faults {
    pub(super) fn new(seed: u64) -> Self {
        Self { by_route: BTreeMap::new(), chance: Chance::new(seed, "faults of the API server") }
    }

    pub(super) fn set(&mut self, route: Route, fault: Option<Fault>) {
        match fault {
            Some(fault) => drop(self.by_route.insert(route, fault)),
            None => drop(self.by_route.remove(&route)),
        }
    }

    /// What becomes of the next request.
    pub(super) fn next(&mut self, route: &Route) -> Fault {
        let Some(fault) = self.by_route.get_mut(route) else { return Fault::default() };
        if fault.times == Some(0) || !self.chance.permille(fault.permille) {
            return Fault::default();
        }
        fault.times = fault.times.map(|times| times.saturating_sub(1));
        fault.clone()
    }
}
