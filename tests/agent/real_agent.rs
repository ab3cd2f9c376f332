//! The real buildkite-agent as a process of a test: built once, started, asked for its status, sent signals, its end noted.

use std::{
    ffi::OsString,
    fs::File,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use kitepool::clock::Clock;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::sync::watch;

/// The health server answers from memory.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);

/// One whose test was killed goes by itself after this; longer than any test lets one live.
const LEFT_BEHIND: Duration = Duration::from_hours(1);

/// The agent's binary. The first to ask waits for its build, which takes minutes where nothing is kept yet.
pub(crate) fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/agent/build");
        let built = Command::new(script).stderr(Stdio::inherit()).output().expect("tests/agent/build can be run");
        assert!(built.status.success(), "tests/agent/build: {}", built.status);
        PathBuf::from(String::from_utf8(built.stdout).expect("a path in UTF-8").trim())
    })
}

/// How an agent is started.
#[derive(Debug, Clone)]
pub(crate) struct Launch {
    /// Where it finds the agent API, `/v3` with it.
    pub(crate) endpoint: String,
    pub(crate) token: String,
    /// With commas between them, the queue with them.
    pub(crate) tags: String,
    pub(crate) name: String,
    /// Where its health server listens.
    pub(crate) health: SocketAddr,
    /// An empty folder of its own: what it writes, its log with it.
    pub(crate) folder: PathBuf,
    /// More of its environment, or something else instead of what stands here.
    pub(crate) more: Vec<(String, String)>,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exit {
    pub(crate) at: Timestamp,
    /// As a shell says it: 128 and the signal for one that a signal ended.
    pub(crate) code: i32,
}

/// A running agent; it is killed when it is dropped.
#[derive(Debug)]
pub(crate) struct RealAgent {
    pid: Pid,
    pub(crate) health: SocketAddr,
    log: PathBuf,
    exit: watch::Receiver<Option<Exit>>,
}

impl RealAgent {
    pub(crate) fn start(launch: &Launch, clock: &Clock) -> Self {
        let folder = &launch.folder;
        let log = folder.join("agent.log");
        let output = File::create(&log).expect("a log file");
        let inside = |name: &str| folder.join(name).into_os_string();
        let own: [(&str, OsString); 13] = [
            ("BUILDKITE_AGENT_ENDPOINT", launch.endpoint.clone().into()),
            ("BUILDKITE_AGENT_TOKEN", launch.token.clone().into()),
            ("BUILDKITE_AGENT_TAGS", launch.tags.clone().into()),
            ("BUILDKITE_AGENT_NAME", launch.name.clone().into()),
            ("BUILDKITE_AGENT_HEALTH_CHECK_ADDR", launch.health.to_string().into()),
            ("BUILDKITE_AGENT_NO_COLOR", "true".into()),
            ("BUILDKITE_AGENT_DISCONNECT_AFTER_UPTIME", LEFT_BEHIND.as_secs().to_string().into()),
            ("BUILDKITE_BUILD_PATH", inside("builds")),
            ("BUILDKITE_HOOKS_PATH", inside("hooks")),
            ("BUILDKITE_PLUGINS_PATH", inside("plugins")),
            ("BUILDKITE_SOCKETS_PATH", inside("sockets")),
            ("HOME", folder.into()),
            ("PATH", "/usr/local/bin:/usr/bin:/bin".into()),
        ];
        let mut child = Command::new(binary())
            .arg("start")
            .env_clear()
            .envs(own)
            .envs(launch.more.iter().map(|(name, value)| (name, value)))
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a second descriptor"))
            .stderr(output)
            .spawn()
            .expect("the agent can be run");
        let (pid, clock, (ended, exit)) = (Pid::from_child(&child), clock.clone(), watch::channel(None));
        // A thread of its own, so that the instant of the end is right whatever the test is doing.
        std::thread::spawn(move || {
            let status = child.wait().expect("a child of ours");
            let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(-1);
            ended.send_replace(Some(Exit { at: clock.now(), code }));
        });
        Self { pid, health: launch.health, log, exit }
    }

    /// Sends it a signal; nothing happens if it is gone.
    pub(crate) fn signal(&self, signal: Signal) {
        if self.exit().is_none() {
            kill_process(self.pid, signal).ok();
        }
    }

    /// How it ended, if it has.
    pub(crate) fn exit(&self) -> Option<Exit> {
        *self.exit.borrow()
    }

    /// Waits for its end.
    pub(crate) async fn ended(&self, within: Duration) -> Exit {
        let mut exit = self.exit.clone();
        let ended = tokio::time::timeout(within, exit.wait_for(Option::is_some)).await;
        let ended = ended.unwrap_or_else(|_| panic!("it is there after {within:?}; its log:\n{}", self.logged()));
        ended.expect("its thread says how it ended").expect("it has ended")
    }

    /// What it answers to `GET /status.json`; `None` where nothing listens.
    pub(crate) async fn status(&self) -> Option<Value> {
        status(self.health).await
    }

    /// All that it has written so far.
    pub(crate) fn logged(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for RealAgent {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// What an agent's health server says at this address; `None` where nothing listens.
pub(crate) async fn status(health: SocketAddr) -> Option<Value> {
    tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect_timeout(&health, HEALTH_TIMEOUT).ok()?;
        stream.set_read_timeout(Some(HEALTH_TIMEOUT)).ok()?;
        // With HTTP/1.0 the answer ends where the connection does.
        stream.write_all(b"GET /status.json HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
    })
    .await
    .expect("a thread that does not panic")
}

/// A loopback address that nobody else gets, neither in this process nor in one that runs beside it: an agent whose address is taken
/// says so in its log only, and works on without a health server.
pub(crate) fn own_address() -> SocketAddr {
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    const PORT: u16 = 8_080;
    loop {
        let [high, low] = TAKEN.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let process = u8::try_from(std::process::id() % 100).expect("below a hundred");
        let address = SocketAddr::from(([127, 100 + process, high, low], PORT));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}
