//! Two hundred pools with five tokens between them: what that costs others.

use std::{fmt::Write as _, time::Duration};

use kitepool::simulate::story::{Jobs, Step, Story};
use serde_json::{Value, json};

use crate::{compare, told};

const POOLS: u32 = 200;
const TOKENS: u32 = 5;
/// Every so many-th pool has work: those that have none must cost nothing.
const WORKING: usize = 4;
/// Of the story below.
const INTERVALS: u32 = 10;

const STORY: &str = "
about: two hundred pools
lasts: 1m 40s
pollInterval: 10s
stateEvery: 1h
buildkite: { ping: null, events: { least: 200ms, mean: 50ms, most: 500ms } }
kubernetes: { startLeast: 2s, startMost: 2s, hintQuota: 400 }
pools: []
defaults:
  longestJob: 1h
  scaling:
    min: 0
    max: 5
    spare: { agents: 0 }
    scaleDown: { cooldown: 10s, window: 10s, step: { percent: 100, agents: 10, per: 10s }, minAge: 10s }
";

fn cluster(token: u32) -> String {
    format!("0197a1b2-0000-4000-8000-{:012}", 100 + token)
}

/// Forty pools for each token. Two jobs come for each queue that has work, all at once.
fn story() -> Story {
    let mut story = Story::parse(STORY).unwrap();
    let token = |number| json!({ "secret": format!("token-{number}"), "token": format!("bkct_{number}"), "cluster": cluster(number) });
    story.tokens = (0..TOKENS).map(|number| serde_json::from_value(token(number)).unwrap()).collect();
    let pool = |number: u32| -> Value {
        let secret = json!({ "secretRef": { "name": format!("token-{}", number % TOKENS) } });
        json!({ "metadata": { "name": format!("pool-{number}") }, "spec": { "token": secret } })
    };
    story.pools = (0..POOLS).map(pool).collect();
    let jobs = |number: u32| -> Jobs {
        let queue = format!("pool-{number}");
        serde_json::from_value(json!({ "queue": queue, "cluster": cluster(number % TOKENS), "count": 2, "run": "10s" }))
            .unwrap()
    };
    let step = |number| Step { at: Duration::from_secs(20), jobs: Some(jobs(number)), ..Step::default() };
    story.story = (0..POOLS).step_by(WORKING).map(step).collect();
    story.expect.passed = Some(story.story.len() * 2);
    story.expect.replicas = (0..POOLS).map(|number| (format!("pool-{number}"), 0)).collect();
    story
}

#[test]
fn many_pools() {
    let outcome = told(story());
    let calls = outcome.summary.buildkite_calls;
    // Whose each token is is asked once; metrics at the beginning and once in each interval.
    let most = u64::from(TOKENS * (INTERVALS + 2));
    assert!((u64::from(TOKENS * INTERVALS)..=most).contains(&calls), "{calls} calls to Buildkite, {most} at the most");
    let mut text = format!("{POOLS} pools, {TOKENS} tokens, {INTERVALS} intervals\n");
    for written in ["creates", "scales", "deletes", "Event", "refused"] {
        let count = outcome.transcript.iter().filter(|line| line.contains(&format!("  {written} "))).count();
        writeln!(text, "{written}: {count}").unwrap();
    }
    writeln!(text, "{}", serde_json::to_string_pretty(&outcome.summary).unwrap()).unwrap();
    compare("many_pools", &text, &outcome.wrong);
}
