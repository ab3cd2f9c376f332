//! The contract between a pod definition and the controller: names that both sides rely on, what is added where the definition
//! is silent, and what is refused.
//!
//! `pod-library/README.md` lists both tables for people. v3 and v4 of the agent read all of it alike. Where the two differ (how
//! long a cancelled job has before it is killed, how workers get priorities) nothing is added, and what a definition sets is passed
//! on as it stands. The tests run v3.137.2.

use kitepool_api::{Rule, pod_fields::UNKNOWN_FIELD};

/// The container that runs `buildkite-agent`.
pub const AGENT_CONTAINER: &str = "agent";

/// Where the agent answers health checks. Above the ports that build services usually take, below the ephemeral ones.
pub const HEALTH_PORT: u16 = 3901;

/// The volume and folder of the mounted token.
pub const TOKEN_VOLUME: &str = "kitepool-token";
/// See [`TOKEN_VOLUME`].
pub const TOKEN_FOLDER: &str = "/var/run/kitepool/token";

/// The annotation of a pod template that names, with commas, the ordinary containers that may end together with the agent.
pub const SHARES_LIFE_ANNOTATION: &str = "kitepool.dev/shares-agents-life";

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
    /// Where checkouts are.
    pub const BUILD_PATH: &str = "BUILDKITE_BUILD_PATH";
    /// The pod's own address.
    pub const POD_IP: &str = "POD_IP";
}

/// Something that is added where the definition says nothing of it.
#[derive(Debug, Clone, Copy)]
pub struct Addition {
    /// Its name.
    pub name: &'static str,
    /// Where in the pod template; `agent` is that container.
    pub path: &'static str,
    /// What, for people.
    pub value: &'static str,
    /// Why.
    pub reason: &'static str,
}

/// All that is added.
pub const ADDITIONS: [Addition; 18] = [
    Addition {
        name: environment::TOKEN,
        path: "agent.env",
        value: "`file://` and the path of the token: the pool's Secret as it is mounted, or `token.file` of the pool",
        reason: "a token in the environment would be seen by every job; a file needs no Secret where a CSI driver mounts it",
    },
    Addition {
        name: environment::TAGS,
        path: "agent.env",
        value: "`queue=` and the pool's `tags`",
        reason: "which jobs it may take is the pool's matter",
    },
    Addition {
        name: environment::NAME,
        path: "agent.env",
        value: "the pool's `overrides.namePrefix`, and `%hostname-%spawn`",
        reason: "equal names would share a checkout on a shared volume",
    },
    Addition {
        name: environment::SPAWN,
        path: "agent.env",
        value: "the pool's `agentsPerPod`",
        reason: "the pool counts by it",
    },
    Addition {
        name: environment::POD_IP,
        path: "agent.env",
        value: "the pod's address, from its status",
        reason: "the next one is made of it",
    },
    Addition {
        name: environment::HEALTH_ADDRESS,
        path: "agent.env",
        value: "`[$(POD_IP)]:3901`",
        reason: "the controller and the kubelet ask there; on the pod's own address only, in brackets, which an IPv6 address needs \
                 and an IPv4 address may have",
    },
    Addition {
        name: environment::ENDPOINT,
        path: "agent.env",
        value: "`--buildkite-endpoint` of the controller, where it was given one",
        reason: "agents and controller speak to the same Buildkite",
    },
    Addition {
        name: "startupProbe",
        path: "agent",
        value: "`GET /` on the health port, every 2 s for up to 15 min; not where the definition names the health address itself",
        reason: "an agent tries for 5 min to register, and an entrypoint may come first; what hangs longer is started again",
    },
    Addition {
        name: "readinessProbe",
        path: "agent",
        value: "`GET /` on the health port, lost after 30 misses in a row (a minute); not where the definition names the health \
                address itself",
        reason: "true from registration to the end, also while a job runs and while Buildkite is away: a ReplicaSet takes pods that \
                 are not ready first",
    },
    Addition {
        name: "terminationGracePeriodSeconds",
        path: "spec",
        value: "the pool's `longestJob`; 30, which Kubernetes fills in, counts as silence",
        reason: "an agent that is asked to go finishes its job",
    },
    Addition {
        name: TOKEN_VOLUME,
        path: "spec.volumes",
        value: "the pool's Secret, its key as the file `token`; only with `token.secretRef`",
        reason: "the token as a file",
    },
    Addition {
        name: TOKEN_FOLDER,
        path: "agent.volumeMounts",
        value: "that volume, read-only",
        reason: "the token as a file",
    },
    Addition {
        name: "command",
        path: "agent",
        value: "the first process, before the definition's own command; where the controller was given `--first-image`, there is a \
                command, and the annotation `kitepool.dev/second-signal` is not `Forward`",
        reason: "it lets one SIGTERM through to the agent; a second one, as from a kubelet that starts anew, would cancel the job",
    },
    Addition {
        name: super::first::NAME,
        path: "spec.initContainers",
        value: "a container that copies the first process from Kitepool's image",
        reason: "it is in no image of an agent",
    },
    Addition {
        name: super::first::NAME,
        path: "spec.volumes",
        value: "an `emptyDir`",
        reason: "where it is copied to",
    },
    Addition {
        name: super::first::FOLDER,
        path: "agent.volumeMounts",
        value: "that volume, read-only",
        reason: "where it is started from",
    },
    Addition {
        name: "imagePullSecrets",
        path: "spec",
        value: "each `--first-pull-secret` of the controller",
        reason: "Kitepool's image may need one",
    },
    Addition {
        name: "labels",
        path: "metadata",
        value: "`kitepool.dev/pool`, `kitepool.dev/generation`, `kitepool.dev/queue`, `app.kubernetes.io/managed-by`; set in any \
                case",
        reason: "whose pods these are",
    },
];

macro_rules! rule {
    ($name:ident, $id:literal, $path:literal, $reason:literal, $remedy:literal $(,)?) => {
        #[doc = concat!("See [`REFUSALS`]: ", $id, ".")]
        pub const $name: Rule = Rule { id: $id, path: $path, reason: $reason, remedy: $remedy };
    };
}

rule!(
    POD_SPEC,
    "pod-spec",
    "spec",
    "a definition is a pod template",
    "write one with a container named `agent`; `kitepool pods show basic` prints one to start from",
);
rule!(
    AGENT_MISSING,
    "agent-missing",
    "spec.containers",
    "what runs buildkite-agent is found by its name",
    "name that container `agent`",
);
rule!(
    OTHER_QUEUE,
    "other-queue",
    "agent.env",
    "agents that serve another queue than their pool are counted where they do nothing",
    "leave queue and tags out of the definition; the pool brings them",
);
rule!(
    NAME_TAKEN,
    "name-taken",
    "spec",
    "the controller adds one of this name, for the agent token or for the first process",
    "rename it",
);
rule!(
    SECOND_SIGNAL,
    "second-signal",
    "metadata.annotations",
    "whether a second SIGTERM may cancel a job is said by one of two words",
    "write Withhold or Forward, or leave it out, which means Withhold",
);
rule!(
    GRACE_PERIOD,
    "grace-period",
    "spec.terminationGracePeriodSeconds",
    "a draining agent would be killed while its job runs",
    "leave it out, or make it at least as long, or lower spec.longestJob of the pool",
);
rule!(
    PRE_STOP_SIGNALS,
    "pre-stop-signals",
    "agent.lifecycle",
    "the kubelet's SIGTERM lets the running job finish, and a second signal cancels it",
    "take the hook out; an agent that gets SIGTERM needs no help to stop",
);
rule!(
    KUBERNETES_EXEC,
    "kubernetes-exec",
    "agent",
    "in this mode the agent waits for the containers of agent-stack-k8s and asks for no jobs",
    "take it out",
);
rule!(
    ACQUIRE_JOB,
    "acquire-job",
    "agent",
    "an agent that is made for one job asks for no others, and its container is started again for ever",
    "take it out; a pool's agents ask for jobs by themselves",
);
rule!(
    DISCONNECT_AFTER,
    "disconnect-after",
    "agent",
    "a container that exits is started again in the same pod, so the pool gets no smaller and its agents are away meanwhile",
    "take it out; the pool's `scaling` says how many agents there are",
);
rule!(
    HEALTH_FLAG,
    "health-flag",
    "agent",
    "the controller asks agents whether they are busy, and reads where from the environment alone",
    "leave it out, or set BUILDKITE_AGENT_HEALTH_CHECK_ADDR",
);
rule!(
    HEALTH_PORT_TAKEN,
    "health-port-taken",
    "spec.containers",
    "the second one to listen gets no port: an agent without it works on, and is never known to be busy or idle",
    "give the other one another port, or set BUILDKITE_AGENT_HEALTH_CHECK_ADDR of the agent to a free one",
);
rule!(
    HELPER_LIFE,
    "helper-life",
    "spec.containers",
    "it gets SIGTERM together with the agent, and is gone while the last job still needs it",
    "move it to initContainers with `restartPolicy: Always` (a native sidecar ends after the agent); or, if no job needs it, name it \
     in the annotation kitepool.dev/shares-agents-life of the template",
);
rule!(
    COMMAND_EXEC,
    "command-exec",
    "agent.command",
    "a shell that does not hand over to the agent keeps SIGTERM to itself, so jobs are killed when the grace period is over",
    "end the script with `exec`, as in `exec buildkite-agent start`",
);
rule!(
    SHARED_BUILDS,
    "shared-builds",
    "agent.volumeMounts",
    "all pods on a node, and every job that ever ran there, would share their checkouts",
    "take an emptyDir or a volume of the pod's own, or set `subPathExpr: $(POD_NAME)` on the mount",
);
rule!(
    FARGATE,
    "fargate",
    "spec",
    "Fargate refuses such pods, so they would wait for ever",
    "take it out (pod-library/fargate.yaml has none of it), or let the pods run on EC2 nodes",
);
rule!(
    PATCH,
    "pod-patch",
    "spec.overrides.podPatch of the pool",
    "a patch that cannot be merged would change something else than was meant",
    "write it as `kubectl patch --type=strategic` takes it, from the pod template's root",
);
rule!(
    MISSING_SECRET,
    "missing-secret",
    "spec",
    "no pod of it could start",
    "create it in the namespace of the pool, or mark the reference `optional: true`",
);
rule!(
    MISSING_SERVICE_ACCOUNT,
    "missing-service-account",
    "spec.serviceAccountName",
    "no pod of it could be made",
    "create it in the namespace of the pool, or name one that exists",
);

/// All that is refused, each with a fixture in `tests/pods/refused`.
pub const REFUSALS: [Rule; 20] = [
    POD_SPEC,
    AGENT_MISSING,
    OTHER_QUEUE,
    NAME_TAKEN,
    SECOND_SIGNAL,
    GRACE_PERIOD,
    PRE_STOP_SIGNALS,
    KUBERNETES_EXEC,
    ACQUIRE_JOB,
    DISCONNECT_AFTER,
    HEALTH_FLAG,
    HEALTH_PORT_TAKEN,
    HELPER_LIFE,
    COMMAND_EXEC,
    SHARED_BUILDS,
    FARGATE,
    UNKNOWN_FIELD,
    PATCH,
    MISSING_SECRET,
    MISSING_SERVICE_ACCOUNT,
];
