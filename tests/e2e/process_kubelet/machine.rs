//! A node's machine: namespaces of mounts and processes that all its containers live in. When its first process ends, the kernel
//! kills them all: that is how a node vanishes, and how nothing is left behind when this program dies.
//!
//! ```text
//!  this program ─stdin─► unshare ─► machine.sh (first process of the node; holds mounts and processes)
//!        └─► nsenter ─► unshare ─► container.sh = the container's program (first process of its own)
//! ```
//!
//! It needs the right to make namespaces, which root has.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    time::Duration,
};

use super::launch::only_child;

const SCRIPT: &str = include_str!("machine.sh");

/// The kernel needs some milliseconds for a machine with many processes.
const GONE_LOOKS: u32 = 2000;
const GONE_EVERY: Duration = Duration::from_millis(2);

/// A running machine; it loses its power when it is dropped.
#[derive(Debug)]
pub(crate) struct Machine {
    child: Child,
    _held: ChildStdin,
    /// Its first process, as this machine counts.
    pub(crate) first: i32,
}

/// A script as the first process of namespaces of its own, of mounts and of processes: what it does there is not seen outside, and ends
/// with it. Killing the command kills it.
pub(crate) fn apart(script: &str, name: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"]);
    command.args(["bash", "-c", script, name]);
    command
}

impl Machine {
    /// Starts one, and waits until containers can be started on it. Blocks for some hundredths of a second.
    pub(crate) fn start(root: &Path, seen: &[String]) -> Result<Self, String> {
        std::fs::create_dir_all(root).map_err(|error| format!("{}: {error}", root.display()))?;
        let mut child = apart(SCRIPT, "node")
            .arg(root)
            .args(seen)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("unshare: {error}"))?;
        let held = child.stdin.take().ok_or("no pipe")?;
        let mut line = String::new();
        let told = BufReader::new(child.stdout.take().ok_or("no pipe")?).read_line(&mut line);
        let first = only_child(i32::try_from(child.id()).unwrap_or_default());
        match (told, first) {
            (Ok(_), Some(first)) if line == "ready\n" => Ok(Self { child, _held: held, first }),
            _ => {
                drop(child.kill());
                let mut trouble = String::new();
                drop(child.stderr.take().ok_or("no pipe")?.read_to_string(&mut trouble));
                drop(child.wait());
                Err(format!("a node needs namespaces of its own, so run the tests as root: {trouble}"))
            }
        }
    }

    /// Ends every process on it, and waits until they are gone.
    pub(crate) fn cut_power(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        // The first process of a namespace is gone when all others are.
        for _ in 0..GONE_LOOKS {
            if !Path::new(&format!("/proc/{}", self.first)).exists() {
                return;
            }
            std::thread::sleep(GONE_EVERY);
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.cut_power();
    }
}
