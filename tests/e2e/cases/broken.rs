//! Pools that cannot work: each says where, what and how to mend it, disturbs nobody, and works once it is mended.

use std::time::Duration;

use serde_json::{Value, json};

use super::SOON;
use crate::harness::{
    Case, case,
    deployments::template,
    pools::{Condition, pool, with},
};

const DEADLINE: Duration = Duration::from_mins(3);

/// Starts a good pool and a bad one on the same queue's load, and sees that the bad one says all of `words`.
async fn say(case: &Case, bad: Value, words: &[&str]) -> Condition {
    case.create_pool(pool("good")).await;
    case.create_pool(with(pool("bad"), bad)).await;
    case.buildkite.jobs("bad", 2);
    let said = case.condition("bad", "Ready", "False", SOON).await;
    for word in words {
        assert!(said.message.contains(word), "{word:?} is not in {:?}", said.message);
    }
    case.buildkite.jobs("good", 2);
    case.reaches("good", 2, SOON).await;
    assert!(case.generations("bad").await.is_empty());
    said
}

/// Sees that the pool works now.
async fn works(case: &Case) {
    case.condition("bad", "Ready", "True", Duration::from_secs(90)).await;
    case.reaches("bad", 2, SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn an_unknown_time_zone_is_told_and_the_pool_works_once_it_is_right() {
    case("timezone", DEADLINE, async |case| {
        let mut replica = case.controller().await;
        let schedule = |zone: &str| {
            json!({ "spec": { "scaling": { "schedules": [
                { "days": "Mon-Fri", "from": "08:00", "to": "19:00", "timeZone": zone, "min": 1 },
            ] } } })
        };
        say(case, schedule("Europe/Nowhere"), &["spec.scaling.schedules[0].timeZone", "Europe/Nowhere"]).await;
        case.change_pool("bad", schedule("Europe/London")).await;
        works(case).await;
        assert!(replica.controller.is_running());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn a_missing_secret_or_key_is_told_and_the_pool_works_once_it_is_there() {
    case("nosecret", DEADLINE, async |case| {
        let _replica = case.controller().await;
        let elsewhere = json!({ "spec": { "token": { "secretRef": { "name": "elsewhere", "key": "token" } } } });
        say(case, elsewhere, &["elsewhere", &case.namespace, "`token`"]).await;

        case.keep_secret("elsewhere", "tokn", crate::harness::simulated_buildkite::SECOND_TOKEN).await;
        crate::harness::eventually("the missing key is told", Duration::from_secs(90), async || {
            match case.pool("bad").await.condition("Ready") {
                Some(said) if said.message.contains("tokn") => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        case.keep_secret("elsewhere", "token", crate::harness::simulated_buildkite::SECOND_TOKEN).await;
        works(case).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn a_missing_definition_is_told_and_the_pool_works_once_it_is_there() {
    case("notemplate", DEADLINE, async |case| {
        let _replica = case.controller().await;
        let elsewhere = json!({ "spec": { "podTemplateRef": { "name": "elsewhere" } } });
        say(case, elsewhere, &["spec.podTemplateRef.name", "elsewhere", &case.namespace]).await;
        case.define("elsewhere", template("agent", "here")).await;
        works(case).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn a_definition_without_an_agent_container_is_told() {
    case("noagent", DEADLINE, async |case| {
        let _replica = case.controller().await;
        case.define("wrong", template("runner", "wrong")).await;
        let wrong = json!({ "spec": { "podTemplateRef": { "name": "wrong" } } });
        say(case, wrong, &["PodTemplate wrong", "`agent`", "runner"]).await;
        case.define("wrong", template("agent", "right")).await;
        works(case).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn a_definition_that_breaks_under_a_running_pool_leaves_its_pods_alone() {
    case("breaks", DEADLINE, async |case| {
        let _replica = case.controller().await;
        case.create_pool(pool("linux")).await;
        case.buildkite.jobs("linux", 3);
        case.reaches("linux", 3, SOON).await;
        let pods = case.uids("linux").await;
        case.history.bound("linux", 3..=10);

        case.undefine(crate::harness::pools::DEFINITION).await;
        let said = case.condition("linux", "Ready", "False", SOON).await;
        assert!(said.message.contains("What runs is kept"), "{}", said.message);
        case.buildkite.jobs("linux", 0);
        case.keeps("linux", 3..=3, Duration::from_secs(25)).await;
        assert_eq!(case.uids("linux").await, pods);

        case.define(crate::harness::pools::DEFINITION, template("agent", "first")).await;
        case.history.bound("linux", 0..=10);
        case.condition("linux", "Ready", "True", SOON).await;
        case.reaches("linux", 0, super::SHRINKS).await;
    })
    .await;
}
