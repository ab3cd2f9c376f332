//! The contract between a pod definition and the controller: names that both sides rely on.
//!
//! | the controller adds, where the definition is silent | |
//! |---|---|
//! | `BUILDKITE_AGENT_TOKEN` | `file://` of the token: the Secret mounted, or the file that the pool names |
//! | `BUILDKITE_AGENT_TAGS` | `queue=` and the pool's tags |
//! | `BUILDKITE_AGENT_NAME` | `%hostname-%spawn`: unique, since equal names share a checkout on a shared volume |
//! | `BUILDKITE_AGENT_SPAWN` | `agentsPerPod` |
//! | `BUILDKITE_AGENT_HEALTH_CHECK_ADDR` | `$(POD_IP):3901` |
//! | `BUILDKITE_AGENT_ENDPOINT` | only when the controller was given one |
//! | readiness probe | `GET /` there: 200 from registration to the end, also while a job runs |
//! | `terminationGracePeriodSeconds` | `longestJob` |
//! | a first process before the container's command, and an init container that brings it | where the controller has an image for it: [`super::first`] |
//! | labels | pool, queue, generation, managed-by |
//!
//! v3 and v4 of the agent read all of it alike. Where the two differ (how long a cancelled job has before it is killed, how workers
//! get priorities) nothing is added, and what a definition sets is passed on as it stands. The tests run v3.137.2.

/// The container that runs `buildkite-agent`.
pub const AGENT_CONTAINER: &str = "agent";

/// Where the agent answers health checks. Above the ports that build services usually take, below the ephemeral ones.
pub const HEALTH_PORT: u16 = 3901;

/// The volume and folder of the mounted token.
pub const TOKEN_VOLUME: &str = "kitepool-token";
/// See [`TOKEN_VOLUME`].
pub const TOKEN_FOLDER: &str = "/var/run/kitepool/token";

/// What Kubernetes writes into a pod template that says nothing of a grace period; so this value counts as silence.
pub const DEFAULT_GRACE_SECONDS: i64 = 30;

/// The version of what is added. It is part of a generation's hash when the generation is created, and never compared after:
/// an upgrade of the controller touches no agent. Raise it with any change of [`super::render`].
pub const INJECTION_VERSION: u32 = 2;

/// The environment that the controller may set.
pub mod environment {
    /// The token, or `file://` and its path.
    pub const TOKEN: &str = "BUILDKITE_AGENT_TOKEN";
    /// `queue=…` and more, with commas.
    pub const TAGS: &str = "BUILDKITE_AGENT_TAGS";
    /// The older name of the same.
    pub const META_DATA: &str = "BUILDKITE_AGENT_META_DATA";
    /// The queue alone; beside a `queue=` in the tags the agent refuses to start.
    pub const QUEUE: &str = "BUILDKITE_AGENT_QUEUE";
    /// The name, with `%hostname` and `%spawn`.
    pub const NAME: &str = "BUILDKITE_AGENT_NAME";
    /// Workers in one process.
    pub const SPAWN: &str = "BUILDKITE_AGENT_SPAWN";
    /// Where it answers health checks.
    pub const HEALTH_ADDRESS: &str = "BUILDKITE_AGENT_HEALTH_CHECK_ADDR";
    /// Where Buildkite is.
    pub const ENDPOINT: &str = "BUILDKITE_AGENT_ENDPOINT";
    /// The pod's own address.
    pub const POD_IP: &str = "POD_IP";
}
