//! The program at work in a folder of its own, and waiting for what it does.

use std::{
    fs::File,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// What is to happen at once, on a machine that does other things besides.
const SOON: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The program.
pub(crate) fn first() -> Command {
    Command::new(env!("CARGO_BIN_EXE_kitepool-first"))
}

/// Waits until it is so; `Err` is what there is instead.
pub(crate) fn until<T>(what: &str, mut is_so: impl FnMut() -> Result<T, String>) -> T {
    let began = Instant::now();
    loop {
        match is_so() {
            Ok(found) => return found,
            Err(instead) => assert!(began.elapsed() < SOON, "{what}: {instead}"),
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// One that runs a script.
pub(crate) struct First {
    folder: TempDir,
    child: Child,
}

impl First {
    pub(crate) fn start(script: &str) -> Self {
        Self::start_as(first(), script)
    }

    /// As the last of the words of a command.
    pub(crate) fn start_as(mut command: Command, script: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = File::create(folder.path().join("log")).unwrap();
        let child = command
            .args(["--", "bash", "-c", script])
            .current_dir(&folder)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { folder, child }
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(name)).unwrap_or_default()
    }

    pub(crate) fn touch(&self, name: &str) {
        File::create(self.folder.path().join(name)).unwrap();
    }

    /// Waits for the script's file `up`.
    pub(crate) fn is_up(&self) {
        let up = self.folder.path().join("up");
        until("it is up", || if up.exists() { Ok(()) } else { Err(self.read("log")) });
    }

    /// Waits until it has said so, so often.
    pub(crate) fn says(&self, word: &str, times: usize) {
        until(&format!("{times} lines with {word:?}"), || {
            let log = self.read("log");
            let found = log.lines().filter(|line| line.contains(word)).count();
            if found == times { Ok(()) } else { Err(log) }
        });
    }

    /// Waits until the script has got as many signals, and they must be these.
    pub(crate) fn got(&self, signals: &[&str]) {
        let got = until(&format!("{} signals", signals.len()), || {
            let got = self.read("got");
            if got.lines().count() >= signals.len() { Ok(got) } else { Err(got) }
        });
        assert_eq!(got.lines().collect::<Vec<_>>(), signals);
    }

    pub(crate) fn status(&mut self) -> ExitStatus {
        until("it ends", || self.child.try_wait().unwrap().ok_or_else(|| "it runs".to_owned()))
    }

    pub(crate) fn code(&mut self) -> Option<i32> {
        self.status().code()
    }
}

impl Drop for First {
    /// Nothing is left of a test that failed.
    fn drop(&mut self) {
        for child in children(self.pid()) {
            let _ = Pid::from_raw(child).map(|child| kill_process(child, Signal::KILL));
        }
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The children of a process, the dead ones that nobody has reaped among them.
pub(crate) fn children(pid: Pid) -> Vec<i32> {
    let pid = pid.as_raw_nonzero();
    let listed = std::fs::read_to_string(Path::new("/proc").join(format!("{pid}/task/{pid}/children")));
    listed.unwrap_or_default().split_whitespace().filter_map(|child| child.parse().ok()).collect()
}
