//! Events, as the objects that the Lambda and the webhook make of them.

use std::time::Duration;

use jiff::Timestamp;

use super::{SHRINKS, SOON};
use crate::harness::{
    Case, case, eventually,
    pools::{pool, with},
    simulated_buildkite::Mood,
};
use serde_json::json;

const DEADLINE: Duration = Duration::from_mins(3);

async fn hint_count(case: &Case) -> usize {
    case.hints().list(&kube::api::ListParams::default()).await.expect("a list").items.len()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn a_hint_raises_a_pool_before_any_reading_and_is_settled_by_one() {
    case("hint", DEADLINE, async |case| {
        case.takes_hints().await;
        case.buildkite.feel(Mood::Fails(503));
        let _replica = case.controller().await;
        case.create_pool(pool("linux")).await;
        case.condition("linux", "LoadFresh", "False", SOON).await;

        case.hint("linux", "one", Timestamp::now()).await.expect("a hint");
        case.reaches("linux", 1, SOON).await;
        assert_eq!(hint_count(case).await, 1, "no reading has settled it");

        // The job ran elsewhere meanwhile, and no event has told: one reading costs the pod again.
        case.buildkite.feel(Mood::Answers);
        case.condition("linux", "LoadFresh", "True", SOON).await;
        eventually("the settled hint is deleted", SHRINKS, async || {
            let hints = hint_count(case).await;
            if hints == 0 { Ok(()) } else { Err(format!("{hints} hints")) }
        })
        .await;
        case.reaches("linux", 0, SHRINKS).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn a_job_counts_once_however_often_and_late_it_is_told_of() {
    case("doubled", DEADLINE, async |case| {
        case.takes_hints().await;
        let _replica = case.controller().await;
        case.create_pool(pool("linux")).await;
        case.condition("linux", "LoadFresh", "True", SOON).await;
        case.history.bound("linux", 0..=2);

        // They start late, so that for as long as readings are unsure of a hinted job it does not run as well.
        case.kubelet.learn(|habits| habits.ready_after = Duration::from_secs(15));
        let now = Timestamp::now();
        case.hint("linux", "one", now).await.expect("a hint");
        let again = case.hint("linux", "one", now).await.expect_err("the same name is refused");
        assert!(matches!(again, kube::Error::Api(status) if status.reason == "AlreadyExists"));
        case.buildkite.jobs("linux", 1);
        case.hint("linux", "two", now).await.expect("a hint");
        case.buildkite.jobs("linux", 2);
        // Long over, so no reading can miss it: it is dropped as it comes.
        let long_ago = now - Duration::from_mins(10);
        case.hint("linux", "late", long_ago).await.expect("a hint");
        case.reaches("linux", 2, SHRINKS).await;
        case.keeps("linux", 2..=2, Duration::from_secs(15)).await;
        eventually("all hints are deleted", SHRINKS, async || {
            let hints = hint_count(case).await;
            if hints == 0 { Ok(()) } else { Err(format!("{hints} hints")) }
        })
        .await;
        case.keeps("linux", 2..=2, Duration::from_secs(3)).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn a_hint_that_no_pool_can_serve_raises_nothing_and_goes_in_time() {
    case("unmatched", DEADLINE, async |case| {
        case.takes_hints().await;
        let _replica = case.controller().await;
        case.create_pool(with(pool("linux"), json!({ "spec": { "tags": ["os=linux"] } }))).await;
        case.condition("linux", "LoadFresh", "True", SOON).await;
        case.history.bound("linux", 0..=1);

        case.hint_with("linux", "gpu", Timestamp::now(), &["gpu=true"]).await.expect("a hint");
        case.hint("nobody", "other-queue", Timestamp::now()).await.expect("a hint");
        case.keeps("linux", 0..=0, Duration::from_secs(5)).await;
        eventually("an Event says what no pool has", SOON, async || {
            let events = case.events("linux").await;
            let says =
                |(reason, note): &(String, String)| reason == "HintUnmatched" && note.contains("asks for gpu=true");
            if events.iter().any(says) { Ok(()) } else { Err(format!("{events:?}")) }
        })
        .await;
        case.hint_with("linux", "plain", Timestamp::now(), &["os=linux"]).await.expect("a hint");
        case.reaches("linux", 1, SOON).await;
        eventually("what is settled or too old is deleted", Duration::from_secs(90), async || {
            let left = case.hints().list(&kube::api::ListParams::default()).await.expect("a list").items;
            let names: Vec<_> = left.into_iter().filter_map(|hint| hint.metadata.name).collect();
            if names.iter().all(|name| name == "job-other-queue") { Ok(()) } else { Err(format!("{names:?}")) }
        })
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn hints_that_are_over_go_together_and_one_that_is_not_stays() {
    case("together", DEADLINE, async |case| {
        case.takes_hints().await;
        // They were stored while no controller ran, and are long over.
        let long_ago = Timestamp::now() - Duration::from_mins(10);
        for job in 0..30 {
            case.hint("linux", &format!("old-{job}"), long_ago).await.expect("a hint");
        }
        case.hint("nobody", "open", Timestamp::now()).await.expect("a hint");
        case.create_pool(pool("linux")).await;
        let replica = case.controller().await;
        eventually("all but the open one are deleted", SHRINKS, async || {
            let left = case.hints().list(&kube::api::ListParams::default()).await.expect("a list").items;
            let names: Vec<_> = left.into_iter().filter_map(|hint| hint.metadata.name).collect();
            if names == ["job-open"] { Ok(()) } else { Err(format!("{names:?}")) }
        })
        .await;
        let records = replica.proxy.records();
        let deleted = |many: bool| {
            let path = |path: &str| path.contains("/jobhints") && path.contains("/jobhints/") != many;
            records.iter().filter(|record| record.method == "DELETE" && path(&record.path)).count()
        };
        assert_eq!((deleted(true), deleted(false)), (1, 0));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn the_quota_bounds_what_a_flood_of_hints_can_store() {
    case("flood", DEADLINE, async |case| {
        case.takes_hints().await;
        let (mut stored, mut refused) = (0, 0);
        for job in 0..230 {
            match case.hint("linux", &format!("flood-{job}"), Timestamp::now()).await {
                Ok(()) => stored += 1,
                Err(kube::Error::Api(status)) if status.code == 403 && status.message.contains("quota") => refused += 1,
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!((stored, refused), (200, 30));
    })
    .await;
}

/// So many create hints at the same time, as the webhook's store does.
const CREATORS: usize = 4;

/// No controller is involved: this is what a quota is worth by itself. The API server counts it anew when something is deleted,
/// and what is on its way into the store at that moment is not among what it counts.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn a_quota_is_exceeded_by_no_more_than_what_is_being_created_while_others_are_deleted() {
    case("recount", DEADLINE, async |case| {
        case.takes_hints().await;
        let ends = tokio::time::Instant::now() + Duration::from_secs(10);
        let is_over = || tokio::time::Instant::now() >= ends;
        let create = async |who: usize| {
            let mut stored = 0;
            for job in 0.. {
                if is_over() {
                    break;
                }
                match case.hint("linux", &format!("recount-{who}-{job}"), Timestamp::now()).await {
                    Ok(()) => stored += 1,
                    Err(kube::Error::Api(status)) if status.code == 403 && status.message.contains("quota") => {}
                    // Several change the quota's count at the same time; the API server says to try again.
                    Err(kube::Error::Api(status)) if matches!(status.code, 409 | 500) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            stored
        };
        let delete = async {
            let some = kube::api::ListParams::default().limit(50);
            while !is_over() {
                tokio::time::sleep(Duration::from_millis(300)).await;
                case.hints().delete_collection(&kube::api::DeleteParams::default(), &some).await.expect("they go");
            }
        };
        let count = async {
            let mut most = 0;
            while !is_over() {
                most = most.max(hint_count(case).await);
            }
            most
        };
        let created = futures::future::join_all((0..CREATORS).map(create));
        let (stored, (), most) = tokio::join!(created, delete, count);
        let stored: usize = stored.into_iter().sum();
        println!("{stored} hints stored by {CREATORS} at a time while others were deleted: at most {most} with a quota of 200");
        assert!(stored > 300, "{stored}: the quota was hardly full");
        assert!(most <= 200 + CREATORS, "{most}");
    })
    .await;
}
