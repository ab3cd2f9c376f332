//! Nothing that is logged at any level, by us or by the HTTP stack below us, shows a token; nor does any `Debug`.
//!
//! A test binary of its own, since the subscriber is the whole process's.

#![allow(clippy::unwrap_used, reason = "a test ends at the line that is wrong")]

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Read as _, Write as _},
    num::NonZeroU32,
    sync::{Arc, Mutex},
    time::Duration,
};

use kitepool::{
    buildkite::{Client, Error},
    clock::Clock,
    sense::poll::{PollSet, TokenKey},
};
use kitepool_world::{Queue, Token, World, serve};
use secrecy::SecretString;
use tokio::sync::Notify;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Unlike anything else that is written, in either half.
const TOKEN: &str = "bkct_sEcReTsEcReT0123456789";
const DEADLINE: Duration = Duration::from_millis(300);

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl io::Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Answers each connection with these bytes and closes it; with none it waits until the client has gone.
fn raw(bytes: &'static str) -> std::net::SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let mut connection = connection;
            let mut request = [0; 4096];
            let _ = connection.read(&mut request);
            if bytes.is_empty() {
                let _ = connection.read(&mut request);
            }
            let _ = connection.write_all(bytes.as_bytes());
        }
    });
    address
}

#[tokio::test]
async fn no_log_line_and_no_debug_shows_the_token() {
    let captured = Captured::default();
    let writer = captured.clone();
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish()
        .init();
    let _ = rustls::crypto::ring::default_provider().install_default();

    let world = World::default();
    world.set_token(TOKEN, Some(Token::new("acme", Some("uuid-1"))));
    world.set_queue("uuid-1", "q", Queue { scheduled: 3, ..Queue::default() });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let good = listener.local_addr().unwrap();
    tokio::spawn(serve(listener, world));

    let mut shown = Vec::new();
    let token = SecretString::from(TOKEN.to_owned());
    for (endpoint, outcome) in [
        (format!("http://{good}/v3"), "ok"),
        (format!("http://{good}/elsewhere"), "not_found"),
        (format!("https://{good}/v3"), "unreachable"),
        ("http://127.0.0.1:1/v3".to_owned(), "unreachable"),
        ("http://no-such-host.invalid/v3".to_owned(), "unreachable"),
        (format!("http://{}/v3", raw("SSH-2.0-x\r\n")), "unreachable"),
        (format!("http://{}/v3", raw("")), "deadline"),
        (format!("http://{}/v3", raw("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{")), "cut_off"),
        (format!("http://{}/v3", raw("HTTP/1.1 302 Found\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n")), "redirect"),
        (format!("http://{}/v3", raw("HTTP/1.1 401 No\r\ncontent-length: 0\r\n\r\n")), "refused"),
    ] {
        let client = Client::over_the_network(&endpoint, DEADLINE, Clock::machine()).unwrap();
        let (metrics, whose) = (client.metrics(&token).await, client.token(&token).await);
        shown.push(format!("{client:?} {metrics:?} {whose:?} {token:?}"));
        // A name that does not resolve may take a resolver longer than the deadline.
        let said = metrics.result.as_ref().map_or_else(Error::category, |_| "ok");
        assert!(said == outcome || (endpoint.contains("invalid") && said == "deadline"), "{endpoint}: {said}");
        shown.extend([metrics.result.err(), whose.err()].iter().flatten().map(ToString::to_string));
    }

    // As the controller uses it: from a Secret and from a file, to a Buildkite that answers and to one that does not.
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token").to_str().unwrap().to_owned();
    std::fs::write(&file, TOKEN).unwrap();
    let secret = TokenKey::Secret { namespace: "ci".into(), name: "token".into(), key: "token".into() };
    for endpoint in [format!("http://{good}/v3"), "http://127.0.0.1:1/v3".to_owned()] {
        let budget = NonZeroU32::new(1000).unwrap();
        let client = Client::over_the_network(&endpoint, DEADLINE, Clock::machine()).unwrap();
        let observe = Arc::new(|_: &'static str, _: Duration| {});
        let mut set =
            PollSet::new(client, Duration::from_millis(50), budget, Clock::machine(), Arc::new(Notify::new()), observe);
        set.set(BTreeMap::from([(secret.clone(), token.clone())]), BTreeSet::from([file.clone()]));
        tokio::time::sleep(DEADLINE).await;
        for key in [&secret, &TokenKey::File(file.clone())] {
            shown.push(format!("{set:?} {key} {:?}", set.look(key, "q", None)));
        }
    }

    let logged = String::from_utf8_lossy(&captured.0.lock().unwrap()).into_owned();
    println!("{} bytes of log in {} lines searched", logged.len(), logged.lines().count());
    assert!(logged.contains("hyper"), "the HTTP stack's own lines are among those searched");
    for (what, text) in [("the log", logged), ("Display or Debug", shown.join("\n"))] {
        let leak = text.lines().find(|line| line.contains("sEcReT"));
        assert_eq!(leak, None, "{what} shows the token");
    }
}
