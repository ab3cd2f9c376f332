//! Storms of events drawn by chance: lost, doubled, overtaking each other and hours late, and in the end every number is right.

use jiff::Timestamp;
use kitepool::simulate::storm;

use crate::told;

/// In each run of the tests: some seconds. `examples/seeds --storms` tries as many as you like, ten times as fast.
const SEEDS: u64 = 4;

#[test]
fn whatever_becomes_of_events_each_job_counts_once_runs_and_leaves_nothing_behind() {
    for seed in 0..SEEDS {
        let outcome = told(storm::story(seed, Timestamp::UNIX_EPOCH));
        assert_eq!(
            outcome.wrong,
            Vec::<String>::new(),
            "seed {seed}; repeat it with: cargo run --release --example seeds -- --storms --whole --seed {seed}"
        );
    }
}

#[test]
fn the_seeds_of_the_tests_have_every_kind_of_trouble() {
    let stories = || (0..SEEDS).map(|seed| storm::story(seed, Timestamp::UNIX_EPOCH));
    let events: Vec<_> = stories().flat_map(|story| story.story.into_iter().filter_map(|step| step.events)).collect();
    assert!(events.iter().any(|events| events.lost_permille >= 900));
    assert!(events.iter().any(|events| events.doubled_permille == 1_000));
    assert!(events.iter().any(|events| events.least.as_secs() >= 3_000), "an hour late");
    assert!(events.iter().any(|events| events.mean.as_secs() >= 20 && events.least.as_secs() < 20), "overtaking");
    let steps: Vec<_> = stories().flat_map(|story| story.story).collect();
    assert!(steps.iter().any(|step| step.restart == Some(true)) && steps.iter().any(|step| step.buildkite.is_some()));
    assert!(stories().any(|story| story.kubernetes.hint_quota == Some(3)), "most are shed");
}
