//! Buildkite is away, or the token is another one: not knowing takes nothing away.

use std::time::Duration;

use super::{SHRINKS, SOON};
use crate::harness::{
    case, eventually,
    pools::pool,
    simulated_buildkite::{FOREIGN_TOKEN, Mood, SECOND_TOKEN, TOKEN},
};
use jiff::Timestamp;

const DEADLINE: Duration = Duration::from_mins(4);

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn a_pool_keeps_its_size_while_buildkite_is_away_for_ten_minutes() {
    case("tenminutes", Duration::from_secs(760), async |case| {
        let replica = case.controller().await;
        case.create_pool(pool("linux")).await;
        case.buildkite.jobs("linux", 3);
        case.reaches("linux", 3, SOON).await;
        case.history.bound("linux", 3..=10);

        case.buildkite.feel(Mood::Hangs);
        case.buildkite.jobs("linux", 0);
        let unknown = case.condition("linux", "LoadFresh", "False", Duration::from_secs(40)).await;
        assert!(unknown.message.contains("Nothing shrinks"), "{}", unknown.message);
        case.keeps("linux", 3..=3, Duration::from_mins(5)).await;
        case.buildkite.feel(Mood::Fails(500));
        case.keeps("linux", 3..=3, Duration::from_secs(270)).await;

        // Events still raise it.
        case.takes_hints().await;
        case.hint("linux", "meanwhile", Timestamp::now()).await.expect("a hint");
        case.keeps("linux", 3..=4, Duration::from_secs(30)).await;

        case.buildkite.feel(Mood::Answers);
        case.history.bound("linux", 0..=10);
        case.condition("linux", "LoadFresh", "True", Duration::from_mins(1)).await;
        case.reaches("linux", 0, SHRINKS).await;
        let asked = case.buildkite.requests();
        assert!(asked < 700, "{asked} requests: failures are not answered by more of them");
        drop(replica);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn a_token_of_another_organization_is_noticed_and_not_obeyed() {
    case("foreign", DEADLINE, async |case| {
        let _replica = case.controller().await;
        case.create_pool(pool("linux")).await;
        case.buildkite.jobs("linux", 3);
        case.reaches("linux", 3, SOON).await;
        case.history.bound("linux", 3..=10);

        // Its metrics know nothing of our queue, which looks like a quiet one.
        case.keep_secret("buildkite-agent-token", "token", FOREIGN_TOKEN).await;
        let unknown = case.condition_for("linux", "LoadFresh", "OtherIdentity", Duration::from_secs(90)).await;
        assert!(unknown.status == "False" && unknown.message.contains("somebody-else"), "{unknown:?}");
        case.keeps("linux", 3..=3, Duration::from_secs(30)).await;

        case.keep_secret("buildkite-agent-token", "token", TOKEN).await;
        case.condition("linux", "LoadFresh", "True", Duration::from_secs(90)).await;
        case.history.bound("linux", 0..=10);
        case.buildkite.jobs("linux", 0);
        case.reaches("linux", 0, SHRINKS).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn a_rotated_token_of_the_same_cluster_changes_nothing() {
    case("rotated", DEADLINE, async |case| {
        let replica = case.controller().await;
        case.create_pool(pool("linux")).await;
        case.buildkite.jobs("linux", 2);
        case.reaches("linux", 2, SOON).await;
        let pods = case.uids("linux").await;

        case.keep_secret("buildkite-agent-token", "token", SECOND_TOKEN).await;
        eventually("the new token is used", Duration::from_secs(90), async || {
            if case.buildkite.was_asked_with(SECOND_TOKEN) { Ok(()) } else { Err("not yet".to_owned()) }
        })
        .await;
        case.condition("linux", "LoadFresh", "True", SOON).await;
        case.buildkite.jobs("linux", 4);
        case.reaches("linux", 4, SOON).await;
        assert!(case.uids("linux").await.is_superset(&pods), "agents mount the Secret; no pod is replaced for it");
        let log = replica.controller.logged();
        assert!(!log.contains(TOKEN) && !log.contains(SECOND_TOKEN), "a token is in the log");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn a_revoked_token_is_told_and_takes_nothing_away() {
    case("revoked", DEADLINE, async |case| {
        let _replica = case.controller().await;
        case.create_pool(pool("linux")).await;
        case.buildkite.jobs("linux", 2);
        case.reaches("linux", 2, SOON).await;
        case.history.bound("linux", 2..=10);
        case.keep_secret("buildkite-agent-token", "token", "bkct_revoked").await;
        let unknown = case.condition_for("linux", "LoadFresh", "Refused", Duration::from_secs(90)).await;
        assert_eq!(unknown.status, "False");
        case.buildkite.jobs("linux", 0);
        case.keeps("linux", 2..=2, Duration::from_secs(25)).await;
    })
    .await;
}
