//! How long `decide` takes for one pool, and whether what it works on grows with history.
//!
//! `cargo bench -p kitepool-policy`. Times are microseconds per pool, over many calls; the claim is 5 µs at p99, however many
//! hints there are.
//!
//! `decide` knows history only through `Memory`. That nothing it allocates grows with history is shown by counting: the
//! allocations of a decision, their number and their bytes, at the beginning of a long history and at its end.
#![expect(clippy::print_stdout, clippy::disallowed_methods, reason = "a program that measures time and prints it")]

use std::{
    alloc::System,
    collections::{BTreeMap, BTreeSet},
    hint::black_box,
    time::Duration,
    time::Instant,
};

use jiff::{SignedDuration, Timestamp};
use kitepool_policy::{
    check, decide,
    decision::Decision,
    memory::{Asked, Failing, Memory, PEAKS_MAX, Peak, Period, Round, Unsatisfiable, Victim},
    observation::{
        AgentPod, AgentState, Generation, GoodReading, Hint, Load, PodCounts, PoolObservation, QueueObservation, Rank,
        Reading, Sign,
    },
    spec::{Fraction, Limits, Mode, Pause, Percent, PoolName, PoolSpec, ScaleDown, ScaleUp, Schedule, Spare, Step},
    units::{Agents, AgentsPerPod, Jobs, Pods},
    unsatisfiable::Watch,
};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

/// Counts what is allocated, and passes it on.
#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Calls per case. Enough for a p99 that repeats, few enough to wait for.
const CALLS: u32 = 20_000;

fn main() {
    let Some(case) = Case::prepare() else { return };
    println!("{:<52} {:>9} {:>9} {:>9}", "decide, µs per pool", "p50", "p99", "max");
    for pools in [1, 5] {
        for hints in [0, 10, 1_000, 10_000] {
            let queue = case.queue(pools, hints);
            let calls = if hints > 100 { CALLS / 20 } else { CALLS };
            let times = measure(&queue, calls, |queue| decide(queue, case.now));
            report(&format!("{pools} pools, {hints} hints, full memory"), &times, pools);
        }
    }
    let mut quiet = case.queue(1, 0);
    for pool in &mut quiet.pools {
        pool.memory = Memory::default();
    }
    report("1 pools, 0 hints, empty memory", &measure(&quiet, CALLS, |queue| decide(queue, case.now)), 1);
    let queue = case.queue(5, 0);
    let decisions = decide(&queue, case.now);
    report("5 pools, check alone", &measure(&queue, CALLS, |queue| check(queue, &decisions, case.now)), 5);
    case.live_long();
}

fn measure<T>(queue: &QueueObservation, calls: u32, what: impl Fn(&QueueObservation) -> T) -> Vec<Duration> {
    for _ in 0..calls / 10 {
        let _ = black_box(what(black_box(queue)));
    }
    let timed = |_| {
        let start = Instant::now();
        let _ = black_box(what(black_box(queue)));
        start.elapsed()
    };
    (0..calls).map(timed).collect()
}

fn report(name: &str, times: &[Duration], pools: u32) {
    let mut times = times.to_vec();
    times.sort_unstable();
    let at = |part: usize| {
        let time = times.get((times.len() * part / 1_000).min(times.len().saturating_sub(1)));
        time.copied().unwrap_or_default().as_secs_f64() * 1e6 / f64::from(pools)
    };
    println!("{name:<52} {:>9.2} {:>9.2} {:>9.2}", at(500), at(990), at(1_000));
}

/// A pool in the middle of everything: schedules, a full window, running periods, foreign changes, a roll.
struct Case {
    now: Timestamp,
    spec: PoolSpec,
}

impl Case {
    fn prepare() -> Option<Self> {
        let seconds = Duration::from_secs;
        let step = |percent, agents| Step::new(Percent::new(percent)?, Agents(agents), seconds(10));
        let schedule = Schedule {
            days: vec![jiff::civil::Weekday::Monday, jiff::civil::Weekday::Friday],
            from: jiff::civil::time(8, 0, 0, 0),
            to: jiff::civil::time(19, 0, 0, 0),
            time_zone: jiff::tz::TimeZone::get("Europe/London").ok()?,
            min: Pods(10),
        };
        let spec = PoolSpec {
            name: PoolName { namespace: "buildkite".to_owned(), name: "linux".to_owned() },
            tags: BTreeSet::from(["os=linux".to_owned(), "size=large".to_owned()]),
            agents_per_pod: AgentsPerPod::new(2)?,
            mode: Mode::Active,
            pause: Pause::None,
            order: 0,
            limits: Limits::new(Pods(1), Pods(500))?,
            spare: Spare::Percent(Percent::new(10)?),
            waiting_weight: Fraction::from_thousandths(100)?,
            scale_up: ScaleUp { cooldown: seconds(0), step: step(100, 10)? },
            scale_down: ScaleDown {
                cooldown: seconds(60),
                window: seconds(300),
                step: step(50, 1)?,
                min_age: seconds(120),
            },
            hint_ttl: seconds(120),
            stale_after: seconds(90),
            schedules: vec![schedule],
        };
        Some(Self { now: Timestamp::from_second(1_767_614_400).ok()?, spec })
    }

    fn ago(&self, seconds: i64) -> Timestamp {
        self.now - SignedDuration::from_secs(seconds)
    }

    fn memory(&self) -> Memory {
        let ages = (1..=9_i64).rev().map(|age| age * 30).take(PEAKS_MAX);
        let asked = |name: &str, pods| {
            let stamp = Some(self.ago(200));
            (name.to_owned(), Asked { raised_at: stamp, lowered_at: stamp, ..Asked::found(Pods(pods)) })
        };
        Memory {
            last_up: Some(self.ago(200)),
            last_down: Some(self.ago(100)),
            want: Some(Pods(70)),
            peaks: ages.zip(0..).map(|(age, rank)| Peak { until: self.ago(age), want: Pods(90 - rank) }).collect(),
            up_period: Some(Period { start: self.ago(200), base: Pods(60) }),
            down_period: Some(Period { start: self.ago(100), base: Pods(90) }),
            asked: [asked("linux-6c4f9d", 20), asked("linux-97b1aa", 60)].into(),
            foreign: vec![self.ago(500), self.ago(300)],
            contested_since: None,
            failing: Some(Failing { generation: "linux-97b1aa".to_owned(), ready: Pods(58), tolerated: Pods(1) }),
            unsatisfiable: Some(Unsatisfiable { jobs: Jobs(2), since: self.ago(500) }),
            rounds: BTreeMap::from([("linux-6c4f9d".to_owned(), self.round("linux-6c4f9d"))]),
        }
    }

    /// Five pods that are chosen to go.
    fn round(&self, generation: &str) -> Round {
        let victim = |number| self.agent(generation, number);
        let victims = (15..20).map(victim).map(|pod| Victim { name: pod.name, uid: pod.uid });
        Round { since: self.ago(8), victims: victims.collect(), lowered: None }
    }

    fn agent(&self, generation: &str, number: u32) -> AgentPod {
        AgentPod {
            name: format!("{generation}-5d9f7c-{number:05}"),
            uid: format!("{number:08x}-4b7c-4e51-9a3f-0192e4c1d2aa"),
            state: if number < 15 { AgentState::Busy(Agents(1)) } else { AgentState::Idle },
            since: self.ago(i64::from(number) * 20),
            asked_at: None,
            rank: if number < 2 { Rank::Unready } else { Rank::Ready },
            is_draining: false,
            is_leaving: false,
            node: Some(format!("ip-10-0-{number}-1.eu-west-1.compute.internal")),
            created_at: self.ago(4_000),
            sign: if number < 15 { Sign::Busy } else { Sign::Plain },
        }
    }

    fn queue(&self, pools: u32, hints: u32) -> QueueObservation {
        let generation = |name: &str, pods: u32| Generation {
            name: name.to_owned(),
            adopted: false,
            replicas: Pods(pods),
            scaled_by_us: true,
            settled: true,
            pods: PodCounts {
                unready: Pods(2),
                ready: Pods(pods.saturating_sub(2)),
                draining: Pods(1),
                failing: Pods(1),
                unscheduled: Pods(1),
                leaving: Pods(0),
            },
            agents: (0..pods).map(|number| self.agent(name, number)).collect(),
        };
        let pool = |number: u32| {
            let name = PoolName { name: format!("linux-{number}"), ..self.spec.name.clone() };
            PoolObservation {
                spec: PoolSpec { name, ..self.spec.clone() },
                memory: self.memory(),
                generations: vec![generation("linux-6c4f9d", 20), generation("linux-97b1aa", 60)],
                wanted_generation: Some("linux-97b1aa".to_owned()),
            }
        };
        let hint = |number: u32| Hint {
            // Ids of real jobs look as random as this.
            job: format!("{:08x}-4b7c-4e51-9a3f-0192e4c1d2aa", number.wrapping_mul(2_654_435_761)),
            runnable_at: self.ago(i64::from(number % 20) - 5),
            stored_at: self.ago(i64::from(number % 5)),
            rules: vec!["queue=linux".to_owned(), "os=linux".to_owned()],
        };
        let load =
            Load { scheduled: Jobs(12), running: Jobs(100), waiting: Jobs(40), idle: Agents(50), busy: Agents(100) };
        let good = GoodReading { load, date: self.ago(5), at: self.ago(5) };
        QueueObservation {
            queue: "linux".to_owned(),
            reading: Reading { last_good: Some(good), trouble: None },
            hints: (0..hints).map(hint).collect(),
            standing: Agents(0),
            pools: (0..pools).map(pool).collect(),
            watch: Watch::default(),
        }
    }

    /// A hundred thousand ticks of ten seconds, demand up and down all the time: what is left of them in memory?
    fn live_long(&self) {
        let mut queue = self.queue(1, 0);
        let mut largest = 0;
        let mut times = Vec::new();
        let mut counts: Vec<(usize, usize)> = Vec::new();
        for tick in 0..100_000_u32 {
            let now = self.now + SignedDuration::from_secs(i64::from(tick) * 10);
            let jobs = tick.wrapping_mul(2_654_435_761) >> 25;
            if let Some(good) = &mut queue.reading.last_good {
                (good.load.running, good.date, good.at) = (Jobs(jobs), now, now);
            }
            let region = Region::new(ALLOCATOR);
            let start = Instant::now();
            let decisions = decide(&queue, now);
            times.push(start.elapsed());
            let allocated = region.change();
            counts.push((allocated.allocations + allocated.reallocations, allocated.bytes_allocated));
            if let (Some(pool), Some(Decision { memory, .. })) = (queue.pools.first_mut(), decisions.into_iter().next())
            {
                largest = largest.max(serde_json::to_string(&memory).map_or(0, |written| written.len()));
                pool.memory = memory;
            }
        }
        println!();
        println!("{:<52} {:>9} {:>9} {:>9}", "a history of 100,000 ticks, µs per pool", "p50", "p99", "max");
        report("its first 1,000 decisions", times.get(..1_000).unwrap_or_default(), 1);
        report("its last 1,000 decisions", times.get(99_000..).unwrap_or_default(), 1);
        for (name, part) in [("first", counts.get(..1_000)), ("last", counts.get(99_000..))] {
            let part = part.unwrap_or_default();
            let most = |of: fn(&(usize, usize)) -> usize| part.iter().map(of).max().unwrap_or_default();
            let (calls, bytes) = (most(|count| count.0), most(|count| count.1));
            println!("its {name} 1,000 decisions: at most {calls} allocations and {bytes} bytes each");
        }
        println!("the largest memory on the way, as JSON: {largest} bytes");
    }
}
