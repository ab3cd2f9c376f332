//! A storm of events drawn by chance: lost, doubled, overtaken by others and hours late, all at once; the same seed, the same storm.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use kitepool_world::Chance;
use serde_json::{Value, json};

use super::story::{
    BuildkiteSide, Events, Expectation, Jobs, KubernetesSide, PoolExpectation, RouteChange, STATE_EVERY, Step, Story,
};

/// Jobs come this long, and what becomes of their events changes every while.
const JOBS_COME: Duration = Duration::from_mins(15);
const EVENTS_CHANGE_EVERY: Duration = Duration::from_mins(3);

/// By then every job has run and every pool is empty again, though a third of the events is still on its way.
const CALM_AT: Duration = Duration::from_mins(35);

/// By then the last of the events that take an hour has come.
const LASTS: Duration = Duration::from_mins(85);

/// Accidents of the calm end here: what they did is over at the end.
const ACCIDENTS_END: Duration = Duration::from_mins(75);

/// The queues, each with a pool of the same name.
const QUEUES: [&str; 2] = ["linux", "mac"];

/// Draws one.
pub fn story(seed: u64, start: Timestamp) -> Story {
    let mut draw = Draw(Chance::new(seed, "a storm of events"));
    let mut steps = Vec::new();
    let mut at = Duration::ZERO;
    while at < JOBS_COME {
        at += EVENTS_CHANGE_EVERY;
        steps.push(Step { at, events: Some(draw.events()), ..Step::default() });
    }
    for queue in QUEUES {
        for _ in 0..=draw.0.below(3) {
            steps.push(Step {
                at: draw.within(Duration::ZERO, JOBS_COME),
                jobs: Some(draw.jobs(queue)),
                ..Step::default()
            });
        }
    }
    for _ in 0..draw.0.below(3) {
        steps.extend(draw.accident(Duration::from_mins(1), JOBS_COME));
    }
    let empty = || QUEUES.map(|pool| (pool.to_owned(), PoolExpectation { replicas: Some(0), ..Default::default() }));
    steps.push(Step { at: CALM_AT, expect: empty().into(), ..Step::default() });
    if draw.0.permille(500) {
        // Whoever has no reading yet believes an event of any age, so a pool may stand for some minutes then.
        steps.extend(draw.accident(CALM_AT, ACCIDENTS_END));
    } else {
        // Events that come when their jobs are long over move nothing.
        let minutes = [50, 58, 60, 62, 64, 66, 68, 70, 75, 80].map(Duration::from_mins);
        steps.extend(minutes.map(|at| Step { at, expect: empty().into(), ..Step::default() }));
    }
    steps.sort_by_key(|step| step.at);
    let jobs = steps.iter().filter_map(|step| step.jobs.as_ref()).map(|jobs| jobs.count).sum::<u32>();
    Story {
        about: format!("a storm of events, drawn from seed {seed}"),
        seed,
        start,
        lasts: LASTS,
        state_every: STATE_EVERY,
        poll_interval: Duration::from_secs(10),
        buildkite: BuildkiteSide {
            refresh: draw.within(Duration::from_secs(1), Duration::from_secs(6)),
            lag: draw.within(Duration::ZERO, Duration::from_secs(3)),
            events: draw.events(),
            ..BuildkiteSide::default()
        },
        kubernetes: KubernetesSide { hint_quota: draw.one_of(&[Some(3), Some(20), Some(200)]), ..Default::default() },
        tokens: Vec::new(),
        pools: QUEUES.map(pool).to_vec(),
        defaults: Value::Null,
        story: steps,
        expect: Expectation {
            passed: usize::try_from(jobs).ok(),
            killed: 0,
            replicas: BTreeMap::from(QUEUES.map(|pool| (pool.to_owned(), 0))),
        },
    }
}

fn pool(queue: &str) -> Value {
    json!({
        "metadata": { "name": queue },
        "spec": {
            "longestJob": "1h",
            "scaling": {
                "min": 0,
                "max": 30,
                "spare": { "agents": 0 },
                "scaleDown": {
                    "cooldown": "10s", "window": "30s", "minAge": "30s",
                    "step": { "percent": 100, "agents": 10, "per": "10s" },
                },
            },
        },
    })
}

struct Draw(Chance);

impl Draw {
    fn within(&mut self, from: Duration, to: Duration) -> Duration {
        self.0.between(from, to)
    }

    fn one_of<T: Copy + Default>(&mut self, of: &[T]) -> T {
        let count = u32::try_from(of.len()).unwrap_or(u32::MAX);
        let number = usize::try_from(self.0.below(count)).unwrap_or_default();
        of.get(number).copied().unwrap_or_default()
    }

    /// What becomes of events from one change to the next. Where the mean is longer than the time between two jobs, most of
    /// them overtake each other.
    fn events(&mut self) -> Events {
        let (seconds, minutes) = (Duration::from_secs, Duration::from_mins);
        let (least, mean, most) = self.one_of(&[
            (Duration::from_millis(200), Duration::from_millis(300), seconds(10)),
            (Duration::from_millis(200), seconds(20), minutes(10)),
            (seconds(5), minutes(3), minutes(60)),
            (minutes(58), minutes(2), minutes(63)),
        ]);
        let lost_permille = self.one_of(&[0, 300, 900]);
        Events { lost_permille, doubled_permille: self.one_of(&[0, 500, 1_000]), least, mean, most }
    }

    fn jobs(&mut self, queue: &str) -> Jobs {
        Jobs {
            queue: queue.to_owned(),
            cluster: None,
            count: 1 + self.0.below(15),
            run: self.within(Duration::from_secs(5), Duration::from_secs(30)),
            run_most: Some(Duration::from_mins(2)),
            every: self.one_of(&[None, Some(Duration::from_millis(200)), Some(Duration::from_secs(8))]),
            by_chance: self.0.permille(500),
            rules: Vec::new(),
            priority: 0,
            group: None,
            followers: 0,
        }
    }

    /// What makes a controller forget, or look anew, in the middle of it.
    fn accident(&mut self, from: Duration, to: Duration) -> Vec<Step> {
        let begins = Step { at: self.within(from, to), ..Step::default() };
        let ends =
            Step { at: begins.at + self.within(Duration::from_secs(10), Duration::from_mins(2)), ..Step::default() };
        match self.0.below(3) {
            0 => vec![Step { restart: Some(true), ..begins }],
            1 => vec![Step { cut_watches: Some(true), ..begins }],
            _ => {
                let change = |status| Some(RouteChange { status, hangs: false, delay: None });
                vec![Step { buildkite: change(Some(503)), ..begins }, Step { buildkite: change(None), ..ends }]
            }
        }
    }
}
