//! Anything that could be observed, sensible or not.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp, civil, tz::TimeZone};
use kitepool_policy::{
    memory::{Asked, Failing, Lowered, Memory, Peak, Period, Round, Unsatisfiable, Victim},
    observation::{
        AgentPod, AgentState, Generation, GoodReading, Hint, Load, PodCounts, PoolObservation, QueueObservation, Rank,
        Reading, Sign, Trouble,
    },
    spec::{Fraction, Limits, Mode, Pause, Percent, PoolSpec, ScaleDown, ScaleUp, Schedule, Spare, Step},
    units::{Agents, AgentsPerPod, Jobs, Pods},
    unsatisfiable::Watch,
};
use proptest::{collection, option, prelude::*, sample::select};

use crate::build::{agent, at, name};

/// Mostly small, zero and one among them, some large, and the largest there is. One draw each: there are so many of them that
/// a choice of strategies would take most of the time.
pub(crate) fn count() -> impl Strategy<Value = u32> {
    (0_u32..1_000).prop_map(|drawn| match drawn {
        0..700 => drawn % 20,
        700..950 => drawn * 2,
        _ => u32::MAX,
    })
}

/// Around `at(0)`, some in the future, so that the clock seems to have stepped back.
fn time() -> impl Strategy<Value = Timestamp> {
    (0_i64..10_000).prop_map(|drawn| match drawn {
        0..6_000 => at(-drawn / 15),
        6_000..8_000 => at((drawn - 7_000) * 2 / 5),
        8_000..9_000 => at((drawn - 8_500) * 400),
        _ => at(0) + SignedDuration::from_millis((drawn - 9_900) * 111),
    })
}

fn span() -> impl Strategy<Value = Duration> {
    (0_u64..700).prop_map(|drawn| match drawn {
        0..600 => Duration::from_secs(drawn),
        600..650 => Duration::ZERO,
        _ => Duration::MAX,
    })
}

fn percent() -> impl Strategy<Value = Percent> {
    (0_u16..=2 * Percent::MAX).prop_map(|drawn| Percent::new(if drawn > 1_000 { drawn % 100 } else { drawn }).unwrap())
}

fn step() -> impl Strategy<Value = Step> {
    (percent(), count(), 1_u64..60).prop_map(|(percent, agents, per)| {
        let per = Duration::from_secs(per);
        Step::new(percent, Agents(agents), per).unwrap_or_else(|| Step::new(percent, Agents(1), per).unwrap())
    })
}

/// `min = max` and `max` below what stands among them.
fn limits() -> impl Strategy<Value = Limits> {
    (count(), count()).prop_map(|(a, b)| Limits::new(Pods(a.min(b)), Pods(a.max(b))).unwrap())
}

fn schedules() -> impl Strategy<Value = Vec<Schedule>> {
    let schedule = (0_i8..24, 0_i8..24, select(vec!["UTC", "Europe/London", "America/New_York"]), count()).prop_map(
        |(from, to, zone, min)| Schedule {
            days: vec![civil::Weekday::Monday, civil::Weekday::Sunday],
            from: civil::time(from, 0, 0, 0),
            to: civil::time(to, 30, 0, 0),
            time_zone: TimeZone::get(zone).unwrap(),
            min: Pods(min),
        },
    );
    prop_oneof![3 => Just(Vec::new()), 1 => collection::vec(schedule, 1..3)]
}

fn spare() -> impl Strategy<Value = Spare> {
    prop_oneof![count().prop_map(|agents| Spare::Agents(Agents(agents))), percent().prop_map(Spare::Percent)]
}

fn spec() -> impl Strategy<Value = PoolSpec> {
    let shape = (
        collection::btree_set(select(vec!["os=linux".to_owned(), "gpu=true".to_owned()]), 0..2),
        prop_oneof![3 => Just(1_u32), 2 => 1_u32..5, 1 => Just(u32::MAX)],
        prop_oneof![4 => Just(Mode::Active), 1 => Just(Mode::Observe)],
        prop_oneof![5 => Just(Pause::None), 1 => Just(Pause::Up), 1 => Just(Pause::Down), 1 => Just(Pause::All)],
        -1_i32..2,
        limits(),
    );
    let scaling = (spare(), 0_u16..=1_000, (span(), step()), (span(), span(), step(), span()), span(), span());
    (shape, scaling, schedules()).prop_map(
        |(
            (tags, agents_per_pod, mode, pause, order, limits),
            (spare, weight, up, down, hint_ttl, stale_after),
            schedules,
        )| {
            PoolSpec {
                name: name("pool"),
                tags,
                agents_per_pod: AgentsPerPod::new(agents_per_pod).unwrap(),
                mode,
                pause,
                order,
                limits,
                spare,
                waiting_weight: Fraction::from_thousandths(weight).unwrap(),
                scale_up: ScaleUp { cooldown: up.0, step: up.1 },
                scale_down: ScaleDown { cooldown: down.0, window: down.1, step: down.2, min_age: down.3 },
                hint_ttl,
                stale_after,
                schedules,
            }
        },
    )
}

fn failing() -> impl Strategy<Value = Failing> {
    (select(vec!["a", "b"]), count(), count()).prop_map(|(generation, ready, tolerated)| Failing {
        generation: generation.to_owned(),
        ready: Pods(ready),
        tolerated: Pods(tolerated),
    })
}

fn asked() -> impl Strategy<Value = Asked> {
    (count(), count(), any::<bool>(), option::of(time()), option::of(time())).prop_map(
        |(from, to, same, raised_at, lowered_at)| Asked {
            from: Pods(if same { to } else { from }),
            to: Pods(to),
            raised_at,
            lowered_at,
        },
    )
}

fn period() -> impl Strategy<Value = Option<Period>> {
    option::of((time(), count()).prop_map(|(start, base)| Period { start, base: Pods(base) }))
}

/// A staircase as the policy keeps it: times rise, wants fall, and the newest want is below them all.
fn wants() -> impl Strategy<Value = (Option<Pods>, Vec<Peak>)> {
    (option::of(count()), collection::vec((time(), 1_u32..10), 0..9)).prop_map(|(want, mut steps)| {
        let Some(newest) = want else { return (None, Vec::new()) };
        steps.sort_unstable_by_key(|(until, _)| std::cmp::Reverse(*until));
        steps.dedup_by_key(|(until, _)| *until);
        let mut want = newest;
        let mut peaks = Vec::new();
        for (until, rise) in steps {
            let Some(higher) = want.checked_add(rise) else { break };
            want = higher;
            peaks.push(Peak { until, want: Pods(want) });
        }
        peaks.reverse();
        (Some(Pods(newest)), peaks)
    })
}

pub(crate) fn memory() -> impl Strategy<Value = Memory> {
    let names = select(vec!["a".to_owned(), "b".to_owned(), "gone".to_owned()]);
    let asked = collection::btree_map(names, asked(), 0..4);
    let contest = (collection::vec(time(), 0..4), 0_u8..10, time());
    let found = (option::weighted(0.2, (count(), time())), option::weighted(0.5, failing()));
    (option::of(time()), option::of(time()), wants(), period(), period(), asked, contest, found).prop_map(
        |(
            last_up,
            last_down,
            (want, peaks),
            up_period,
            down_period,
            asked,
            (foreign, contested, since),
            (unsatisfiable, failing),
        )| Memory {
            last_up,
            last_down,
            want,
            peaks,
            up_period,
            down_period,
            asked,
            foreign,
            contested_since: (contested == 9).then_some(since),
            unsatisfiable: unsatisfiable.map(|(jobs, since)| Unsatisfiable { jobs: Jobs(jobs), since }),
            failing,
            rounds: std::collections::BTreeMap::new(),
        },
    )
}

/// Mostly as Kubernetes would show it, sometimes in motion, sometimes nonsense.
fn generation(name: &'static str) -> impl Strategy<Value = Generation> {
    let replicas = prop_oneof![4 => 0_u32..20, 1 => count()];
    (
        replicas,
        0_u32..=100,
        prop_oneof![3 => Just(0), 1 => count()],
        prop_oneof![6 => Just(0), 1 => 0_u32..5],
        0_u8..8,
        any::<bool>(),
        drawn(),
    )
        .prop_map(move |(replicas, unready_percent, draining, missing, motion, adopted, drawn)| {
            let living = replicas.saturating_sub(missing);
            let unready = if unready_percent < 60 { 0 } else { living / 100 * unready_percent + living % 3 };
            let unready = unready.min(living);
            let (failing, unscheduled) = match motion {
                4 => (0, unready),
                5 => (unready, 0),
                6 => (unready / 2, unready - unready / 2),
                _ => (0, 0),
            };
            let mut pods = PodCounts {
                unready: Pods(unready),
                failing: Pods(failing),
                unscheduled: Pods(unscheduled),
                ready: Pods(living - unready),
                leaving: Pods(0),
                draining: Pods(draining),
            };
            let agents = listed(name, pods, drawn);
            let leaving = agents.iter().filter(|pod| pod.is_leaving && !pod.is_draining).count();
            pods.leaving = Pods(u32::try_from(leaving).unwrap());
            let (name, replicas, settled) = (name.to_owned(), Pods(replicas), motion > 0);
            Generation { name, adopted, replicas, settled, pods, agents }
        })
}

fn pool() -> impl Strategy<Value = PoolObservation> {
    let generations = prop_oneof![
        1 => Just(Vec::new()),
        4 => generation("a").prop_map(|a| vec![a]),
        3 => (generation("a"), generation("b")).prop_map(|(a, b)| vec![a, b]),
    ];
    let wanted = select(vec![Some("a"), Some("b"), Some("c"), None]);
    (spec().boxed(), memory().boxed(), generations.boxed(), wanted, any::<bool>(), drawn()).prop_map(
        |(spec, mut memory, generations, wanted, in_books, drawn)| {
            for generation in &generations {
                memory.rounds.extend(round(generation, drawn).map(|round| (generation.name.clone(), round)));
            }
            if in_books {
                // Otherwise nearly every generation is somebody else's doing.
                for generation in &generations {
                    let asked = memory
                        .asked
                        .entry(generation.name.clone())
                        .or_insert_with(|| Asked::found(generation.replicas));
                    (asked.from, asked.to) = (generation.replicas, generation.replicas);
                }
            }
            // What is under way was decided with the pool's last change.
            for asked in memory.asked.values_mut().filter(|asked| asked.from != asked.to) {
                (asked.raised_at, asked.lowered_at) = (memory.last_up, memory.last_down);
            }
            PoolObservation { spec, memory, generations, wanted_generation: wanted.map(ToOwned::to_owned) }
        },
    )
}

pub(crate) fn hint() -> impl Strategy<Value = Hint> {
    let rules =
        select(vec![vec![], vec!["queue=linux"], vec!["os=linux"], vec!["gpu=*", "queue=x"], vec!["nobody=has"]]);
    (0_u8..12, time(), time(), rules).prop_map(|(job, runnable_at, stored_at, rules)| Hint {
        job: format!("job-{job}"),
        runnable_at,
        stored_at,
        rules: rules.into_iter().map(ToOwned::to_owned).collect(),
    })
}

pub(crate) fn load() -> impl Strategy<Value = Load> {
    (count(), count(), count(), count(), count()).prop_map(|(scheduled, running, waiting, idle, busy)| Load {
        scheduled: Jobs(scheduled),
        running: Jobs(running),
        waiting: Jobs(waiting),
        idle: Agents(idle),
        busy: Agents(busy),
    })
}

fn reading() -> impl Strategy<Value = Reading> {
    let fresh = (load(), (-30_i64..1), (-30_i64..1)).prop_map(|(load, date, sent)| Reading {
        last_good: Some(GoodReading { load, date: at(date), at: at(sent) }),
        trouble: None,
    });
    let trouble = select(vec![None, Some(Trouble::NotRead), Some(Trouble::RateLimited), Some(Trouble::OtherIdentity)]);
    let any_at_all = (option::of((load(), time(), time())), trouble).prop_map(|(good, trouble)| Reading {
        last_good: good.map(|(load, date, at)| GoodReading { load, date, at }),
        trouble,
    });
    prop_oneof![3 => fresh, 2 => any_at_all]
}

/// The most pods that are listed; more may be counted.
const LISTED_MAX: u32 = 24;

/// What is drawn of all pods of a generation together: one draw for each would take most of the time.
type Drawn = (u32, u64, u64, u64);

fn drawn() -> impl Strategy<Value = Drawn> {
    (0_u32..12, any::<u64>(), any::<u64>(), any::<u64>())
}

/// The pods of a generation, each as its bits of the draw say; sometimes all are at rest, idle and old.
fn listed(generation: &str, pods: PodCounts, (calm, states, signs, ages): Drawn) -> Vec<AgentPod> {
    let of = |what: &'static str, count: Pods, rank: Rank, is_draining: bool| {
        let name = move |number| format!("{generation}-{what}-{number:02}");
        (0..count.0.min(LISTED_MAX)).map(move |number| AgentPod { rank, is_draining, ..agent(&name(number)) })
    };
    let mut agents: Vec<AgentPod> = of("draining", pods.draining, Rank::Ready, true)
        .chain(of("ready", pods.ready, Rank::Ready, false))
        .chain(of("unready", pods.unready, Rank::Unready, false))
        .collect();
    for (bit, pod) in (0_u32..).zip(&mut agents) {
        let bits = |of: u64, count: u32| of.rotate_right(bit * count) % (1 << count);
        pod.state = match bits(states, 2) {
            _ if pod.rank != Rank::Ready && bits(states, 3) > 1 => AgentState::Starting,
            0 | 1 => AgentState::Idle,
            2 => AgentState::Busy(Agents(1)),
            _ if calm < 8 => AgentState::Idle,
            _ => AgentState::Unknown,
        };
        pod.sign = [Sign::Plain, Sign::Leaving, Sign::Busy, Sign::Mixed][usize::try_from(bits(signs, 2)).unwrap()];
        pod.since = at(-i64::try_from(bits(ages, 8)).unwrap());
        pod.created_at = at(-i64::try_from(bits(ages, 9)).unwrap());
        pod.asked_at = (bits(signs, 3) > 2).then(|| at(-i64::try_from(bits(ages, 4)).unwrap()));
        pod.node = Some(format!("node-{}", bits(ages, 2)));
        if calm < 4 {
            (pod.state, pod.created_at) =
                (if pod.rank == Rank::Ready { AgentState::Idle } else { AgentState::Starting }, at(-100_000));
        }
        pod.is_leaving = calm == 11 && bits(states, 4) == 0;
    }
    agents
}

/// A round of this generation's, most often of pods that stand there.
fn round(generation: &Generation, (calm, states, _, ages): Drawn) -> Option<Round> {
    let since = at(-i64::from(calm) * 3);
    let is_chosen = |number: u32| states.rotate_left(number).is_multiple_of(3);
    let victims: Vec<Victim> = (0_u32..)
        .zip(&generation.agents)
        .filter(|(number, pod)| is_chosen(*number) || (calm < 6 && pod.sign == Sign::Leaving))
        .map(|(_, pod)| Victim { name: pod.name.clone(), uid: pod.uid.clone() })
        .collect();
    let taken = Pods(u32::try_from(victims.len()).unwrap());
    let lowered = match ages % 5 {
        0 => Some(Lowered { from: generation.replicas, to: generation.replicas.minus(taken) }),
        1 => Some(Lowered { from: generation.replicas.plus(taken), to: generation.replicas }),
        _ => None,
    };
    (!states.is_multiple_of(4) && !victims.is_empty()).then_some(Round { since, victims, lowered })
}

/// A queue at about `at(0)`.
pub(crate) fn queue() -> impl Strategy<Value = QueueObservation> {
    queue_of(collection::vec(pool().boxed(), 0..4).prop_map(|mut pools| {
        for (number, pool) in pools.iter_mut().enumerate() {
            pool.spec.name = name(&format!("pool-{number}"));
        }
        pools
    }))
}

/// What a queue with one pool of one generation looks like.
pub(crate) fn queue_of_one() -> impl Strategy<Value = QueueObservation> {
    queue_of((pool().boxed(), generation("a")).prop_map(|(mut pool, generation)| {
        pool.generations = vec![generation];
        pool.wanted_generation = Some("a".to_owned());
        vec![pool]
    }))
}

fn queue_of(pools: impl Strategy<Value = Vec<PoolObservation>>) -> impl Strategy<Value = QueueObservation> {
    let standing = prop_oneof![3 => Just(0), 1 => count()];
    (reading().boxed(), collection::vec(hint().boxed(), 0..8), standing, pools).prop_map(
        |(reading, hints, standing, pools)| {
            let mut queue = QueueObservation {
                queue: "linux".to_owned(),
                reading,
                hints: hints.into(),
                standing: Agents(standing),
                pools,
                watch: Watch::default(),
            };
            let mut watch = Watch::default();
            watch.look(&queue);
            queue.watch = watch;
            queue
        },
    )
}
