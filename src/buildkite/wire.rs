//! Reads Buildkite's bodies and headers: missing is zero, unknown is ignored, anything of the wrong type is an error.

use std::{collections::BTreeMap, time::Duration};

use http::HeaderMap;
use jiff::{Timestamp, fmt::rfc2822};
use kitepool_policy::{
    observation::Load,
    units::{Agents, Jobs},
};
use serde::Deserialize;

use super::{
    error::Error,
    identity::{Identity, TokenIdentity},
};

/// The longest Buildkite may keep us away, by either header. Twice the longest pause that a reading of normal age survives;
/// a larger number is a mistake or an attack on the scaling.
pub const PAUSE_MAX: Duration = Duration::from_mins(5);

/// The shortest interval that Buildkite may ask for: its header counts whole seconds.
pub const POLL_MIN: Duration = Duration::from_secs(1);

/// How far our clock may be ahead of Buildkite's when its answer has no usable `Date`. A machine that keeps time at all is
/// within this; too large only means that fewer hints count as seen, so capacity stays a little longer.
pub const DATE_MARGIN: Duration = Duration::from_secs(30);

const POLL_DURATION: &str = "buildkite-agent-metrics-poll-duration";

/// One good metrics answer: every queue of one token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricsReading {
    /// The organization's slug.
    pub organization: String,
    /// The cluster's name, if the answer has one.
    pub cluster: Option<String>,
    /// Every queue with jobs or agents; a queue with neither is absent.
    pub queues: BTreeMap<String, Load>,
    /// The answer's `Date`: Buildkite's own clock.
    pub date: Option<Timestamp>,
    /// Our clock when the request was sent.
    pub asked_at: Timestamp,
}

impl MetricsReading {
    /// Buildkite's clock when it answered, or a time certainly not later: [`DATE_MARGIN`] before we asked.
    pub fn buildkite_time(&self) -> Timestamp {
        self.date.unwrap_or_else(|| self.asked_at.saturating_sub(DATE_MARGIN).unwrap_or(self.asked_at))
    }

    /// The load of one queue. Absent means zero here, since the answer covers every queue of the token.
    pub fn load(&self, queue: &str) -> Load {
        self.queues.get(queue).copied().unwrap_or_default()
    }
}

#[derive(Deserialize)]
struct MetricsBody {
    #[serde(default)]
    agents: AgentsPart,
    #[serde(default)]
    jobs: JobsPart,
    organization: OrganizationPart,
    cluster: Option<ClusterPart>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct AgentsPart {
    queues: BTreeMap<String, AgentCounts>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct AgentCounts {
    idle: Agents,
    busy: Agents,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct JobsPart {
    queues: BTreeMap<String, JobCounts>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct JobCounts {
    scheduled: Jobs,
    running: Jobs,
    waiting: Jobs,
}

#[derive(Deserialize)]
struct OrganizationPart {
    slug: String,
}

#[derive(Deserialize)]
struct ClusterPart {
    name: Option<String>,
}

#[derive(Deserialize)]
struct TokenBody {
    organization_slug: String,
    cluster_uuid: Option<String>,
    cluster_name: Option<String>,
}

/// Reads the body of `GET /metrics`.
pub(super) fn metrics(body: &[u8], date: Option<Timestamp>, asked_at: Timestamp) -> Result<MetricsReading, Error> {
    let body: MetricsBody = decode(body)?;
    let organization = present(body.organization.slug).ok_or_else(no_organization)?;
    let mut queues: BTreeMap<String, Load> = BTreeMap::new();
    // Two independent maps: a queue with jobs and no agents stands in one of them only.
    for (queue, agents) in body.agents.queues {
        let load = queues.entry(queue).or_default();
        load.idle = agents.idle;
        load.busy = agents.busy;
    }
    for (queue, jobs) in body.jobs.queues {
        let load = queues.entry(queue).or_default();
        load.scheduled = jobs.scheduled;
        load.running = jobs.running;
        load.waiting = jobs.waiting;
    }
    let cluster = body.cluster.and_then(|cluster| cluster.name).and_then(present);
    Ok(MetricsReading { organization, cluster, queues, date, asked_at })
}

/// Reads the body of `GET /token`.
pub(super) fn token(body: &[u8]) -> Result<TokenIdentity, Error> {
    let body: TokenBody = decode(body)?;
    let organization = present(body.organization_slug).ok_or_else(no_organization)?;
    let identity = Identity { organization, cluster: body.cluster_uuid.and_then(present) };
    Ok(TokenIdentity { identity, cluster_name: body.cluster_name.and_then(present) })
}

fn present(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn no_organization() -> Error {
    Error::Malformed { detail: "the organization's slug is empty".to_owned() }
}

fn decode<T: for<'de> Deserialize<'de>>(body: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(body).map_err(|error| {
        // The decoder's own words may quote the body, and a proxy's body may quote the request: only the place is told.
        let what = match error.classify() {
            serde_json::error::Category::Data => "a field is missing or has the wrong type",
            serde_json::error::Category::Syntax | serde_json::error::Category::Io => "it is not JSON",
            serde_json::error::Category::Eof => "the JSON ends too early",
        };
        Error::Malformed { detail: format!("{what} (line {}, column {})", error.line(), error.column()) }
    })
}

/// What the header of Buildkite's interval says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// It is not there.
    None,
    /// An interval, within [`POLL_MIN`] and [`PAUSE_MAX`].
    Interval(Duration),
    /// It is there and no whole number of seconds.
    Garbage,
}

/// The interval that Buildkite asks for.
pub(super) fn wish(headers: &HeaderMap) -> Wish {
    if !headers.contains_key(POLL_DURATION) {
        return Wish::None;
    }
    text(headers, POLL_DURATION)
        .and_then(|value| value.parse().ok())
        .map_or(Wish::Garbage, |seconds| Wish::Interval(Duration::from_secs(seconds).clamp(POLL_MIN, PAUSE_MAX)))
}

/// The `Date` header; absent and garbage are the same.
pub(super) fn date(headers: &HeaderMap) -> Option<Timestamp> {
    http_date(text(headers, http::header::DATE.as_str())?)
}

/// `Retry-After` in either form, at most [`PAUSE_MAX`]. A date is taken against Buildkite's own clock where it tells it.
pub(super) fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let value = text(headers, http::header::RETRY_AFTER.as_str())?;
    let wait = if let Ok(seconds) = value.parse() {
        Duration::from_secs(seconds)
    } else {
        let left = http_date(value)?.duration_since(date(headers).unwrap_or(now));
        Duration::try_from(left).unwrap_or(Duration::ZERO)
    };
    Some(wait.min(PAUSE_MAX))
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

fn http_date(value: &str) -> Option<Timestamp> {
    rfc2822::DateTimeParser::new().parse_timestamp(value).ok()
}
