//! A private repository: by git's own server over HTTP for whoever knows its password, and by the distribution's sshd for whoever
//! has its key.

use std::{
    fmt::Write as _,
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, Method, StatusCode, Uri, header},
    response::{IntoResponse as _, Response},
};
use k8s_openapi::ByteString;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::eventually;
use crate::process_kubelet::machine::apart;

/// The one file of the repository.
pub(crate) const FILE: &str = "only-here";

const USER: &str = "reader";
const REALM: &str = "Basic realm=\"private\"";
const SSHD: &str = include_str!("sshd.sh");
/// sshd is there within tenths of a second.
const LISTENS: Duration = Duration::from_secs(10);

/// A bare repository with one commit.
pub(crate) struct PrivateRepository {
    folder: PathBuf,
    /// What stands in its file, and nowhere else.
    pub(crate) word: String,
}

impl PrivateRepository {
    /// Makes one below this folder.
    pub(crate) fn make(folder: &Path) -> Self {
        let folder = folder.join("private-repository");
        let worktree = folder.join("worktree");
        fs::create_dir_all(&worktree).expect("a folder of ours");
        let word = format!("only-here-{}", random());
        fs::write(worktree.join(FILE), &word).expect("a file of ours");
        let git = |arguments: &[&str]| {
            let mut git = Command::new("git");
            git.args(["-c", "user.name=e2e", "-c", "user.email=e2e@example.invalid"]).args(arguments);
            // Not as the person has it who runs the tests.
            git.envs([("GIT_CONFIG_GLOBAL", "/dev/null"), ("GIT_CONFIG_NOSYSTEM", "1")]);
            done(git.current_dir(&worktree));
        };
        git(&["init", "--quiet", "--initial-branch=main"]);
        git(&["add", FILE]);
        git(&["commit", "--quiet", "--message", "The only one"]);
        git(&["clone", "--quiet", "--bare", ".", "../private.git"]);
        Self { folder, word }
    }

    /// Serves it over HTTP, to be read.
    pub(crate) async fn over_http(&self) -> OverHttp {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a loopback port");
        let address = listener.local_addr().expect("an address");
        let password = format!("canary-{}", random());
        let site = Arc::new(Site {
            root: self.folder.clone(),
            expected: format!("Basic {}", base64(&format!("{USER}:{password}"))),
            refused: AtomicUsize::new(0),
        });
        let router = Router::new().fallback(answer).with_state(Arc::clone(&site));
        let end = CancellationToken::new();
        tokio::spawn(end.clone().run_until_cancelled_owned(async { axum::serve(listener, router).await }));
        OverHttp { address: address.to_string(), password, site, _ends: end.drop_guard() }
    }

    /// Serves it over SSH.
    pub(crate) async fn over_ssh(&self) -> OverSsh {
        let key = |name: &str| {
            let path = self.folder.join(name);
            done(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"]).arg(&path));
            let public = fs::read_to_string(path.with_extension("pub")).expect("a public key");
            (fs::read_to_string(path).expect("a private key"), public)
        };
        let (private_key, public_key) = key("reader_key");
        let (_, host_key) = key("host_key");
        let (_, other_key) = key("other_key");
        fs::write(self.folder.join("authorized_keys"), public_key).expect("a file of ours");
        let port = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
        let port = port.expect("a free port").port();
        let log = self.folder.join("sshd.log");
        let child = apart(SSHD, "sshd")
            .arg(&self.folder)
            .arg(port.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log).expect("a file of ours"))
            .spawn()
            .expect("unshare can be run");
        let known = |key: &str| {
            let words: Vec<&str> = key.split_whitespace().take(2).collect();
            format!("[{}]:{port} {}\n", Ipv4Addr::LOCALHOST, words.join(" "))
        };
        let served =
            OverSsh { child, port, private_key, known_hosts: known(&host_key), wrong_known_hosts: known(&other_key) };
        eventually("sshd listens", LISTENS, async || {
            let told = || fs::read_to_string(&log).unwrap_or_default();
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).map_err(|_| told())?;
            let mut greeting = [0; 4];
            stream.read_exact(&mut greeting).map_err(|_| told())?;
            if greeting == *b"SSH-" { Ok(()) } else { Err(format!("{greeting:?}")) }
        })
        .await;
        served
    }
}

/// It is served for as long as this is there.
pub(crate) struct OverHttp {
    address: String,
    /// Looked for in all output.
    pub(crate) password: String,
    site: Arc<Site>,
    _ends: DropGuard,
}

impl OverHttp {
    pub(crate) fn url(&self) -> String {
        format!("http://{}/private.git", self.address)
    }

    /// A line of a git-credentials file.
    pub(crate) fn credentials(&self, password: &str) -> String {
        format!("http://{USER}:{password}@{}\n", self.address)
    }

    /// How many requests came without the right password.
    pub(crate) fn refused(&self) -> usize {
        self.site.refused.load(Ordering::Relaxed)
    }

    /// What the password would look like in an output: in itself, and as a part of anything that is written in base64, where it
    /// looks otherwise at each of three offsets.
    pub(crate) fn traces(&self) -> Vec<String> {
        traces(&self.password)
    }
}

fn traces(secret: &str) -> Vec<String> {
    // The first and last letters depend on what stands beside it.
    let inner = |offset: &str| base64(&format!("{offset}{secret}")).chars().skip(4).take(24).collect();
    [secret.to_owned()].into_iter().chain(["", "x", "xx"].map(inner)).collect()
}

struct Site {
    root: PathBuf,
    expected: String,
    refused: AtomicUsize,
}

async fn answer(
    State(site): State<Arc<Site>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    if headers.get(header::AUTHORIZATION).is_none_or(|given| given.as_bytes() != site.expected.as_bytes()) {
        site.refused.fetch_add(1, Ordering::Relaxed);
        return (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, REALM)]).into_response();
    }
    let served = tokio::task::spawn_blocking(move || backend(&site.root, &method, &uri, &headers, &body)).await;
    served.expect("git's own server can be run")
}

/// Git's own server is a CGI program. Without `REMOTE_USER` it takes no pushes.
fn backend(root: &Path, method: &Method, uri: &Uri, headers: &HeaderMap, body: &[u8]) -> Response<Body> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let log = fs::File::options().create(true).append(true).open(root.join("http-backend.log"));
    let mut child = Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .envs([("GIT_HTTP_EXPORT_ALL", "1"), ("REQUEST_METHOD", method.as_str())])
        .envs([("PATH_INFO", uri.path()), ("QUERY_STRING", uri.query().unwrap_or_default())])
        .envs([("CONTENT_TYPE", header("content-type")), ("HTTP_CONTENT_ENCODING", header("content-encoding"))])
        .envs([("GIT_PROTOCOL", header("git-protocol")), ("CONTENT_LENGTH", &body.len().to_string())])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(log.expect("a file of ours"))
        .spawn()
        .expect("git is there");
    // What a client asks for fits into a pipe.
    child.stdin.take().expect("a pipe").write_all(body).expect("it reads");
    let told = child.wait_with_output().expect("it ends").stdout;
    let end = told.windows(4).position(|four| four == b"\r\n\r\n").expect("headers and an empty line");
    let mut response = Response::new(Body::from(told[end + 4..].to_vec()));
    for line in String::from_utf8_lossy(&told[..end]).lines() {
        let (name, value) = line.split_once(": ").expect("a header");
        if name == "Status" {
            let code = value.get(..3).and_then(|code| code.parse().ok()).expect("a status");
            *response.status_mut() = code;
        } else {
            let name = header::HeaderName::from_bytes(name.as_bytes()).expect("a name");
            response.headers_mut().insert(name, value.parse().expect("a value"));
        }
    }
    response
}

/// It is served for as long as this is there.
pub(crate) struct OverSsh {
    child: Child,
    port: u16,
    /// The key that is let in.
    pub(crate) private_key: String,
    pub(crate) known_hosts: String,
    /// With another host's key for this one.
    pub(crate) wrong_known_hosts: String,
}

impl OverSsh {
    pub(crate) fn url(&self) -> String {
        format!("ssh://git@{}:{}/~/private.git", Ipv4Addr::LOCALHOST, self.port)
    }
}

impl Drop for OverSsh {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn done(command: &mut Command) {
    let done = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
}

/// As Kubernetes writes bytes.
fn base64(text: &str) -> String {
    json!(ByteString(text.into())).as_str().expect("bytes are written as a text").to_owned()
}

/// Another one at each call.
fn random() -> String {
    let mut bytes = [0; 12];
    fs::File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut bytes)).expect("chance");
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a text takes it");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_leaves_a_trace_in_itself_and_in_base64_wherever_it_stands() {
        let password = format!("canary-{}", random());
        for user in ["reader", "reader1", "reader12"] {
            for output in [format!("http://{user}:{password}@host"), base64(&format!("{user}:{password}"))] {
                assert_eq!(traces(&password).iter().filter(|trace| output.contains(*trace)).count(), 1, "{output}");
            }
        }
        let other = base64(&format!("reader:canary-{}", random()));
        assert!(!traces(&password).iter().any(|trace| other.contains(trace)));
    }
}
