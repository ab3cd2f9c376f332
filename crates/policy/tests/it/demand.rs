//! Demand: what jobs want, counted once.

use std::{collections::BTreeSet, time::Duration};

use kitepool_policy::{
    decide,
    decision::StepName,
    demand::{Demand, Standing, standing_of},
    hints::Hints,
    observation::{Hint, QueueObservation, Reading, Trouble},
    spec::{Fraction, Limits},
    units::{Agents, Jobs, Pods},
    violations::{History, Tick, violations},
};
use proptest::prelude::*;

use crate::{
    arbitrary,
    build::{at, decide_one, entry, hint, load, pool, queue, secs, trouble},
    buildkite::{Event, Story, story},
    properties::thorough,
};

fn observed(story: &Story) -> QueueObservation {
    let mut queue = queue(load(0, 0, 0), vec![pool(0)]);
    queue.pools[0].spec.hint_ttl = Duration::from_millis(story.ttl_ms.try_into().unwrap());
    queue.reading = Reading { last_good: story.read(), trouble: None };
    queue.hints = story.hints().into();
    queue
}

proptest! {
    #![proptest_config(thorough())]

    /// Let D be the `Date` of the last good reading and m the margin, and let the reading's numbers be up to ten seconds
    /// older than itself. At any later instant, with
    ///
    /// - M the jobs that became runnable from D - m up to D + 1 s,
    /// - L those that became runnable later and of which no live hint tells (the event is lost, or late, or timed out),
    /// - F those that finished after the reading's numbers were taken,
    ///
    /// the demand lies between the truth less M and L, and the truth plus M and F; however events are lost, doubled, late,
    /// reordered or written, and wherever between D - 10 s and D the numbers were taken. L and F are what no policy can know
    /// before the next poll.
    #[test]
    fn demand_is_wrong_by_no_more_than_what_the_margin_holds(story in story()) {
        let queue = observed(&story);
        prop_assume!(story.reading.is_some());
        let truth = story.truth();
        let demand = Demand::of(&queue, story.now()).agents();
        let least = truth.demand.minus(truth.within_margin).minus(truth.untold);
        let most = truth.demand.plus(truth.within_margin).plus(truth.finished);
        prop_assert!(least <= demand && demand <= most, "{demand} outside of {least}..={most} ({truth:?})");

        let tick = Tick { now: story.now(), decisions: decide(&queue, story.now()), queue, truth: Some(truth) };
        let found = violations(&History { ticks: vec![tick] });
        prop_assert!(found.is_empty(), "{found:?}");
    }

    /// The first reading that is taken a margin and a lag after the last job became runnable, finished or started is exact,
    /// whatever events there were and still come.
    #[test]
    fn demand_is_exact_one_poll_after_a_queue_settles(mut story in story()) {
        prop_assume!(story.reading.is_some());
        // A job that would finish between the reading and the decision runs on instead.
        for job in &mut story.jobs {
            if job.runnable_ms + job.waits_ms + job.runs_ms > 90_000 {
                job.runs_ms = 1_000_000;
            }
        }
        if let Some(reading) = &mut story.reading {
            reading.answered_ms += 90_000 + 12_000;
        }
        let queue = observed(&story);
        prop_assert_eq!(Demand::of(&queue, story.now()).agents(), story.truth().demand);
    }

    /// Jobs that come at once into a queue that was quiet for longer than the margin are counted exactly by their events,
    /// wherever between them the reading's numbers were taken: none is lost at either edge of the margin, and none that the
    /// reading has is counted again.
    #[test]
    fn a_burst_into_a_quiet_queue_is_counted_exactly(mut story in story()) {
        prop_assume!(story.reading.is_some());
        let date_ms = story.reading.map_or(0, |reading| reading.answered_ms.div_euclid(1_000) * 1_000);
        for job in &mut story.jobs {
            // Around the whole margin and a little beyond the reading; nothing starts before it is over.
            job.runnable_ms = date_ms - 11_000 + job.runnable_ms / 6;
            job.waits_ms = 1_000_000;
            job.events.push(Event { delay_ms: 0, is_exact: job.runs_ms % 2 == 0 });
        }
        story.ttl_ms = 1_000_000;
        let queue = observed(&story);
        prop_assert_eq!(Demand::of(&queue, story.now()).agents(), story.truth().demand);
    }

    /// Without any reading, demand is what live hints tell of, each job once.
    #[test]
    fn hints_alone_count_each_job_once(mut story in story()) {
        story.reading = None;
        let queue = observed(&story);
        let now = story.now_ms();
        let live = story.jobs.iter().filter(|job| {
            job.events.iter().any(|event| (0..=story.ttl_ms).contains(&(now - job.runnable_ms - event.delay_ms)))
        });
        prop_assert_eq!(Demand::of(&queue, story.now()).agents(), Agents(u32::try_from(live.count()).unwrap()));
    }
}

proptest! {
    #![proptest_config(thorough())]

    /// However events are doubled and reordered, they come to the same.
    #[test]
    fn hints_come_to_the_same_in_any_order_and_however_often(
        told in arbitrary::hints(),
        again in proptest::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let hints: Hints = told.clone().into();
        let mut doubled: Vec<Hint> = told.iter().rev().cloned().collect();
        if !told.is_empty() {
            doubled.extend(again.iter().map(|index| index.get(&told).clone()));
        }
        prop_assert_eq!(Hints::from(doubled), hints.clone());
        let jobs: BTreeSet<&str> = told.iter().map(|hint| hint.job.as_str()).collect();
        prop_assert_eq!(hints.jobs(), Jobs(u32::try_from(jobs.len()).unwrap()));
    }
}

#[test]
fn a_hint_stands_where_buildkites_clock_puts_it() {
    let queue = queue(load(0, 0, 0), vec![pool(0)]);
    for (runnable_at, expected) in [
        (-200, Standing::Settled),
        (-12, Standing::Settled),
        (-11, Standing::Unsure),
        (0, Standing::Unsure),
        (1, Standing::New),
        (200, Standing::New),
    ] {
        let hint = hint("job", runnable_at);
        assert_eq!(standing_of(&hint, &queue, hint.stored_at.max(at(0))), expected, "runnable at {runnable_at}");
    }
}

#[test]
fn a_runnable_at_with_milliseconds_is_new_only_beyond_the_dates_own_second() {
    let queue = queue(load(0, 0, 0), vec![pool(0)]);
    let mut hint = hint("job", 0);
    hint.runnable_at += jiff::SignedDuration::from_millis(999);
    assert_eq!(standing_of(&hint, &queue, at(1)), Standing::Unsure);
}

#[test]
fn hints_expire_by_the_largest_time_to_live_of_the_queues_pools() {
    let (mut brief, mut patient) = (pool(0), pool(0));
    (brief.spec.hint_ttl, patient.spec.hint_ttl) = (secs(10), secs(60));
    let queue = queue(load(0, 0, 0), vec![brief, patient]);
    let hint = hint("job", 5);
    assert_eq!(standing_of(&hint, &queue, at(65)), Standing::New);
    assert_eq!(standing_of(&hint, &queue, at(66)), Standing::Expired);
}

#[test]
fn a_hint_stored_in_the_future_counts_and_is_settled_by_a_reading() {
    let mut queue = queue(load(0, 0, 0), vec![pool(0)]);
    let mut hint = hint("job", 5);
    hint.stored_at = at(3_600);
    assert_eq!(standing_of(&hint, &queue, at(6)), Standing::New);
    crate::build::read_again(&mut queue, load(0, 0, 0), at(30));
    assert_eq!(standing_of(&hint, &queue, at(30)), Standing::Settled);
}

#[test]
fn hints_of_a_queue_without_pools_are_kept() {
    let queue = queue(load(0, 0, 0), Vec::new());
    assert_eq!(standing_of(&hint("job", 5), &queue, at(100_000)), Standing::Unmatched);
}

#[test]
fn a_hint_that_no_pool_can_run_raises_nothing_and_is_shown() {
    let mut queue = queue(load(0, 0, 0), vec![pool(0)]);
    let mut gpu = hint("job", 5);
    gpu.rules.push("gpu=true".to_owned());
    queue.hints = vec![gpu.clone()].into();
    let decision = decide_one(&queue, at(6));
    assert!(decision.intents.is_empty());
    assert!(entry(&decision, StepName::Demand).reason.to_string().contains("1 jobs ask for tags"));

    let mut other = pool(0);
    other.spec.name = crate::build::name("gpu");
    other.spec.tags.insert("gpu=true".to_owned());
    queue.pools.push(other);
    assert_eq!(standing_of(&gpu, &queue, at(6)), Standing::New, "any pool of the queue will do");
}

#[test]
fn of_two_hints_for_one_job_the_later_runnable_at_counts() {
    let mut queue = queue(load(0, 0, 0), vec![pool(0)]);
    queue.hints = vec![hint("job", -100), hint("job", 5), hint("job", 3)].into();
    let demand = Demand::of(&queue, at(6));
    assert_eq!((demand.hinted.new, demand.hinted.unsure), (Jobs(1), Jobs(0)));
}

#[test]
fn unsure_jobs_are_not_added_to_those_that_the_reading_counts() {
    let mut queue = queue(load(2, 3, 0), vec![pool(0)]);
    queue.hints = vec![hint("a", -5), hint("b", -1), hint("c", 0), hint("d", 2)].into();
    assert_eq!(Demand::of(&queue, at(3)).agents(), Agents(3 + 3 + 1));
}

#[test]
fn a_part_of_the_waiting_jobs_is_started_ahead_by_the_largest_weight_rounded_up() {
    let (mut some, mut none) = (pool(0), pool(0));
    some.spec.waiting_weight = Fraction::from_thousandths(250).unwrap();
    none.spec.waiting_weight = Fraction::ZERO;
    let mut queue = queue(load(1, 1, 0), vec![some, none]);
    if let Some(good) = &mut queue.reading.last_good {
        good.load.waiting = Jobs(5);
    }
    let demand = Demand::of(&queue, at(0));
    assert_eq!((demand.ahead, demand.agents()), (Agents(2), Agents(4)));
}

#[test]
fn what_is_started_ahead_is_rounded_up_and_never_more_than_waits() {
    for (thousandths, waiting, expected) in [
        (0, 1_000, 0),
        (1, 0, 0),
        (1, 1, 1),
        (1, 1_000, 1),
        (1, 1_001, 2),
        (333, 3, 1),
        (334, 3, 2),
        (500, 7, 4),
        (999, 1, 1),
        (1_000, 7, 7),
        (1_000, u32::MAX, u32::MAX),
    ] {
        let mut queue = queue(load(0, 0, 0), vec![pool(0)]);
        queue.pools[0].spec.waiting_weight = Fraction::from_thousandths(thousandths).unwrap();
        if let Some(good) = &mut queue.reading.last_good {
            good.load.waiting = Jobs(waiting);
        }
        assert_eq!(Demand::of(&queue, at(0)).ahead, Agents(expected), "{thousandths} thousandths of {waiting}");
    }
    assert_eq!(Fraction::from_thousandths(1_001), None);
}

/// Waiting jobs are the queue's: two pools with a weight do not each start agents for them.
#[test]
fn what_is_started_ahead_is_divided_among_the_pools_like_any_other_demand() {
    let (mut first, mut second) = (pool(0), pool(0));
    second.spec.name = crate::build::name("second");
    (first.spec.order, second.spec.order) = (0, 1);
    first.spec.limits = Limits::new(Pods(0), Pods(3)).unwrap();
    (first.spec.waiting_weight, second.spec.waiting_weight) =
        (Fraction::from_thousandths(100).unwrap(), Fraction::from_thousandths(500).unwrap());
    let mut queue = queue(load(1, 0, 0), vec![first, second]);
    if let Some(good) = &mut queue.reading.last_good {
        good.load.waiting = Jobs(9);
    }
    let decisions = decide(&queue, at(0));
    let shares: Vec<u32> = decisions.iter().map(|decision| entry(decision, StepName::Share).output).collect();
    assert_eq!(shares, [3, 3], "one that is queued, and half of nine");
    let said = entry(&decisions[0], StepName::Demand).reason.to_string();
    assert!(said.contains("5 agents are started ahead"), "{said}");
}

#[test]
fn an_old_load_still_makes_a_pool_grow() {
    let mut queue = queue(load(7, 0, 0), vec![pool(2)]);
    trouble(&mut queue, Trouble::Unreachable);
    assert_eq!(decide_one(&queue, at(3_600)).target.0, 7);
}

#[test]
fn without_a_reading_events_alone_make_a_pool_grow() {
    let mut queue = queue(load(0, 0, 0), vec![pool(0)]);
    queue.reading = Reading { last_good: None, trouble: Some(Trouble::NotRead) };
    let old = Hint { stored_at: at(0), ..hint("a", -3_000) };
    queue.hints = vec![old, hint("b", 1), hint("b", 1)].into();
    assert_eq!(decide_one(&queue, at(2)).target.0, 2);
}
