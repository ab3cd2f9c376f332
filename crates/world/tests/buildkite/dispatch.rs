//! Who gets which job, and when.

use kitepool_world::buildkite::Concurrency;

use super::*;

#[test]
fn a_job_is_assigned_at_once_and_its_agent_reads_idle_until_it_has_pinged_and_accepted() {
    let mut buildkite = with_agents(polling(), 1, 1);
    let id = buildkite.submit(job(30), at(UP));
    assert_eq!(state(&buildkite, id), JobState::Assigned);
    let load = buildkite.load(CLUSTER, "q");
    assert_eq!((load.scheduled, load.running, load.idle, load.busy), (0, 1, 0, 1), "Buildkite counts it as busy");
    let status = buildkite.status("pod-0").unwrap();
    assert_eq!((status.aggregate_status, status.workers[0].status), ("idle", "idle"));
    let accepted = until_state(&mut buildkite, id, JobState::Accepted);
    assert!(since(accepted) > UP + millis(10) && since(accepted) < UP + secs(20), "{accepted}");
    assert_eq!(buildkite.status("pod-0").unwrap().aggregate_status, "busy");
    let (started, ended) = (accepted + millis(60), accepted + millis(60) + secs(30));
    assert_eq!(until_ended(&mut buildkite, id), End::Passed);
    let job = the(&buildkite, id);
    assert_eq!((job.started_at, job.finished_at, job.assignments), (Some(started), Some(ended), 1));
    assert_eq!(buildkite.status("pod-0").unwrap().aggregate_status, "idle");
}

/// The mean time from submission to acceptance of a thousand jobs, each submitted a while after the one before was over.
fn pick_up(settings: Settings) -> f64 {
    let mut buildkite = with_agents(settings, 3, 1);
    let (mut now, mut total) = (at(UP), 0.0);
    for number in 0..1_000_u32 {
        let id = buildkite.submit(job(1), now);
        until_ended(&mut buildkite, id);
        let job = the(&buildkite, id);
        total += job.accepted_at.unwrap().duration_since(job.created_at).as_secs_f64();
        now = buildkite.now() + secs(40) + millis(u64::from(number * 37 % 10_000));
    }
    total / 1_000.0
}

#[test]
fn the_mean_pick_up_is_as_measured_for_polling_and_for_streaming() {
    // Measured: 0.55 of the interval, and 1 ms; derived: 7/12 of the interval. Acceptance takes 10 ms on top.
    let polled = pick_up(polling());
    assert!((5.4..6.2).contains(&polled), "{polled}");
    let streamed = pick_up(streaming());
    assert!((0.01..0.012).contains(&streamed), "{streamed}");
}

#[test]
fn after_a_job_the_next_one_is_picked_up_within_one_interval() {
    let mut buildkite = with_agents(polling(), 5, 1);
    let ids: Vec<JobId> = (0..50).map(|_| buildkite.submit(job(5), at(UP))).collect();
    until_ended(&mut buildkite, ids[49]);
    for pair in ids.windows(2) {
        let (before, after) = (the(&buildkite, pair[0]), the(&buildkite, pair[1]));
        assert_eq!(before.finished_at, after.assigned_at, "it is assigned as soon as the agent is free");
        let wait = took(before.finished_at.unwrap(), after.accepted_at.unwrap());
        assert!(wait <= secs(10) + millis(10), "{wait:?}");
    }
}

#[test]
fn jobs_go_by_priority_and_then_by_age() {
    let mut buildkite = buildkite(streaming(), 1);
    let priorities = [0, 5, -1, 5, 0];
    let ids = priorities.map(|priority| buildkite.submit(NewJob { priority, ..job(10) }, START));
    buildkite.pod_started(pod(0), START);
    until(&mut buildkite, |buildkite| buildkite.summary().passed == ids.len());
    let mut order = ids;
    order.sort_by_key(|id| the(&buildkite, *id).started_at);
    assert_eq!(order, [1, 3, 0, 4, 2].map(|number| ids[number]));
}

#[test]
fn priority_goes_before_age_also_among_jobs_that_want_different_agents() {
    let mut buildkite = buildkite(streaming(), 1);
    let wants = |rule: &str, priority| NewJob { rules: vec![rule.to_owned()], priority, ..job(10) };
    let ids = [("a=1", 1), ("b=1", 3), ("c=1", 2), ("a=1", 2)]
        .map(|(rule, priority)| buildkite.submit(wants(rule, priority), START));
    let tags = ["queue=q", "a=1", "b=1", "c=1"].map(str::to_owned).to_vec();
    buildkite.pod_started(AgentPod { tags, ..pod(0) }, START);
    until(&mut buildkite, |buildkite| buildkite.summary().passed == ids.len());
    let mut order = ids;
    order.sort_by_key(|id| the(&buildkite, *id).started_at);
    assert_eq!(order, [1, 2, 3, 0].map(|number| ids[number]));
}

#[test]
fn of_idle_agents_the_one_that_most_recently_finished_a_job_well_is_asked_first() {
    let mut buildkite = with_agents(streaming(), 1, 4);
    let mut now = at(UP);
    let mut round = |buildkite: &mut Buildkite, jobs: Vec<NewJob>| {
        let ids: Vec<JobId> = jobs.into_iter().map(|job| buildkite.submit(job, now)).collect();
        for id in &ids {
            until_ended(buildkite, *id);
        }
        now = buildkite.now() + secs(60);
        ids.iter().map(|id| pod_of(buildkite, *id).to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(round(&mut buildkite, vec![job(1)]), ["pod-0"], "none has worked: the one that is there longest");
    // The first of three ends last.
    assert_eq!(round(&mut buildkite, vec![job(9), job(5), job(2)]), ["pod-0", "pod-1", "pod-2"]);
    assert_eq!(round(&mut buildkite, vec![job(9), job(5), job(2)]), ["pod-0", "pod-1", "pod-2"]);
    assert_eq!(round(&mut buildkite, vec![job(1), job(9)]), ["pod-0", "pod-1"]);
    assert_eq!(round(&mut buildkite, vec![NewJob { fails: true, ..job(1) }]), ["pod-1"]);
    assert_eq!(round(&mut buildkite, vec![job(1), job(2), job(3), job(4)]), ["pod-1", "pod-0", "pod-2", "pod-3"]);
    assert_eq!(round(&mut buildkite, vec![job(1), NewJob { fails: true, ..job(9) }]), ["pod-3", "pod-2"]);
    assert_eq!(
        round(&mut buildkite, vec![job(1), job(1)]),
        ["pod-3", "pod-2"],
        "a job that failed last counts for nothing"
    );
}

#[test]
fn a_job_waits_for_an_agent_that_satisfies_all_its_rules_and_holds_up_nobody() {
    let mut buildkite = with_agents(streaming(), 1, 1);
    let wants = |rules: &[&str]| NewJob { rules: rules.iter().map(ToString::to_string).collect(), ..job(10) };
    let gpu = buildkite.submit(NewJob { priority: 9, ..wants(&["queue=q", "gpu=true", "os=linux"]) }, at(UP));
    let plain = buildkite.submit(wants(&[]), at(UP));
    assert_eq!((state(&buildkite, gpu), state(&buildkite, plain)), (JobState::Scheduled, JobState::Assigned));
    let tagged = |number, tags: &str| AgentPod { tags: tags.split(',').map(str::to_owned).collect(), ..pod(number) };
    buildkite.pod_started(tagged(1, "queue=q,gpu=true"), at(UP));
    buildkite.pod_started(tagged(2, "queue=other,gpu=true,os=linux"), at(UP));
    buildkite.advance(at(UP + secs(60)));
    assert_eq!(state(&buildkite, gpu), JobState::Scheduled);
    buildkite.pod_started(tagged(3, "os=linux,queue=q,gpu=true"), at(UP + secs(60)));
    until_ended(&mut buildkite, gpu);
    assert_eq!(pod_of(&buildkite, gpu), "pod-3");
}

#[test]
fn an_assigned_job_that_is_not_accepted_within_a_minute_is_dispatched_again_and_elsewhere_if_possible() {
    let mut buildkite = with_agents(streaming(), 1, 2);
    // The one that is asked first is dead, and nobody knows yet.
    buildkite.pod_killed("pod-0", at(UP));
    let id = buildkite.submit(job(10), at(UP + secs(1)));
    assert_eq!((state(&buildkite, id), pod_of(&buildkite, id)), (JobState::Assigned, "pod-0"));
    buildkite.advance(at(UP + secs(60)));
    assert_eq!(pod_of(&buildkite, id), "pod-0");
    buildkite.advance(at(UP + secs(61)));
    assert_eq!((state(&buildkite, id), pod_of(&buildkite, id)), (JobState::Assigned, "pod-1"));
    assert_eq!(until_ended(&mut buildkite, id), End::Passed);
    assert_eq!((the(&buildkite, id).assignments, buildkite.summary().stranded), (2, 1));
    // And while the other one is busy it is the dead one again, for want of a better.
    let ids = [(); 2].map(|()| buildkite.submit(job(90), at(UP + secs(90))));
    assert_eq!(ids.map(|id| pod_of(&buildkite, id).to_owned()), ["pod-1", "pod-0"]);
}

#[test]
fn an_agent_that_disconnects_gives_its_assigned_job_back_in_its_old_place() {
    let mut buildkite = with_agents(polling(), 1, 1);
    let ids = [(); 3].map(|()| buildkite.submit(job(10), at(UP)));
    assert_eq!(ids.map(|id| state(&buildkite, id)), [JobState::Assigned, JobState::Scheduled, JobState::Scheduled]);
    buildkite.pod_told("pod-0", at(UP));
    assert_eq!(ids.map(|id| state(&buildkite, id)), [JobState::Scheduled; 3]);
    let load = buildkite.load(CLUSTER, "q");
    assert_eq!((load.scheduled, load.running, load.idle, load.busy), (3, 0, 0, 0));
    buildkite.pod_started(pod(1), at(UP));
    until(&mut buildkite, |buildkite| buildkite.load(CLUSTER, "q").running == 1);
    assert_eq!(state(&buildkite, ids[0]), JobState::Assigned);
}

#[test]
fn what_was_due_about_an_assignment_that_came_to_nothing_is_not_about_the_next_one() {
    let slow = Settings { pick_up: PickUp::Polling { interval: secs(100) }, ..polling() };
    let mut buildkite = with_agents(slow, 1, 2);
    buildkite.pod_killed("pod-1", at(UP));
    let id = buildkite.submit(job(10), at(UP));
    assert_eq!(pod_of(&buildkite, id), "pod-0");
    buildkite.pod_told("pod-0", at(UP + secs(1)));
    assert_eq!(pod_of(&buildkite, id), "pod-1", "the dead one");
    buildkite.advance(at(UP + millis(60_999)));
    assert_eq!(
        (state(&buildkite, id), the(&buildkite, id).assignments),
        (JobState::Assigned, 2),
        "not the first minute"
    );
    buildkite.advance(at(UP + secs(61)));
    assert_eq!(the(&buildkite, id).assignments, 3);

    // Nor does the next agent learn of it when the one before would have.
    let pings = (0..100).map(|seed| {
        let mut buildkite = with_agents(polling(), seed, 2);
        let id = buildkite.submit(job(10), at(UP));
        let mut apart = with_agents(polling(), seed, 1);
        let first = apart.submit(job(10), at(UP));
        let early = until_state(&mut apart, first, JobState::Accepted);
        buildkite.pod_told("pod-0", at(UP));
        until_state(&mut buildkite, id, JobState::Accepted) == early
    });
    assert_eq!(pings.filter(|is_the_same| *is_the_same).count(), 0);
}

#[test]
fn a_paused_queue_dispatches_nothing_and_counts_on() {
    let mut buildkite = with_agents(streaming(), 1, 1);
    buildkite.set_paused(CLUSTER, "q", true, at(UP));
    let id = buildkite.submit(job(10), at(UP));
    buildkite.advance(at(UP * 2));
    assert_eq!(state(&buildkite, id), JobState::Scheduled);
    assert_eq!((buildkite.load(CLUSTER, "q").scheduled, buildkite.load(CLUSTER, "q").idle), (1, 1));
    buildkite.set_paused(CLUSTER, "q", false, at(UP * 2));
    assert_eq!(state(&buildkite, id), JobState::Assigned);
}

#[test]
fn jobs_beyond_the_limit_of_their_group_count_as_scheduled_and_go_one_by_one() {
    let mut buildkite = with_agents(streaming(), 1, 9);
    let concurrency = Some(Concurrency { group: "deploy".into(), limit: 2 });
    let ids = [0, 0, 0, 7, 0].map(|priority| {
        let limited = NewJob { concurrency: concurrency.clone(), priority, ..job(10) };
        buildkite.submit(limited, at(UP))
    });
    let states = |buildkite: &Buildkite| ids.map(|id| state(buildkite, id) == JobState::Limited);
    assert_eq!(states(&buildkite), [false, false, true, true, true]);
    let load = buildkite.load(CLUSTER, "q");
    assert_eq!((load.scheduled, load.running, load.idle), (3, 2, 7));
    buildkite.cancel(ids[0], at(UP));
    until_ended(&mut buildkite, ids[0]);
    assert_eq!(states(&buildkite), [false, false, true, false, true], "the one of the highest priority is next");
    buildkite.cancel(ids[2], buildkite.now());
    until_ended(&mut buildkite, ids[4]);
    assert_eq!(buildkite.summary().passed, 3);
    let most = (0..60).map(|second| at(UP + secs(second))).map(|instant| {
        let began = |job: &&Job| job.started_at.is_some_and(|started| started <= instant);
        let over = |job: &&Job| job.finished_at.is_some_and(|finished| finished <= instant);
        buildkite.jobs().filter(|job| began(job) && !over(job)).count()
    });
    assert_eq!(most.max(), Some(2));
}

#[test]
fn a_job_waits_until_those_before_it_have_passed_and_is_broken_if_one_did_not() {
    let mut buildkite = with_agents(streaming(), 1, 9);
    let (first, second) = (buildkite.submit(job(10), at(UP)), buildkite.submit(job(20), at(UP)));
    let third = buildkite.submit(NewJob { depends_on: vec![first, second], ..job(1) }, at(UP));
    assert_eq!((state(&buildkite, third), buildkite.load(CLUSTER, "q").waiting), (JobState::Waiting, 1));
    until_ended(&mut buildkite, third);
    assert_eq!(the(&buildkite, third).runnable_at, the(&buildkite, second).finished_at);
    let fails = buildkite.submit(NewJob { fails: true, depends_on: vec![third], ..job(1) }, at(UP * 2));
    let behind = buildkite.submit(NewJob { depends_on: vec![fails], ..job(1) }, at(UP * 2));
    let far_behind = buildkite.submit(NewJob { depends_on: vec![behind, first], ..job(1) }, at(UP * 2));
    assert_eq!(until_ended(&mut buildkite, fails), End::Failed);
    assert_eq!([behind, far_behind].map(|id| state(&buildkite, id)), [JobState::Ended(End::Broken); 2]);
    let late = buildkite.submit(NewJob { depends_on: vec![far_behind], ..job(1) }, at(UP * 3));
    assert_eq!(state(&buildkite, late), JobState::Ended(End::Broken));
    assert_eq!(buildkite.load(CLUSTER, "q").waiting, 0);
}

#[test]
fn a_job_can_be_cancelled_wherever_it_stands_and_its_agent_goes_on() {
    let mut buildkite = with_agents(polling(), 1, 1);
    let assigned = buildkite.submit(job(10), at(UP));
    let scheduled = buildkite.submit(job(10), at(UP));
    let waiting = buildkite.submit(NewJob { depends_on: vec![scheduled], ..job(10) }, at(UP));
    for id in [assigned, waiting, scheduled, scheduled] {
        buildkite.cancel(id, at(UP));
        assert_eq!(state(&buildkite, id), JobState::Ended(End::Cancelled));
    }
    let running = buildkite.submit(job(1_000), at(UP));
    let started = until_state(&mut buildkite, running, JobState::Running);
    buildkite.cancel(running, started + secs(5));
    assert_eq!(state(&buildkite, running), JobState::Cancelling);
    assert_eq!((buildkite.load(CLUSTER, "q").running, buildkite.load(CLUSTER, "q").busy), (1, 1));
    assert_eq!(until_ended(&mut buildkite, running), End::Cancelled);
    assert!(buildkite.now() < started + secs(8), "within two looks of the agent at its job");
    let next = buildkite.submit(job(1), buildkite.now());
    assert_eq!(until_ended(&mut buildkite, next), End::Passed);
    buildkite.cancel(next, buildkite.now());
    assert_eq!(state(&buildkite, next), JobState::Ended(End::Passed));
}
