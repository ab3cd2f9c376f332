//! Anything that could be observed, sensible or not.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

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

use crate::{
    build::{agent, at, name},
    tape::{Made, Tape, made},
};

/// A whole number of less than `end`.
fn small(tape: &mut Tape, end: u32) -> u32 {
    u32::try_from(tape.below(end.into())).unwrap()
}

/// Mostly small, zero and one among them, some large, and the largest there is.
fn count(tape: &mut Tape) -> u32 {
    match small(tape, 1_000) {
        drawn @ 0..700 => drawn / 35,
        drawn @ 700..950 => drawn * 2,
        _ => u32::MAX,
    }
}

/// Around `at(0)`, some in the future, so that the clock seems to have stepped back.
fn time(tape: &mut Tape) -> Timestamp {
    match tape.between(0, 9_999) {
        drawn @ 0..6_000 => at(-drawn / 15),
        drawn @ 6_000..8_000 => at((drawn - 7_000) * 2 / 5),
        drawn @ 8_000..9_000 => at((drawn - 8_500) * 400),
        drawn => at(0) + SignedDuration::from_millis((drawn - 9_900) * 111),
    }
}

fn span(tape: &mut Tape) -> Duration {
    match tape.below(700) {
        drawn @ 0..600 => Duration::from_secs(drawn),
        600..650 => Duration::ZERO,
        _ => Duration::MAX,
    }
}

fn percent(tape: &mut Tape) -> Percent {
    let drawn = u16::try_from(tape.below(u64::from(2 * Percent::MAX) + 1)).unwrap();
    Percent::new(if drawn > 1_000 { drawn % 100 } else { drawn }).unwrap()
}

fn step(tape: &mut Tape) -> Step {
    let (percent, agents) = (percent(tape), count(tape));
    let per = Duration::from_secs(1 + tape.below(59));
    Step::new(percent, Agents(agents), per).unwrap_or_else(|| Step::new(percent, Agents(1), per).unwrap())
}

/// `min = max` and `max` below what stands among them.
fn limits(tape: &mut Tape) -> Limits {
    let (a, b) = (count(tape), count(tape));
    Limits::new(Pods(a.min(b)), Pods(a.max(b))).unwrap()
}

fn schedule(tape: &mut Tape) -> Schedule {
    let hour = |tape: &mut Tape| i8::try_from(tape.below(24)).unwrap();
    Schedule {
        days: vec![civil::Weekday::Monday, civil::Weekday::Sunday],
        from: civil::time(hour(tape), 0, 0, 0),
        to: civil::time(hour(tape), 30, 0, 0),
        time_zone: TimeZone::get(tape.any_of(&["UTC", "Europe/London", "America/New_York"])).unwrap(),
        min: Pods(count(tape)),
    }
}

fn schedules(tape: &mut Tape) -> Vec<Schedule> {
    let how_many = if tape.once_in(4) { 1 + tape.below(2) } else { 0 };
    (0..how_many).map(|_| schedule(tape)).collect()
}

fn spare(tape: &mut Tape) -> Spare {
    if tape.below(2) == 0 { Spare::Agents(Agents(count(tape))) } else { Spare::Percent(percent(tape)) }
}

fn spec(tape: &mut Tape) -> PoolSpec {
    let agents_per_pod = match tape.below(6) {
        0..3 => 1,
        3..5 => 1 + small(tape, 4),
        _ => u32::MAX,
    };
    PoolSpec {
        name: name("pool"),
        tags: tape.maybe(|tape| tape.any_of(&["os=linux", "gpu=true"]).to_owned()).into_iter().collect::<BTreeSet<_>>(),
        agents_per_pod: AgentsPerPod::new(agents_per_pod).unwrap(),
        mode: if tape.once_in(5) { Mode::Observe } else { Mode::Active },
        pause: tape.any_of(&[
            Pause::None,
            Pause::None,
            Pause::None,
            Pause::None,
            Pause::None,
            Pause::Up,
            Pause::Down,
            Pause::All,
        ]),
        order: tape.any_of(&[0, 1, -1]),
        limits: limits(tape),
        spare: spare(tape),
        waiting_weight: Fraction::from_thousandths(u16::try_from(tape.below(1_001)).unwrap()).unwrap(),
        scale_up: ScaleUp { cooldown: span(tape), step: step(tape) },
        scale_down: ScaleDown { cooldown: span(tape), window: span(tape), step: step(tape), min_age: span(tape) },
        hint_ttl: span(tape),
        stale_after: span(tape),
        schedules: schedules(tape),
    }
}

fn failing(tape: &mut Tape) -> Failing {
    Failing { generation: tape.any_of(&["a", "b"]).to_owned(), ready: Pods(count(tape)), tolerated: Pods(count(tape)) }
}

fn asked(tape: &mut Tape) -> Asked {
    let (from, to) = (count(tape), count(tape));
    let from = if tape.below(2) == 0 { to } else { from };
    Asked { from: Pods(from), to: Pods(to), raised_at: tape.maybe(time), lowered_at: tape.maybe(time) }
}

fn period(tape: &mut Tape) -> Option<Period> {
    tape.maybe(|tape| Period { start: time(tape), base: Pods(count(tape)) })
}

/// A staircase as the policy keeps it: times rise, wants fall, and the newest want is below them all.
fn wants(tape: &mut Tape) -> (Option<Pods>, Vec<Peak>) {
    let Some(newest) = tape.maybe(count) else { return (None, Vec::new()) };
    let mut steps = tape.some(9, |tape| (time(tape), 1 + small(tape, 9)));
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
}

/// What the parts take at most, of numbers on a tape.
mod lengths {
    pub(super) const MEMORY: usize = 70;
    pub(super) const HINTS: usize = 1 + 7 * 4;
    const GENERATION: usize = 20;
    const SPEC: usize = 50;
    const READING: usize = 12;
    const AROUND: usize = READING + HINTS + 3;
    pub(super) const ONE: usize = GENERATION + MEMORY + SPEC + AROUND;
    pub(super) const QUEUE: usize = 3 * (2 * GENERATION + MEMORY + SPEC) + AROUND;
}

pub(crate) fn memories() -> Made<Memory> {
    made(lengths::MEMORY, memory)
}

fn memory(tape: &mut Tape) -> Memory {
    let (want, peaks) = wants(tape);
    let asked: BTreeMap<String, Asked> =
        tape.some(4, |tape| (tape.any_of(&["a", "b", "gone"]).to_owned(), asked(tape))).into_iter().collect();
    Memory {
        last_up: tape.maybe(time),
        last_down: tape.maybe(time),
        want,
        peaks,
        up_period: period(tape),
        down_period: period(tape),
        asked,
        foreign: tape.some(4, time),
        contested_since: tape.once_in(10).then(|| time(tape)),
        unsatisfiable: tape.once_in(5).then(|| Unsatisfiable { jobs: Jobs(count(tape)), since: time(tape) }),
        failing: tape.maybe(failing),
        rounds: BTreeMap::new(),
    }
}

/// Mostly as Kubernetes would show it, sometimes in motion, sometimes nonsense.
fn generation(name: &str, tape: &mut Tape) -> Generation {
    let replicas = if tape.once_in(5) { count(tape) } else { small(tape, 20) };
    let living = replicas.saturating_sub(if tape.once_in(7) { small(tape, 5) } else { 0 });
    let unready_percent = small(tape, 101);
    let unready = if unready_percent < 60 { 0 } else { living / 100 * unready_percent + living % 3 };
    let unready = unready.min(living);
    let motion = small(tape, 8);
    let (failing, unscheduled) = match motion {
        4 => (0, unready),
        5 => (unready, 0),
        6 => (unready / 2, unready - unready / 2),
        _ => (0, 0),
    };
    let draining = if tape.once_in(4) { count(tape) } else { 0 };
    let mut pods = PodCounts {
        unready: Pods(unready),
        failing: Pods(failing),
        unscheduled: Pods(unscheduled),
        ready: Pods(living - unready),
        leaving: Pods(0),
        draining: Pods(draining),
    };
    let agents = listed(name, pods, drawn(tape));
    let leaving = agents.iter().filter(|pod| pod.is_leaving && !pod.is_draining).count();
    pods.leaving = Pods(u32::try_from(leaving).unwrap());
    let (adopted, scaled_by_us, settled) = (tape.below(2) == 1, tape.below(2) == 1, motion > 0);
    Generation { name: name.to_owned(), adopted, replicas: Pods(replicas), scaled_by_us, settled, pods, agents }
}

fn generations(tape: &mut Tape) -> Vec<Generation> {
    let names: &[&str] = match tape.below(8) {
        0 => &[],
        1..5 => &["a"],
        _ => &["a", "b"],
    };
    names.iter().map(|name| generation(name, tape)).collect()
}

fn pool(name_of: &str, generations: Vec<Generation>, wanted: Option<&str>, tape: &mut Tape) -> PoolObservation {
    let spec = PoolSpec { name: name(name_of), ..spec(tape) };
    let mut memory = memory(tape);
    let drawn = drawn(tape);
    for generation in &generations {
        memory.rounds.extend(round(generation, drawn).map(|round| (generation.name.clone(), round)));
    }
    // In its books, or nearly every generation would be somebody else's doing.
    if tape.below(2) == 0 {
        for generation in &generations {
            let asked =
                memory.asked.entry(generation.name.clone()).or_insert_with(|| Asked::found(generation.replicas));
            (asked.from, asked.to) = (generation.replicas, generation.replicas);
        }
    }
    // What is under way was decided with the pool's last change.
    for asked in memory.asked.values_mut().filter(|asked| asked.from != asked.to) {
        (asked.raised_at, asked.lowered_at) = (memory.last_up, memory.last_down);
    }
    PoolObservation { spec, memory, generations, wanted_generation: wanted.map(ToOwned::to_owned) }
}

pub(crate) fn hints() -> Made<Vec<Hint>> {
    made(lengths::HINTS, |tape| tape.some(8, hint))
}

fn hint(tape: &mut Tape) -> Hint {
    let rules: &[&str] =
        tape.any_of::<&[&str]>(&[&[], &["queue=linux"], &["os=linux"], &["gpu=*", "queue=x"], &["nobody=has"]]);
    Hint {
        job: format!("job-{}", tape.below(12)),
        runnable_at: time(tape),
        stored_at: time(tape),
        rules: rules.iter().map(|rule| (*rule).to_owned()).collect(),
    }
}

fn load(tape: &mut Tape) -> Load {
    Load {
        scheduled: Jobs(count(tape)),
        running: Jobs(count(tape)),
        waiting: Jobs(count(tape)),
        idle: Agents(count(tape)),
        busy: Agents(count(tape)),
    }
}

fn reading(tape: &mut Tape) -> Reading {
    let is_fresh = tape.below(5) < 3;
    if is_fresh {
        let load = load(tape);
        let (date, sent) = (at(-tape.between(0, 30)), at(-tape.between(0, 30)));
        return Reading { last_good: Some(GoodReading { load, date, at: sent }), trouble: None };
    }
    let trouble = [None, Some(Trouble::NotRead), Some(Trouble::RateLimited), Some(Trouble::OtherIdentity)];
    Reading {
        last_good: tape.maybe(|tape| GoodReading { load: load(tape), date: time(tape), at: time(tape) }),
        trouble: tape.any_of(&trouble),
    }
}

/// The most pods that are listed; more may be counted.
const LISTED_MAX: u32 = 24;

/// What is drawn of all pods of a generation together: one draw for each would take most of the time.
type Drawn = (u32, u64, u64, u64);

fn drawn(tape: &mut Tape) -> Drawn {
    (small(tape, 12), tape.bits(), tape.bits(), tape.bits())
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
        if bits(signs, 5) == 0 && calm > 2 {
            pod.sign = Sign::Moving;
        }
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
pub(crate) fn queues() -> Made<QueueObservation> {
    made(lengths::QUEUE, |tape| {
        let how_many = tape.any_of(&[1, 0, 1, 1, 2, 2, 3]);
        let pools = (0..how_many).map(|number| {
            let generations = generations(tape);
            let wanted = tape.any_of(&[Some("a"), Some("b"), Some("c"), None]);
            pool(&format!("pool-{number}"), generations, wanted, tape)
        });
        let pools = pools.collect();
        queue_of(pools, tape)
    })
}

/// What a queue with one pool of one generation looks like.
pub(crate) fn queues_of_one() -> Made<QueueObservation> {
    made(lengths::ONE, |tape| {
        let generations = vec![generation("a", tape)];
        let pools = vec![pool("pool", generations, Some("a"), tape)];
        queue_of(pools, tape)
    })
}

fn queue_of(pools: Vec<PoolObservation>, tape: &mut Tape) -> QueueObservation {
    let mut queue = QueueObservation {
        queue: "linux".to_owned(),
        reading: reading(tape),
        hints: tape.some(8, hint).into(),
        standing: Agents(if tape.once_in(4) { count(tape) } else { 0 }),
        pools,
        watch: Watch::default(),
    };
    let mut watch = Watch::default();
    watch.look(&queue);
    queue.watch = watch;
    queue
}
