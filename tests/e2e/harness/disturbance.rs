//! What the proxy does to requests besides passing them on.

use std::{collections::BTreeSet, fmt, time::Duration};

use hyper::Method;
use jiff::Timestamp;

use super::kill_points::{KillPlan, Strike, Write};

/// One request of the controller.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    /// When it arrived at the proxy.
    pub(crate) at: Timestamp,
    /// When its answer began, if there was one.
    pub(crate) answered: Option<Timestamp>,
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) path: String,
    pub(crate) body: String,
    /// `None`: not passed on, or no answer.
    pub(crate) status: Option<u16>,
    /// Why the API server did not answer, where it was not the proxy's doing.
    pub(crate) failure: Option<String>,
}

impl Record {
    /// Whether it changes something, the lease and Events apart: those are renewed and counted up without a decision.
    pub(crate) fn is_write(&self) -> bool {
        is_write(&self.method, &self.path)
    }

    pub(crate) fn is_scale(&self) -> bool {
        self.method == Method::PATCH && self.path.contains("/scale")
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} -> {:?} {}", self.at, self.method, self.path, self.status, self.body)?;
        self.failure.as_ref().map_or(Ok(()), |failure| write!(f, " ({failure})"))
    }
}

pub(crate) fn is_write(method: &Method, path: &str) -> bool {
    let changes = !matches!(*method, Method::GET | Method::HEAD);
    changes && !is_lease(path) && !path.contains("/events")
}

pub(crate) fn is_lease(path: &str) -> bool {
    path.contains("/leases")
}

/// Which requests are meant.
pub(crate) type Which = fn(&Method, &str) -> bool;

/// What happens to a request that is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Treatment {
    /// It is held up for so long, then passed on, if the controller still waits.
    Delay(Duration),
    /// The connection is closed without an answer and without passing it on.
    Refuse,
    /// It is passed on, and the connection is closed without the answer.
    LoseAnswer,
}

/// What the proxy has been told.
#[derive(Default)]
pub(crate) struct Orders {
    /// Which requests, what is done to them, and how often still.
    treatments: Vec<(Which, Treatment, usize)>,
    kill: Option<KillPlan>,
}

impl Orders {
    pub(crate) fn treat(&mut self, which: Which, treatment: Treatment, times: usize) {
        self.treatments.push((which, treatment, times));
    }

    pub(crate) fn clear(&mut self) {
        self.treatments.clear();
        self.kill = None;
    }

    pub(crate) fn kill(&mut self, plan: KillPlan) {
        self.kill = Some(plan);
    }

    /// The writes at which the controller was killed so far.
    pub(crate) fn killed(&self) -> BTreeSet<Write> {
        self.kill.as_ref().map(KillPlan::killed).unwrap_or_default()
    }

    pub(crate) fn treatment(&mut self, method: &Method, path: &str) -> Option<Treatment> {
        let is_meant = |(which, _, left): &&mut (Which, Treatment, usize)| *left > 0 && which(method, path);
        let (_, treatment, left) = self.treatments.iter_mut().find(is_meant)?;
        *left -= 1;
        Some(*treatment)
    }

    /// Whether this request is the end of the controller that sends it.
    pub(crate) fn strike(&mut self, method: &Method, path: &str, body: &str) -> Option<Strike> {
        if !is_write(method, path) {
            return None;
        }
        self.kill.as_mut()?.strikes(method, path, body)
    }
}
