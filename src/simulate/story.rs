//! What a simulation is told to let happen: a file in YAML, read whole and refused whole.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// How often the state of pools is told unless a story says otherwise.
pub const STATE_EVERY: Duration = Duration::from_secs(30);

/// The seed, the world, the pools, and what happens when.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Story {
    /// What it shows, in a sentence.
    pub about: String,
    /// Of all chance in it.
    #[serde(default = "one")]
    pub seed: u64,
    /// When it begins.
    #[serde(default = "monday_morning")]
    pub start: Timestamp,
    /// How long it goes on.
    #[serde(deserialize_with = "span")]
    pub lasts: Duration,
    /// How often the state of a pool is told, if it changed.
    #[serde(default = "state_every", deserialize_with = "span")]
    pub state_every: Duration,
    /// How often each token's metrics are asked for.
    #[serde(default = "ten_seconds", deserialize_with = "span")]
    pub poll_interval: Duration,
    /// How Buildkite is.
    #[serde(default)]
    pub buildkite: BuildkiteSide,
    /// How Kubernetes is.
    #[serde(default)]
    pub kubernetes: KubernetesSide,
    /// Tokens besides the one that is always there.
    #[serde(default)]
    pub tokens: Vec<TokenSide>,
    /// `AgentPool` manifests; what one leaves out of `spec` is taken from `defaults`.
    pub pools: Vec<Value>,
    /// A `spec` that pools begin with.
    #[serde(default)]
    pub defaults: Value,
    /// What happens.
    #[serde(default)]
    pub story: Vec<Step>,
    /// What must be so in the end, besides the invariants.
    #[serde(default)]
    pub expect: Expectation,
}

/// How Buildkite is.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct BuildkiteSide {
    /// How often agents ask for work; absent: they are told at once over a stream.
    #[serde(deserialize_with = "optional_span")]
    pub ping: Option<Duration>,
    /// How often its numbers are counted anew.
    #[serde(deserialize_with = "span")]
    pub refresh: Duration,
    /// How much later they are told.
    #[serde(deserialize_with = "span")]
    pub lag: Duration,
    /// The seconds in the header that asks for patience.
    pub poll_duration: Option<u64>,
    /// What becomes of its events.
    pub events: Events,
}

impl Default for BuildkiteSide {
    fn default() -> Self {
        Self {
            ping: Some(ten_seconds()),
            refresh: ten_seconds(),
            lag: Duration::ZERO,
            poll_duration: Some(10),
            events: Events::default(),
        }
    }
}

/// What becomes of events on their way.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Events {
    /// Of a thousand, so many are lost.
    pub lost_permille: u32,
    /// Of a thousand, so many come twice.
    pub doubled_permille: u32,
    /// The shortest way.
    #[serde(deserialize_with = "span")]
    pub least: Duration,
    /// What comes on top on average.
    #[serde(deserialize_with = "span")]
    pub mean: Duration,
    /// The longest way.
    #[serde(deserialize_with = "span")]
    pub most: Duration,
}

impl Default for Events {
    fn default() -> Self {
        let milliseconds = Duration::from_millis;
        let (least, mean, most) = (milliseconds(200), milliseconds(300), ten_seconds());
        Self { lost_permille: 0, doubled_permille: 0, least, mean, most }
    }
}

/// How Kubernetes is.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct KubernetesSide {
    /// The shortest start of a pod.
    #[serde(deserialize_with = "span")]
    pub start_least: Duration,
    /// The longest.
    #[serde(deserialize_with = "span")]
    pub start_most: Duration,
    /// The names of the nodes.
    pub nodes: Vec<String>,
    /// How many hints there may be.
    pub hint_quota: Option<u32>,
}

impl Default for KubernetesSide {
    fn default() -> Self {
        Self {
            start_least: Duration::from_secs(2),
            start_most: Duration::from_secs(8),
            nodes: ["node-1", "node-2", "node-3"].map(str::to_owned).into(),
            hint_quota: Some(200),
        }
    }
}

/// A token: where it lies, and whose it is.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct TokenSide {
    /// The name of the Secret; its key is `token`.
    pub secret: String,
    /// The token.
    pub token: String,
    /// The organization's slug.
    #[serde(default = "acme")]
    pub organization: String,
    /// The cluster's uuid.
    pub cluster: String,
}

/// What happens at an instant. Several things may happen in one.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Step {
    /// Since the beginning.
    #[serde(deserialize_with = "span")]
    pub at: Duration,
    /// Told to whoever watches.
    pub say: Option<String>,
    /// Jobs are submitted.
    pub jobs: Option<Jobs>,
    /// All jobs of a queue that have not ended are cancelled.
    pub cancel: Option<String>,
    /// Dispatch of a queue is paused, or goes on.
    pub queue: Option<QueueChange>,
    /// A route of Buildkite breaks, or is mended.
    pub buildkite: Option<RouteChange>,
    /// What becomes of events from now on.
    pub events: Option<Events>,
    /// A token is another's, or nobody's.
    pub token: Option<TokenChange>,
    /// A person writes another token into a Secret.
    pub secret: Option<SecretChange>,
    /// Somebody else scales the pool's Deployment.
    pub scale: Option<ForeignScale>,
    /// A person changes a pool by a merge patch, makes it or deletes it.
    pub pool: Option<PoolChange>,
    /// A person changes the image of the pod definition.
    pub image: Option<String>,
    /// Containers of an image fail, or work again.
    pub fault: Option<ImageFault>,
    /// Pods cannot be placed, or can again.
    pub unschedulable: Option<bool>,
    /// Nodes of a kind are gone, or there again.
    pub nodes: Option<NodesChange>,
    /// A node is gone.
    pub lose_node: Option<String>,
    /// A node is drained: no pod comes to it any more, and those that are not guarded are evicted, again and again.
    pub drain: Option<String>,
    /// Kubernetes takes the pods first that it should take last, or no longer.
    pub contrary: Option<bool>,
    /// Watches are cut.
    pub cut_watches: Option<bool>,
    /// The API server is late with writes, or keeps up again.
    pub writes: Option<WritesChange>,
    /// The controller is killed and, a little later, another one starts.
    pub restart: Option<bool>,
    /// What must be so now, by pool.
    pub expect: BTreeMap<String, PoolExpectation>,
}

/// What must be so of a pool at an instant.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct PoolExpectation {
    /// Replicas of all its Deployments together.
    pub replicas: Option<u32>,
    /// The reasons of conditions by their type.
    pub conditions: BTreeMap<String, String>,
}

/// Jobs.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Jobs {
    /// Their queue.
    pub queue: String,
    /// The cluster, if it is not the usual one.
    pub cluster: Option<String>,
    /// How many.
    #[serde(default = "one_u32")]
    pub count: u32,
    /// How long each runs.
    #[serde(deserialize_with = "span")]
    pub run: Duration,
    /// At the most, if that differs.
    #[serde(default, deserialize_with = "optional_span")]
    pub run_most: Option<Duration>,
    /// The time between two; none: all at once.
    #[serde(default, deserialize_with = "optional_span")]
    pub every: Option<Duration>,
    /// Whether `every` is a mean, as of jobs that know nothing of each other.
    #[serde(default)]
    pub by_chance: bool,
    /// What they ask for besides the queue.
    #[serde(default)]
    pub rules: Vec<String>,
    /// Which goes first.
    #[serde(default)]
    pub priority: i64,
    /// A concurrency group of one job at a time.
    pub group: Option<String>,
    /// Jobs that wait until one of these has passed, each running as long.
    #[serde(default)]
    pub followers: u32,
}

/// Dispatch of a queue.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct QueueChange {
    /// Its key.
    pub name: String,
    /// Whether nothing is dispatched.
    pub paused: bool,
}

/// A route of Buildkite.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct RouteChange {
    /// The status that it answers with.
    pub status: Option<u16>,
    /// Whether it never answers.
    #[serde(default)]
    pub hangs: bool,
    /// How long it takes.
    #[serde(default, deserialize_with = "optional_span")]
    pub delay: Option<Duration>,
}

/// A token.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct TokenChange {
    /// Which; absent: the usual one.
    pub token: Option<String>,
    /// Whose it is from now on: the cluster's uuid. Absent: nobody's, it is refused.
    pub cluster: Option<String>,
    /// The organization's slug.
    #[serde(default = "acme")]
    pub organization: String,
}

/// A token in a Secret.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct SecretChange {
    /// The Secret; absent: the usual one.
    pub name: Option<String>,
    /// The token; absent: the usual one.
    pub token: Option<String>,
}

/// Somebody else's scaling.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ForeignScale {
    /// Whose newest Deployment.
    pub pool: String,
    /// To how many.
    pub replicas: u32,
    /// By whom.
    #[serde(default = "kubectl")]
    pub by: String,
}

/// A person's change of a pool.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct PoolChange {
    /// Which.
    pub name: String,
    /// A merge patch; a pool that is not there is made of it.
    pub patch: Option<Value>,
    /// Whether it is deleted.
    #[serde(default)]
    pub delete: bool,
}

/// Nodes of a kind.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct NodesChange {
    /// The label that pods select them by.
    pub label: String,
    /// Its value.
    pub value: String,
    /// Whether there are any.
    pub are_there: bool,
}

/// How late writes on pods, scales and statuses of pools are done. A caller that gave up does not stop one.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct WritesChange {
    /// Absent: not at all.
    #[serde(default, deserialize_with = "optional_span")]
    pub late: Option<Duration>,
    /// So many of a thousand.
    #[serde(default)]
    pub permille: u32,
}

/// What is wrong with an image.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ImageFault {
    /// Its name.
    pub image: String,
    /// What; absent: nothing any more.
    pub is: Option<ImageProblem>,
}

/// What can be wrong with an image.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ImageProblem {
    /// It cannot be pulled.
    Pull,
    /// It ends as soon as it runs.
    Crash,
    /// It never is ready.
    Unready,
}

/// What must be so in the end.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Expectation {
    /// How many jobs passed.
    pub passed: Option<usize>,
    /// How many were killed or lost; none unless said.
    pub killed: usize,
    /// Replicas of each pool.
    pub replicas: BTreeMap<String, u32>,
}

/// Why a story cannot be told.
#[derive(Debug, thiserror::Error)]
#[error("the story cannot be read: {0}")]
pub struct StoryError(String);

impl StoryError {
    /// A bounded word for labels.
    pub const fn category(&self) -> &'static str {
        "story"
    }
}

impl Story {
    /// Reads one.
    pub fn parse(yaml: &str) -> Result<Self, StoryError> {
        let mut story: Self = serde_saphyr::from_str(yaml).map_err(|error| StoryError(error.to_string()))?;
        if let Some(late) = story.story.iter().find(|step| step.at > story.lasts) {
            let (at, lasts) = (humantime::format_duration(late.at), humantime::format_duration(story.lasts));
            return Err(StoryError(format!("a step at {at} comes after the end at {lasts}; let it last longer")));
        }
        story.story.sort_by_key(|step| step.at);
        Ok(story)
    }
}

fn span<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(from)?;
    humantime::parse_duration(&text).map_err(serde::de::Error::custom)
}

fn optional_span<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    let text = Option::<String>::deserialize(from)?;
    text.map(|text| humantime::parse_duration(&text).map_err(serde::de::Error::custom)).transpose()
}

const fn one() -> u64 {
    1
}

const fn one_u32() -> u32 {
    1
}

const fn state_every() -> Duration {
    STATE_EVERY
}

const fn ten_seconds() -> Duration {
    Duration::from_secs(10)
}

/// 2026-03-02, 08:00 UTC.
fn monday_morning() -> Timestamp {
    Timestamp::from_second(1_772_438_400).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn acme() -> String {
    "acme".to_owned()
}

fn kubectl() -> String {
    "kubectl".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: &str = "{ about: x, lasts: 1m, pools: [], story: [{ at: 30s, say: b }, { at: 10s, say: a }] }";

    #[test]
    fn steps_come_in_the_order_of_time_and_none_after_the_end() {
        let story = Story::parse(SHORT).unwrap();
        assert_eq!(story.story.iter().filter_map(|step| step.say.as_deref()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(story.start.to_string(), "2026-03-02T08:00:00Z");
        let error = Story::parse(&SHORT.replace("lasts: 1m", "lasts: 20s")).unwrap_err();
        assert!(error.to_string().contains("a step at 30s comes after the end at 20s"), "{error}");
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for (word, wrong) in [("say: a", "sai: a"), ("lasts: 1m", "lasts: soon")] {
            assert!(Story::parse(&SHORT.replace(word, wrong)).is_err(), "{wrong}");
        }
    }
}
