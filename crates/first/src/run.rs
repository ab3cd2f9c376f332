//! Starts the agent and looks after it until it ends.

use std::{
    io,
    os::unix::process::CommandExt as _,
    process::{Command, ExitCode},
};

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, getpid, kill_process, set_child_subreaper, wait};
use signal_hook::{consts::SIGCHLD, iterator::Signals, low_level::signal_name};

use crate::{
    gate::{Gate, LISTENED, is_request},
    say,
};

/// What shells answer where a command cannot be run, and where there is none.
const CANNOT_RUN: u8 = 126;
const NOT_FOUND: u8 = 127;

/// A shell adds a signal's number to this for what died of it.
const DIED_OF: i32 = 128;

/// Runs the command, and answers as it ended.
pub(crate) fn run(command: Command) -> ExitCode {
    // Before anything else: until there is a handler, the kernel drops what is sent to the first process of a namespace.
    let signals = Signals::new(LISTENED.iter().chain(&[SIGCHLD]));
    match signals.and_then(|signals| attend(command, signals)) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            say(format_args!("signals and children cannot be waited for: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// From the first process to the last, with signals that are being collected already.
fn attend(mut command: Command, mut signals: Signals) -> io::Result<u8> {
    // Where the pod's containers share their processes another is the first of the namespace; orphans still come to us.
    // A kernel that does not know of it is no reason to have no agent.
    if let Err(error) = set_child_subreaper(Some(getpid())) {
        say(format_args!("orphans of the agent may not be reaped: {error}"));
    }
    if let Some(signal) = signals.pending().find(|signal| is_request(*signal)) {
        say(format_args!("{} came before there was an agent, so none is started", name(signal)));
        return Ok(code(DIED_OF + signal));
    }
    let agent = match command.process_group(0).spawn() {
        Ok(agent) => i32::try_from(agent.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidData)?,
        Err(error) => {
            say(format_args!("{}: {error}", command.get_program().display()));
            return Ok(if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { CANNOT_RUN });
        }
    };
    let mut gate = Gate::default();
    loop {
        // Several of one kind that come at once are one; so much the better.
        for signal in signals.wait().filter(|signal| *signal != SIGCHLD) {
            pass_on(&mut gate, agent, signal);
        }
        if let Some(status) = reap(agent)? {
            return Ok(status
                .exit_status()
                .map_or_else(|| code(DIED_OF + status.terminating_signal().unwrap_or(0)), code));
        }
    }
}

fn pass_on(gate: &mut Gate, agent: Pid, signal: i32) {
    if !gate.lets_through(signal) {
        say(format_args!(
            "{} withheld: the agent was asked to stop before, and would cancel its job. SIGQUIT does that",
            name(signal)
        ));
        return;
    }
    let Some(known) = Signal::from_named_raw(signal) else { return };
    match kill_process(agent, known) {
        Ok(()) => {
            gate.passed(signal);
            if is_request(signal) {
                say(format_args!("{} passed on; it is the only one", name(signal)));
            }
        }
        // The agent has become another user, and we may not signal every one.
        Err(error) => say(format_args!("{} does not reach the agent: {error}", name(signal))),
    }
}

/// Takes leave of all that have ended, and says how the agent did. Each turn takes one away, and no more than there are
/// processes can have ended.
fn reap(agent: Pid) -> io::Result<Option<WaitStatus>> {
    let mut ended = None;
    while let Some((pid, status)) = wait(WaitOptions::NOHANG).or_else(none_left)? {
        if pid == agent {
            ended = Some(status);
        }
    }
    Ok(ended)
}

/// Having no child is no failure right after the last one was reaped.
fn none_left(error: rustix::io::Errno) -> rustix::io::Result<Option<(Pid, WaitStatus)>> {
    if error == rustix::io::Errno::CHILD { Ok(None) } else { Err(error) }
}

fn name(signal: i32) -> &'static str {
    signal_name(signal).unwrap_or("a signal")
}

/// An exit code has eight bits.
fn code(code: i32) -> u8 {
    u8::try_from(code).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use signal_hook::{consts::SIGTERM, low_level::raise};

    use super::*;

    #[test]
    fn a_request_that_comes_before_the_agent_is_kept_and_no_agent_is_started() {
        let folder = tempfile::tempdir().unwrap();
        let mark = folder.path().join("started");
        let mut command = Command::new("touch");
        command.arg(&mark);
        let signals = Signals::new([SIGTERM, SIGCHLD]).unwrap();
        raise(SIGTERM).unwrap();
        assert_eq!(attend(command, signals).unwrap(), 143);
        assert!(!mark.exists());
    }
}
