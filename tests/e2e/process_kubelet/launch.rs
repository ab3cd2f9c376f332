//! Starting a container's program on a node's machine, signalling it, seeing it end, and running commands beside it.

use std::{
    fs::File,
    os::{
        fd::OwnedFd,
        unix::process::{CommandExt as _, ExitStatusExt as _},
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::signal::unix::{SignalKind, signal};

use super::ledger::Ending;

const SCRIPT: &str = include_str!("container.sh");

/// With this, container.sh says that it did not come to the program.
const REFUSED: i32 = 125;

/// From one look for the program's process to the next.
const LOOK_EVERY: Duration = Duration::from_millis(4);

/// How a program that ran too long in [`Running::run`] ends.
const KILLED_BY_TIMEOUT: i32 = 137;

/// As whom a program runs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Identity {
    pub(crate) user: Option<(i64, i64)>,
    pub(crate) groups: Vec<i64>,
    pub(crate) is_confined: bool,
}

/// A folder or a file at a path of the container.
#[derive(Debug, Clone)]
pub(crate) struct Mount {
    pub(crate) source: PathBuf,
    pub(crate) target: String,
    pub(crate) is_read_only: bool,
}

/// All that a container is.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    pub(crate) host_name: String,
    pub(crate) identity: Identity,
    pub(crate) directory: String,
    /// Outer ones before inner ones.
    pub(crate) mounts: Vec<Mount>,
    /// All of its environment; a PATH among it.
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) command: Vec<String>,
    /// Where its output goes.
    pub(crate) log: PathBuf,
}

/// A program's process. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Running {
    /// `None`: it had ended before it was seen.
    main: Option<(i32, Arc<OwnedFd>)>,
    program: Arc<Program>,
}

/// Waits for a started process.
#[derive(Debug)]
pub(crate) struct Watched {
    child: Child,
    /// Where `unshare` complains.
    log: Option<PathBuf>,
}

/// Starts it on the machine with this first process. `Err`: the program never ran.
pub(crate) async fn launch(first: i32, program: Program) -> Result<(Running, Watched), String> {
    let log = File::options().create(true).append(true).open(&program.log).map_err(|error| error.to_string())?;
    let mut command = Command::new("nsenter");
    command
        .args(["--target", &first.to_string(), "--mount", "--pid", "--"])
        .args([
            "unshare",
            "--mount",
            "--uts",
            "--pid",
            "--fork",
            "--kill-child",
            "--",
            "bash",
            "-c",
            SCRIPT,
            "container",
        ])
        .args([&program.host_name])
        .args(identity(&program.identity))
        .args([&program.directory, path(&program), &program.mounts.len().to_string()]);
    for mount in &program.mounts {
        let mode = if mount.is_read_only { "ro" } else { "rw" };
        command.arg(&mount.source).args([&mount.target, mode]);
    }
    let mut child = command
        .args(program.environment.iter().map(|(name, value)| format!("{name}={value}")))
        .arg("--")
        .args(&program.command)
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(log.try_clone().map_err(|error| error.to_string())?)
        .stderr(log)
        .spawn()
        .map_err(|error| format!("nsenter: {error}"))?;
    let main = loop {
        if let Some(status) = child.try_wait().map_err(|error| error.to_string())? {
            if status.code() == Some(REFUSED) {
                return Err(last_line(&program.log));
            }
            break None;
        }
        if let Some(main) = main_process(&child) {
            break Some(main);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    };
    let watched = Watched { child, log: Some(program.log.clone()) };
    Ok((Running { main, program: Arc::new(program) }, watched))
}

fn identity(identity: &Identity) -> [String; 4] {
    let none = || "-".to_owned();
    let groups: Vec<String> = identity.groups.iter().map(ToString::to_string).collect();
    [
        identity.user.map_or_else(none, |(user, _)| user.to_string()),
        identity.user.map_or_else(none, |(_, group)| group.to_string()),
        if groups.is_empty() { none() } else { groups.join(",") },
        if identity.is_confined { "none".to_owned() } else { none() },
    ]
}

fn path(program: &Program) -> &str {
    program.environment.iter().find(|(name, _)| name == "PATH").map_or("", |(_, value)| value)
}

fn last_line(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    text.lines().last().unwrap_or("it ended without a word").to_owned()
}

/// The program's process, once it is the program and not what makes its surroundings.
fn main_process(child: &Child) -> Option<(i32, Arc<OwnedFd>)> {
    let main = only_child(only_child(i32::try_from(child.id()).ok()?)?)?;
    let words = std::fs::read(format!("/proc/{main}/cmdline")).ok()?;
    let words: Vec<&[u8]> = words.split(|byte| *byte == 0).collect();
    let is_prelude = match words.first()? {
        &b"unshare" | &b"setsid" | &b"setpriv" | &b"" => true,
        &b"bash" => words.get(2).is_some_and(|script| *script == SCRIPT.as_bytes()),
        &b"env" => words.get(1) == Some(&b"-i".as_slice()),
        _ => false,
    };
    if is_prelude {
        return None;
    }
    let held = pidfd_open(Pid::from_raw(main)?, PidfdFlags::empty()).ok()?;
    Some((main, Arc::new(held)))
}

/// The child of a process that has one.
pub(crate) fn only_child(pid: i32) -> Option<i32> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

impl Running {
    /// The main process, as this machine counts.
    pub(crate) fn pid(&self) -> Option<i32> {
        self.main.as_ref().map(|(pid, _)| *pid)
    }

    /// Signals the main process alone. Says whether it was there.
    pub(crate) fn signal(&self, signal: Signal) -> bool {
        self.main.as_ref().is_some_and(|(_, held)| pidfd_send_signal(held, signal).is_ok())
    }

    /// Runs a command in the container, as its user and with its environment.
    pub(crate) async fn run(&self, command: &[String], at_most: Duration) -> Result<(), String> {
        let (pid, _) = self.main.as_ref().ok_or("the container has ended")?;
        let mut nsenter = Command::new("nsenter");
        nsenter.args(["--target", &pid.to_string(), "--mount", "--uts", "--pid", "--wd", "--"]).args([
            "timeout",
            "--signal",
            "KILL",
            &at_most.as_secs_f64().to_string(),
            "setpriv",
        ]);
        let Identity { user, groups, is_confined } = &self.program.identity;
        if let Some((user, group)) = user {
            nsenter.args(["--reuid", &user.to_string(), "--regid", &group.to_string()]);
            if groups.is_empty() {
                nsenter.arg("--clear-groups");
            }
        }
        if !groups.is_empty() {
            let groups: Vec<String> = groups.iter().map(ToString::to_string).collect();
            nsenter.args(["--groups", &groups.join(",")]);
        }
        if *is_confined {
            nsenter.arg("--no-new-privs");
        }
        let child = nsenter
            .args(["env", "-i", "--default-signal"])
            .args(self.program.environment.iter().map(|(name, value)| format!("{name}={value}")))
            .args(command)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("nsenter: {error}"))?;
        match (Watched { child, log: None }).ended().await {
            Ending::Exit(0) => Ok(()),
            Ending::Exit(KILLED_BY_TIMEOUT) => Err(format!("command {command:?} not over after {at_most:?}")),
            ending @ (Ending::Exit(_) | Ending::Signal(_)) => {
                Err(format!("command {command:?} ended with {}", ending.exit_code()))
            }
        }
    }
}

impl Drop for Watched {
    /// Leaves no dead child behind. What it was waited for ends with the machine, if it has not ended.
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Watched {
    /// How it ended. May be asked again.
    pub(crate) async fn ended(&mut self) -> Ending {
        // Listened for before the first look, so that no end falls between the two.
        let mut children = signal(SignalKind::child()).expect("a runtime that listens to signals");
        loop {
            // Nothing but a child that somebody else has waited for makes this fail.
            if let Some(status) = self.child.try_wait().expect("a child of ours") {
                return self.ending(status);
            }
            children.recv().await;
        }
    }

    fn ending(&self, status: ExitStatus) -> Ending {
        match (status.code(), status.signal()) {
            // `unshare` ends as the container has ended, but for SIGKILL: it fails to give itself a default action that nobody can
            // change (util-linux 2.38), and says so.
            (Some(1), _) if self.log.as_ref().is_some_and(|log| last_line(log).starts_with("unshare: ")) => {
                Ending::Signal(Signal::KILL.as_raw())
            }
            (Some(code), _) => Ending::Exit(code),
            (None, Some(signal)) => Ending::Signal(signal),
            (None, None) => Ending::Exit(-1),
        }
    }
}
