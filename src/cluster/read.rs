//! Reads: one watch per kind and namespace into a cell, and the Secrets that pools name.
//!
//! ```text
//!  Init ─► InitApply … ─► InitDone ─► Apply / Delete …      the cell swaps the whole list in at InitDone
//!    ▲                                     │
//!    └───────────── error: wait, again ◄───┘                what was known stays, with the reason beside it
//! ```

use std::{fmt::Debug, pin::pin, sync::Arc, time::Duration};

use futures::StreamExt as _;
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Pod, PodTemplate, Secret},
};
use kitepool_api::{AgentPool, JobHint};
use kube::{
    Api, Client, Resource,
    core::{ApiResource, DynamicObject},
    runtime::watcher::{self, Event},
};
use secrecy::SecretString;
use serde::de::DeserializeOwned;
use tokio::{sync::Notify, task::JoinSet};

use super::{
    cell::{Cell, NamespaceCells},
    client::chain,
    error::Error,
    view::{DeploymentView, HintView, PodTemplateView, PodView, PoolView, name_of, strip},
};
use crate::clock::Clock;

/// The API server ends each watch after so long and we begin a new one, so that a connection that died in silence is noticed
/// within the read deadline, which is a little longer.
pub const WATCH_SECONDS: u32 = 60;

/// After a failure: at first soon, since most are an API server that restarts, then seldom.
const RETRY_FIRST: Duration = Duration::from_millis(250);
const RETRY_LAST: Duration = Duration::from_secs(5);

/// A get is answered within a second or not at all.
const GET_DEADLINE: Duration = Duration::from_secs(5);

/// Agent tokens are below 100 bytes; what is larger is something else.
const TOKEN_BYTES_MAX: usize = 4096;

/// What every watch is told besides its kind.
struct Around {
    plural: &'static str,
    namespace: String,
    wake: Arc<Notify>,
    clock: Clock,
}

/// Follows one kind in one namespace for ever.
async fn follow<K, T>(api: Api<K>, cell: Cell<T>, around: Around, convert: fn(K) -> T)
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let Around { plural, namespace, wake, clock } = around;
    let mut events = pin!(watcher::watcher(api, watcher::Config::default().timeout(WATCH_SECONDS)));
    let mut delay = RETRY_FIRST;
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                delay = RETRY_FIRST;
                match event {
                    Event::Init => cell.begin(),
                    Event::InitApply(object) => cell.collect(name_of(&object), convert(strip(object))),
                    Event::InitDone => cell.complete(),
                    Event::Apply(object) => cell.put(name_of(&object), convert(strip(object))),
                    Event::Delete(object) => cell.remove(&name_of(&object)),
                }
                wake.notify_one();
            }
            // The version we followed from is too old: the watcher lists again by itself.
            Err(watcher::Error::WatchError(status)) if status.code == 410 => {}
            Err(error) => {
                if cell.fail(clock.now(), sentence(plural, &namespace, &error)) {
                    tracing::warn!(resource = plural, namespace, error = chain(&error), "watch failed; trying again");
                    wake.notify_one();
                }
                tokio::time::sleep(delay).await;
                delay = (delay * 2).min(RETRY_LAST);
            }
        }
    }
}

/// What a person should read of a failed watch.
fn sentence(plural: &str, namespace: &str, error: &watcher::Error) -> String {
    let (status, text) = if let watcher::Error::InitialListFailed(kube::Error::Api(status))
    | watcher::Error::WatchStartFailed(kube::Error::Api(status))
    | watcher::Error::WatchError(status) = error
    {
        (Some(status.code), status.message.clone())
    } else {
        (None, chain(error))
    };
    match status {
        Some(404) => format!(
            "{plural} do not exist on this cluster: install the CustomResourceDefinitions (`kitepool crd | kubectl apply \
             --server-side -f -`, or the chart)"
        ),
        Some(403) => format!(
            "{plural} in namespace {namespace} cannot be read: {text}. Grant list and watch in the Role of the chart"
        ),
        Some(401) => {
            format!("{plural} in namespace {namespace} cannot be read: our credentials are not accepted ({text})")
        }
        _ => format!("{plural} in namespace {namespace} cannot be read: {text}"),
    }
}

/// Why a Secret gives no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretProblem {
    /// No such Secret.
    #[error("there is no Secret {name} in namespace {namespace}; create it with the agent token under the key `{key}`")]
    Missing {
        /// Where.
        namespace: String,
        /// Which.
        name: String,
        /// The wanted key.
        key: String,
    },
    /// The Secret has no such key.
    #[error("Secret {name} in namespace {namespace} has no key `{key}`{}; put the agent token there, or name the right key in spec.token.secretRef.key", listed(.keys))]
    NoKey {
        /// Where.
        namespace: String,
        /// Which.
        name: String,
        /// The wanted key.
        key: String,
        /// Those it has.
        keys: Vec<String>,
    },
    /// The key holds no token.
    #[error("key `{key}` of Secret {name} in namespace {namespace} is {what}; it must hold the agent token alone")]
    Unusable {
        /// Where.
        namespace: String,
        /// Which.
        name: String,
        /// The wanted key.
        key: String,
        /// Empty, too long, not text.
        what: &'static str,
    },
    /// It could not be read.
    #[error("Secret {name} in namespace {namespace} cannot be read: {why}")]
    Unreadable {
        /// Where.
        namespace: String,
        /// Which.
        name: String,
        /// The API server's words.
        why: String,
        /// Whether the last good value should be kept: the API server is away, the Secret may be as it was.
        is_transient: bool,
    },
}

fn listed(keys: &[String]) -> String {
    if keys.is_empty() { String::new() } else { format!(" (it has {})", keys.join(", ")) }
}

/// Single reads. Clones share their connections.
#[derive(Clone)]
pub struct Reader(Client);

impl Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reader")
    }
}

impl Reader {
    /// Reads through this client.
    pub const fn new(client: Client) -> Self {
        Self(client)
    }

    /// A Deployment as it stands now; `None` when there is none.
    pub async fn deployment(&self, namespace: &str, name: &str) -> Result<Option<DeploymentView>, Error> {
        let api: Api<Deployment> = Api::namespaced(self.0.clone(), namespace);
        match tokio::time::timeout(GET_DEADLINE, api.get_opt(name)).await {
            Ok(answer) => Ok(answer?.map(DeploymentView::from)),
            Err(_elapsed) => Err(Error::Deadline { seconds: GET_DEADLINE.as_secs() }),
        }
    }

    /// The token under a key of a Secret, without white space around it.
    pub async fn secret_token(&self, namespace: &str, name: &str, key: &str) -> Result<SecretString, SecretProblem> {
        let api: Api<Secret> = Api::namespaced(self.0.clone(), namespace);
        let unreadable = |why: String, is_transient| SecretProblem::Unreadable {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            why,
            is_transient,
        };
        let secret = match tokio::time::timeout(GET_DEADLINE, api.get(name)).await {
            Err(_elapsed) => return Err(unreadable("no answer in time".to_owned(), true)),
            Ok(Ok(secret)) => secret,
            Ok(Err(error)) => {
                let error = Error::from(error);
                if matches!(error, Error::NotFound) {
                    return Err(SecretProblem::Missing {
                        namespace: namespace.to_owned(),
                        name: name.to_owned(),
                        key: key.to_owned(),
                    });
                }
                return Err(unreadable(chain(&error), !matches!(error, Error::Forbidden { .. })));
            }
        };
        let data = secret.data.unwrap_or_default();
        let Some(value) = data.get(key) else {
            return Err(SecretProblem::NoKey {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
                key: key.to_owned(),
                keys: data.into_keys().collect(),
            });
        };
        let unusable = |what| SecretProblem::Unusable {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            key: key.to_owned(),
            what,
        };
        let text = std::str::from_utf8(&value.0).map_err(|_| unusable("not text"))?.trim();
        if text.is_empty() {
            Err(unusable("empty"))
        } else if text.len() > TOKEN_BYTES_MAX {
            Err(unusable("too long for a token"))
        } else if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            Err(unusable("more than one word"))
        } else {
            Ok(SecretString::from(text.to_owned()))
        }
    }
}

/// Follows the five kinds of a namespace, each in a task of its own.
pub fn follow_all(
    client: &Client,
    namespace: &str,
    cells: &NamespaceCells,
    wake: &Arc<Notify>,
    clock: &Clock,
    tasks: &mut JoinSet<()>,
) {
    let around =
        |plural| Around { plural, namespace: namespace.to_owned(), wake: Arc::clone(wake), clock: clock.clone() };
    let dynamic = |resource: &ApiResource| Api::<DynamicObject>::namespaced_with(client.clone(), namespace, resource);
    let pools = dynamic(&ApiResource::erase::<AgentPool>(&()));
    let hints = dynamic(&ApiResource::erase::<JobHint>(&()));
    let templates = dynamic(&ApiResource::erase::<PodTemplate>(&()));
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    tasks.spawn(follow(pools, cells.pools.clone(), around("agentpools"), PoolView::from));
    tasks.spawn(follow(hints, cells.hints.clone(), around("jobhints"), HintView::from));
    tasks.spawn(follow(templates, cells.templates.clone(), around("podtemplates"), PodTemplateView::from));
    tasks.spawn(follow(deployments, cells.deployments.clone(), around("deployments"), DeploymentView::from));
    tasks.spawn(follow(pods, cells.pods.clone(), around("pods"), PodView::from));
}
