//! Single reads for people at a command line: a pool with what it refers to, as the controller's watches have them.

use std::collections::BTreeMap;

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{PodTemplate, Secret, ServiceAccount},
};
use kitepool_api::{AgentPool, POOL_LABEL};
use kube::{
    Api, Client, Config,
    api::ListParams,
    core::{ApiResource, DynamicObject},
};

use super::{
    error::Error,
    view::{DeploymentView, PodTemplateView, PoolView},
};

/// A pool has two generations, and more only while several changes roll.
const GENERATIONS_MAX: u32 = 100;

/// What the command line reads.
#[derive(Clone)]
pub struct Library {
    client: Client,
    namespace: String,
}

impl std::fmt::Debug for Library {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Library").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

impl Library {
    /// Of a namespace; of the one that the configuration names, where none is given.
    pub fn new(config: Config, namespace: Option<String>) -> Result<Self, Error> {
        let namespace = namespace.unwrap_or_else(|| config.default_namespace.clone());
        Ok(Self { client: Client::try_from(config)?, namespace })
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    fn dynamic(&self, resource: &ApiResource) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.namespace, resource)
    }

    /// A pool.
    pub async fn pool(&self, name: &str) -> Result<Option<PoolView>, Error> {
        let found = self.dynamic(&ApiResource::erase::<AgentPool>(&())).get_opt(name).await?;
        Ok(found.map(PoolView::from))
    }

    /// A pod definition.
    pub async fn definition(&self, name: &str) -> Result<Option<PodTemplateView>, Error> {
        let found = self.dynamic(&ApiResource::erase::<PodTemplate>(&())).get_opt(name).await?;
        Ok(found.map(PodTemplateView::from))
    }

    /// The generations of a pool, by name.
    pub async fn generations(&self, pool: &PoolView) -> Result<BTreeMap<String, DeploymentView>, Error> {
        let api: Api<Deployment> = Api::namespaced(self.client.clone(), &self.namespace);
        let its_own = ListParams::default().labels(&format!("{POOL_LABEL}={}", pool.name.name)).limit(GENERATIONS_MAX);
        let found = api.list(&its_own).await?.items.into_iter().map(DeploymentView::from);
        let owned = found.filter(|deployment| deployment.owner_uid.as_deref() == Some(pool.uid.as_str()));
        Ok(owned.map(|deployment| (deployment.name.clone(), deployment)).collect())
    }

    /// Whether there is such a Secret. Nothing of what it holds is asked for.
    pub async fn has_secret(&self, name: &str) -> Result<bool, Error> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        Ok(api.get_metadata_opt(name).await?.is_some())
    }

    /// Whether there is such a service account.
    pub async fn has_account(&self, name: &str) -> Result<bool, Error> {
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &self.namespace);
        Ok(api.get_metadata_opt(name).await?.is_some())
    }
}
