//! The kinds that the controller uses, and what the API server makes of each.

/// A kind of object; all of them are namespaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// `agentpools` of `kitepool.dev/v1alpha1`.
    AgentPool,
    /// `jobhints` of `kitepool.dev/v1alpha1`.
    JobHint,
    /// `deployments` of `apps/v1`.
    Deployment,
    /// `replicasets` of `apps/v1`.
    ReplicaSet,
    /// `pods` of `v1`.
    Pod,
    /// `secrets` of `v1`.
    Secret,
    /// `podtemplates` of `v1`.
    PodTemplate,
    /// `resourcequotas` of `v1`.
    ResourceQuota,
    /// `events` of `events.k8s.io/v1`.
    Event,
    /// `leases` of `coordination.k8s.io/v1`.
    Lease,
}

/// What the API server makes of a kind.
#[derive(Debug)]
pub(super) struct Traits {
    pub(super) group: &'static str,
    pub(super) version: &'static str,
    pub(super) plural: &'static str,
    pub(super) name: &'static str,
    /// Whether `metadata.generation` is kept.
    pub(super) has_generation: bool,
    /// Whether `status` is a subresource.
    pub(super) has_status: bool,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::AgentPool,
        Self::JobHint,
        Self::Deployment,
        Self::ReplicaSet,
        Self::Pod,
        Self::Secret,
        Self::PodTemplate,
        Self::ResourceQuota,
        Self::Event,
        Self::Lease,
    ];

    pub(super) const fn traits(self) -> &'static Traits {
        match self {
            Self::AgentPool => &AGENT_POOL,
            Self::JobHint => &JOB_HINT,
            Self::Deployment => &DEPLOYMENT,
            Self::ReplicaSet => &REPLICA_SET,
            Self::Pod => &POD,
            Self::Secret => &SECRET,
            Self::PodTemplate => &POD_TEMPLATE,
            Self::ResourceQuota => &RESOURCE_QUOTA,
            Self::Event => &EVENT,
            Self::Lease => &LEASE,
        }
    }

    /// `deployments`.
    pub const fn plural(self) -> &'static str {
        self.traits().plural
    }

    /// `Deployment`.
    pub(super) const fn name(self) -> &'static str {
        self.traits().name
    }

    /// `deployments.apps`, as refusals and quotas name it.
    pub(super) fn qualified(self) -> String {
        let Traits { group, plural, .. } = self.traits();
        if group.is_empty() { (*plural).to_owned() } else { format!("{plural}.{group}") }
    }

    /// `apps/v1`.
    pub(super) fn api_version(self) -> String {
        let Traits { group, version, .. } = self.traits();
        if group.is_empty() { (*version).to_owned() } else { format!("{group}/{version}") }
    }

    /// Whether a `CustomResourceDefinition` has to be installed first.
    pub(super) const fn is_custom(self) -> bool {
        matches!(self, Self::AgentPool | Self::JobHint)
    }

    /// Whether owners of fields are recorded. Left out where nobody looks and objects change often.
    pub(super) const fn has_managers(self) -> bool {
        !matches!(self, Self::ReplicaSet | Self::Pod | Self::ResourceQuota | Self::Event)
    }

    /// By the path of a request.
    pub(super) fn of_path(group: &str, version: &str, plural: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| {
            let traits = kind.traits();
            (traits.group, traits.version, traits.plural) == (group, version, plural)
        })
    }

    /// By the words of an owner reference.
    pub(super) fn of_words(api_version: &str, name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name && kind.api_version() == api_version)
    }
}

const CUSTOM: Traits = Traits {
    group: "kitepool.dev",
    version: "v1alpha1",
    plural: "",
    name: "",
    has_generation: true,
    has_status: false,
};
const APPS: Traits = Traits { group: "apps", version: "v1", has_status: true, ..CUSTOM };
const CORE: Traits = Traits { group: "", version: "v1", has_generation: false, ..CUSTOM };

static AGENT_POOL: Traits = Traits { plural: "agentpools", name: "AgentPool", has_status: true, ..CUSTOM };
static JOB_HINT: Traits = Traits { plural: "jobhints", name: "JobHint", ..CUSTOM };
static DEPLOYMENT: Traits = Traits { plural: "deployments", name: "Deployment", ..APPS };
static REPLICA_SET: Traits = Traits { plural: "replicasets", name: "ReplicaSet", ..APPS };
static POD: Traits = Traits { plural: "pods", name: "Pod", has_generation: true, has_status: true, ..CORE };
static SECRET: Traits = Traits { plural: "secrets", name: "Secret", ..CORE };
static POD_TEMPLATE: Traits = Traits { plural: "podtemplates", name: "PodTemplate", has_generation: true, ..CORE };
static RESOURCE_QUOTA: Traits = Traits { plural: "resourcequotas", name: "ResourceQuota", has_status: true, ..CORE };
static EVENT: Traits = Traits { group: "events.k8s.io", plural: "events", name: "Event", ..CORE };
static LEASE: Traits = Traits { group: "coordination.k8s.io", plural: "leases", name: "Lease", ..CORE };
