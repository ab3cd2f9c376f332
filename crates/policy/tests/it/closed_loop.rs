//! The policy in a world that answers back: whatever happens, no invariant breaks, and afterwards it finds its rest.

use kitepool_policy::{
    decide,
    spec::{Limits, Pause, PoolSpec, ScaleDown, ScaleUp, Spare},
    units::{Agents, AgentsPerPod, Pods},
    violations,
};
use proptest::{collection, prelude::*, sample::select, test_runner::Config};

use crate::{
    build::{name, secs, spec, step},
    properties::thorough,
    world::{Happening, World},
};

/// Each case is a hundred ticks or several; two hundred cases make tens of thousands of decisions.
fn lengthy() -> Config {
    let asked = Config::default();
    Config { cases: (asked.cases / 30).max(200), ..thorough() }
}

fn happening() -> impl Strategy<Value = Happening> {
    let pause = select(vec![Pause::None, Pause::Up, Pause::Down, Pause::All]);
    (0_u32..100, 0_u32..12, 1_u32..40, any::<bool>(), 0_usize..3, pause, -400_i64..100).prop_map(
        |(drawn, count, passes, yes, pool, pause, seconds)| match drawn {
            0..50 => Happening::Jobs { count, passes, events_lost: yes && count > 6 },
            50..54 => Happening::Cancelled { count: 3 },
            54..58 => Happening::Ends,
            58..66 => Happening::Trouble { passes },
            66..72 => Happening::WritesFail { passes: passes / 8 },
            72..76 => Happening::ClockSteps { seconds },
            76..82 => Happening::Foreign { pool, replicas: count },
            82..88 => Happening::Redefined { pool },
            88..92 => Happening::Broken { pool, broken: yes },
            92..94 => Happening::Paused { pool, pause },
            94..95 => Happening::Muted { pool, muted: yes },
            95..96 => Happening::Hostile { pool, hostile: yes },
            96..97 => Happening::Evicted { pool },
            _ => Happening::CrashLoop { pool, looping: yes },
        },
    )
}

fn pool_spec() -> impl Strategy<Value = PoolSpec> {
    let limits = (0_u32..4, 0_u32..20);
    let up = (select(vec![0, 0, 30, 120]), select(vec![(100, 10), (0, 1), (50, 2)]), 5_u64..30);
    let down = (select(vec![0, 60, 200]), select(vec![0, 60, 300]), select(vec![0, 120, 240]), 5_u64..30);
    (limits, 0_u32..3, 1_u32..4, -1_i32..2, up, down).prop_map(|((min, room), spare, agents, order, up, down)| {
        PoolSpec {
            limits: Limits::new(Pods(min), Pods(min + room)).unwrap(),
            spare: Spare::Agents(Agents(spare)),
            agents_per_pod: AgentsPerPod::new(agents).unwrap(),
            order,
            scale_up: ScaleUp { cooldown: secs(up.0), step: step(up.1.0, up.1.1, up.2) },
            scale_down: ScaleDown {
                cooldown: secs(down.0),
                window: secs(down.1),
                step: step(50, 1, down.3),
                min_age: secs(down.2),
            },
            ..spec()
        }
    })
}

fn world() -> impl Strategy<Value = (Vec<PoolSpec>, u32, usize)> {
    let specs = collection::vec(pool_spec(), 1..3).prop_map(|mut specs| {
        for (number, spec) in specs.iter_mut().enumerate() {
            spec.name = name(&format!("pool{number}"));
        }
        specs
    });
    (specs, 0_u32..8, 0_usize..3)
}

fn script(most: usize) -> impl Strategy<Value = Vec<Option<Happening>>> {
    collection::vec(prop_oneof![3 => Just(None), 1 => happening().prop_map(Some)], 1..most)
}

fn a_restart_at_any_tick_changes_nothing(world: &World) {
    // Every eighth tick, and every script is another: any tick.
    for tick in world.history.ticks.iter().step_by(8) {
        let mut restarted = tick.queue.clone();
        for pool in &mut restarted.pools {
            let written = serde_json::to_string(&pool.memory).unwrap();
            pool.memory = serde_json::from_str(&written).unwrap();
        }
        assert_eq!(decide(&restarted, tick.now), tick.decisions);
    }
}

proptest! {
    #![proptest_config(lengthy())]

    #[test]
    fn whatever_happens_no_invariant_breaks((specs, starts_in, lag) in world(), script in script(120)) {
        let mut world = World::new(specs, starts_in, lag);
        for happening in &script {
            world.pass(happening.as_ref());
        }
        prop_assert_eq!(violations(&world.history), []);
        a_restart_at_any_tick_changes_nothing(&world);
    }

    /// However late the numbers of readings are: as long as events tell of new jobs, what a decision leaves can hold every job
    /// that runs at that moment.
    #[test]
    fn what_stays_can_hold_what_runs((specs, starts_in, lag) in world(), jobs in collection::vec((0_u32..10, 1_u32..20), 1..60)) {
        let mut world = World::new(specs, starts_in, lag);
        for (count, passes) in jobs {
            let arrivals = Happening::Jobs { count: count.saturating_sub(6), passes, events_lost: false };
            world.pass(Some(&arrivals));
        }
        prop_assert_eq!(world.homeless, 0);
    }

    /// Once nothing is broken any more: all jobs get done that a pool may run, every pool comes to its floor and spare, old
    /// generations are gone, and then nothing is written any more.
    #[test]
    fn after_all_accidents_a_pool_finds_its_rest((specs, starts_in, lag) in world(), script in script(60)) {
        prop_assume!(specs.iter().any(|spec| !spec.limits.max().is_zero()));
        let mut world = World::new(specs, starts_in, lag);
        for happening in &script {
            world.pass(happening.as_ref());
        }
        world.heal();
        // Every wait there is, a few times over, for twenty pods that go one by one: two hours at most.
        let (mut passes, mut calm) = (0, 0);
        while calm < 10 && passes < 5_000 {
            world.pass(None);
            passes += 1;
            calm = if is_at_rest(&world) { calm + 1 } else { 0 };
        }
        prop_assert_eq!(violations(&world.history), []);
        prop_assert!(is_at_rest(&world), "{} jobs are left, {:#?}", world.unfinished(), world.history.ticks.last());
        let quiet = world.memories();
        for _ in 0..20 {
            world.pass(None);
            prop_assert_eq!(&quiet, &world.memories(), "while nothing happens, nothing is written");
        }
        prop_assert!(is_at_rest(&world));
    }
}

/// No jobs, each pool at its floor and spare, and no old generation left.
fn is_at_rest(world: &World) -> bool {
    let rest = |spec: &PoolSpec| {
        let Spare::Agents(spare) = spec.spare else { unreachable!() };
        spec.agents_per_pod.pods_for(spare).max(spec.limits.min()).min(spec.limits.max()).0
    };
    world.unfinished() == 0
        && world.places.iter().all(|place| place.replicas() == rest(&place.spec) && !place.is_rolling())
}

#[test]
fn a_day_without_jobs_is_a_day_without_writes() {
    let specs = vec![PoolSpec { limits: Limits::new(Pods(2), Pods(9)).unwrap(), ..spec() }];
    let mut world = World::new(specs, 3, 1);
    world.pass(Some(&Happening::Jobs { count: 7, passes: 20, events_lost: false }));
    for _ in 0..300 {
        world.pass(None);
    }
    let quiet = world.memories();
    world.history.ticks.clear();
    for _ in 0..17_280 {
        world.pass(None);
    }
    assert_eq!(quiet, world.memories());
    assert!(world.history.ticks.iter().all(|tick| tick.decisions[0].intents.is_empty()));
}

/// The first pool's pods all crash: the second one does the work, and the first keeps its few until they come up.
#[test]
fn a_broken_first_pool_does_not_starve_its_queue() {
    let specs = ["first", "second"].map(|called| PoolSpec { name: name(called), ..spec() });
    let mut world = World::new(specs.into(), 4, 1);
    let jobs = Happening::Jobs { count: 12, passes: 20, events_lost: false };
    world.pass(Some(&jobs));
    world.pass(Some(&Happening::CrashLoop { pool: 0, looping: true }));
    for _ in 0..60 {
        world.pass(None);
    }
    assert_eq!(world.unfinished(), 0);
    world.pass(Some(&jobs));
    for _ in 0..60 {
        world.pass(None);
    }
    assert_eq!(world.unfinished(), 0);
    let most = world.history.ticks.iter().map(|tick| tick.decisions[0].target.0).max();
    assert!(most <= Some(12), "{most:?} pods that crash");
    assert_eq!(violations(&world.history), []);
}
