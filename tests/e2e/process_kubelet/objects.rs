//! Secrets, config maps and tokens of the pods' namespaces, asked for when a pod needs them.

use std::collections::BTreeMap;

use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::{ConfigMap, Secret, ServiceAccount},
};
use kube::{Api, Client, api::PostParams};

/// The objects of one namespace.
#[derive(Clone)]
pub(crate) struct Objects {
    client: Client,
    namespace: String,
}

impl Objects {
    pub(crate) fn new(client: Client, namespace: String) -> Self {
        Self { client, namespace }
    }

    /// The entries of a Secret; none where it is optional and not there.
    pub(crate) async fn secret(&self, name: &str, is_optional: bool) -> Result<BTreeMap<String, Vec<u8>>, String> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let secret = found(api.get_opt(name).await, "secret", name, is_optional)?.unwrap_or_default();
        Ok(secret.data.into_iter().flatten().map(|(key, value)| (key, value.0)).collect())
    }

    /// The entries of a config map; none where it is optional and not there.
    pub(crate) async fn config_map(&self, name: &str, is_optional: bool) -> Result<BTreeMap<String, Vec<u8>>, String> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace);
        let map = found(api.get_opt(name).await, "configmap", name, is_optional)?.unwrap_or_default();
        let texts = map.data.into_iter().flatten().map(|(key, value)| (key, value.into_bytes()));
        Ok(texts.chain(map.binary_data.into_iter().flatten().map(|(key, value)| (key, value.0))).collect())
    }

    /// A token of the pod's account.
    pub(crate) async fn token(
        &self,
        account: &str,
        audience: Option<String>,
        seconds: Option<i64>,
    ) -> Result<String, String> {
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &self.namespace);
        let spec = TokenRequestSpec {
            audiences: audience.into_iter().collect(),
            expiration_seconds: seconds,
            ..TokenRequestSpec::default()
        };
        let request = TokenRequest { spec, ..TokenRequest::default() };
        let answer = api.create_token_request(account, &PostParams::default(), &request).await;
        let status = answer.map_err(|error| error.to_string())?.status.ok_or("a token request without a token")?;
        Ok(status.token)
    }
}

fn found<K>(answer: kube::Result<Option<K>>, kind: &str, name: &str, is_optional: bool) -> Result<Option<K>, String> {
    match answer {
        Ok(None) if !is_optional => Err(format!("{kind} \"{name}\" not found")),
        Ok(object) => Ok(object),
        Err(error) => Err(format!("{kind} \"{name}\": {error}")),
    }
}
