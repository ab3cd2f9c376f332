//! Every refusal of the contract by itself: `refused/ID.yaml`, and `refused/ID.message`, what a person reads of it.
//!
//! A file whose name is no rule's shows what several of them come to together.

use std::{collections::BTreeSet, fmt::Write as _, fs, path::PathBuf};

use kitepool::pods::{
    contract::REFUSALS,
    lint::{File, Report, lint},
};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/pods/refused")
}

fn names() -> BTreeSet<String> {
    let entries = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    entries.filter_map(|name| name.strip_suffix(".yaml").map(str::to_owned)).collect()
}

/// In a namespace that has the token's Secret and nothing else.
fn linted(name: &str) -> Report {
    let text = fs::read_to_string(folder().join(format!("{name}.yaml"))).unwrap();
    let mut report = lint(&[File { name: format!("{name}.yaml"), text }]);
    report.look_for(|reference| reference.name == "buildkite-agent-token");
    report
}

#[expect(clippy::disallowed_methods, reason = "how a person asks a test to write")]
fn update_is_asked_for() -> bool {
    std::env::var_os("UPDATE").is_some()
}

#[test]
fn every_refusal_says_where_why_and_what_to_do() {
    for name in names() {
        let mut message = String::new();
        for finding in linted(&name).findings {
            writeln!(message, "{} [{}] {}", finding.object, finding.problem.id, finding.problem).unwrap();
        }
        let path = folder().join(format!("{name}.message"));
        if update_is_asked_for() {
            fs::write(&path, &message).unwrap();
        }
        let before = fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(message, before, "{name}: run UPDATE=1 cargo test --test pods, and read what it says");
    }
}

#[test]
fn each_rule_has_a_fixture_that_breaks_it_and_no_other() {
    let ids: BTreeSet<&str> = REFUSALS.iter().map(|rule| rule.id).collect();
    assert_eq!(ids.len(), REFUSALS.len(), "an id stands twice");
    for id in ids {
        let broken: BTreeSet<&str> = linted(id).findings.iter().map(|finding| finding.problem.id).collect();
        assert_eq!(broken, BTreeSet::from([id]), "{id}.yaml");
    }
}

#[test]
fn all_that_stands_against_a_definition_is_told_at_once() {
    let broken: BTreeSet<&str> = linted("all-at-once").findings.iter().map(|finding| finding.problem.id).collect();
    let expected = [
        "acquire-job",
        "command-exec",
        "fargate",
        "grace-period",
        "health-port-taken",
        "helper-life",
        "other-queue",
        "pre-stop-signals",
    ];
    assert_eq!(broken, BTreeSet::from(expected));
}

#[test]
fn nothing_stands_against_what_breaks_no_rule() {
    for name in names() {
        let text = fs::read_to_string(folder().join(format!("{name}.yaml"))).unwrap();
        assert!(!text.contains("namespace:"), "{name}.yaml: a fixture is about one namespace");
    }
    let good = "apiVersion: v1\nkind: PodTemplate\nmetadata: { name: good }\ntemplate:\n  spec:\n    containers:\n      - name: agent\n        \
                image: agent:1\n        command: [tini, --, bash, -ec, \"prepare; exec buildkite-agent start\"]\n        lifecycle: { preStop: { exec: \
                { command: [sleep, \"5\"] } } }\n        volumeMounts: [{ name: node, mountPath: /buildkite/builds, subPathExpr: $(POD_NAME) }]\n    \
                volumes: [{ name: node, hostPath: { path: /ci } }]\n";
    let report = lint(&[File { name: "good.yaml".to_owned(), text: good.to_owned() }]);
    assert!(report.findings.is_empty(), "{:?}", report.findings);
    assert_eq!(report.checked, ["PodTemplate good"]);
}
