//! The program as the first process of a namespace, which it is in a container.

use std::process::Command;

use crate::stage::{First, children, until};
use rustix::process::{Pid, Signal, kill_process};

/// Starts it as the first process of a namespace, and finds it there.
fn start(script: &str) -> (First, Pid) {
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child", "--mount-proc"]).arg(env!("CARGO_BIN_EXE_kitepool-first"));
    let outer = First::start_as(command, script);
    let inner = until("it is there", || children(outer.pid()).first().copied().ok_or_else(|| outer.read("log")));
    (outer, Pid::from_raw(inner).unwrap())
}

#[test]
#[ignore = "needs to be root: .ci/run crates_alone"]
fn the_first_process_of_a_namespace_passes_one_request_on_and_is_not_stopped() {
    let script = r#"
        trap "echo TERM >>got" TERM
        trap "echo USR1 >>got" USR1
        echo $$ $PPID >who; touch up
        while [[ ! -e end ]]; do sleep 0.02; done; exit 10"#;
    let (mut outer, inner) = start(script);
    outer.is_up();
    assert_eq!(outer.read("who").split_whitespace().nth(1), Some("1"));
    kill_process(inner, Signal::TERM).unwrap();
    outer.says("passed on", 1);
    outer.got(&["TERM"]);
    for withheld in 1..=3 {
        kill_process(inner, Signal::TERM).unwrap();
        outer.says("withheld", withheld);
    }
    // To the first of a namespace, signals without a handler are none.
    kill_process(inner, Signal::TSTP).unwrap();
    kill_process(inner, Signal::ALARM).unwrap();
    kill_process(inner, Signal::USR1).unwrap();
    outer.got(&["TERM", "USR1"]);
    outer.touch("end");
    assert_eq!(outer.code(), Some(10));
    outer.got(&["TERM", "USR1"]);
}

#[test]
#[ignore = "needs to be root: .ci/run crates_alone"]
fn what_does_not_listen_dies_of_the_signal_although_it_is_in_a_container() {
    let (mut outer, inner) = start("touch up; exec sleep 1000");
    outer.is_up();
    kill_process(inner, Signal::TERM).unwrap();
    assert_eq!(outer.code(), Some(143));
}

#[test]
#[ignore = "needs to be root: .ci/run crates_alone"]
fn in_a_namespace_orphans_are_reaped_and_the_end_of_the_agent_is_the_end_of_all() {
    let script = "for n in 1 2 3 4 5; do (setsid sleep 0.0$n & exec true); done; setsid sleep 1000 & \
                  touch up; while [[ ! -e end ]]; do sleep 0.1; done; exit 4";
    let (mut outer, inner) = start(script);
    outer.is_up();
    // The script; the long sleep is its own.
    until("one child is left", || {
        let children = children(inner);
        if children.len() == 1 { Ok(()) } else { Err(format!("{children:?}")) }
    });
    let script = Pid::from_raw(children(inner)[0]).unwrap();
    let sleeps = children(script);
    outer.touch("end");
    assert_eq!(outer.code(), Some(4));
    for sleep in sleeps {
        until("it is gone", || {
            let is_there = std::path::Path::new(&format!("/proc/{sleep}")).exists();
            if is_there { Err(sleep.to_string()) } else { Ok(()) }
        });
    }
}

#[test]
#[ignore = "needs to be root: .ci/run crates_alone"]
fn the_end_of_the_first_process_is_the_end_of_the_agent() {
    let (mut outer, inner) = start("touch up; trap '' TERM; while :; do sleep 0.1; done");
    outer.is_up();
    let agent = children(inner)[0];
    kill_process(inner, Signal::KILL).unwrap();
    until("it is gone", || {
        if std::path::Path::new(&format!("/proc/{agent}")).exists() { Err(agent.to_string()) } else { Ok(()) }
    });
    assert_ne!(outer.code(), Some(0));
}
