//! What the demonstration shows: its own story, or seeded jobs for pools that somebody brings along.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use kitepool_api::{AgentPool, Problem};
use serde_json::{Value, json};

use super::story::{BuildkiteSide, Events, Jobs, KubernetesSide, Step, Story, StoryError};

/// The demonstration's own story.
const STORY: &str = include_str!("demo.yaml");

/// The agents that jobs are made for, in each queue: more of them is no better to look at.
const AGENTS_MAX: u32 = 60;

/// The world of pools that are brought along: agents and polls as usual, pods that start fast.
const PING: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_secs(5);
const POLL_SECONDS: u64 = 5;
const LASTS: Duration = Duration::from_mins(2);

/// The demonstration's own story, with this seed.
pub fn own_story(seed: u64) -> Result<Story, StoryError> {
    Ok(Story { seed, ..Story::parse(STORY)? })
}

/// The pools of a file, or all that stands against any of them.
pub fn read(yaml: &str) -> Result<Vec<AgentPool>, Vec<Problem>> {
    let pools = kitepool_api::read_pools(yaml)?;
    let mut problems = Vec::new();
    let mut names = BTreeSet::new();
    for pool in &pools {
        let name = pool.metadata.name.clone().unwrap_or_default();
        if !names.insert(name.clone()) {
            let place = format!("AgentPool {name}: metadata.namespace");
            let remedy = "rename one of them for the demonstration";
            problems.push(Problem::new(place, "here all pools are in one namespace", remedy));
        }
    }
    if problems.is_empty() { Ok(pools) } else { Err(problems) }
}

/// Jobs for each queue of these pools: a steady flow, a burst, one whose events are lost, a lull, and a second burst. What is
/// tried is how they scale: tokens and pod definitions are simulated ones, and what they would adopt is not there.
pub fn story_of(pools: &[AgentPool], seed: u64) -> Story {
    let mut queues: BTreeMap<&str, u32> = BTreeMap::new();
    for pool in pools {
        let agents = pool.spec.scaling.max.saturating_mul(pool.spec.agents_per_pod);
        let room = queues.entry(&pool.spec.queue).or_default();
        *room = room.saturating_add(u32::try_from(agents).unwrap_or_default()).min(AGENTS_MAX);
    }
    let mut story = Vec::new();
    for (queue, room) in queues {
        story.extend(jobs_for(queue, room.max(1)));
    }
    story.push(lose_events(38, 1_000, Some("All events are lost for a while; the next poll finds the jobs.")));
    story.push(lose_events(46, 0, Some("Events arrive again. A lull begins.")));
    story.sort_by_key(|step| step.at);
    Story {
        about: "Seeded jobs for pools from a file.".to_owned(),
        seed,
        start: jiff::Timestamp::UNIX_EPOCH,
        lasts: LASTS,
        state_every: super::story::STATE_EVERY,
        poll_interval: POLL,
        buildkite: BuildkiteSide {
            ping: Some(PING),
            refresh: PING,
            poll_duration: Some(POLL_SECONDS),
            ..BuildkiteSide::default()
        },
        kubernetes: KubernetesSide { start_most: Duration::from_secs(4), ..KubernetesSide::default() },
        tokens: Vec::new(),
        pools: pools.iter().map(simulated).collect(),
        defaults: Value::Null,
        story,
        expect: super::story::Expectation::default(),
    }
}

/// The pool with nothing that would need the world outside.
fn simulated(pool: &AgentPool) -> Value {
    let mut spec = serde_json::to_value(&pool.spec).unwrap_or_default();
    if let Some(fields) = spec.as_object_mut() {
        fields.retain(|field, _| !["token", "podTemplateRef", "template", "adopt"].contains(&field.as_str()));
    }
    let metadata = json!({ "name": pool.metadata.name, "annotations": pool.metadata.annotations });
    json!({ "metadata": metadata, "spec": spec })
}

fn jobs_for(queue: &str, room: u32) -> [Step; 4] {
    let seconds = Duration::from_secs;
    let step = |at: u64, count: u32, every: Option<Duration>| Step {
        at: seconds(at),
        jobs: Some(Jobs {
            queue: queue.to_owned(),
            cluster: None,
            count: count.max(1),
            run: seconds(6),
            run_most: Some(seconds(18)),
            every,
            by_chance: every.is_some(),
            rules: Vec::new(),
            priority: 0,
            group: None,
            followers: 0,
        }),
        ..Step::default()
    };
    // Jobs of twelve seconds that keep a quarter of the agents busy.
    let every = Duration::from_millis(48_000 / u64::from(room));
    [
        step(3, room * 2 / 3, Some(every)),
        step(10, room * 2 / 3, None),
        step(40, room / 3, None),
        step(90, room / 2, None),
    ]
}

fn lose_events(at: u64, permille: u32, say: Option<&str>) -> Step {
    Step {
        at: Duration::from_secs(at),
        say: say.map(str::to_owned),
        events: Some(Events { lost_permille: permille, ..Events::default() }),
        ..Step::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POOL: &str = "
apiVersion: kitepool.dev/v1alpha1
kind: AgentPool
metadata: { name: a, namespace: one }
spec:
  queue: linux
  token: { file: /mnt/token }
  podTemplateRef: { name: basic }
  scaling: { max: 12 }
";

    #[test]
    fn two_pools_of_one_name_find_no_room_in_one_namespace() {
        let yaml = format!("{POOL}\n---\n{}", POOL.replace("namespace: one", "namespace: two"));
        assert_eq!(
            read(&yaml).unwrap_err()[0].to_string(),
            "AgentPool a: metadata.namespace: here all pools are in one namespace; rename one of them for the demonstration"
        );
    }

    #[test]
    fn a_pool_keeps_its_scaling_and_loses_what_needs_the_world_outside() {
        let pools = read(POOL).unwrap();
        let story = story_of(&pools, 7);
        let spec = &story.pools[0]["spec"];
        assert_eq!((&spec["queue"], &spec["scaling"]["max"]), (&json!("linux"), &json!(12)));
        assert_eq!((spec.get("token"), spec.get("podTemplateRef")), (None, None));
        let jobs: u32 = story.story.iter().filter_map(|step| step.jobs.as_ref()).map(|jobs| jobs.count).sum();
        assert_eq!(jobs, 8 + 8 + 4 + 6);
    }
}
