//! What the proxy does to requests besides passing them on.

use std::{fmt, time::Duration};

use hyper::Method;
use jiff::Timestamp;

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

/// On which side of a write the controller dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// The write is never passed on.
    Before,
    /// The write is passed on; its answer is not.
    After,
}

/// Kills the controller at one of its writes, counted from one.
pub(crate) struct KillPoint {
    pub(crate) number: usize,
    pub(crate) side: Side,
    pub(crate) kill: Box<dyn FnOnce() + Send>,
}

/// What the proxy has been told.
#[derive(Default)]
pub(crate) struct Orders {
    /// Which requests, what is done to them, and how often still.
    treatments: Vec<(Which, Treatment, usize)>,
    kill: Option<KillPoint>,
    writes: usize,
}

impl Orders {
    pub(crate) fn treat(&mut self, which: Which, treatment: Treatment, times: usize) {
        self.treatments.push((which, treatment, times));
    }

    pub(crate) fn clear(&mut self) {
        self.treatments.clear();
        self.kill = None;
    }

    /// Counts writes from here on and kills at one of them.
    pub(crate) fn kill_at(&mut self, point: KillPoint) {
        self.writes = 0;
        self.kill = Some(point);
    }

    pub(crate) fn treatment(&mut self, method: &Method, path: &str) -> Option<Treatment> {
        let is_meant = |(which, _, left): &&mut (Which, Treatment, usize)| *left > 0 && which(method, path);
        let (_, treatment, left) = self.treatments.iter_mut().find(is_meant)?;
        *left -= 1;
        Some(*treatment)
    }

    /// Counts the request if it is a write; answers the kill point if this is the one.
    pub(crate) fn kill_point(&mut self, method: &Method, path: &str) -> Option<KillPoint> {
        if !is_write(method, path) {
            return None;
        }
        self.writes += 1;
        let writes = self.writes;
        self.kill.take_if(|point| point.number == writes)
    }
}
