//! Real agents in trouble: pods that crash or are never ready, a node that is lost, another token, a controller that is killed at
//! every write, and the second signal that is nobody's wish.

use std::{collections::BTreeSet, time::Duration};

use kitepool_world::{
    Route,
    buildkite::{End, Link, Loss, Spread},
    digest,
};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{SHRINKS, SOON, killed::kept_alive};
use crate::{
    harness::{
        agents::{Agents, QUEUE},
        eventually,
        kill_points::{Namer, ROUND_OVER, Side, StepsUp, Victims, Write},
        pools::{DEFINITION, pool, with},
        processes::process_case,
        simulated_buildkite::{SECOND_TOKEN, TOKEN},
    },
    process_kubelet::ledger::{What, Why},
};

const DEADLINE: Duration = Duration::from_mins(5);

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane and the real agent: tests/e2e/run"]
async fn real_agents_that_crash_at_their_start_are_not_multiplied_and_a_mended_definition_runs_the_jobs() {
    process_case("agents-crash", 1, DEADLINE, async |case| {
        let agents = Agents::start(case, 1, |_| {}).await;
        let mut broken = agents.definition();
        broken["spec"]["containers"][0]["args"] = json!(["start", "--no-such-flag"]);
        case.define(DEFINITION, broken).await;
        let _replica = case.replica_against(&agents.endpoint()).await;
        case.create_pool(pool(QUEUE)).await;
        let began = Instant::now();
        agents.submit(1, 2);
        case.condition(QUEUE, "PodsFailing", "True", SOON * 3).await;
        // There is work for ten, and no more than three are tried while none comes up.
        agents.submit(9, 2);
        case.keeps(QUEUE, 1..=3, Duration::from_secs(12)).await;
        let sizes = case.history.sizes(QUEUE);
        assert!(sizes.iter().all(|size| *size <= 3), "{sizes:?}");
        assert!(agents.connections().is_empty() && agents.records().iter().all(|record| record.assignments == 0));
        let told = agents.kubelet.ledger().entries();
        assert!(told.iter().any(|entry| matches!(entry.what, What::Ended(_))), "{told:#?}");
        assert!(told.iter().all(|entry| !matches!(entry.what, What::Signalled(..))), "{told:#?}");
        case.define(DEFINITION, agents.definition()).await;
        agents.all_end(SOON * 4).await;
        agents.ran_once(|_, _| true);
        case.reaches(QUEUE, 0, SHRINKS * 2).await;
        agents.tell(&format!("sizes while they crashed: {sizes:?}; all is over after {:.1?}", began.elapsed()));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane and the real agent: tests/e2e/run"]
async fn real_agents_that_never_become_ready_run_their_jobs_to_the_end() {
    process_case("agents-unready", 1, DEADLINE, async |case| {
        let agents = Agents::start(case, 1, |_| {}).await;
        let mut unready = agents.definition();
        unready["spec"]["containers"][0]["readinessProbe"] = json!({ "tcpSocket": { "port": 9 }, "periodSeconds": 1 });
        case.define(DEFINITION, unready).await;
        let _replica = case.replica_against(&agents.endpoint()).await;
        case.history.bound(QUEUE, 0..=10);
        case.create_pool(pool(QUEUE)).await;
        let began = Instant::now();
        agents.submit(5, 5);
        agents.all_end(SOON * 4).await;
        assert_eq!(case.size(QUEUE).await.ready, 0);
        case.reaches(QUEUE, 0, SHRINKS * 3).await;
        agents.all_leave(SOON * 2).await;
        agents.ran_once(|_, _| true);
        agents.left_in_peace();
        agents.tell(&format!("sizes {:?}; all is over after {:.1?}", case.history.sizes(QUEUE), began.elapsed()));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane and the real agent: tests/e2e/run"]
async fn a_lost_node_costs_the_jobs_that_ran_on_it_and_no_other() {
    process_case("agents-node", 1, DEADLINE, async |case| {
        let agents =
            Agents::start(case, 2, |settings| settings.noticing = Spread::Exactly(Duration::from_secs(25))).await;
        let _replica = case.replica_against(&agents.endpoint()).await;
        case.history.bound(QUEUE, 0..=10);
        case.create_pool(with(pool(QUEUE), json!({ "spec": { "scaling": { "min": 6 } } }))).await;
        case.reaches(QUEUE, 6, SOON * 2).await;
        agents.submit(6, 20);
        agents.run(6, SOON).await;
        let lost_node = case.process_node(1);
        let on_it: BTreeSet<String> = agents
            .kubelet
            .ledger()
            .entries()
            .into_iter()
            .filter(|entry| entry.node == lost_node)
            .map(|entry| entry.pod)
            .collect();
        let began = Instant::now();
        agents.kubelet.lose(&lost_node).await;
        agents.all_end(SOON * 4).await;
        agents.submit(6, 2);
        agents.all_end(SOON * 6).await;
        let was_on_it = |record: &kitepool_world::buildkite::JobRecord| {
            record.attempts.last().and_then(|last| last.hostname.clone()).is_some_and(|pod| on_it.contains(&pod))
        };
        let (lost, kept): (Vec<_>, Vec<_>) = agents.records().into_iter().partition(was_on_it);
        assert!(!lost.is_empty() && lost.len() < 6 && kept.len() + lost.len() == 12, "{} lost", lost.len());
        assert!(
            lost.iter().all(|record| (record.end, record.loss) == (Some(End::Lost), Some(Loss::Silent))),
            "{lost:#?}"
        );
        agents.ran_once(|_, record| !was_on_it(record));
        // The object of a pod whose node is gone stays for the better part of a minute, and until then it counts as ready.
        case.reaches(QUEUE, 6, Duration::from_mins(2)).await;
        eventually("the pods of the lost node are gone", Duration::from_mins(2), async || {
            let pods = case.pods_of(QUEUE).await;
            let left: Vec<_> =
                pods.iter().filter_map(|pod| pod.metadata.name.clone()).filter(|pod| on_it.contains(pod)).collect();
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
        })
        .await;
        case.reaches(QUEUE, 6, SOON * 2).await;
        agents.tell(&format!(
            "{} jobs lost with their node; six agents again after {:.1?}",
            lost.len(),
            began.elapsed()
        ));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane and the real agent: tests/e2e/run"]
async fn another_token_in_the_secret_is_taken_by_new_agents_while_old_ones_run_on() {
    process_case("agents-token", 1, DEADLINE, async |case| {
        let agents = Agents::start(case, 1, |_| {}).await;
        let _replica = case.replica_against(&agents.endpoint()).await;
        case.history.bound(QUEUE, 0..=10);
        case.create_pool(pool(QUEUE)).await;
        agents.submit(3, 30);
        agents.run(3, SOON * 2).await;
        let registered = |token: &str| {
            let requests = agents.world.requests();
            requests.get(&Route::Register).and_then(|by| by.get(&digest(token))).copied().unwrap_or_default()
        };
        assert_eq!((registered(TOKEN), registered(SECOND_TOKEN)), (3, 0));
        case.keep_secret("buildkite-agent-token", "token", SECOND_TOKEN).await;
        agents.submit(2, 2);
        eventually("new agents come with the new token", SOON * 3, async || {
            let now = (registered(TOKEN), registered(SECOND_TOKEN));
            if now == (3, 2) { Ok(()) } else { Err(format!("{now:?}")) }
        })
        .await;
        // The old token is revoked while the agents that came with it still work.
        agents.world.set_token(TOKEN, None);
        agents.all_end(SOON * 3).await;
        case.reaches(QUEUE, 0, SHRINKS * 2).await;
        agents.all_leave(SOON * 2).await;
        agents.ran_once(|_, _| true);
        agents.left_in_peace();
        assert!(
            agents.connections().iter().all(|agent| agent.link == Link::Disconnected),
            "{:#?}",
            agents.connections()
        );
        agents.tell("three agents of the old token, two of the new one");
    })
    .await;
}

async fn killed_at_every_write(name: &str, side: Side) {
    process_case(name, 1, DEADLINE, async |case| {
        let agents = Agents::start(case, 1, |_| {}).await;
        let mut replica = case.replica_against(&agents.endpoint()).await;
        let start = jiff::Timestamp::now();
        replica.kill_at(side, Victims::Each);
        case.history.bound(QUEUE, 0..=8);
        case.create_pool(with(pool(QUEUE), json!({ "spec": { "scaling": { "max": 8 } } }))).await;
        let began = Instant::now();
        let scenario = async {
            agents.submit(12, 4);
            agents.submit(4, 25);
            agents.all_end(SOON * 9).await;
            case.reaches(QUEUE, 0, SHRINKS * 4).await;
            agents.all_leave(SOON * 2).await;
        };
        let restarts = Box::pin(kept_alive(&mut replica, scenario)).await;
        agents.ran_once(|_, _| true);
        agents.left_in_peace();
        let mut namer = Namer::new(StepsUp::Told);
        let writes = replica.proxy.writes_since(start);
        let written: BTreeSet<Write> =
            writes.iter().map(|write| namer.name(&write.method, &write.path, &write.body)).collect();
        let killed = replica.proxy.killed();
        // A report may come once, at the very end, when nobody waits for another life any more.
        let matters = |writes: &BTreeSet<Write>| -> BTreeSet<Write> {
            writes.iter().filter(|write| !write.is_report()).cloned().collect()
        };
        assert_eq!(matters(&killed), matters(&written), "one was not killed at");
        assert!(restarts <= killed.len(), "{restarts} restarts after {} kills: it ended by itself", killed.len());
        // The states of crates/policy/src/protocol.rs, each by the write that leads to it.
        let mark = Write::Act("mark a pod that is to go".to_owned());
        let states = [
            ("intended", Write::Intent("choose of generation 1".to_owned())),
            ("marked", mark),
            ("confirmed", Write::Intent("generation 1 down".to_owned())),
            ("scaled", Write::Act("scale generation 1 down".to_owned())),
            ("gone", Write::Report(ROUND_OVER.to_owned())),
        ];
        for (state, write) in &states {
            assert!(killed.contains(write), "not killed at what leads to {state}: {killed:#?}");
        }
        let states = states.map(|(state, _)| state).join(", ");
        let acts = killed.iter().filter(|write| !write.is_report()).count();
        let killed = killed.len();
        agents.tell(&format!(
            "the controller was killed at {killed} writes, {acts} of them acts or intents, those that lead to each \
             state of the protocol ({states}) among them; all is over after {:.1?}",
            began.elapsed(),
        ));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane and the real agent: tests/e2e/run"]
async fn real_agents_lose_no_job_to_a_controller_that_is_killed_before_each_of_its_writes() {
    killed_at_every_write("agents-before", Side::Before).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane and the real agent: tests/e2e/run"]
async fn real_agents_lose_no_job_to_a_controller_that_is_killed_after_each_of_its_writes() {
    killed_at_every_write("agents-after", Side::After).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane and the real agent: tests/e2e/run"]
async fn a_second_signal_by_a_kubelet_that_starts_anew_cancels_the_job_and_is_seen_for_what_it_is() {
    process_case("agents-second", 1, DEADLINE, async |case| {
        let agents = Agents::start(case, 1, |_| {}).await;
        let _replica = case.replica_against(&agents.endpoint()).await;
        case.history.bound(QUEUE, 0..=10);
        case.create_pool(pool(QUEUE)).await;
        let jobs = agents.submit(1, 300);
        agents.run(1, SOON * 2).await;
        let record = agents.record(jobs[0]);
        let pod = record.attempts.last().and_then(|last| last.hostname.clone()).expect("its pod");
        case.pods().delete(&pod, &kube::api::DeleteParams::default()).await.expect("a person may delete a pod");
        eventually("the first signal", SOON, async || {
            if agents.kubelet.ledger().signals(&pod).len() == 1 { Ok(()) } else { Err("there is none".to_owned()) }
        })
        .await;
        sleep(Duration::from_secs(3)).await;
        assert_eq!(agents.record(jobs[0]).end, None, "one signal costs no job");
        agents.kubelet.restart();
        case.pod_goes(&pod, SOON).await;
        let signals: Vec<What> = agents.kubelet.ledger().signals(&pod).into_iter().map(|entry| entry.what).collect();
        assert_eq!(signals, [What::Signalled(15, Why::Deleted), What::Signalled(15, Why::SignalledAgain)]);
        let record = agents.record(jobs[0]);
        assert_eq!(record.end, Some(End::Killed), "{record:#?}");
        assert_eq!(record.signal_reason.as_deref(), Some("agent_stop"), "{record:#?}");
        assert_eq!((record.exit_status.as_deref(), agents.marks(0)), (Some("-1"), 0), "{record:#?}");
        case.reaches(QUEUE, 0, SHRINKS * 2).await;
        agents.tell(&format!("the job ended with exit status {:?} and signal {:?}", record.exit_status, record.signal));
    })
    .await;
}
