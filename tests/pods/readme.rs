//! `pod-library/README.md` lists what the contract adds and refuses, from the contract's own tables.

use std::{fmt::Write as _, path::Path};

use kitepool::pods::contract::{ADDITIONS, REFUSALS};

const BEGIN: &str = "<!-- contract:begin -->\n";
const END: &str = "<!-- contract:end -->";

#[expect(clippy::disallowed_methods, reason = "how a person asks a test to write")]
fn update_is_asked_for() -> bool {
    std::env::var_os("UPDATE").is_some()
}

fn tables() -> String {
    let mut text = String::from("| added | where | what | why |\n|---|---|---|---|\n");
    for addition in ADDITIONS {
        writeln!(text, "| `{}` | {} | {} | {} |", addition.name, addition.path, addition.value, addition.reason)
            .unwrap();
    }
    text.push_str("\n| refused | where | why | what to do |\n|---|---|---|---|\n");
    for rule in REFUSALS {
        writeln!(text, "| `{}` | {} | {} | {} |", rule.id, rule.path, rule.reason, rule.remedy).unwrap();
    }
    text
}

#[test]
fn the_readme_of_the_library_lists_the_whole_contract() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("pod-library/README.md");
    let readme = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = readme.split_once(BEGIN).unwrap();
    let (listed, after) = rest.split_once(END).unwrap();
    let wanted = tables();
    if update_is_asked_for() {
        std::fs::write(&path, format!("{before}{BEGIN}{wanted}{END}{after}")).unwrap();
    } else {
        assert_eq!(listed, wanted, "run UPDATE=1 cargo test --test pods");
    }
}
