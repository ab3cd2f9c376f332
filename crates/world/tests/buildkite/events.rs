//! Events: when they are sent, and what becomes of them on their way.

use std::collections::{BTreeMap, BTreeSet};

use kitepool_world::buildkite::{Delivery, JobEvent};
use serde_json::json;

use super::*;

fn delivered(events: Delivery) -> Settings {
    Settings { events, ..streaming() }
}

const AT_ONCE: Delivery =
    Delivery { delay: Spread::Exactly(Duration::ZERO), lost_permille: 0, doubled_permille: 0, again: false };

/// The events of a thousand jobs, one a second.
fn of_a_thousand(events: Delivery, seed: u64) -> Vec<JobEvent> {
    let mut buildkite = buildkite(delivered(events), seed);
    for second in 0..1_000 {
        buildkite.submit(job(10), at(secs(second)));
    }
    buildkite.take_events(at(secs(10_000)))
}

#[test]
fn every_job_is_announced_once_when_it_becomes_runnable_and_not_before() {
    let mut buildkite = with_agents(delivered(AT_ONCE), 1, 1);
    let first = buildkite.submit(job(10), at(UP));
    let second = buildkite.submit(NewJob { depends_on: vec![first], ..job(1) }, at(UP));
    let cancelled = buildkite.submit(NewJob { depends_on: vec![second], ..job(1) }, at(UP));
    buildkite.cancel(cancelled, at(UP));
    let jobs = |events: &[JobEvent]| events.iter().map(|event| event.job).collect::<Vec<_>>();
    assert_eq!(jobs(&buildkite.take_events(at(UP))), [first]);
    until_ended(&mut buildkite, second);
    let runnable_at = the(&buildkite, second).runnable_at.unwrap();
    let events = buildkite.take_events(at(UP * 2));
    assert_eq!((jobs(&events), events[0].published_at), (vec![second], runnable_at));
    assert_eq!(events[0].runnable_at.as_second(), runnable_at.as_second());
    assert_eq!(events[0].runnable_at.subsec_nanosecond(), 0, "to the grain of the wire");
    assert_eq!(jobs(&buildkite.take_events(at(UP * 3))), [], "taken once");
}

#[test]
fn a_job_behind_its_group_is_announced_when_the_group_lets_it_go() {
    let mut buildkite = with_agents(delivered(AT_ONCE), 1, 1);
    let concurrency = Some(kitepool_world::buildkite::Concurrency { group: "deploy".into(), limit: 1 });
    let ids = [(); 2].map(|()| buildkite.submit(NewJob { concurrency: concurrency.clone(), ..job(10) }, at(UP)));
    assert_eq!(buildkite.take_events(at(UP)).len(), 1);
    until_ended(&mut buildkite, ids[0]);
    let now = buildkite.now();
    assert_eq!(buildkite.take_events(now).len(), 1);
    assert_eq!(the(&buildkite, ids[1]).runnable_at, Some(now));
}

#[test]
fn an_event_comes_after_its_delay_and_is_waited_for() {
    let mut buildkite = buildkite(delivered(Delivery { delay: Spread::Exactly(secs(30)), ..AT_ONCE }), 1);
    buildkite.submit(job(10), at(secs(5)));
    assert_eq!(buildkite.next_at(), Some(at(secs(35))));
    assert_eq!(buildkite.take_events(at(secs(34))), []);
    let events = buildkite.take_events(at(secs(36)));
    assert_eq!((events[0].at, events[0].published_at, buildkite.next_at()), (at(secs(35)), at(secs(5)), None));
}

#[test]
fn delays_follow_their_spread_and_events_may_overtake_each_other() {
    let tailed = Spread::Tailed { least: millis(500), mean: secs(5), most: secs(20) };
    let events = of_a_thousand(Delivery { delay: tailed, ..AT_ONCE }, 1);
    let delays: Vec<Duration> = events.iter().map(|event| took(event.published_at, event.at)).collect();
    assert!(delays.iter().all(|delay| (millis(500)..=secs(20)).contains(delay)));
    let mean = delays.iter().sum::<Duration>() / 1_000;
    assert!((millis(4_900)..millis(5_900)).contains(&mean), "{mean:?}");
    assert!(events.is_sorted_by_key(|event| event.at), "in the order in which they come");
    assert!(!events.is_sorted_by_key(|event| event.published_at));
}

#[test]
fn losses_and_doublings_come_as_often_as_asked_and_repeat_by_seed() {
    let unsure = Delivery { lost_permille: 100, doubled_permille: 200, ..Delivery::default() };
    let events = of_a_thousand(unsure, 1);
    let mut copies: BTreeMap<JobId, BTreeSet<&str>> = BTreeMap::new();
    let mut counts: BTreeMap<JobId, usize> = BTreeMap::new();
    for event in &events {
        copies.entry(event.job).or_default().insert(&event.id);
        *counts.entry(event.job).or_default() += 1;
    }
    let lost = 1_000 - counts.len();
    let doubled = counts.values().filter(|count| **count == 2).count();
    assert!((70..130).contains(&lost), "{lost}");
    assert!((140..220).contains(&doubled), "{doubled}");
    assert!(counts.values().all(|count| *count <= 2) && copies.values().all(|ids| ids.len() == 1));
    assert_eq!(events, of_a_thousand(unsure, 1));
    assert_ne!(events, of_a_thousand(unsure, 2));
}

#[test]
fn what_befalls_one_event_moves_no_other() {
    let unsure = Delivery { doubled_permille: 200, ..Delivery::default() };
    let all = of_a_thousand(unsure, 1);
    let some = of_a_thousand(Delivery { lost_permille: 300, ..unsure }, 1);
    assert!(some.len() < all.len() - 200);
    assert!(some.iter().all(|event| all.contains(event)), "those that are not lost come as they would have");
    let once: Vec<JobEvent> = of_a_thousand(Delivery { doubled_permille: 0, ..unsure }, 1);
    assert!(once.iter().all(|event| all.contains(event)));
}

#[test]
fn an_outage_loses_everything_until_it_is_over() {
    let mut buildkite = buildkite(delivered(AT_ONCE), 1);
    buildkite.submit(job(1), at(secs(1)));
    buildkite.set_delivery(Delivery { lost_permille: 1_000, ..AT_ONCE }, at(secs(2)));
    buildkite.submit(job(1), at(secs(3)));
    buildkite.set_delivery(AT_ONCE, at(secs(4)));
    let third = buildkite.submit(job(1), at(secs(5)));
    let events = buildkite.take_events(at(secs(60)));
    assert_eq!((events.len(), events[1].job), (2, third));
}

#[test]
fn a_job_that_is_given_back_is_announced_again_only_where_that_is_set() {
    for (again, expected) in [(false, 1), (true, 2)] {
        let mut buildkite = with_agents(Settings { events: Delivery { again, ..AT_ONCE }, ..polling() }, 1, 1);
        let id = buildkite.submit(job(10), at(UP));
        buildkite.pod_told("pod-0", at(UP));
        let events = buildkite.take_events(at(UP + secs(60)));
        assert_eq!(events.len(), expected);
        assert!(
            events.iter().all(|event| event.job == id && event.runnable_at == at(UP)),
            "runnable since the first time"
        );
    }
}

#[test]
fn the_body_is_the_documented_one() {
    let settings = Settings { organization: "my-org".into(), ..delivered(AT_ONCE) };
    let mut buildkite = Buildkite::new(settings, 0x9e6c_3f19, "2019-08-11T06:01:14.9Z".parse().unwrap());
    let rules = vec!["queue=default".to_owned(), "os=linux".to_owned()];
    buildkite.submit(NewJob { rules, ..NewJob::new(CLUSTER, "default", secs(1)) }, buildkite.now());
    let events = buildkite.take_events(buildkite.now());
    let body = events[0].eventbridge();
    assert_eq!(body["detail-type"], "Job Scheduled");
    assert_eq!(body["source"], "aws.partner/buildkite.com/my-org/0106-187c-12cd4fe");
    assert_eq!((&body["version"], &body["time"]), (&json!("0"), &json!("2019-08-11T06:01:14Z")));
    let job = &body["detail"]["job"];
    assert_eq!(job["uuid"], "9e6c3f19-0000-4000-8000-000000000000");
    assert_eq!((&job["runnable_at"], &job["state"]), (&json!("2019-08-11 06:01:14 UTC"), &json!("scheduled")));
    assert_eq!(job["agent_query_rules"], json!(["queue=default", "os=linux"]));
    assert_eq!((&body["detail"]["organization"]["slug"], &body["detail"]["version"]), (&json!("my-org"), &json!(1)));
    assert_eq!((&events[0].cluster[..], &events[0].queue[..]), (CLUSTER, "default"));
    assert!(!body.to_string().contains(CLUSTER), "the wire names no cluster");
}

#[test]
fn the_state_in_the_body_may_be_ahead_of_the_event() {
    let mut buildkite = with_agents(delivered(Delivery { delay: Spread::Exactly(secs(1)), ..AT_ONCE }), 1, 1);
    buildkite.submit(job(60), at(UP));
    buildkite.submit(job(60), at(UP));
    let events = buildkite.take_events(at(UP + secs(2)));
    let states: Vec<_> = events.iter().map(|event| event.eventbridge()["detail"]["job"]["state"].clone()).collect();
    assert_eq!(states, ["assigned", "scheduled"]);
}
