//! The demonstration: its story in virtual time, where what it promises must happen with every seed; and the program itself.

#![cfg(test)]

mod program;
mod told;

use std::{sync::LazyLock, time::Duration};

use told::{Told, seconds, told};

/// Chance moves pods, pings and events; the points of the story must not hang on it.
const SEEDS: [u64; 4] = [1, 2, 3, 4];

static ALL_TOLD: LazyLock<Vec<Told>> = LazyLock::new(|| SEEDS.map(told).into());

fn for_all_seeds(check: impl Fn(&Told)) {
    for (seed, told) in SEEDS.into_iter().zip(ALL_TOLD.iter()) {
        println!("seed {seed}");
        check(told);
    }
}

#[test]
fn nothing_goes_wrong_and_no_job_is_killed() {
    for_all_seeds(|told| {
        assert_eq!(told.outcome.wrong, Vec::<String>::new());
        let summary = &told.outcome.summary;
        println!("{summary:?}");
        assert_eq!(summary.jobs_killed, 0);
        // All but those that no agent can run, which are cancelled.
        assert_eq!(summary.jobs - summary.jobs_passed, 5);
    });
}

#[test]
fn a_burst_is_followed_before_the_next_poll_could_tell_of_it() {
    for_all_seeds(|told| {
        let grown = told.first("linux", seconds(4.0), |row| row.desired >= 24).unwrap();
        assert!(grown < seconds(8.0), "{grown:?}");
        let beyond = told.first("linux", seconds(12.0), |row| row.desired == 30 && row.queued > 0);
        assert!(beyond.is_some_and(|at| at < seconds(20.0)), "{beyond:?}");
        assert!(told.all("linux", |row| row.desired <= 30));
    });
}

#[test]
fn lost_events_are_made_up_for_by_the_next_poll() {
    for_all_seeds(|told| {
        assert!(!told.lines_between(seconds(32.0), seconds(42.0)).any(|line| line.contains("events of")));
        assert!(told.first("release", seconds(32.0), |row| row.queued > 0 && row.desired == 2).is_some());
        let grown = told.first("release", seconds(32.0), |row| row.desired >= 6).unwrap();
        // Polls are five seconds apart, and the numbers two seconds old.
        assert!(grown < seconds(32.0 + 5.0 + 2.0 + 1.0), "{grown:?}");
        assert!(told.all("release", |row| row.desired >= 2 || row.agents.idle + row.agents.starting == 0));
    });
}

#[test]
fn a_pool_shrinks_while_jobs_run_and_leaves_them_alone() {
    for_all_seeds(|told| {
        let rows: Vec<_> = told.rows("linux").collect();
        let shrinks: Vec<Duration> = rows
            .windows(2)
            .filter(|pair| pair[1].1.desired < pair[0].1.desired && pair[1].1.agents.busy > 0)
            .map(|pair| pair[1].0)
            .collect();
        assert!(shrinks.len() >= 2, "{shrinks:?}");
        // At most thirty stood, and a round of asking and asking again takes its time.
        let small = told.first("linux", seconds(40.0), |row| row.desired <= 20 && row.running == 6);
        assert!(small.is_some_and(|at| at < seconds(80.0)), "{small:?}");
    });
}

#[test]
fn jobs_that_no_agent_can_run_let_their_pool_grow_no_further_than_it_may_and_then_are_noticed() {
    for_all_seeds(|told| {
        assert!(told.first("arm", seconds(8.0), |row| row.queued == 5).is_some());
        assert!(told.all("arm", |row| row.desired <= 6 && row.agents.busy == 0));
        let noticed = told.first("arm", seconds(8.0), |row| row.is_trouble && row.queued == 5).unwrap();
        assert!(noticed < seconds(100.0), "{noticed:?}");
        // One agent stays, to notice by.
        let small = told.first("arm", noticed, |row| row.desired <= 1 && row.queued == 5);
        assert!(small.is_some(), "{noticed:?}");
        let (_, last) = told.rows("arm").last().unwrap();
        assert!(last.queued == 0 && last.desired <= 1, "{last:?}");
    });
}

#[test]
fn an_image_that_fails_costs_few_pods_and_its_jobs_run_once_it_is_mended() {
    for_all_seeds(|told| {
        let before = |at: Duration| at < seconds(70.0);
        assert!(told.first("docs", seconds(16.0), |row| row.agents.starting > 0).is_some_and(before));
        assert!(told.rows("docs").filter(|(at, _)| before(*at)).all(|(_, row)| row.agents.busy + row.agents.idle == 0));
        assert!(told.first("docs", seconds(16.0), |row| row.is_trouble).is_some_and(before));
        assert!(told.all("docs", |row| row.desired <= 4));
        let mended = told.first("docs", seconds(70.0), |row| row.agents.busy > 0).unwrap();
        assert!(mended < seconds(90.0), "{mended:?}");
        let (_, last) = told.rows("docs").last().unwrap();
        assert_eq!((last.queued, last.running), (0, 0));
    });
}
