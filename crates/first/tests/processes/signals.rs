//! The program with real processes: which signals reach what it runs, how it ends, what it reaps.

use std::{
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    process::Command,
    time::Duration,
};

use crate::stage::{First, children, first, until};
use rustix::process::{Signal, kill_process_group, test_kill_process};

/// Says what it gets, and ends with 10 when there is a file `end`.
const LISTENER: &str = r#"
for signal in HUP INT QUIT TERM USR1 USR2 WINCH; do trap "echo $signal >>got" "$signal"; done
touch up
while [[ ! -e end ]]; do sleep 0.02; done
exit 10"#;

#[test]
fn the_first_request_to_stop_goes_through_and_no_other() {
    for (sent, got) in [
        ([Signal::TERM, Signal::TERM, Signal::INT, Signal::TERM], "TERM"),
        ([Signal::INT, Signal::TERM, Signal::INT, Signal::INT], "INT"),
    ] {
        let mut first = First::start(LISTENER);
        first.is_up();
        for (number, signal) in sent.into_iter().enumerate() {
            first.signal(signal);
            // One after the other: signals of one kind that come at once are one to the kernel already.
            first.says(if number == 0 { "passed on" } else { "withheld" }, number.max(1));
        }
        first.touch("end");
        assert_eq!(first.code(), Some(10));
        first.got(&[got]);
    }
}

#[test]
fn other_signals_go_through_each_time_also_after_a_request_to_stop() {
    let mut first = First::start(LISTENER);
    first.is_up();
    let mut expected = Vec::new();
    for (signal, name) in [
        (Signal::TERM, "TERM"),
        (Signal::HUP, "HUP"),
        (Signal::HUP, "HUP"),
        (Signal::USR1, "USR1"),
        (Signal::USR2, "USR2"),
        (Signal::WINCH, "WINCH"),
        (Signal::QUIT, "QUIT"),
        (Signal::QUIT, "QUIT"),
    ] {
        first.signal(signal);
        expected.push(name);
        first.got(&expected);
    }
    first.touch("end");
    assert_eq!(first.code(), Some(10));
}

#[test]
fn a_signal_to_the_group_reaches_what_it_runs_once() {
    let mut first = First::start(LISTENER);
    first.is_up();
    for withheld in 0..2 {
        kill_process_group(first.pid(), Signal::TERM).unwrap();
        first.says(if withheld == 0 { "passed on" } else { "withheld" }, 1);
    }
    first.touch("end");
    assert_eq!(first.code(), Some(10));
    first.got(&["TERM"]);
}

#[test]
fn it_ends_as_what_it_runs_has_ended() {
    for (script, code) in [
        ("exit 0", 0),
        ("exit 7", 7),
        ("exit 255", 255),
        ("kill -KILL $$", 137),
        ("kill -TERM $$", 143),
        ("kill -SEGV $$", 139),
    ] {
        assert_eq!(First::start(script).code(), Some(code), "{script}");
    }
}

#[test]
fn it_ends_at_once_although_others_are_left() {
    let mut first = First::start("sleep 1000 & echo $! >left; exit 3");
    assert_eq!(first.code(), Some(3));
    let left: i32 = first.read("left").trim().parse().unwrap();
    let left = rustix::process::Pid::from_raw(left).unwrap();
    // Not the first of a namespace here, so nobody has ended it.
    assert!(test_kill_process(left).is_ok());
    rustix::process::kill_process(left, Signal::KILL).unwrap();
}

#[test]
fn a_request_that_is_not_listened_to_yet_ends_what_it_runs_by_the_signal() {
    let mut first = First::start("touch up; exec sleep 1000");
    first.is_up();
    first.signal(Signal::TERM);
    assert_eq!(first.code(), Some(143));
}

#[test]
fn a_request_in_the_first_moments_is_never_lost() {
    for trial in 0..60 {
        let mut first = First::start("exec sleep 1000");
        std::thread::sleep(Duration::from_micros(100 * trial));
        first.signal(Signal::TERM);
        let status = first.status();
        // Before it listens it dies of the signal itself, which a shell shows by the same number.
        assert!(status.signal() == Some(15) || status.code() == Some(143), "trial {trial}: {status:?}");
    }
}

#[test]
fn what_cannot_be_run_is_told_as_shells_tell_it() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("text");
    std::fs::write(&text, "not a program").unwrap();
    for (words, code, said) in [
        (vec!["--", "/no/such/program"], 127, "/no/such/program: No such file"),
        (vec!["--", text.to_str().unwrap()], 126, "Permission denied"),
        (vec!["--"], 2, "usage"),
        (vec![], 2, "usage"),
        (vec!["bash"], 2, "usage"),
    ] {
        let output = first().args(&words).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(code) && told.contains(said), "{words:?}: {:?} {told}", output.status);
    }
}

#[test]
fn arguments_environment_and_folder_come_through_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let output = first()
        .args(["--", "bash", "-c", r#"echo "$0|$1|$2|$KITE|$PWD""#, "--install", "", "a b"])
        .env("KITE", "pool")
        .current_dir(&folder)
        .output()
        .unwrap();
    let expected = format!("--install||a b|pool|{}\n", folder.path().canonicalize().unwrap().display());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
}

#[test]
fn orphans_are_reaped() {
    let orphans =
        "for n in 1 2 3 4 5; do (sleep 0.0$n & exec true); done; touch up; while [[ ! -e end ]]; do sleep 0.1; done";
    let mut first = First::start(orphans);
    first.is_up();
    // Living orphans are children for a moment, dead ones must not stay.
    until("one child is left", || {
        let children = children(first.pid());
        if children.len() == 1 { Ok(()) } else { Err(format!("{children:?}")) }
    });
    first.touch("end");
    assert_eq!(first.code(), Some(0));
}

#[test]
fn a_copy_does_the_same_and_takes_the_place_of_one_that_runs() {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("copy");
    let install = || first().arg("--install").arg(&copy).output().unwrap();
    assert!(install().status.success());
    let mut running = Command::new(&copy).args(["--", "sleep", "1000"]).process_group(0).spawn().unwrap();
    // Left by a copy that was interrupted.
    std::fs::write(folder.path().join("copy.new"), "half").unwrap();
    let again = install();
    assert!(again.status.success(), "{again:?}");
    assert_eq!(Command::new(&copy).args(["--", "bash", "-c", "exit 9"]).status().unwrap().code(), Some(9));
    rustix::process::kill_process(rustix::process::Pid::from_child(&running), Signal::TERM).unwrap();
    assert_eq!(running.wait().unwrap().code().unwrap_or(143), 143);

    let nowhere = first().args(["--install", "/no/such/folder/copy"]).output().unwrap();
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&nowhere.stderr).contains("/no/such/folder/copy: No such file"), "{nowhere:?}");
}
