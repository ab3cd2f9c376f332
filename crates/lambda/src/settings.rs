//! The settings, from the environment as a map: what is missing or wrong is one sentence that names the variable.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use aws_credential_types::Credentials;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::SignedDuration;
use kitepool_api::{Span, events::Assumed};
use tokio::sync::Mutex;

use crate::{
    aws::{
        credentials::{AssumedRole, Provider},
        describe::Describer,
        region::Region,
        token::Tokens,
    },
    clock::Clock,
    cluster::{Cluster, Endpoint, Identity, Place},
    function::Function,
    http_client::Client,
    kubeconfig, tls,
    trouble::Trouble,
};

/// Older jobs the controller's readings know. As long as the template keeps a message.
const MAX_AGE: &str = "5m";

/// The longest name of a namespace.
const NAMESPACE_MAX: usize = 63;

/// The environment.
#[derive(Debug)]
pub struct Settings {
    variables: BTreeMap<String, String>,
    clock: Clock,
}

impl Settings {
    /// From the environment's variables.
    pub fn new(variables: BTreeMap<String, String>, clock: Clock) -> Self {
        Self { variables, clock }
    }

    /// Where Lambda's Runtime API is, if this is a Lambda.
    pub fn runtime_api(&self) -> Option<&str> {
        self.get("AWS_LAMBDA_RUNTIME_API")
    }

    /// The function that they ask for.
    pub fn function(&self) -> Result<Function<Cluster>, Trouble> {
        let age = self.get("KITEPOOL_MAX_AGE").unwrap_or(MAX_AGE);
        let age = Span::new(age).get().map_err(|why| wrong("KITEPOOL_MAX_AGE", &why, "write it like 5m"))?;
        let age = SignedDuration::try_from(age).unwrap_or(SignedDuration::MAX);
        let mut assumed =
            Assumed { cluster: self.get("KITEPOOL_BUILDKITE_CLUSTER").map(str::to_owned), ..Assumed::default() };
        if let Some(queue) = self.get("KITEPOOL_DEFAULT_QUEUE") {
            queue.clone_into(&mut assumed.default_queue);
        }
        Ok(Function::new(self.cluster()?, assumed, age, self.clock.clone()))
    }

    fn cluster(&self) -> Result<Cluster, Trouble> {
        let namespace = self.needed("KITEPOOL_NAMESPACE", "the namespace of the pools")?;
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if namespace.len() > NAMESPACE_MAX || !namespace.chars().all(is_plain) {
            return Err(wrong("KITEPOOL_NAMESPACE", "it is no name of a namespace", "write it like buildkite"));
        }
        let (place, identity) = match (self.get("KITEPOOL_CLUSTER_NAME"), self.get("KUBECONFIG")) {
            (Some(_), Some(_)) => {
                return Err(wrong("KUBECONFIG", "KITEPOOL_CLUSTER_NAME is set as well", "set the one that you mean"));
            }
            (None, None) => {
                let sentence = "set KITEPOOL_CLUSTER_NAME to the name of an EKS cluster, or KUBECONFIG to a file";
                return Err(Trouble::Unusable(sentence.to_owned()));
            }
            (None, Some(path)) => {
                let (client, identity) = kubeconfig::load(&PathBuf::from(path), self.clock.clone())?;
                (Place::Known(Arc::new(client)), identity)
            }
            (Some(name), None) => self.eks(name)?,
        };
        Ok(Cluster::new(place, identity, namespace, self.clock.clone()))
    }

    fn eks(&self, name: &str) -> Result<(Place, Identity), Trouble> {
        let home = Region::parse(self.needed("AWS_REGION", "the region of this function")?)?;
        let region = self.get("KITEPOOL_CLUSTER_REGION").map_or_else(|| Ok(home.clone()), Region::parse)?;
        let provider = Arc::new(self.provider(home)?);
        let place = match (self.get("KITEPOOL_CLUSTER_ENDPOINT"), self.get("KITEPOOL_CLUSTER_CA")) {
            (Some(address), authority) => {
                let authority = authority.map(|data| STANDARD.decode(data)).transpose();
                let authority = authority.map_err(|_| {
                    wrong("KITEPOOL_CLUSTER_CA", "it is no base64", "set it to the cluster's certificateAuthority.data")
                })?;
                if address.starts_with("https:") && authority.is_none() {
                    return Err(wrong(
                        "KITEPOOL_CLUSTER_CA",
                        "it is not set",
                        "set it beside KITEPOOL_CLUSTER_ENDPOINT",
                    ));
                }
                let endpoint = Endpoint { address: address.to_owned(), authority };
                Place::Known(Arc::new(endpoint.client(None, self.clock.clone())?))
            }
            (None, Some(_)) => {
                let remedy = "set both, or neither to have EKS asked";
                return Err(wrong("KITEPOOL_CLUSTER_ENDPOINT", "it is not set, and KITEPOOL_CLUSTER_CA is", remedy));
            }
            (None, None) => {
                let eks = self.aws("eks", &region, "AWS_ENDPOINT_URL_EKS")?;
                let (provider, clock) = (Arc::clone(&provider), self.clock.clone());
                let describer = Describer::new(provider, name.to_owned(), region.clone(), eks, clock);
                Place::Described { describer: Box::new(describer), found: Mutex::new(None) }
            }
        };
        Ok((place, Identity::Role(Tokens::new(provider, name.to_owned(), region, self.clock.clone()))))
    }

    fn provider(&self, home: Region) -> Result<Provider, Trouble> {
        let id = self.needed("AWS_ACCESS_KEY_ID", "Lambda sets it")?;
        let key = self.needed("AWS_SECRET_ACCESS_KEY", "Lambda sets it")?;
        let token = self.get("AWS_SESSION_TOKEN").map(str::to_owned);
        let own = Credentials::new(id, key, token, None, "environment");
        let Some(arn) = self.get("KITEPOOL_ASSUME_ROLE_ARN") else { return Ok(Provider::Own(own)) };
        let sts = self.aws("sts", &home, "AWS_ENDPOINT_URL_STS")?;
        let role = AssumedRole::new(own, arn.to_owned(), home, sts, self.clock.clone());
        Ok(Provider::Assumed(Box::new(role)))
    }

    /// A client of an API of AWS. The variable is the one that all its SDKs know.
    fn aws(&self, service: &str, region: &Region, instead: &str) -> Result<Client, Trouble> {
        let origin = region.origin(service, self.get(instead))?;
        let tls = if origin.is_tls() { Some(tls::with_system_authorities(None)?) } else { None };
        Ok(Client::new(origin, tls, self.clock.clone()))
    }

    /// A variable that is set to something; templates set what they do not know to nothing.
    fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    fn needed(&self, name: &str, what: &str) -> Result<&str, Trouble> {
        self.get(name).ok_or_else(|| wrong(name, "it is not set", what))
    }
}

fn wrong(name: &str, what: &str, remedy: &str) -> Trouble {
    Trouble::Unusable(format!("{name}: {what}; {remedy}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAMBDA: &[(&str, &str)] = &[
        ("KITEPOOL_NAMESPACE", "buildkite"),
        ("KITEPOOL_CLUSTER_NAME", "ci"),
        ("KITEPOOL_CLUSTER_ENDPOINT", "http://127.0.0.1:8001"),
        ("AWS_REGION", "eu-west-1"),
        ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", "topsecret"),
        ("AWS_SESSION_TOKEN", "topsecrettoken"),
    ];

    fn with(changes: &[(&str, &str)]) -> Result<Function<Cluster>, Trouble> {
        let all = LAMBDA.iter().chain(changes).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Settings::new(all.collect(), Clock::machine()).function()
    }

    #[test]
    fn what_lambda_and_the_template_set_is_enough_and_is_not_shown() {
        let shown = format!("{:?}", with(&[]).unwrap());
        assert!(shown.contains("\"ci\"") && !shown.contains("topsecret"), "{shown}");
        assert!(
            with(&[("KITEPOOL_ASSUME_ROLE_ARN", ""), ("KITEPOOL_BUILDKITE_CLUSTER", "")]).is_ok(),
            "empty is not set"
        );
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        for (name, value) in [
            ("KITEPOOL_NAMESPACE", ""),
            ("KITEPOOL_NAMESPACE", "a/../b"),
            ("KITEPOOL_CLUSTER_NAME", ""),
            ("KITEPOOL_MAX_AGE", "soon"),
            ("KITEPOOL_CLUSTER_CA", "***"),
            ("AWS_REGION", ""),
            ("AWS_ACCESS_KEY_ID", ""),
            ("AWS_SECRET_ACCESS_KEY", ""),
            ("KUBECONFIG", "/some/file"),
        ] {
            let trouble = with(&[(name, value)]).unwrap_err().to_string();
            assert!(trouble.contains(name), "{name}={value}: {trouble}");
        }
        let no_authority = with(&[("KITEPOOL_CLUSTER_ENDPOINT", "https://x.example")]).unwrap_err().to_string();
        assert!(no_authority.contains("KITEPOOL_CLUSTER_CA"), "{no_authority}");
        let no_address = with(&[("KITEPOOL_CLUSTER_ENDPOINT", ""), ("KITEPOOL_CLUSTER_CA", "cGVt")]).unwrap_err();
        assert!(no_address.to_string().contains("KITEPOOL_CLUSTER_ENDPOINT"), "{no_address}");
        assert!(with(&[("KITEPOOL_CLUSTER_REGION", "eu west")]).unwrap_err().to_string().contains("region"));
    }
}
