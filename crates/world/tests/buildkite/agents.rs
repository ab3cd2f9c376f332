//! How agents come, and whose they are.

use super::*;

#[test]
fn a_process_says_nothing_until_it_is_registered_and_then_its_agents_are_there() {
    let mut buildkite = buildkite(streaming(), 0x00ab_cdef);
    buildkite.pod_started(AgentPod { spawn: 2, ..pod(0) }, START);
    buildkite.advance(at(millis(99)));
    assert_eq!((buildkite.status("pod-0"), buildkite.agents()), (None, 0));
    buildkite.advance(at(millis(100)));
    assert_eq!((buildkite.load(CLUSTER, "q").idle, buildkite.agents()), (2, 2));
    let id = buildkite.submit(job(10), at(secs(5)));
    until_state(&mut buildkite, id, JobState::Running);
    assert_eq!(
        serde_json::to_string(&buildkite.status("pod-0").unwrap()).unwrap(),
        r#"{"health":"ok","aggregate_status":"busy","workers":[{"status":"busy","current_job_id":"00abcdef-0000-4000-8000-000000000000","id":"00abcdef-0000-4001-8000-000000000001","spawn_index":1},{"status":"idle","id":"00abcdef-0000-4001-8000-000000000002","spawn_index":2}]}"#
    );
}

#[test]
fn a_refused_token_ends_the_process_with_1() {
    let mut buildkite = buildkite(streaming(), 1);
    buildkite.pod_started(AgentPod { token: "another".into(), ..pod(0) }, START);
    assert_eq!(until(&mut buildkite, |buildkite| buildkite.next_at().is_none()), at(millis(100)));
    assert_eq!(exits(&mut buildkite), [("pod-0".to_owned(), 1)]);
    assert_eq!(exits(&mut buildkite), [], "told once");
    // The kubelet starts it again in the same pod.
    buildkite.set_token("another", Some(Token::new("acme", Some(CLUSTER))));
    buildkite.pod_started(AgentPod { token: "another".into(), ..pod(0) }, at(secs(10)));
    buildkite.advance(at(secs(11)));
    assert_eq!(buildkite.load(CLUSTER, "q").idle, 1);
}

#[test]
fn a_registration_that_is_not_answered_is_asked_for_again() {
    let mut buildkite = buildkite(streaming(), 1);
    let hangs = Token { hangs: true, ..Token::new("acme", Some(CLUSTER)) };
    buildkite.set_token(TOKEN, Some(hangs));
    buildkite.pod_started(pod(0), START);
    buildkite.advance(at(secs(300)));
    assert_eq!(buildkite.status("pod-0"), None);
    buildkite.set_token(TOKEN, Some(Token::new("acme", Some(CLUSTER))));
    buildkite.advance(at(secs(371)));
    assert!(buildkite.status("pod-0").is_some());
}

#[test]
fn a_revoked_token_hurts_no_connected_agent_and_lets_no_other_in() {
    let mut buildkite = with_agents(streaming(), 1, 1);
    buildkite.set_token(TOKEN, None);
    let id = buildkite.submit(job(10), at(UP));
    assert_eq!(until_ended(&mut buildkite, id), End::Passed);
    buildkite.pod_started(pod(1), buildkite.now());
    buildkite.advance(at(UP * 2));
    assert_eq!(exits(&mut buildkite), [("pod-1".to_owned(), 1)]);
}

#[test]
fn a_token_that_moves_takes_only_the_agents_that_register_later_with_it() {
    let mut buildkite = with_agents(streaming(), 1, 1);
    buildkite.set_token(TOKEN, Some(Token::new("acme", Some("uuid-2"))));
    buildkite.pod_started(pod(1), at(UP));
    buildkite.set_token("old", Some(Token::new("acme", None)));
    buildkite.pod_started(AgentPod { token: "old".into(), tags: vec![], ..pod(2) }, at(UP));
    buildkite.advance(at(UP * 2));
    let idle = |cluster, queue| buildkite.load(cluster, queue).idle;
    assert_eq!((idle(CLUSTER, "q"), idle("uuid-2", "q"), idle(UNCLUSTERED, "default")), (1, 1, 1));
}

#[test]
fn a_second_process_in_a_living_pod_does_not_come_to_be() {
    let mut buildkite = with_agents(streaming(), 1, 1);
    buildkite.pod_started(pod(0), at(UP));
    buildkite.advance(at(UP * 2));
    assert_eq!(buildkite.agents(), 1);
}
