//! The program as a newcomer starts it.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    process::{Command, Output, Stdio},
};

use serde_json::Value;

fn demo(flags: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kitepool"));
    // A proxy that is not there: nothing may leave this machine.
    let proxy = "http://127.0.0.1:1";
    command.env("HTTP_PROXY", proxy).env("http_proxy", proxy).env_remove("NO_PROXY").env_remove("no_proxy");
    command.arg("demo").args(flags);
    command
}

fn words(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn the_summary_is_one_object_and_nothing_else() {
    let output = demo(&["--duration", "8s", "--speed", "8", "-o", "json"]).output().unwrap();
    let (stdout, stderr) = words(&output);
    assert!(output.status.success(), "{stdout}\n{stderr}");
    assert_eq!(stderr, "");
    let summary: Value = serde_json::from_str(&stdout).unwrap();
    println!("{summary:#}");
    let number = |path: &str| summary.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("no {path}"));
    for path in ["/waitSeconds/p50", "/waitSeconds/p95", "/waitSeconds/max"] {
        assert!(number(path) >= 0.0);
    }
    for path in ["/agentHours/busy", "/agentHours/idle", "/agentHours/starting", "/agentHours/draining"] {
        assert!(number(path) >= 0.0);
    }
    assert!(number("/jobs") >= 40.0 && number("/jobsPassed") > 0.0 && number("/podsStarted") > 0.0);
    assert_eq!(number("/jobsKilled"), 0.0);
    assert!(number("/buildkiteCalls") > 0.0 && number("/kubernetesWrites") > 0.0);
}

#[test]
fn it_begins_at_once_and_ctrl_c_ends_it_with_the_summary_so_far() {
    let mut child = demo(&[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    #[expect(clippy::disallowed_methods, reason = "what a person waits for, told and not asserted")]
    let began = std::time::Instant::now();
    let first = lines.next().unwrap().unwrap();
    println!("the first line after {:?}: {first}", began.elapsed());
    let told: Vec<String> =
        lines.by_ref().map(Result::unwrap).take_while(|line| !line.contains("Somebody pushes")).collect();
    assert!(told.iter().any(|line| line.contains("Time is compressed")), "{told:#?}");
    assert!(told.iter().any(|line| line.contains("creates linux-")), "{told:#?}");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    #[expect(clippy::disallowed_methods, reason = "as above")]
    let asked = std::time::Instant::now();
    let rest: Vec<String> = lines.map(Result::unwrap).collect();
    let status = child.wait().unwrap();
    println!("ended after {:?}", asked.elapsed());
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!((status.code(), stderr.as_str()), (Some(130), ""), "{rest:#?}");
    assert!(rest.iter().any(|line| line.starts_with("jobs  ") && line.contains("0 killed")), "{rest:#?}");
}

#[test]
fn pools_of_ones_own_are_played_with_and_bad_ones_are_refused_with_everything_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pools.yaml");
    let pool = |name: &str, scaling: &str| {
        format!(
            "apiVersion: kitepool.dev/v1alpha1\nkind: AgentPool\nmetadata: {{ name: {name} }}\nspec:\n  queue: {name}\n  \
             token: {{ file: /mnt/token }}\n  podTemplateRef: {{ name: basic }}\n  scaling: {scaling}\n---\n"
        )
    };
    fs::write(&path, pool("mine", "{ max: 9 }") + &pool("other", "{ min: 1, max: 3 }")).unwrap();
    let flags = ["--pools", path.to_str().unwrap(), "--speed", "8", "--duration", "4s"];
    let (stdout, stderr) = words(&demo(&flags).output().unwrap());
    assert_eq!(stderr, "", "{stdout}");
    for expected in ["creates mine-", "creates other-", "6 jobs for mine", "0 killed"] {
        assert!(stdout.contains(expected), "{expected} is not in\n{stdout}");
    }

    fs::write(&path, pool("mine", "{ min: 9, max: 1 }") + &pool("other", "{ maxx: 3 }")).unwrap();
    let output = demo(&flags).output().unwrap();
    let (stdout, stderr) = words(&output);
    println!("{stderr}");
    assert_eq!((output.status.code(), stdout.as_str()), (Some(1), ""));
    for expected in ["AgentPool mine: spec.scaling.min: ", "AgentPool other: spec.scaling.maxx: ", "did you mean max?"]
    {
        assert!(stderr.contains(expected), "{expected} is not in\n{stderr}");
    }
}

#[test]
fn flags_out_of_bounds_are_refused_with_what_to_write_instead() {
    for (flags, expected) in [
        (["--duration", "2h"], "between 1s and 1h"),
        (["--speed", "0"], "from 1 to 20"),
        (["--pools", "/nowhere/pools.yaml"], "cannot be read"),
    ] {
        let output = demo(&flags).output().unwrap();
        let (stdout, stderr) = words(&output);
        assert!(!output.status.success() && stdout.is_empty() && stderr.contains(expected), "{stdout}{stderr}");
    }
}
