//! The first process of an agent's container: starts the agent, and lets one request to stop through to it.
//!
//! An agent that is asked to stop finishes its job; asked again, it cancels it. Kubernetes promises no "exactly once": a kubelet or
//! a container runtime that starts anew may begin the end of a pod once more, signal included.
//!
//! | what comes | what becomes of it |
//! |---|---|
//! | the first SIGTERM or SIGINT | passed on; to the agent both mean the same |
//! | each further SIGTERM or SIGINT | withheld, with a line in the container's log |
//! | SIGQUIT | passed on each time: who sends it wants the job cancelled |
//! | SIGHUP, SIGUSR1, SIGUSR2, SIGWINCH | passed on each time |
//! | all others | left to the kernel. A first process of a container is not stopped by SIGTSTP, and its agent must not be: it would be taken for lost |
//! | a request to stop before there is an agent | none is started |
//! | the end of the agent | the end of this process, with the same exit code, or 128 and the signal |
//! | the end of any other process | it is reaped |
//!
//! The agent has a process group of its own, so that a signal to this group comes by here. It does not end by itself with
//! this process: where that is the first of its namespace the kernel ends all of the namespace, and elsewhere the container's runtime does.
//! A signal of ours beside it could only be one too many.

mod gate;
mod install;
mod run;

use std::{
    ffi::OsString,
    fmt::Display,
    io::Write as _,
    process::{Command, ExitCode},
};

/// What shells answer for a command line that they do not understand.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    let option = words.next();
    let rest: Vec<OsString> = words.collect();
    match (option.as_ref().and_then(|option| option.to_str()), rest.as_slice()) {
        (Some("--"), [program, arguments @ ..]) => {
            let mut command = Command::new(program);
            command.args(arguments);
            run::run(command)
        }
        (Some("--install"), [file]) => install::install(file.as_ref()),
        _ => {
            say("usage: kitepool-first -- COMMAND [ARGUMENT...], or kitepool-first --install FILE");
            ExitCode::from(USAGE)
        }
    }
}

/// A line in the container's log. One that cannot be written is no reason to end an agent.
fn say(what: impl Display) {
    drop(writeln!(std::io::stderr(), "kitepool-first: {what}"));
}
