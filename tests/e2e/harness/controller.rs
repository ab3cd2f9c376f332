//! The controller under test: a process, its flags, its log and the signals that it gets.

use std::{
    fs::File,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use super::wait::eventually;

/// How a controller is started.
#[derive(Debug, Clone)]
pub(crate) struct Launch {
    pub(crate) kubeconfig: PathBuf,
    pub(crate) namespace: String,
    pub(crate) endpoint: String,
    /// Who it is in the lease.
    pub(crate) identity: String,
    pub(crate) more: Vec<String>,
    /// Without the flags that a case may want to contradict.
    pub(crate) bare: bool,
    pub(crate) log: PathBuf,
}

/// A running controller; it is killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Controller {
    child: Child,
    pub(crate) listen: SocketAddr,
    log: PathBuf,
}

impl Controller {
    pub(crate) fn start(launch: &Launch) -> Self {
        let listen = free_address();
        // A controller that is started again goes on in the same log.
        let log = File::options().create(true).append(true).open(&launch.log).expect("a log file");
        let mut command = Command::new(env!("CARGO_BIN_EXE_kitepool"));
        command
            .arg("controller")
            .args(["--lease-namespace", &launch.namespace, "--lease-name", super::chart::RELEASE])
            .args(["--identity", &launch.identity, "--listen", &listen.to_string()])
            .arg("--record")
            .arg(super::records::free_path(&launch.log))
            // Simulated agents answer on addresses of this machine, which the API server knows no way to.
            .args(["--probe", "direct"])
            .args(["--log-format", "json", "--log", "info,kitepool=debug,kube_client=off,kube_runtime=off"]);
        if !launch.bare {
            command.args(["--namespace", &launch.namespace, "--buildkite-endpoint", &launch.endpoint]).args([
                "--poll-interval",
                "1s",
                "--buildkite-budget",
                "600",
                "--write-budget",
                "50",
            ]);
        }
        let child = command
            .args(&launch.more)
            .env_clear()
            .env("KUBECONFIG", &launch.kubeconfig)
            .env("RUST_BACKTRACE", "1")
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("the controller can be run");
        Self { child, listen, log: launch.log.clone() }
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Ends it between two instructions.
    pub(crate) fn kill(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }

    /// It stands still, with its connections open, until it is thawed.
    pub(crate) fn freeze(&self) {
        kill_process(self.pid(), Signal::STOP).expect("the controller runs");
    }

    pub(crate) fn thaw(&self) {
        kill_process(self.pid(), Signal::CONT).expect("the controller is there");
    }

    /// Asks it to end, as the kubelet does.
    pub(crate) fn terminate(&self) {
        kill_process(self.pid(), Signal::TERM).expect("the controller runs");
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child of ours").is_none()
    }

    /// Waits for it to end by itself.
    pub(crate) async fn ended(&mut self, within: Duration) -> ExitStatus {
        let log = self.log.clone();
        eventually("the controller ends", within, async || {
            self.child.try_wait().expect("a child of ours").ok_or_else(|| tail(&log))
        })
        .await
    }

    /// All that it has logged, and the sentence with which it ended.
    pub(crate) fn logged(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// What it answers over HTTP: the status and the body.
    pub(crate) async fn get(&self, path: &str) -> Result<(u16, String), String> {
        let answer = reqwest::get(format!("http://{}{path}", self.listen)).await.map_err(|error| error.to_string())?;
        let status = answer.status().as_u16();
        Ok((status, answer.text().await.map_err(|error| error.to_string())?))
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Free a moment ago. Nobody else on a test machine takes ports in this order, and a collision is told by the controller.
fn free_address() -> SocketAddr {
    TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr()).expect("a free port")
}

/// The end of a log, for the report of a failed case.
pub(crate) fn tail(log: &Path) -> String {
    const LINES: usize = 25;
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}
