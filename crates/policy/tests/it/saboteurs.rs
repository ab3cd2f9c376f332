//! Every checker catches a wrong policy, and finds nothing wrong with the right one in the same world.

use kitepool_policy::{
    check,
    check::{Invariant, Violation},
    decide,
    observation::Reading,
    saboteur::Saboteur,
    spec::{Limits, PoolSpec, ScaleDown},
    units::{Agents, Pods},
    violations,
    violations::{History, Tick},
};

use crate::{
    build::{at, confirm, hint, load, pool, queue, secs, spec},
    buildkite::{Event, Job, Read, Story},
    world::{Happening, Policy, World},
};

/// What goes wrong where a mistake would show.
fn script(saboteur: Saboteur) -> Vec<(usize, Happening)> {
    let jobs = |passes| Happening::Jobs { count: 8, passes, events_lost: false };
    match saboteur {
        // Busy for as long as it lasts; `max` is lowered in between. Or from nothing, and never anything more.
        Saboteur::ObeysMaxAtOnce | Saboteur::AtMostDoubles => vec![(2, jobs(1_000))],
        // Eight agents fall idle, and then, before their window is over, there are no readings any more.
        Saboteur::BelievesOldReadings | Saboteur::TakesMissingForZero => {
            vec![(2, jobs(14)), (22, Happening::Trouble { passes: 200 })]
        }
        // Nothing more to do.
        Saboteur::RestartsTheWindow => vec![(2, jobs(2))],
        // The pods crash, and more jobs come.
        Saboteur::GrowsOnFailures => {
            vec![(2, jobs(4)), (4, Happening::CrashLoop { pool: 0, looping: true }), (8, jobs(4))]
        }
        // Done before the pods are two minutes old.
        Saboteur::ForgetsToWait => vec![(2, jobs(4))],
        // Half of them are done when the other half still run.
        Saboteur::PicksBusy | Saboteur::SkipsTheSecondAsk | Saboteur::TakesOneMore => {
            let few = |passes| Happening::Jobs { count: 4, passes, events_lost: false };
            vec![(2, few(1_000)), (3, few(5))]
        }
        // The same, and then nobody answers any more.
        Saboteur::PicksUnknown => vec![(2, jobs(8)), (9, Happening::Muted { pool: 0, muted: true })],
        Saboteur::HidesTheOthers => {
            let few = |passes| Happening::Jobs { count: 4, passes, events_lost: false };
            vec![(2, few(1_000)), (3, few(5)), (9, Happening::Hostile { pool: 0, hostile: true })]
        }
        Saboteur::CountsEveryEvent | Saboteur::TakesBusyForStuck => Vec::new(),
    }
}

fn played(saboteur: Saboteur, policy: Policy) -> Vec<Violation> {
    let scale_down = ScaleDown { window: secs(60), ..spec().scale_down };
    let mut world = World::new(vec![PoolSpec { scale_down, ..spec() }], 2, 1);
    world.policy = policy;
    world.asks_every = if saboteur == Saboteur::SkipsTheSecondAsk { 3 } else { 1 };
    let script = script(saboteur);
    for pass in 0..150 {
        if pass == 30 && saboteur == Saboteur::ObeysMaxAtOnce {
            world.places[0].spec.limits = Limits::new(Pods(0), Pods(2)).unwrap();
        }
        let happening = script.iter().find(|(when, _)| *when == pass).map(|(_, happening)| happening);
        world.pass(happening);
    }
    violations(&world.history)
}

/// A poll that already counts the jobs of which two events each tell.
fn counted(policy: &Policy) -> Vec<Violation> {
    let events = vec![Event { delay_ms: 100, is_exact: true }, Event { delay_ms: 900, is_exact: true }];
    let job = |runnable_ms| Job { runnable_ms, waits_ms: 60_000, runs_ms: 60_000, events: events.clone() };
    let story = Story {
        jobs: vec![job(0), job(1_000), job(20_000), job(40_000), job(40_100)],
        reading: Some(Read { answered_ms: 30_000, lag_ms: 2_000 }),
        decided_after_ms: 12_000,
        ttl_ms: 120_000,
    };
    let mut queue = queue(load(0, 0, 0), vec![pool(0)]);
    queue.reading = Reading { last_good: story.read(), trouble: None };
    if let Some(good) = &mut queue.reading.last_good {
        // A busy queue with polling agents: the three jobs that it counts will have started in a moment.
        good.load.idle = Agents(2);
    }
    queue.hints = story.hints().into();
    let decisions = policy(&queue, story.now());
    let tick = Tick { now: story.now(), queue, decisions, truth: Some(story.truth()) };
    violations(&History { ticks: vec![tick] })
}

fn tried(saboteur: Saboteur, policy: Policy) -> Vec<Violation> {
    if saboteur.breaks() == Invariant::CountOnce { counted(&policy) } else { played(saboteur, policy) }
}

#[test]
fn every_saboteur_is_caught_by_the_invariant_it_breaks() {
    for saboteur in Saboteur::ALL {
        let found = tried(saboteur, Box::new(move |queue, now| saboteur.decide(queue, now)));
        let broken: Vec<Invariant> = found.iter().map(|violation| violation.invariant).collect();
        assert!(broken.contains(&saboteur.breaks()), "{saboteur:?}: {found:#?}");
    }
}

#[test]
fn the_right_policy_breaks_nothing_in_the_same_worlds() {
    for saboteur in Saboteur::ALL {
        let found = tried(saboteur, Box::new(decide));
        assert!(found.is_empty(), "{saboteur:?}: {found:#?}");
    }
}

#[test]
fn every_invariant_that_shows_in_a_history_has_a_saboteur() {
    let mut broken: Vec<Invariant> = Saboteur::ALL.iter().map(|saboteur| saboteur.breaks()).collect();
    broken.sort_unstable();
    broken.dedup();
    assert_eq!(
        broken,
        [
            Invariant::NoKill,
            Invariant::Floor,
            Invariant::CountOnce,
            Invariant::Progress,
            Invariant::FailSafe,
            Invariant::BoundedWaste,
            Invariant::BoundedThrash,
            Invariant::Attribution,
        ]
    );
}

/// What a single tick shows is refused before anything is written.
#[test]
fn the_check_refuses_a_saboteur_before_it_acts() {
    let mut busy = queue(load(0, 8, 0), vec![pool(8)]);
    busy.pools[0].spec.limits = Limits::new(Pods(0), Pods(2)).unwrap();
    let refused = check(&busy, &Saboteur::ObeysMaxAtOnce.decide(&busy, at(20)), at(20));
    assert!(refused.iter().any(|violation| violation.invariant == Invariant::Floor), "{refused:#?}");
    assert_eq!(check(&busy, &decide(&busy, at(20)), at(20)), []);

    let mut failing = queue(load(50, 0, 0), vec![pool(8)]);
    let pods = &mut failing.pools[0].generations[0].pods;
    (pods.ready, pods.unready, pods.failing) = (Pods(0), Pods(8), Pods(8));
    let refused = check(&failing, &Saboteur::GrowsOnFailures.decide(&failing, at(20)), at(20));
    assert!(refused.iter().any(|violation| violation.invariant == Invariant::BoundedWaste), "{refused:#?}");
    assert_eq!(check(&failing, &decide(&failing, at(20)), at(20)), []);

    let mut old = queue(load(0, 0, 8), vec![pool(8)]);
    old.hints = vec![hint("job", -60)].into();
    let chosen = Saboteur::BelievesOldReadings.decide(&old, at(3_600));
    confirm(&mut old, &chosen, at(3_600));
    let refused = check(&old, &Saboteur::BelievesOldReadings.decide(&old, at(3_600)), at(3_600));
    assert!(refused.iter().any(|violation| violation.invariant == Invariant::FailSafe), "{refused:#?}");
    assert_eq!(check(&old, &decide(&old, at(3_600)), at(3_600)), []);
}
