//! Jobs that no agent takes: what must be taken for that, and all the busy queues that must not.

use jiff::{SignedDuration, Timestamp};
use kitepool_policy::{
    decide,
    decision::StepName,
    memory::{Memory, Unsatisfiable},
    observation::{GoodReading, Hint, Load, PoolObservation, QueueObservation, Reading, Trouble},
    spec::{Limits, PoolSpec, Spare},
    units::{Agents, AgentsPerPod, Jobs, Pods},
    unsatisfiable::{GAP_MAX, WATCHED_FOR, Watch},
    violations,
};

use crate::{
    build::{at, category, decide_one, entry, hint, load, name, pool, queue, spec, step},
    polling::{Arrivals, Needs, Polling, Runs, Setting, Stream},
};

fn limited(min: u32, max: u32) -> PoolSpec {
    PoolSpec { limits: Limits::new(Pods(min), Pods(max)).unwrap(), ..spec() }
}

fn setting(pools: Vec<PoolSpec>, streams: Vec<Stream>) -> Setting {
    Setting { pools, streams, starts_in: (25, 40), lag: 4, grain: 1, poll: 10, paused: (0, 0), tells: false, seed: 7 }
}

fn chance(in_hundred: u32, runs: u32) -> Stream {
    Stream { arrivals: Arrivals::Chance(in_hundred), runs: Runs::About(runs), needs: Needs::Anybody }
}

fn once(second: u32, count: u32, runs: u32, needs: Needs) -> Stream {
    Stream { arrivals: Arrivals::Once { second, count }, runs: Runs::Exactly(runs), needs }
}

/// Half an hour of each, with numbers that are exact, and with numbers that are late and kept for a while.
#[test]
fn a_busy_queue_with_polling_agents_is_not_unsatisfiable() {
    let wide = PoolSpec { agents_per_pod: AgentsPerPod::new(4).unwrap(), ..limited(0, 3) };
    let spared = PoolSpec { spare: Spare::Agents(Agents(5)), ..limited(0, 12) };
    let other = PoolSpec { name: name("other"), order: 1, ..limited(0, 6) };
    let every = |seconds, count, runs| Stream {
        arrivals: Arrivals::Every { seconds, count },
        runs: Runs::Exactly(runs),
        needs: Needs::Anybody,
    };
    let told = Setting { tells: true, ..setting(vec![limited(0, 100)], vec![chance(20, 30)]) };
    let starting = Setting { starts_in: (20, 400), ..setting(vec![limited(0, 60)], vec![chance(10, 60)]) };
    for (what, setting) in [
        ("a quiet queue", setting(vec![limited(0, 100)], vec![chance(1, 40)])),
        ("a brisk one", setting(vec![limited(0, 100)], vec![chance(20, 30)])),
        ("a full one", setting(vec![limited(0, 100)], vec![chance(300, 10)])),
        ("more than all agents can do", setting(vec![limited(12, 12)], vec![chance(60, 20)])),
        ("more than one agent can do", setting(vec![limited(1, 1)], vec![chance(20, 6)])),
        ("short jobs, as many as agents can do", setting(vec![limited(6, 6)], vec![chance(40, 5)])),
        ("long jobs", setting(vec![limited(0, 100)], vec![chance(2, 900)])),
        ("a steady flow, one reading like the other", setting(vec![limited(15, 15)], vec![every(10, 5, 20)])),
        ("a steady flow of one", setting(vec![limited(3, 100)], vec![every(10, 1, 8)])),
        ("bursts onto warm agents", setting(vec![limited(60, 60)], vec![every(300, 50, 40)])),
        ("bursts from nothing", setting(vec![limited(0, 100)], vec![every(900, 50, 40)])),
        ("several agents in a pod", setting(vec![wide], vec![chance(60, 20)])),
        ("spare agents", setting(vec![spared], vec![chance(60, 20)])),
        ("several pools", setting(vec![limited(0, 6), other], vec![chance(60, 20)])),
        ("events that tell of jobs", told),
        ("cold starts all the time", starting),
    ] {
        for (lag, grain) in [(0, 1), (4, 10)] {
            let mut queue = Polling::new(Setting { lag, grain, ..setting.clone() });
            queue.run(1_800);
            let wrong = queue.shown.iter().find(|shown| shown.unsatisfiable > 0);
            assert!(wrong.is_none(), "{what}, {lag} s late, counted every {grain} s: {wrong:?}");
        }
    }
}

/// The same numbers again and again, for hours: as many jobs may start as finish.
#[test]
fn the_same_numbers_in_each_reading_are_a_steady_flow() {
    for (scheduled, running, idle) in [(5, 10, 5), (1, 1, 1), (100, 10, 3), (3, 10, 30), (50, 12, 50), (1, 1, 4)] {
        let mut readings = Readings::of(running + idle);
        for _ in 0..1_000 {
            let found = readings.read(load(scheduled, running, idle));
            assert_eq!(found, None, "{scheduled} queued, {running} running, {idle} idle");
        }
    }
}

/// Readings ten seconds apart of a queue with one pool, none of whose pods goes or comes.
struct Readings {
    queue: QueueObservation,
    date: Timestamp,
}

impl Readings {
    fn of(ready: u32) -> Self {
        Self { queue: queue(load(0, 0, 0), vec![pool(ready)]), date: at(0) }
    }

    fn read(&mut self, load: Load) -> Option<u32> {
        self.read_after(SignedDuration::from_secs(10), load)
    }

    fn read_after(&mut self, pause: SignedDuration, load: Load) -> Option<u32> {
        self.date += pause;
        self.queue.reading =
            Reading { last_good: Some(GoodReading { load, date: self.date, at: self.date }), trouble: None };
        self.look()
    }

    /// Looks and decides, and remembers as the status would.
    fn look(&mut self) -> Option<u32> {
        let mut watch = std::mem::take(&mut self.queue.watch);
        watch.look(&self.queue);
        self.queue.watch = watch;
        let decision = decide_one(&self.queue, self.date);
        let PoolObservation { memory, .. } = &mut self.queue.pools[0];
        memory.unsatisfiable = decision.memory.unsatisfiable;
        memory.unsatisfiable.map(|found| found.jobs.0)
    }

    /// Three jobs beside five idle agents, until they are found.
    fn stuck(ready: u32, running: u32) -> Self {
        let mut readings = Self::of(ready);
        for _ in 0..12 {
            let _ = readings.read(load(3, running, ready - running));
        }
        assert_eq!(readings.queue.pools[0].memory.unsatisfiable.map(|found| found.jobs), Some(Jobs(3)));
        readings
    }
}

/// What a stuck queue ends as: jobs found, and the most replicas that it may then have.
struct Row {
    what: &'static str,
    setting: Setting,
    seconds: u32,
    found: u32,
    replicas: u32,
    peak: u32,
}

fn stuck_queues() -> Vec<Row> {
    let slowly = PoolSpec {
        scale_up: kitepool_policy::spec::ScaleUp { step: step(0, 10, 10), ..spec().scale_up },
        ..limited(0, 500)
    };
    let wide = PoolSpec { agents_per_pod: AgentsPerPod::new(4).unwrap(), ..limited(0, 100) };
    let second = PoolSpec { name: name("second"), order: 1, ..limited(0, 50) };
    let nobodys = |count| once(50, count, 60, Needs::Nobody);
    let flow =
        Stream { arrivals: Arrivals::Every { seconds: 20, count: 1 }, runs: Runs::Exactly(30), needs: Needs::Anybody };
    let paused = Setting { paused: (0, 10_000), tells: true, ..setting(vec![limited(0, 100)], vec![flow]) };
    let told = Setting { tells: true, ..setting(vec![limited(0, 100)], vec![nobodys(30)]) };
    let row = |what, setting, found, replicas, peak| Row { what, setting, seconds: 1_500, found, replicas, peak };
    vec![
        row("tags that nobody has", setting(vec![limited(0, 100)], vec![nobodys(30)]), 30, 1, 30),
        row("the same, and events tell of it", told, 30, 1, 30),
        row("one job", setting(vec![limited(0, 100)], vec![nobodys(1)]), 1, 1, 1),
        row("far more than a pool may grow to", setting(vec![slowly], vec![nobodys(5_000)]), 5_000, 1, 160),
        row("warm agents", setting(vec![limited(10, 100)], vec![nobodys(30)]), 30, 10, 30),
        row("several agents in a pod", setting(vec![wide], vec![nobodys(30)]), 30, 1, 8),
        row("two pools", setting(vec![limited(0, 10), second], vec![nobodys(30)]), 30, 2, 30),
        // Seventy to a hundred and fifty seconds pass before what has come counts: eight jobs at most in between.
        row("a paused queue that fills", paused, 1_500 / 20 - 8, 9, 18),
        row("one job at a time", setting(vec![limited(0, 100)], vec![once(50, 20, 5_000, Needs::Turns)]), 19, 2, 20),
        Row {
            what: "a part, beside jobs that run long",
            setting: setting(
                vec![limited(0, 100)],
                vec![once(20, 10, 5_000, Needs::Anybody), once(200, 5, 60, Needs::Nobody)],
            ),
            seconds: 1_500,
            found: 5,
            replicas: 11,
            peak: 15,
        },
    ]
}

#[test]
fn jobs_that_no_agent_takes_stop_making_pools_grow() {
    for Row { what, setting, seconds, found, replicas, peak } in stuck_queues() {
        let mut queue = Polling::new(setting);
        queue.run(seconds);
        let latest = queue.latest();
        assert!(latest.unsatisfiable >= found && latest.unsatisfiable <= latest.scheduled, "{what}: {latest:?}");
        assert!(latest.replicas <= replicas && latest.replicas >= latest.running, "{what}: {latest:?}");
        let highest = queue.shown.iter().map(|shown| shown.replicas).max().unwrap();
        assert!(highest <= peak, "{what}: {highest} pods at the most");
        assert!(highest > 0, "{what}: nobody can know before an agent was idle");
        assert_eq!(violations(&queue.history), [], "{what}");
    }
}

#[test]
fn a_stuck_queue_is_found_soon_after_an_agent_was_idle() {
    let mut queue = Polling::new(setting(vec![limited(0, 100)], vec![once(50, 30, 60, Needs::Nobody)]));
    queue.run(400);
    let found = queue.shown.iter().find(|shown| shown.unsatisfiable > 0).unwrap();
    // First growth at 55, first pod at 80, all at 105; from the first idle one 70 s and two polls.
    assert!((150..200).contains(&found.second), "{found:?}");
}

/// The rest of the queue is served while a part of it is stuck, in the time that a pod takes to start.
#[test]
fn beside_unsatisfiable_jobs_the_rest_makes_pools_grow() {
    let mut queue = Polling::new(setting(vec![limited(0, 100)], vec![once(50, 5, 60, Needs::Nobody)]));
    queue.run(1_000);
    assert_eq!((queue.latest().unsatisfiable, queue.latest().replicas), (5, 1));
    queue.add_stream(once(1_002, 8, 400, Needs::Anybody));
    queue.run(20);
    assert!(queue.latest().replicas >= 9, "for the eight and a lookout: {:?}", queue.latest());
    queue.run(100);
    assert_eq!((queue.latest().scheduled, queue.latest().running), (5, 8));
    assert_eq!(violations(&queue.history), []);
}

#[test]
fn a_queue_that_is_resumed_is_served_by_all_its_agents_again() {
    let mut queue = Polling::new(Setting {
        paused: (0, 10_000),
        ..setting(vec![limited(0, 100)], vec![once(50, 30, 300, Needs::Anybody)])
    });
    queue.run(1_000);
    assert_eq!((queue.latest().unsatisfiable, queue.latest().replicas), (30, 1));
    queue.resume();
    // One ping, one reading, one cold start, another ping.
    queue.run(110);
    assert_eq!((queue.latest().unsatisfiable, queue.latest().scheduled, queue.latest().running), (0, 0, 30));
}

/// Each pool keeps an agent: the one whose tags fit notices.
#[test]
fn a_later_pool_that_can_run_them_gets_its_chance() {
    let second = PoolSpec { name: name("second"), order: 1, ..limited(0, 50) };
    let stuck = once(50, 6, 60, Needs::Pool(1));
    let mut queue = Polling::new(setting(vec![limited(0, 100), second], vec![stuck]));
    queue.run(4_000);
    assert_eq!(queue.latest().scheduled, 0, "{:?}", queue.latest());
}

/// The status of a quiet pool is not written: what is remembered changes when the number of jobs does.
#[test]
fn nothing_is_written_while_a_stuck_queue_stays_as_it_is() {
    let mut queue = Polling::new(setting(vec![limited(0, 100)], vec![once(50, 5, 60, Needs::Nobody)]));
    queue.run(1_500);
    let before = queue.memory_changes;
    queue.run(3_000);
    assert_eq!(queue.memory_changes, before);
    assert_eq!(queue.latest().unsatisfiable, 5);
}

#[test]
fn a_restart_forgets_the_watch_and_not_what_it_found() {
    let mut queue = Polling::new(setting(vec![limited(0, 100)], vec![once(50, 5, 60, Needs::Nobody)]));
    queue.run(120);
    assert_eq!(queue.latest().unsatisfiable, 0);
    queue.restart();
    queue.run(300);
    assert_eq!(queue.latest().unsatisfiable, 5, "only later");
    queue.run(600);
    let before = queue.latest().replicas;
    queue.restart();
    queue.run(600);
    assert!(queue.shown.iter().rev().take(120).all(|shown| shown.unsatisfiable == 5 && shown.replicas == before));
}

#[test]
fn what_was_found_round_trips() {
    let found = Unsatisfiable { jobs: Jobs(7), since: at(5) };
    let memory = Memory { unsatisfiable: Some(found), ..Memory::default() };
    let written = serde_json::to_string(&memory).unwrap();
    assert_eq!(written, r#"{"unsatisfiable":{"jobs":7,"since":"2026-01-05T12:00:05Z"}}"#);
    assert_eq!(serde_json::from_str::<Memory>(&written).unwrap(), memory);
}

#[test]
fn any_start_takes_it_back() {
    for (what, next, expected) in [
        ("the same again", load(3, 0, 8), Some(3)),
        ("more are queued", load(9, 0, 8), Some(3)),
        ("one is queued no more", load(2, 0, 8), None),
        ("one runs, and another has come", load(3, 1, 7), None),
        ("nothing is queued", load(0, 0, 8), None),
    ] {
        let mut readings = Readings::stuck(8, 0);
        assert_eq!(readings.read(next), expected, "{what}");
    }
    let mut readings = Readings::stuck(8, 0);
    assert_eq!(readings.read(load(9, 0, 8)), Some(3), "more are queued");
    assert_eq!(readings.read(load(8, 0, 8)), None, "one of them has come and gone between two readings");
    let mut readings = Readings::stuck(8, 1);
    assert_eq!(readings.read(load(3, 0, 8)), Some(3), "a job ends");
    assert_eq!(readings.read(load(3, 1, 7)), None, "and the next one starts");
}

#[test]
fn a_start_that_was_read_is_not_forgotten_while_nothing_can_be_written() {
    let mut readings = Readings::stuck(8, 0);
    let remembered = readings.queue.pools[0].memory.unsatisfiable;
    assert_eq!(readings.read(load(3, 1, 7)), None);
    readings.queue.pools[0].memory.unsatisfiable = remembered;
    assert_eq!(readings.read(load(3, 1, 7)), None);
}

#[test]
fn only_a_reading_of_another_date_is_news() {
    let mut readings = Readings::of(8);
    let _ = readings.read(load(3, 0, 8));
    let watch = readings.queue.watch.clone();
    for _ in 0..1_000 {
        assert_eq!(readings.look(), None);
    }
    assert_eq!(readings.queue.watch, watch);
}

#[test]
fn readings_too_far_apart_tell_nothing() {
    for (pause, tells) in [(GAP_MAX, true), (GAP_MAX + SignedDuration::from_secs(1), false)] {
        let mut readings = Readings::of(8);
        let found = (0..100).filter_map(|_| readings.read_after(pause, load(3, 0, 8))).last();
        assert_eq!(found.is_some(), tells, "{pause} apart");
    }
}

#[test]
fn a_failed_reading_is_no_sample_and_takes_nothing_back() {
    let mut readings = Readings::stuck(8, 0);
    readings.queue.reading.trouble = Some(Trouble::Unreachable);
    for _ in 0..100 {
        assert_eq!(readings.look(), Some(3));
    }
    // After an outage a watch begins anew, and what stood before still stands.
    assert_eq!(readings.read_after(SignedDuration::from_hours(1), load(3, 0, 8)), Some(3));
}

#[test]
fn before_its_first_reading_a_new_leader_keeps_what_was_found() {
    let mut readings = Readings::stuck(8, 0);
    readings.queue.watch = Watch::default();
    readings.queue.reading = Reading { last_good: None, trouble: Some(Trouble::NotRead) };
    assert_eq!(readings.look(), Some(3));
}

#[test]
fn nothing_is_found_sooner_than_several_pings() {
    let mut readings = Readings::of(8);
    let _ = readings.read(load(3, 0, 8));
    let first = readings.date;
    while readings.read(load(3, 0, 8)).is_none() {}
    assert_eq!(readings.date.duration_since(first), WATCHED_FOR);
    let mut single = Readings::of(1);
    let _ = single.read(load(3, 0, 1));
    let first = single.date;
    while single.read(load(3, 0, 1)).is_none() {}
    assert_eq!(single.date.duration_since(first), SignedDuration::from_secs(200), "one idle agent asks ten times");
}

#[test]
fn idle_agents_of_others_prove_nothing() {
    // Two ready pods of ours run something; the idle agents are not ours.
    let mut readings = Readings::of(2);
    for _ in 0..100 {
        assert_eq!(readings.read(load(3, 2, 40)), None);
    }
}

/// A pool that comes may be the one that can run them, and so may one whose tags change.
#[test]
fn another_pool_or_other_tags_take_it_back() {
    let mut readings = Readings::stuck(8, 0);
    readings.queue.pools[0].spec.tags.insert("gpu=true".to_owned());
    assert_eq!(readings.read(load(3, 0, 8)), None);

    let mut readings = Readings::stuck(8, 0);
    let mut newcomer = pool(0);
    newcomer.spec.name = name("gpu");
    readings.queue.pools.push(newcomer);
    let mut watch = readings.queue.watch.clone();
    watch.look(&readings.queue);
    readings.queue.watch = watch;
    assert_eq!(decide(&readings.queue, readings.date)[0].memory.unsatisfiable, None);
}

#[test]
fn the_report_says_what_to_look_at_and_one_agent_is_kept() {
    let readings = Readings::stuck(8, 0);
    let decision = decide_one(&readings.queue, readings.date);
    assert_eq!(category(&decision, StepName::Demand), "Unsatisfiable");
    assert_eq!((entry(&decision, StepName::Demand).output, entry(&decision, StepName::Spare).output), (0, 1));
    let sentence = entry(&decision, StepName::Demand).reason.to_string();
    for word in ["3 jobs", "tags", "paused", "concurrency limit"] {
        assert!(sentence.contains(word), "{sentence}");
    }
}

/// A job that an event tells of is none of those that have been queued for minutes.
#[test]
fn hinted_jobs_count_beside_unsatisfiable_ones() {
    let mut readings = Readings::stuck(8, 0);
    let unsure = Hint { runnable_at: readings.date, ..hint("unsure", 0) };
    readings.queue.hints = vec![hint("new", 300), unsure].into();
    let decision = decide_one(&readings.queue, readings.date);
    assert_eq!(entry(&decision, StepName::Demand).output, 2);
}
