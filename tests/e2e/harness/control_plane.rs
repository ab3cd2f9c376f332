//! The control plane of `tests/control-plane`, as a child that ends when this process does, or the cluster that
//! `KITEPOOL_E2E_KUBECONFIG` names.

use std::{
    io::{BufRead as _, BufReader, Lines},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    sync::{Mutex, Once, OnceLock},
};

use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::chart;

/// How to reach an API server as its administrator.
#[derive(Debug, Clone)]
pub(crate) struct Access {
    kubeconfig: Kubeconfig,
}

impl Access {
    /// Writes an administrator's kubeconfig, for programs that read one.
    pub(crate) fn write(&self, path: &Path) {
        std::fs::write(path, serde_json::to_string(&self.kubeconfig).expect("JSON")).expect("a file");
    }

    /// Each case makes its own client: a connection belongs to the runtime that opened it, and each case has its own.
    pub(crate) async fn client(&self) -> Client {
        let mut config = self.config().await;
        config.default_retry = true;
        Client::try_from(config).expect("the administrator's client")
    }

    pub(crate) async fn config(&self) -> Config {
        Config::from_custom_kubeconfig(self.kubeconfig.clone(), &KubeConfigOptions::default())
            .await
            .expect("a kubeconfig that can be used")
    }
}

/// A control plane of our own.
#[derive(Debug)]
pub(crate) struct ControlPlane {
    pub(crate) access: Access,
    child: Child,
    lines: Mutex<Lines<BufReader<ChildStdout>>>,
}

impl ControlPlane {
    /// Starts one. It ends when this value is dropped, or when its standard input closes because this process is gone.
    pub(crate) fn start(keep_in: Option<&Path>) -> Self {
        install_tls();
        let mut command = Command::new(repository().join("tests/control-plane/run"));
        command.arg("--stop-on-stdin-eof");
        if let Some(folder) = keep_in {
            command.arg("--keep").arg("--dir").arg(folder);
        }
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("tests/control-plane/run can be run");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let ready = next_line(&mut lines);
        assert_eq!(ready["ready"], true, "the control plane did not come up: {ready}");
        let kubeconfig = Kubeconfig::read_from(ready["kubeconfig"].as_str().expect("a path")).expect("its kubeconfig");
        Self { access: Access { kubeconfig }, child, lines: Mutex::new(lines) }
    }

    /// Kills the API server and waits until another one serves.
    pub(crate) fn restart_api_server(&self) {
        kill_process(Pid::from_child(&self.child), Signal::USR1).expect("the control plane runs");
        let restarted = next_line(&mut self.lines.lock().expect("no panic while reading"));
        assert_eq!(restarted["restarted"], true, "{restarted}");
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        drop(self.child.wait());
    }
}

fn next_line(lines: &mut Lines<BufReader<ChildStdout>>) -> Value {
    let line = lines.next().expect("the control plane ended").expect("a line");
    serde_json::from_str(&line).expect("a line of JSON")
}

/// The cluster that the cases of this run share, with the definitions of the controller under test.
pub(crate) fn shared() -> &'static Access {
    static SHARED: OnceLock<(Access, Option<ControlPlane>)> = OnceLock::new();
    let (access, _kept_running) = SHARED.get_or_init(|| {
        install_tls();
        let (access, control_plane) = if let Some(path) = std::env::var_os("KITEPOOL_E2E_KUBECONFIG") {
            let kubeconfig = Kubeconfig::read_from(path).expect("KITEPOOL_E2E_KUBECONFIG names a kubeconfig");
            (Access { kubeconfig }, None)
        } else {
            let keep_in = std::env::var_os("KITEPOOL_E2E_CONTROL_PLANE_DIR").map(PathBuf::from);
            let control_plane = ControlPlane::start(keep_in.as_deref());
            (control_plane.access.clone(), Some(control_plane))
        };
        let installed = access.clone();
        on_a_runtime_of_its_own(|| chart::install_definitions(installed));
        (access, control_plane)
    });
    access
}

/// Whether the cluster is somebody else's: its API server must not be restarted and its audit log cannot be read.
pub(crate) fn is_foreign() -> bool {
    std::env::var_os("KITEPOOL_E2E_KUBECONFIG").is_some()
}

/// Blocks this thread, so that a `OnceLock` can be filled by something that waits.
fn on_a_runtime_of_its_own<F: Future<Output = ()>>(work: impl FnOnce() -> F + Send + 'static) {
    std::thread::spawn(|| {
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(work());
    })
    .join()
    .expect("the cluster is prepared");
}

fn install_tls() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        rustls::crypto::ring::default_provider().install_default().expect("nobody else installs one");
    });
}

/// The root of the repository.
pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where a run keeps its logs. They stay, to be read after a failure.
pub(crate) fn logs() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("e2e")
}
