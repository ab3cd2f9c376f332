//! The import table of ARCHITECTURE.md, held to the sources: a module names only what it may.

#![cfg(test)]

use std::path::{Path, PathBuf};

/// Where, what must not be named there, and why.
const RULES: [(&str, &[&str], &str); 11] = [
    (
        "src/buildkite",
        &["kube", "k8s_openapi", "crate::cluster", "crate::control"],
        "Buildkite's side knows no Kubernetes",
    ),
    ("src/cluster", &["reqwest", "crate::buildkite", "crate::control"], "the cluster's side knows no Buildkite"),
    ("src/sense", &["kube", "k8s_openapi", "crate::control", "crate::serve"], "sensors publish, they decide nothing"),
    ("src/control", &["kube", "k8s_openapi", "axum", "clap", "reqwest"], "only src/cluster names Kubernetes' client"),
    (
        "src/pods",
        &["kube", "crate::control", "crate::cluster", "crate::buildkite"],
        "rendering is a function of its input",
    ),
    (
        "src/ingest",
        &["kube", "k8s_openapi", "crate::buildkite", "crate::sense"],
        "receiving makes hints, whatever becomes of them",
    ),
    ("src/explain", &["kube", "k8s_openapi", "axum", "reqwest"], "it tells what was read"),
    (
        "src/serve",
        &["kube", "crate::buildkite", "crate::cluster"],
        "what is served is what control::status and its registry hold",
    ),
    (
        "crates/policy/src",
        &["tokio", "kube", "reqwest", "tracing", "rand", "std::env", "std::fs"],
        "the core decides, and does nothing else",
    ),
    ("crates/api/src", &["tokio", "reqwest", "kube_client", "kube::Client"], "types and parsing only"),
    (
        "crates/world/src",
        &["kitepool_policy", "kitepool_api", "kitepool::"],
        "what tests us must not share our mistakes",
    ),
];

/// The controller cannot tell a simulated world from a real one.
const NO_SIMULATION: [&str; 8] = [
    "src/buildkite",
    "src/cluster",
    "src/sense",
    "src/control",
    "src/pods",
    "src/ingest",
    "src/serve",
    "crates/api/src",
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("tests.rs") {
            found.push(path);
        }
    }
}

/// The lines of code: comments may name what they like, and so may the tests at the end of a file or in a file of their own.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .take_while(|line| !line.starts_with("#[cfg(test)]"))
        .filter(|line| !line.trim_start().starts_with("//"))
}

fn names(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        let is_part =
            |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '-' || c == '`' || c == '"');
        // A module is named by what stands around its double colons.
        !is_part(before) && (word.contains("::") || after == Some(':')) && !line[at + word.len()..].starts_with(": ")
    })
}

#[test]
fn no_module_names_what_it_must_not() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut broken = Vec::new();
    let simulation: &[&str] = &["kitepool_world", "crate::simulate"];
    let blind = NO_SIMULATION.map(|folder| (folder, simulation, "only src/cli and tests know of simulations"));
    for (folder, words, why) in RULES.into_iter().chain(blind) {
        let mut files = Vec::new();
        sources(&root.join(folder), &mut files);
        assert!(!files.is_empty(), "{folder} has no sources");
        for file in files {
            let text = std::fs::read_to_string(&file).unwrap();
            for line in code(&text) {
                for word in words.iter().filter(|word| names(line, word)) {
                    broken.push(format!("{}: names {word} ({why}): {}", file.display(), line.trim()));
                }
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn the_rules_would_notice() {
    assert!(names("use kube::Client;", "kube"));
    assert!(names("    let x = crate::control::tick::Term;", "crate::control"));
    assert!(!names("use kube_lease_manager::LeaseManager;", "kube"));
    assert!(!names("fn kube() {}", "kube"));
    assert!(!names("let clock: Clock = clap;", "clock"));
}
