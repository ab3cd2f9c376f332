//! The API server: where it is, who we are there, and the one request that we make of it.

use std::{path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, header};
use kitepool_api::JobHint;
use tokio::{sync::Mutex, time::timeout};

use crate::{
    aws::{describe::Describer, token::Tokens},
    clock::Clock,
    deliver::Hints,
    http_client::{Call, Client, Origin, Reply},
    tls::{self, Shown},
    trouble::Trouble,
    verdict::{self, Verdict},
};

/// Who we are to the API server.
#[derive(Debug)]
pub enum Identity {
    /// A role of AWS; its token is made here.
    Role(Tokens),
    /// A token that somebody gave out.
    Token(Secret),
    /// A file with a token, read for each call: whoever writes it renews it.
    TokenFile(PathBuf),
    /// Nobody, or whom the client certificate names.
    Certificate,
}

/// A text that no log may show.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Hides a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

/// Address and authority of an API server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// `https://…`
    pub address: String,
    /// PEM. `None`: the authorities of this system.
    pub authority: Option<Vec<u8>>,
}

impl Endpoint {
    /// A client of it.
    pub fn client(&self, shown: Option<&Shown>, clock: Clock) -> Result<Client, Trouble> {
        let origin = Origin::parse(&self.address)?;
        let tls = match &self.authority {
            _ if !origin.is_tls() => None,
            Some(pem) => Some(tls::with_authority(pem, shown)?),
            None => Some(tls::with_system_authorities(shown)?),
        };
        Ok(Client::new(origin, tls, clock))
    }
}

/// How the API server is found.
#[derive(Debug)]
pub enum Place {
    /// It is known.
    Known(Arc<Client>),
    /// EKS is asked, and asked again when nobody answers there any more: a cluster that was made anew has another
    /// address.
    Described {
        /// Who asks.
        describer: Box<Describer>,
        /// What was answered last.
        found: Mutex<Option<Arc<Client>>>,
    },
}

/// Hints of a namespace in a cluster.
#[derive(Debug)]
pub struct Cluster {
    place: Place,
    identity: Identity,
    path: String,
    clock: Clock,
}

impl Cluster {
    /// Of this namespace, whose name has been looked at.
    pub fn new(place: Place, identity: Identity, namespace: &str, clock: Clock) -> Self {
        let path = format!("/apis/kitepool.dev/v1alpha1/namespaces/{namespace}/jobhints?fieldManager=kitepool-lambda");
        Self { place, identity, path, clock }
    }

    async fn client(&self) -> Result<Arc<Client>, Trouble> {
        match &self.place {
            Place::Known(client) => Ok(Arc::clone(client)),
            Place::Described { describer, found } => {
                let mut found = found.lock().await;
                if let Some(client) = &*found {
                    return Ok(Arc::clone(client));
                }
                let client = Arc::new(describer.endpoint().await?.client(None, self.clock.clone())?);
                *found = Some(Arc::clone(&client));
                Ok(client)
            }
        }
    }

    async fn forget_place(&self) {
        if let Place::Described { found, .. } = &self.place {
            *found.lock().await = None;
        }
    }

    /// The header, made afresh if the last one was refused.
    async fn authorization(&self, afresh: bool) -> Result<Option<HeaderValue>, Trouble> {
        let token = match &self.identity {
            Identity::Role(tokens) => tokens.token(afresh).await?,
            Identity::Token(token) => token.clone(),
            Identity::TokenFile(path) => {
                let text = std::fs::read_to_string(path);
                let text =
                    text.map_err(|error| Trouble::Unusable(format!("the token file cannot be read: {error}")))?;
                Secret::new(text.trim())
            }
            Identity::Certificate => return Ok(None),
        };
        let mut value = HeaderValue::try_from(format!("Bearer {}", token.expose()))
            .map_err(|_| Trouble::Unusable("the token has characters that cannot be sent".to_owned()))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    async fn post(&self, client: &Client, body: &Bytes, afresh: bool) -> Result<Reply, Trouble> {
        let mut headers = vec![
            (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
            (header::ACCEPT, HeaderValue::from_static("application/json")),
        ];
        headers.extend(self.authorization(afresh).await?.map(|value| (header::AUTHORIZATION, value)));
        let call = Call { method: Method::POST, path: self.path.clone(), headers, body: body.clone() };
        // Bounded as a whole by the caller.
        client.call(&call, None).await
    }

    async fn try_create(&self, body: &Bytes) -> Result<Verdict, Trouble> {
        let client = self.client().await?;
        let mut reply = self.post(&client, body, false).await?;
        if reply.status == 401 {
            // A token that was good a moment ago may have outlived its credentials. One that is new and refused stays
            // so.
            reply = self.post(&client, body, true).await?;
        }
        Ok(verdict::read(&client.origin().to_string(), &reply))
    }
}

impl Hints for Cluster {
    async fn create(&self, hint: &JobHint, within: Duration) -> Verdict {
        let body = match serde_json::to_vec(hint) {
            Ok(body) => Bytes::from(body),
            Err(error) => return verdict::of_trouble(Trouble::Unusable(format!("a hint cannot be written: {error}"))),
        };
        let late = || Trouble::Deadline { origin: "the API server".to_owned(), within };
        match timeout(within, self.try_create(&body)).await.unwrap_or_else(|_| Err(late())) {
            Ok(verdict) => verdict,
            Err(trouble) => {
                if matches!(trouble, Trouble::Unreachable { .. } | Trouble::Deadline { .. }) {
                    self.forget_place().await;
                }
                verdict::of_trouble(trouble)
            }
        }
    }
}
