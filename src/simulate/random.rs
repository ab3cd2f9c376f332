//! A story drawn by chance: the same seed, the same story.

use std::time::Duration;

use jiff::Timestamp;
use kitepool_world::Chance;
use serde_json::{Value, json};

use super::{
    stage::CLUSTER,
    story::{
        BuildkiteSide, Events, Expectation, ForeignScale, Jobs, KubernetesSide, PoolChange, QueueChange, RouteChange,
        Step, Story, TokenChange, WritesChange,
    },
};

/// Long enough for growth, accidents, and to come to rest.
const LASTS: Duration = Duration::from_mins(30);

/// Accidents end here, so that what comes after can be held to what is said about a calm queue.
const ACCIDENTS_END: Duration = Duration::from_mins(20);

/// Draws one.
pub fn story(seed: u64, start: Timestamp) -> Story {
    let mut draw = Draw(Chance::new(seed, "a story by chance"));
    let pools: Vec<Value> = (0..=draw.0.below(3)).map(|number| draw.pool(number)).collect();
    let queues: Vec<String> = pools
        .iter()
        .filter_map(|pool| pool.pointer("/spec/queue").and_then(Value::as_str).map(str::to_owned))
        .collect();
    let names: Vec<String> = pools
        .iter()
        .filter_map(|pool| pool.pointer("/metadata/name").and_then(Value::as_str).map(str::to_owned))
        .collect();
    let mut steps: Vec<Step> = Vec::new();
    for queue in &queues {
        for _ in 0..=draw.0.below(3) {
            steps.push(Step { jobs: Some(draw.jobs(queue)), ..draw.at() });
        }
    }
    for _ in 0..draw.0.below(5) {
        steps.extend(draw.accident(&queues, &names));
    }
    steps.sort_by_key(|step| step.at);
    Story {
        about: format!("drawn from seed {seed}"),
        seed,
        start,
        lasts: LASTS,
        state_every: super::story::STATE_EVERY,
        poll_interval: Duration::from_secs(10),
        buildkite: BuildkiteSide {
            ping: draw.one_of(&[None, Some(Duration::from_secs(2)), Some(Duration::from_secs(10))]),
            // Together with the lag no older than the policy takes numbers to be.
            refresh: draw.seconds(1, 6),
            lag: draw.seconds(0, 3),
            events: draw.events(),
            ..BuildkiteSide::default()
        },
        kubernetes: KubernetesSide {
            start_least: draw.seconds(1, 5),
            start_most: draw.seconds(5, 40),
            ..Default::default()
        },
        tokens: Vec::new(),
        pools,
        defaults: json!({ "longestJob": "1h" }),
        story: steps,
        expect: Expectation::default(),
    }
}

struct Draw(Chance);

impl Draw {
    fn seconds(&mut self, from: u64, to: u64) -> Duration {
        self.0.between(Duration::from_secs(from), Duration::from_secs(to))
    }

    fn one_of<T: Copy + Default>(&mut self, of: &[T]) -> T {
        let count = u32::try_from(of.len()).unwrap_or(u32::MAX);
        let number = usize::try_from(self.0.below(count)).unwrap_or_default();
        of.get(number).copied().unwrap_or_default()
    }

    fn at(&mut self) -> Step {
        Step { at: self.0.between(Duration::from_secs(5), ACCIDENTS_END), ..Step::default() }
    }

    fn pool(&mut self, number: u32) -> Value {
        // Two pools of three share a queue.
        let queue = if number < 2 { "linux" } else { "mac" };
        let max = 1 + self.0.below(30);
        let min = self.0.below(3).min(max);
        json!({
            "metadata": { "name": format!("pool-{number}") },
            "spec": {
                "queue": queue,
                "order": number,
                "agentsPerPod": 1 + self.0.below(3),
                "scaling": {
                    "min": min,
                    "max": max,
                    "spare": { "agents": self.0.below(3) },
                    "waitingWeight": self.one_of(&[0.0, 0.5, 1.0]),
                    "scaleUp": {
                        "cooldown": format!("{}s", self.0.below(20)),
                        "step": { "percent": 100, "agents": 1 + self.0.below(20), "per": "10s" },
                    },
                    "scaleDown": {
                        "cooldown": format!("{}s", self.0.below(60)),
                        "window": format!("{}s", self.0.below(200)),
                        "step": { "percent": 50, "agents": 1 + self.0.below(10), "per": "10s" },
                        "minAge": format!("{}s", self.0.below(100)),
                    },
                },
            },
        })
    }

    fn jobs(&mut self, queue: &str) -> Jobs {
        Jobs {
            queue: queue.to_owned(),
            cluster: None,
            count: 1 + self.0.below(40),
            run: self.seconds(1, 20),
            run_most: Some(self.seconds(20, 240)),
            every: self.one_of(&[None, Some(Duration::from_secs(1)), Some(Duration::from_secs(15))]),
            by_chance: self.0.permille(500),
            rules: Vec::new(),
            priority: i64::from(self.0.below(3)),
            group: None,
            followers: self.0.below(2),
        }
    }

    fn events(&mut self) -> Events {
        Events {
            lost_permille: self.one_of(&[0, 0, 100, 1_000]),
            doubled_permille: self.one_of(&[0, 100, 500]),
            least: Duration::from_millis(200),
            mean: self.one_of(&[Duration::from_millis(300), Duration::from_secs(5), Duration::from_mins(2)]),
            most: Duration::from_hours(1),
        }
    }

    /// Something goes wrong, and later it is mended.
    fn accident(&mut self, queues: &[String], pools: &[String]) -> Vec<Step> {
        let begins = self.at();
        let ends = Step { at: (begins.at + self.seconds(5, 240)).min(ACCIDENTS_END), ..Step::default() };
        let pool = self.pick(pools);
        match self.0.below(11) {
            0 => {
                let change = |status| RouteChange { status, hangs: false, delay: None };
                let status = self.one_of(&[Some(500), Some(429), Some(401), Some(503)]);
                vec![Step { buildkite: Some(change(status)), ..begins }, Step { buildkite: Some(change(None)), ..ends }]
            }
            1 => {
                let change = |hangs| RouteChange { status: None, hangs, delay: None };
                vec![Step { buildkite: Some(change(true)), ..begins }, Step { buildkite: Some(change(false)), ..ends }]
            }
            2 => vec![Step { restart: Some(true), ..begins }],
            3 => vec![Step { cut_watches: Some(true), ..begins }],
            4 => {
                let replicas = self.0.below(6);
                vec![Step { scale: Some(ForeignScale { pool, replicas, by: "kubectl".to_owned() }), ..begins }]
            }
            5 => {
                let name = self.pick(queues);
                let queue = |paused| Some(QueueChange { name: name.clone(), paused });
                vec![Step { queue: queue(true), ..begins }, Step { queue: queue(false), ..ends }]
            }
            6 => {
                let change = |cluster: Option<&str>| TokenChange {
                    token: None,
                    cluster: cluster.map(str::to_owned),
                    organization: "acme".to_owned(),
                };
                vec![Step { token: Some(change(None)), ..begins }, Step { token: Some(change(Some(CLUSTER))), ..ends }]
            }
            7 => vec![Step { drain: Some(self.one_of(&["node-1", "node-2"]).to_owned()), ..begins }],
            8 => vec![Step { contrary: Some(true), ..begins }, Step { contrary: Some(false), ..ends }],
            9 => {
                let change = |late, permille| WritesChange { late, permille };
                let (late, permille) = (self.seconds(1, 8), 100 + self.0.below(500));
                vec![
                    Step { writes: Some(change(Some(late), permille)), ..begins },
                    Step { writes: Some(change(None, 0)), ..ends },
                ]
            }
            _ => {
                let patch = json!({ "spec": { "scaling": { "max": 1 + self.0.below(20), "min": 0 } } });
                vec![Step { pool: Some(PoolChange { name: pool, patch: Some(patch), delete: false }), ..begins }]
            }
        }
    }

    fn pick(&mut self, of: &[String]) -> String {
        let count = u32::try_from(of.len()).unwrap_or(u32::MAX);
        let number = usize::try_from(self.0.below(count)).unwrap_or_default();
        of.get(number).cloned().unwrap_or_default()
    }
}
