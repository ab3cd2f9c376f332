//! What the controller costs, and how fast a simulation of it is: `cargo bench --bench simulation [-- day | pools [NUMBER …] |
//! seeds]`.
//!
//! The real controller against the simulated world, in virtual time. Processor time and memory are those of the whole process,
//! the world included: they are upper bounds of the controller's own. Compare the rows of one run with each other.
//!
//! What a pool costs grows with their number, since a processor's caches hold a hundred pools and not a thousand. Whether the work
//! itself grows is told by counting instructions, those of a longer run less those of a shorter one:
//! `KITEPOOL_BENCH_INTERVALS=60 valgrind --tool=cachegrind --cache-sim=no target/release/deps/simulation-… pools 1000`.

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a program that measures time and prints it, and ends at the line that is wrong"
)]

use std::{fs, num::NonZeroU32, time::Duration, time::Instant};

use jiff::Timestamp;
use kitepool::{
    clock::Clock,
    simulate::{
        random,
        replica::{self, Replica},
        stage::{NAMESPACE, Stage, never_killed, world},
        story::Story,
    },
};
use kitepool_world::{Joined, buildkite::Buildkite};

/// Tokens, each of a cluster of its own.
const TOKENS: usize = 10;
const INTERVAL: Duration = Duration::from_secs(10);

/// Five minutes in which nothing happens; `KITEPOOL_BENCH_INTERVALS` says otherwise.
const INTERVALS: u32 = 30;

/// Until all pods are there and the readings know them.
const START_UP: Duration = Duration::from_mins(3);

/// As in the program itself.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == name);
    if is_wanted("day") {
        days();
    }
    if is_wanted("seeds") {
        seeds();
    }
    if is_wanted("pools") {
        println!(
            "{:>7} {:>10} {:>8} {:>11} {:>9} {:>9} {:>9} {:>9}",
            "pools", "calls/int.", "ticks", "CPU/tick ms", "us/pool", "writes", "RSS MiB", "start s"
        );
        let sizes: Vec<usize> = wanted.iter().filter_map(|wanted| wanted.parse().ok()).collect();
        for pools in if sizes.is_empty() { vec![100, 1_000, 10_000] } else { sizes } {
            many(pools);
        }
    }
}

fn in_virtual_time<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(future)
}

/// A day of one pool: one in which nothing happens, and one with a job every ten minutes.
fn days() {
    for (name, jobs) in [("without jobs", 0), ("with 144 jobs", 144)] {
        let yaml = format!(
            "{{ about: a day, lasts: 24h, pools: [{{ metadata: {{ name: linux }} }}], \
             story: [{{ at: 1m, jobs: {{ queue: linux, count: {jobs}, every: 10m, run: 2m }} }}] }}"
        );
        let mut times: Vec<f64> = (0..3)
            .map(|_| {
                let story = Story::parse(&yaml).unwrap();
                let start = Instant::now();
                in_virtual_time(async { stand(&story, story.lasts, Some(jobs)).await });
                start.elapsed().as_secs_f64()
            })
            .collect();
        times.sort_by(f64::total_cmp);
        let median = times.get(1).copied().unwrap_or_default();
        println!("a virtual day of one pool {name}: {median:.2} s, {:.0} virtual seconds a second", 86_400.0 / median);
    }
}

/// Lets a world and a controller run for so long, with a job every ten minutes if there are any. Nothing is recorded.
async fn stand(story: &Story, lasts: Duration, jobs: Option<u32>) -> (Joined, Replica) {
    let clock = Clock::fixed(story.start);
    let world = world(story, &clock);
    let config = replica::config(NAMESPACE, INTERVAL);
    let mut replica = Replica::new(world.clone(), clock.clone(), config, None, never_killed());
    replica.start();
    let mut next_job = jobs.filter(|jobs| *jobs > 0).map(|_| story.start);
    let end = story.start.checked_add(lasts).unwrap();
    run(&world, &clock, end, |now| {
        if next_job.is_some_and(|at| at <= now) {
            let job = kitepool_world::buildkite::NewJob::new(
                kitepool::simulate::stage::CLUSTER,
                "linux",
                Duration::from_mins(2),
            );
            world.buildkite().at(now, |buildkite| buildkite.submit(job, now));
            next_job = now.checked_add(Duration::from_mins(10)).ok();
        }
        next_job
    })
    .await;
    (world, replica)
}

/// Moves the world.
async fn run(world: &Joined, clock: &Clock, end: Timestamp, mut act: impl FnMut(Timestamp) -> Option<Timestamp>) {
    loop {
        let now = clock.now();
        let own = act(now);
        let next = world.advance(now);
        // Nobody makes hints of events here, and nobody reads the list of writes.
        world.buildkite().at(now, |buildkite| drop(buildkite.take_events(now)));
        if now >= end {
            return;
        }
        let next = [next, own, Some(end)].into_iter().flatten().min().unwrap();
        let wait = Duration::try_from(next.duration_since(now)).unwrap_or_default();
        tokio::select! {
            biased;
            () = world.kubernetes().changed() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Many stories by chance.
fn seeds() {
    const SEEDS: u32 = 40;
    let start = Instant::now();
    let mut wrong = 0;
    for seed in 0..SEEDS {
        let story = random::story(u64::from(seed), Timestamp::UNIX_EPOCH);
        wrong += in_virtual_time(async { Stage::new(story, never_killed()).play().await }).wrong.len();
    }
    let minutes = start.elapsed().as_secs_f64() / 60.0;
    println!(
        "{:.0} stories of 30 minutes a minute on one core, {wrong} broken invariants in {SEEDS}",
        f64::from(SEEDS) / minutes
    );
}

/// Many pools on ten tokens, each with a spare agent, in which nothing happens.
fn many(pools: usize) {
    let began = cpu();
    let intervals = std::env::var("KITEPOOL_BENCH_INTERVALS").map_or(INTERVALS, |text| text.parse().unwrap());
    in_virtual_time(async {
        let mut story = Story::parse("{ about: many, lasts: 1h, pools: [] }").unwrap();
        for number in 0..TOKENS {
            story.tokens.push(
                serde_json::from_value(serde_json::json!({
                    "secret": format!("token-{number}"),
                    "token": format!("bkct_{number}"),
                    "cluster": format!("0197a1b2-0000-4000-8000-1000000000{number:02}"),
                }))
                .unwrap(),
            );
        }
        for number in 0..pools {
            story.pools.push(serde_json::json!({
                "metadata": { "name": format!("pool-{number:05}") },
                "spec": { "token": { "secretRef": { "name": format!("token-{}", number % TOKENS), "key": "token" } } },
            }));
        }
        let clock = Clock::fixed(story.start);
        let world = world(&story, &clock);
        drop(story);
        let mut config = replica::config(NAMESPACE, INTERVAL);
        // Every pool writes its status and its Deployment with a spare agent. Within the budget of 50 a second that would take
        // an hour with 10,000 pools; this is about the time after.
        config.write_budget = NonZeroU32::MAX;
        let mut replica = Replica::new(world.clone(), clock.clone(), config, None, never_killed());
        replica.start();
        let settled = clock.now().checked_add(START_UP).unwrap();
        run(&world, &clock, settled, |_| None).await;
        let started = cpu() - began;
        let (ticks, cpu_before, calls, writes) = (replica.ticks(), cpu(), calls(&world), replica.kill_point().seen());
        let end = settled.checked_add(INTERVAL * intervals).unwrap();
        run(&world, &clock, end, |_| None).await;
        let (ticks, spent) = (replica.ticks() - ticks, cpu() - cpu_before);
        let calls = (crate::calls(&world) - calls) / u64::from(intervals);
        let per_tick = spent / f64::from(u32::try_from(ticks).unwrap());
        println!(
            "{pools:>7} {calls:>10} {ticks:>8} {:>11.2} {:>9.2} {:>9} {:>9} {started:>9.1}",
            per_tick * 1e3,
            per_tick * 1e6 / f64::from(u32::try_from(pools).unwrap()),
            replica.kill_point().seen() - writes,
            memory()
        );
        assert_eq!(world.buildkite().peek(Buildkite::agents), pools, "each has its spare agent, and nothing happened");
    });
}

fn calls(world: &Joined) -> u64 {
    world.buildkite().requests().values().flat_map(|by_token| by_token.values()).sum()
}

/// Processor seconds of this process so far.
fn cpu() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: f64 = fields.iter().skip(11).take(2).map(|field| field.parse::<f64>().unwrap()).sum();
    // Linux counts in hundredths of a second for everybody who asks.
    ticks / 100.0
}

/// MiB that this process holds.
fn memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}
