//! The way to agents by their pods' addresses: from inside the cluster.

use std::{error::Error as _, io, net::SocketAddr};

use reqwest::{Client, Response, StatusCode};

use super::{Address, Ask, Asking, BODY_MAX, STATUS_PATH, Silence};

/// Over the pods' network.
#[derive(Debug, Clone)]
pub struct Direct(Client);

impl Direct {
    /// Never through a proxy, since none knows the pods, and without connections that are kept: an address may belong to another
    /// pod a minute later.
    pub fn new() -> Result<Self, reqwest::Error> {
        let client = Client::builder()
            .user_agent(concat!("kitepool/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .pool_max_idle_per_host(0)
            .build()?;
        Ok(Self(client))
    }
}

impl Ask for Direct {
    fn ask<'a>(&'a self, address: &'a Address) -> Asking<'a> {
        Box::pin(async move {
            let answer = self.0.get(url(address)).send().await.map_err(|error| silence(&error))?;
            match answer.status() {
                StatusCode::OK => body(answer).await,
                StatusCode::NOT_FOUND => Err(Silence::NoSuchPage),
                other => Err(Silence::Status(other.as_u16())),
            }
        })
    }
}

/// An address of six groups needs its brackets, which is the socket address's own business.
fn url(address: &Address) -> String {
    format!("http://{}{STATUS_PATH}", SocketAddr::new(address.ip, address.port))
}

async fn body(mut answer: Response) -> Result<Vec<u8>, Silence> {
    let mut body = Vec::new();
    while let Some(piece) = answer.chunk().await.map_err(|error| silence(&error))? {
        if body.len() + piece.len() > BODY_MAX {
            return Err(Silence::NotUnderstood);
        }
        body.extend_from_slice(&piece);
    }
    Ok(body)
}

fn silence(error: &reqwest::Error) -> Silence {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            let kind = error.kind();
            return if kind == io::ErrorKind::ConnectionRefused {
                Silence::Refused
            } else if kind == io::ErrorKind::TimedOut {
                Silence::TimedOut
            } else {
                Silence::Unreachable
            };
        }
        cause = error.source();
    }
    if error.is_connect() { Silence::Unreachable } else { Silence::NotUnderstood }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;
    use wiremock::{Mock, MockServer, ResponseTemplate, matchers::path};

    use super::*;
    use crate::agents::status;

    fn at(address: SocketAddr) -> Address {
        let (namespace, pod, uid) = ("ci".to_owned(), "a".to_owned(), "u".to_owned());
        Address { namespace, pod, uid, ip: address.ip(), port: address.port() }
    }

    fn direct() -> Direct {
        drop(rustls::crypto::ring::default_provider().install_default());
        Direct::new().unwrap()
    }

    #[tokio::test]
    async fn an_agent_answers_by_its_address() {
        let server = MockServer::start().await;
        let idle = r#"{"workers":[{"status":"idle"}]}"#;
        Mock::given(path("/status.json"))
            .respond_with(ResponseTemplate::new(200).set_body_string(idle))
            .mount(&server)
            .await;
        assert_eq!(status(&direct(), &at(*server.address())).await.map(|said| said.busy.0), Ok(0));
    }

    #[tokio::test]
    async fn each_silence_has_its_reason() {
        let answers = [
            (ResponseTemplate::new(404), Silence::NoSuchPage),
            (ResponseTemplate::new(302).insert_header("location", "/elsewhere"), Silence::Status(302)),
            (ResponseTemplate::new(500), Silence::Status(500)),
            (ResponseTemplate::new(200).set_body_string("OK"), Silence::NotUnderstood),
            (ResponseTemplate::new(200).set_body_bytes(vec![b' '; BODY_MAX + 1]), Silence::NotUnderstood),
            (ResponseTemplate::new(200).set_delay(super::super::DEADLINE * 2), Silence::TimedOut),
        ];
        for (answer, expected) in answers {
            let server = MockServer::start().await;
            Mock::given(path("/status.json")).respond_with(answer).mount(&server).await;
            assert_eq!(status(&direct(), &at(*server.address())).await, Err(expected));
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let closed = listener.local_addr().unwrap();
        drop(listener);
        assert_eq!(status(&direct(), &at(closed)).await, Err(Silence::Refused));
    }

    #[test]
    fn an_address_of_six_groups_stands_in_brackets() {
        let address = at("[fd00::5]:3901".parse().unwrap());
        assert_eq!(url(&address), "http://[fd00::5]:3901/status.json");
    }
}
