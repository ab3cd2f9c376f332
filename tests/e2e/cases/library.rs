//! The definitions of the pod library with the controller, real agents and real jobs: `basic`, `services` with real databases, and
//! `elastic-ci-stack` with its hooks and a Docker daemon that is simulated.

use std::time::Duration;

use serde_json::json;

use super::{SHRINKS, SOON};
use crate::{
    harness::{
        agents::{Agents, QUEUE, binary},
        library,
        pools::{DEFINITION, pool, with},
        processes::process_case,
    },
    process_kubelet::ledger::{Ending, What, Why},
};

const DEADLINE: Duration = Duration::from_mins(5);
/// A hook waits for services, and a machine with other cases beside it takes its time.
const JOB: Duration = Duration::from_mins(1);

/// Fails if any of the services has what another job left, and leaves something of its own.
const LOOK_AND_LEAVE: &str = r#"set -eu
q() { psql -qXtA -v ON_ERROR_STOP=1 "$@"; }
memcached() { exec {m}<>"/dev/tcp/${MEMCACHE_SERVERS%:*}/${MEMCACHE_SERVERS#*:}"; printf "$1quit\r\n" >&"$m"; cat <&"$m"; }
test "$(q -c "SELECT count(*) FROM pg_tables WHERE tablename = 'left_over'")" = 0
test "$(redis-cli -u "$REDIS_URL" exists left)" = 0
! memcached 'get left\r\n' | grep -q over
q -c 'CREATE TABLE left_over (x int)'
redis-cli -u "$REDIS_URL" set left over
memcached 'set left 0 0 4\r\nover\r\n' | grep -q STORED
test "$(q -c "SELECT count(*) FROM pg_tables WHERE tablename = 'left_over'")" = 1
"#;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane and the real agent: tests/e2e/run"]
async fn library_basic_runs_three_real_jobs_one_after_the_other() {
    process_case("library-basic", 1, DEADLINE, async |case| {
        let agents = Agents::start(case, 1, |_| {}).await;
        let _replica = case.replica_against(&agents.endpoint()).await;
        case.create_pool(with(pool(QUEUE), json!({ "spec": { "scaling": { "max": 1 } } }))).await;
        for number in 1..=3 {
            // Its root is the node's here, so what is tried is where it may write, and that its home is one of these places.
            let job = agents
                .submit_command("set -eu; echo x >\"$HOME/x\"; echo x >/tmp/x; test \"$(id -u)\" = 1000; touch here");
            assert_eq!(agents.exit_status(job, JOB).await, "0", "job {number}");
        }
        case.reaches(QUEUE, 0, SHRINKS).await;
        agents.all_leave(SOON).await;
        agents.left_in_peace();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane and the real agent: tests/e2e/run"]
async fn library_services_are_new_for_each_of_three_real_jobs() {
    process_case("library-services", 1, DEADLINE, async |case| {
        let agents = Agents::start(case, 1, |_| {}).await;
        let mut template = agents.definition_of(&library::services());
        library::furnish(case, &mut template, "services", binary());
        template["spec"]["initContainers"][0]["securityContext"]["runAsUser"] = json!(library::postgres_user());
        case.define(DEFINITION, template).await;
        let _replica = case.replica_against(&agents.endpoint()).await;
        // One pod: the network is shared, and so are the ports. It stays, or each job would have services of its own.
        let one = json!({ "spec": { "scaling": { "min": 1, "max": 1 } } });
        case.create_pool(with(pool(QUEUE), one)).await;
        for number in 1..=3 {
            let job = agents.submit_command(LOOK_AND_LEAVE);
            assert_eq!(agents.exit_status(job, JOB).await, "0", "job {number} looks and leaves");
        }
        let served: std::collections::BTreeSet<_> =
            agents.connections().into_iter().map(|agent| agent.hostname).collect();
        assert_eq!(served.len(), 1, "one pod ran all three");
        case.change_pool(QUEUE, json!({ "spec": { "scaling": { "min": 0 } } })).await;
        case.reaches(QUEUE, 0, SHRINKS).await;
        agents.all_leave(SOON).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane and the real agent: tests/e2e/run"]
async fn library_dockerd_is_there_before_the_agent_and_outlives_its_last_job() {
    process_case("library-dockerd", 1, DEADLINE, async |case| {
        let agents = Agents::start(case, 1, |_| {}).await;
        let mut template = agents.definition_of(&library::elastic_ci_stack());
        library::furnish(case, &mut template, "elastic-ci-stack", binary());
        // The account that comes with a role, and the nodes that are kept for such pods.
        template["spec"]["serviceAccountName"] = json!("buildkite-agent");
        template["spec"]["nodeSelector"].as_object_mut().expect("a selector").remove("workloads");
        case.define(DEFINITION, template).await;
        let _replica = case.replica_against(&agents.endpoint()).await;
        case.create_pool(with(pool(QUEUE), json!({ "spec": { "scaling": { "max": 1 } } }))).await;
        let job =
            agents.submit_command("docker ps && test -x \"$HOME/bin/buildkite-agent\" && ! touch \"$HOME/bin/x\"");
        assert_eq!(agents.exit_status(job, JOB).await, "0");
        // It is still at work when its pod is taken away by somebody, and needs its daemon to the end.
        let last = agents.submit_command("sleep 5 && docker ps");
        agents.run(1, JOB).await;
        let pod = agents.record(last).attempts.last().and_then(|attempt| attempt.hostname.clone()).expect("a pod");
        case.pods().delete(&pod, &kube::api::DeleteParams::default()).await.expect("it is there");
        assert_eq!(agents.exit_status(last, JOB).await, "0", "a job on its way out has its daemon");
        case.reaches(QUEUE, 0, SHRINKS).await;
        agents.all_leave(SOON * 2).await;

        let ledger = agents.kubelet.ledger();
        let told = ledger.of(&pod);
        let moment = |container: &str, what: &dyn Fn(&What) -> bool| {
            ledger.first(&pod, container, what).unwrap_or_else(|| panic!("{container}: {told:#?}")).moment
        };
        let is_start = |what: &What| *what == What::Started;
        let is_end = |what: &What| matches!(what, What::Ended(_));
        let is_signal = |what: &What| matches!(what, What::Signalled(15, _));
        assert!(moment("dockerd", &is_start) < moment("agent", &is_start), "{told:#?}");
        assert!(moment("agent", &is_signal) < moment("agent", &is_end), "{told:#?}");
        assert!(
            moment("agent", &is_end) <= moment("dockerd", &is_signal),
            "the daemon is told when the agent is gone: {told:#?}"
        );
        let ends = |container: &str| ledger.first(&pod, container, is_end).map(|entry| entry.what);
        assert_eq!(ends("agent"), Some(What::Ended(Ending::Exit(0))));
        assert_eq!(ends("dockerd"), Some(What::Ended(Ending::Exit(0))), "it stops by itself, and is not killed");
        let signals = ledger.signals(&pod);
        assert!(signals.iter().all(|signal| signal.what == What::Signalled(15, Why::Deleted)), "{told:#?}");
        assert_eq!(signals.len(), 2, "one each: {told:#?}");
    })
    .await;
}
