//! Stories told to the real controller in virtual time, each compared line by line with what it came to before.
//!
//! `KITEPOOL_TELL_ANEW=1 cargo test --test scenarios` writes the transcripts anew; read the difference before it is committed.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test ends at the line that is wrong"
)]

mod seeds;

use std::{fs, path::PathBuf};

use kitepool::simulate::{
    stage::{Outcome, Stage, never_killed},
    story::Story,
};

fn path(name: &str, ending: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios").join(format!("{name}.{ending}"))
}

fn told(story: Story) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async { Stage::new(story, never_killed()).play().await })
}

fn scenario(name: &str) {
    let yaml = fs::read_to_string(path(name, "yaml")).unwrap();
    let outcome = told(Story::parse(&yaml).unwrap());
    let mut text = outcome.transcript.join("\n");
    text.push('\n');
    text.push_str(&serde_json::to_string_pretty(&outcome.summary).unwrap());
    text.push('\n');
    println!("{text}");
    assert_eq!(outcome.wrong, Vec::<String>::new());
    let golden = path(name, "transcript");
    #[expect(clippy::disallowed_methods, reason = "a switch for whoever runs the test")]
    if std::env::var("KITEPOOL_TELL_ANEW").is_ok() {
        fs::write(&golden, &text).unwrap();
    }
    let before = fs::read_to_string(&golden).unwrap_or_default();
    let difference = text.lines().zip(before.lines()).position(|(now, before)| now != before);
    assert!(text == before, "{name}: differs from its transcript, first in line {difference:?}; see this file's head");
}

#[test]
fn cold_start() {
    scenario("cold_start");
}
