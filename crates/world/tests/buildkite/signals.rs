//! What signals do, as measured on the real agent.

use super::*;

#[test]
fn an_idle_agent_leaves_at_the_first_sigterm_with_exit_code_0() {
    let mut buildkite = with_agents(polling(), 1, 1);
    buildkite.pod_told("pod-0", at(UP));
    assert_eq!((buildkite.agents(), buildkite.load(CLUSTER, "q").idle), (0, 0), "disconnected at once");
    assert_eq!(buildkite.status("pod-0").unwrap().aggregate_status, "idle");
    buildkite.advance(at(UP + millis(5)));
    assert_eq!(buildkite.status("pod-0"), None);
    assert_eq!(buildkite.take_exits(), [PodExit { at: at(UP + millis(5)), pod: "pod-0".into(), exit_code: 0 }]);
}

#[test]
fn a_sigterm_before_registration_ends_the_process_by_the_signal() {
    let mut buildkite = buildkite(streaming(), 1);
    buildkite.pod_started(pod(0), START);
    buildkite.pod_told("pod-0", at(millis(50)));
    assert_eq!(exits(&mut buildkite), [("pod-0".to_owned(), 143)]);
    buildkite.advance(at(secs(60)));
    assert_eq!(buildkite.agents(), 0);
}

#[test]
fn a_running_job_is_finished_after_one_sigterm_however_long_it_takes() {
    let mut buildkite = with_agents(polling(), 1, 2);
    let id = buildkite.submit(job(3 * 3_600), at(UP));
    let started = until_state(&mut buildkite, id, JobState::Running);
    buildkite.pod_told("pod-0", started + secs(60));
    let load = buildkite.load(CLUSTER, "q");
    assert_eq!((load.busy, load.idle), (1, 1), "it is still connected");
    buildkite.advance(started + secs(3 * 3_600 + 60));
    assert_eq!((the(&buildkite, id).end(), buildkite.agents()), (Some(End::Passed), 1));
    assert_eq!(exits(&mut buildkite), [("pod-0".to_owned(), 0)]);
}

#[test]
fn one_sigterm_at_any_instant_around_the_assignment_never_costs_a_job() {
    let (mut ran, mut returned) = (0, 0);
    for seed in 0..960_u64 {
        let settings = if seed.is_multiple_of(2) { polling() } else { streaming() };
        // Over 24 s when polling, over 0.12 s when streaming.
        let told = if seed.is_multiple_of(2) { millis(seed * 25) } else { Duration::from_micros(seed * 125) };
        let mut buildkite = with_agents(settings, seed, 1);
        let id = buildkite.submit(job(3), at(UP));
        buildkite.pod_told("pod-0", at(UP + told));
        until(&mut buildkite, |buildkite| buildkite.agents() == 0);
        buildkite.advance(at(UP * 2));
        assert_eq!(exits(&mut buildkite), [("pod-0".to_owned(), 0)]);
        if the(&buildkite, id).end() == Some(End::Passed) {
            ran += 1;
        } else {
            let stands = (state(&buildkite, id), the(&buildkite, id).accepted_at);
            assert_eq!(stands, (JobState::Scheduled, None), "seed {seed}");
            returned += 1;
        }
    }
    assert!(ran > 400 && returned > 50, "{ran} ran, {returned} returned");
}

#[test]
fn a_second_sigterm_kills_the_running_job_and_the_exit_code_is_still_0() {
    let mut buildkite = with_agents(polling(), 1, 1);
    let id = buildkite.submit(job(60), at(UP));
    let started = until_state(&mut buildkite, id, JobState::Running);
    buildkite.pod_told("pod-0", started + secs(1));
    buildkite.pod_told("pod-0", started + secs(2));
    assert_eq!(until_ended(&mut buildkite, id), End::Killed);
    let killed_after = took(started + secs(2), buildkite.now());
    assert!((millis(10)..millis(240)).contains(&killed_after), "{killed_after:?}");
    buildkite.advance(started + secs(3));
    assert_eq!(exits(&mut buildkite), [("pod-0".to_owned(), 0)]);
    assert_eq!((buildkite.agents(), buildkite.summary().killed), (0, 1));
}

#[test]
fn a_second_sigterm_while_the_job_is_being_accepted_loses_it() {
    let mut buildkite = with_agents(Settings { accepting: secs(2), ..streaming() }, 1, 1);
    let id = buildkite.submit(job(20), at(UP));
    let now = at(UP + secs(1));
    buildkite.pod_told("pod-0", now);
    buildkite.pod_told("pod-0", now);
    until_state(&mut buildkite, id, JobState::Running);
    buildkite.advance(now + secs(11));
    assert_eq!(buildkite.take_exits(), [PodExit { at: now + secs(11), pod: "pod-0".into(), exit_code: 1 }]);
    assert_eq!(state(&buildkite, id), JobState::Running, "nobody has told Buildkite");
    assert_eq!(until_ended(&mut buildkite, id), End::Lost);
    let noticed = took(now + secs(11), buildkite.now());
    assert!((secs(180)..=secs(240)).contains(&noticed), "{noticed:?}");
}

#[test]
fn a_third_sigterm_ends_the_process_at_once_and_its_job_is_lost() {
    let mut buildkite = with_agents(Settings { killing: Spread::Exactly(secs(9)), ..streaming() }, 1, 1);
    let id = buildkite.submit(job(60), at(UP));
    let started = until_state(&mut buildkite, id, JobState::Running);
    for _ in 0..3 {
        buildkite.pod_told("pod-0", started);
    }
    assert_eq!(exits(&mut buildkite), [("pod-0".to_owned(), 1)]);
    assert_eq!((until_ended(&mut buildkite, id), buildkite.agents()), (End::Lost, 0));
}

#[test]
fn a_killed_agent_is_taken_for_connected_until_it_is_noticed_after_three_to_four_minutes_and_then_its_job_is_lost() {
    let mut noticed = Vec::new();
    for seed in 0..50 {
        let mut buildkite = with_agents(polling(), seed, 2);
        let id = buildkite.submit(job(60), at(UP));
        let started = until_state(&mut buildkite, id, JobState::Running);
        buildkite.pod_killed("pod-0", started);
        buildkite.pod_killed("pod-1", started);
        assert_eq!(exits(&mut buildkite), [("pod-0".to_owned(), 137), ("pod-1".to_owned(), 137)]);
        assert_eq!(buildkite.status("pod-0"), None);
        buildkite.advance(started + secs(179));
        let load = buildkite.load(CLUSTER, "q");
        assert_eq!((load.running, load.busy, load.idle), (1, 1, 1), "the job's own end comes and goes unseen");
        assert_eq!(until_ended(&mut buildkite, id), End::Lost);
        noticed.push(took(started, buildkite.now()));
        buildkite.advance(started + secs(240));
        let load = buildkite.load(CLUSTER, "q");
        assert_eq!((load.running, load.busy, load.idle, buildkite.agents()), (0, 0, 0, 0));
    }
    let (first, last) = (noticed.iter().min().unwrap(), noticed.iter().max().unwrap());
    assert!(*first >= secs(180) && *first < secs(190) && *last > secs(230) && *last <= secs(240), "{first:?} {last:?}");
}

#[test]
fn the_idle_worker_of_a_process_leaves_first_and_the_process_when_the_busy_one_is_done() {
    let mut buildkite = buildkite(streaming(), 1);
    buildkite.pod_started(AgentPod { spawn: 2, ..pod(0) }, START);
    buildkite.advance(at(UP));
    let id = buildkite.submit(job(60), at(UP));
    let started = until_state(&mut buildkite, id, JobState::Running);
    buildkite.pod_told("pod-0", started);
    let load = buildkite.load(CLUSTER, "q");
    assert_eq!((load.busy, load.idle, buildkite.agents()), (1, 0, 1));
    let status = buildkite.status("pod-0").unwrap();
    assert_eq!((status.workers[0].status, status.workers[1].status), ("busy", "idle"));
    let more = buildkite.submit(job(1), started);
    buildkite.advance(started + secs(61));
    assert_eq!((state(&buildkite, id), state(&buildkite, more)), (JobState::Ended(End::Passed), JobState::Scheduled));
    assert_eq!(buildkite.take_exits()[0].at, started + secs(60) + millis(5));
}

#[test]
fn signals_to_a_pod_that_is_not_there_do_nothing() {
    let mut buildkite = with_agents(streaming(), 1, 1);
    buildkite.pod_told("another", at(UP));
    buildkite.pod_killed("another", at(UP));
    buildkite.pod_killed("pod-0", at(UP));
    buildkite.pod_told("pod-0", at(UP));
    assert_eq!(exits(&mut buildkite), [("pod-0".to_owned(), 137)]);
}

#[test]
fn a_process_that_starts_again_in_the_same_pod_has_nothing_to_do_with_the_one_before() {
    let mut buildkite = with_agents(polling(), 1, 1);
    buildkite.pod_told("pod-0", at(UP));
    // The second one comes while the process is on its way out, and so would its hard end.
    buildkite.pod_told("pod-0", at(UP));
    buildkite.advance(at(UP + secs(1)));
    assert_eq!(exits(&mut buildkite), [("pod-0".to_owned(), 0)]);
    buildkite.pod_started(pod(0), at(UP + secs(1)));
    let id = buildkite.submit(job(100), at(UP + secs(2)));
    assert_eq!(until_ended(&mut buildkite, id), End::Passed);
    assert_eq!(exits(&mut buildkite), []);
    buildkite.pod_told("pod-0", buildkite.now());
    buildkite.advance(buildkite.now() + secs(1));
    assert_eq!(exits(&mut buildkite), [("pod-0".to_owned(), 0)], "the first signal of its own");
}
