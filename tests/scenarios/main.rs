//! Stories told to the real controller in virtual time, each compared line by line with what it came to before.
//!
//! To write one: `NAME.yaml` in this folder with `about`, the pools, and steps in which a `say` tells the reader what happens and
//! an `expect` holds it to that (`src/simulate/story.rs` has all there is; durations as people say them), then NAME below. The
//! first run writes the transcript, and fails:
//!
//! ```sh
//! KITEPOOL_TELL_ANEW=1 cargo test --test scenarios NAME
//! ```
//!
//! Read `NAME.transcript` line by line before it is committed: it is what the controller promises. Lines of the world begin at
//! the margin, what the controller wrote is indented, a star tells of the story. The same story gives the same bytes on every
//! machine, so a failure is repeated by running that test alone; what differs stands in its output. What is too many for a
//! file, or is played many times, is made in code: `many_pools.rs`, `killed.rs`, and by chance `seeds.rs` and
//! `storms.rs`.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test ends at the line that is wrong"
)]

mod killed;
mod many_pools;
mod seeds;
mod storms;

use std::{fs, path::PathBuf, sync::Arc};

use kitepool::simulate::{
    replica::KillPoint,
    stage::{Outcome, Stage, never_killed},
    story::Story,
};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios")
}

fn read(name: &str) -> Story {
    let yaml = fs::read_to_string(folder().join(format!("{name}.yaml"))).unwrap();
    Story::parse(&yaml).unwrap()
}

fn told(story: Story) -> Outcome {
    told_until_killed(story, never_killed())
}

fn told_until_killed(story: Story, kill_point: Arc<KillPoint>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async { Stage::new(story, kill_point).play().await })
}

/// What a story came to, as it is kept.
fn text(outcome: &Outcome) -> String {
    format!("{}\n{}\n", outcome.transcript.join("\n"), serde_json::to_string_pretty(&outcome.summary).unwrap())
}

/// Holds what came of a story to its transcript.
fn compare(name: &str, text: &str, wrong: &[String]) {
    println!("{text}");
    let golden = folder().join(format!("{name}.transcript"));
    #[expect(clippy::disallowed_methods, reason = "a switch for whoever runs the test")]
    if std::env::var("KITEPOOL_TELL_ANEW").is_ok() {
        fs::write(&golden, text).unwrap();
    }
    let first: Vec<_> = wrong.iter().take(5).collect();
    assert!(wrong.is_empty(), "{name}: {} things are wrong, among them {first:#?}", wrong.len());
    let before = fs::read_to_string(&golden).unwrap_or_default();
    let differs = |(now, before): (&str, &str)| now != before;
    let difference = text.lines().zip(before.lines()).position(differs).map(|line| line + 1);
    assert!(text == before, "{name}: differs from its transcript, first in line {difference:?}; see this file's head");
}

macro_rules! scenarios {
    ($($name:ident),* $(,)?) => {
        const NAMES: &[&str] = &[$(stringify!($name)),*];
        $(
            #[test]
            fn $name() {
                let outcome = told(read(stringify!($name)));
                compare(stringify!($name), &text(&outcome), &outcome.wrong);
            }
        )*
    };
}

scenarios! {
    burst_and_decay,
    cold_start,
    stale_metrics,
    token_revoked,
    identity_changed,
    cannot_be_served,
    queue_paused,
    behind_a_limit,
    hand_scaled,
    definition_changed,
    pool_edited_and_deleted,
    spot_full,
    spot_unschedulable,
    events_astray,
    clocks_forward,
    clocks_back,
    failing_image,
    image_not_there,
    nodes_full,
    node_lost,
    two_clusters,
    marked_victims,
    victim_found_work,
    demand_returns,
    others_went,
    spot_notice,
}

#[test]
fn every_file_of_the_folder_belongs_to_a_test() {
    for entry in fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        let (stem, ending) = (path.file_stem().unwrap().to_str().unwrap(), path.extension().unwrap().to_str().unwrap());
        let is_made_in_code = ending == "transcript" && stem == "many_pools";
        assert!(ending == "rs" || NAMES.contains(&stem) || is_made_in_code, "no test plays {}", path.display());
    }
}
