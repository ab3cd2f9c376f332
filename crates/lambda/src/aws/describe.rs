//! Asks EKS where a cluster is, for those who do not tell us.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::Method;
use serde::Deserialize;

use super::{
    credentials::Provider,
    region::Region,
    sign::{Signed, encoded},
};
use crate::{
    clock::Clock,
    cluster::Endpoint,
    http_client::{Call, Client, Reply},
    trouble::Trouble,
};

/// How long EKS may take.
const ANSWER_TIME: Duration = Duration::from_secs(3);

/// Asks for one cluster.
#[derive(Debug)]
pub struct Describer {
    provider: Arc<Provider>,
    cluster: String,
    region: Region,
    eks: Client,
    clock: Clock,
}

#[derive(Deserialize)]
struct Answer {
    cluster: Described,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Described {
    endpoint: String,
    certificate_authority: Authority,
}

#[derive(Deserialize)]
struct Authority {
    data: String,
}

impl Describer {
    /// Of the cluster of this name in this region.
    pub fn new(provider: Arc<Provider>, cluster: String, region: Region, eks: Client, clock: Clock) -> Self {
        Self { provider, cluster, region, eks, clock }
    }

    /// Where it is.
    pub async fn endpoint(&self) -> Result<Endpoint, Trouble> {
        let path = format!("/clusters/{}", encoded(&self.cluster));
        let mut call = Call { method: Method::GET, path, headers: Vec::new(), body: Bytes::new() };
        let (credentials, _) = self.provider.credentials(false).await?;
        let signed = Signed { credentials: &credentials, region: &self.region, service: "eks", now: self.clock.now() };
        signed.call(&mut call, &self.eks.origin().authority())?;
        read(&self.eks.origin().to_string(), &self.eks.call(&call, Some(ANSWER_TIME)).await?)
    }
}

fn read(origin: &str, reply: &Reply) -> Result<Endpoint, Trouble> {
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Refusal {
        message: String,
    }
    if reply.status != 200 {
        let refusal: Refusal = serde_json::from_slice(&reply.body).unwrap_or_default();
        return Err(Trouble::refused(origin, reply.status, &refusal.message));
    }
    let unreadable = |detail: String| Trouble::Unreadable { origin: origin.to_owned(), detail };
    let Answer { cluster } = serde_json::from_slice(&reply.body).map_err(|error| unreadable(error.to_string()))?;
    let authority = STANDARD.decode(cluster.certificate_authority.data.trim());
    let authority =
        authority.map_err(|error| unreadable(format!("the certificate authority is no base64: {error}")))?;
    Ok(Endpoint { address: cluster.endpoint, authority: Some(authority) })
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    #[test]
    fn a_described_cluster_is_an_endpoint_and_a_refusal_a_sentence() {
        let reply = |status: u16, body: &'static str| Reply {
            status,
            headers: HeaderMap::new(),
            body: Bytes::from_static(body.as_bytes()),
        };
        let good = r#"{"cluster":{"name":"ci","endpoint":"https://x.example","certificateAuthority":{"data":"cGVt"}}}"#;
        let expected = Endpoint { address: "https://x.example".to_owned(), authority: Some(b"pem".to_vec()) };
        assert_eq!(read("eks", &reply(200, good)), Ok(expected));
        // While it is being created, it has no address.
        assert_eq!(read("eks", &reply(200, r#"{"cluster":{"name":"ci"}}"#)).unwrap_err().category(), "unreadable");
        let refused = read("eks", &reply(404, r#"{"message":"No cluster found for name: ci."}"#)).unwrap_err();
        assert!(refused.to_string().contains("No cluster found"), "{refused}");
    }
}
