//! One look at what the API server holds of the pools of a namespace, for a person who asks.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::events::v1::Event;
use kitepool_api::{AgentPool, JobHint};
use kube::{
    Api, Client, Config, Resource,
    api::ListParams,
    core::{ApiResource, DynamicObject},
};
use serde::de::DeserializeOwned;

use super::{
    client::chain,
    error::Error,
    view::{HintView, PoolView},
};

/// Somebody waits in front of a screen.
const LOOK_DEADLINE: Duration = Duration::from_secs(20);

/// Objects in an answer, and answers of a list: twenty thousand of a kind are more than any namespace of pools has, and what
/// comes on top is told to be left out.
const PAGE: u32 = 500;
const PAGES_MAX: usize = 40;

/// What there is.
#[derive(Debug)]
pub struct Look {
    /// All pools.
    pub pools: Vec<PoolView>,
    /// All hints.
    pub hints: Vec<HintView>,
    /// What was told of pools, the oldest first.
    pub events: Vec<Told>,
    /// What could not be read, or not to its end, in sentences.
    pub gaps: Vec<String>,
}

/// An Event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// About which pool.
    pub pool: String,
    /// When it was told last.
    pub at: Timestamp,
    /// How often.
    pub count: u32,
    /// Whether somebody should look at it.
    pub is_warning: bool,
    /// A word.
    pub reason: String,
    /// The sentence.
    pub note: String,
}

/// Looks once. Without the pools there is nothing to tell; without the rest there is less.
pub async fn look(config: &Config, namespace: &str) -> Result<Look, Error> {
    look_through(&Client::try_from(config.clone())?, namespace).await
}

/// The same through this client.
pub async fn look_through(client: &Client, namespace: &str) -> Result<Look, Error> {
    let looking = async {
        let dynamic =
            |resource: &ApiResource| Api::<DynamicObject>::namespaced_with(client.clone(), namespace, resource);
        let everything = ListParams::default();
        let (pools, more) = list(&dynamic(&ApiResource::erase::<AgentPool>(&())), &everything).await?;
        let mut gaps: Vec<String> = more.then(|| cut_short("agentpools")).into_iter().collect();
        let hints = list(&dynamic(&ApiResource::erase::<JobHint>(&())), &everything).await;
        let hints = or_gap(hints, "jobhints", namespace, &mut gaps);
        let about_pools = ListParams::default().fields("regarding.kind=AgentPool");
        let events = list(&Api::<Event>::namespaced(client.clone(), namespace), &about_pools).await;
        let mut events: Vec<Told> =
            or_gap(events, "events", namespace, &mut gaps).into_iter().filter_map(told).collect();
        events.sort_by(|a, b| (a.at, &a.pool, &a.note).cmp(&(b.at, &b.pool, &b.note)));
        Ok(Look {
            pools: pools.into_iter().map(PoolView::from).collect(),
            hints: hints.into_iter().map(HintView::from).collect(),
            events,
            gaps,
        })
    };
    let late = || Error::Deadline { seconds: LOOK_DEADLINE.as_secs() };
    tokio::time::timeout(LOOK_DEADLINE, looking).await.map_err(|_elapsed| late())?
}

/// Page by page. Answers whether there are more.
async fn list<K>(api: &Api<K>, which: &ListParams) -> Result<(Vec<K>, bool), Error>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug,
{
    let mut found = Vec::new();
    let mut which = which.clone().limit(PAGE);
    for _ in 0..PAGES_MAX {
        let page = api.list(&which).await?;
        found.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => which = which.continue_token(&token),
            None => return Ok((found, false)),
        }
    }
    Ok((found, true))
}

fn or_gap<K>(listed: Result<(Vec<K>, bool), Error>, plural: &str, namespace: &str, gaps: &mut Vec<String>) -> Vec<K> {
    match listed {
        Ok((found, more)) => {
            gaps.extend(more.then(|| cut_short(plural)));
            found
        }
        Err(error) => {
            gaps.push(format!("{plural} in namespace {namespace} cannot be read, and are left out: {}", chain(&error)));
            Vec::new()
        }
    }
}

fn cut_short(plural: &str) -> String {
    format!("there are more {plural} than are looked at; the rest is left out")
}

/// One of another making may lack anything.
fn told(event: Event) -> Option<Told> {
    let series = event.series;
    let last = series.as_ref().map(|series| series.last_observed_time.0);
    let first = event.event_time.map(|time| time.0);
    let of_old = event.deprecated_last_timestamp.map(|time| time.0);
    Some(Told {
        pool: event.regarding?.name?,
        at: last.or(first).or(of_old)?,
        count: series.map_or(1, |series| u32::try_from(series.count).unwrap_or(1)),
        is_warning: event.type_.as_deref() == Some("Warning"),
        reason: event.reason.unwrap_or_default(),
        note: event.note.unwrap_or_default(),
    })
}
