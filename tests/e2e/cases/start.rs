//! What keeps a controller from its work: told at once with an exit code where nothing but a restart helps, otherwise told
//! while it waits to be mended.

use std::time::Duration;

use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};
use serde_json::json;

use super::SOON;
use crate::harness::{
    Case, case, case_on,
    chart::{self, RELEASE},
    control_plane::{self, ControlPlane},
    controller::Controller,
    eventually,
    pools::{pool, with},
    proxy::Proxy,
};

const DEADLINE: Duration = Duration::from_secs(150);

/// Waits until the controller is not ready, and says all of these words.
async fn says(controller: &Controller, words: &[&str], within: Duration) {
    eventually(&format!("/readyz says {words:?}"), within, async || {
        let (status, text) = controller.get("/readyz").await?;
        let is_said = status == 503 && words.iter().all(|word| text.contains(word));
        if is_said { Ok(()) } else { Err(format!("{status} {text}")) }
    })
    .await;
}

async fn works(case: &Case) {
    case.create_pool(pool("linux")).await;
    case.buildkite.jobs("linux", 1);
    case.reaches("linux", 1, Duration::from_secs(40)).await;
}

/// The flags, and what the sentence must name.
const CONTRADICTIONS: [(&[&str], &[&str]); 5] = [
    (&["--poll-interval", "1h"], &["--poll-interval", "between"]),
    (&["--poll-interval", "10 parsecs"], &["10 parsecs", "`10s`"]),
    (&["--buildkite-budget", "1"], &["--buildkite-budget"]),
    (&["--buildkite-endpoint", "agent.buildkite.com"], &["--buildkite-endpoint", "https://"]),
    (&["--namespace", "Not_A_Namespace"], &["Not_A_Namespace"]),
];

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn contradicting_flags_end_the_controller_with_a_sentence() {
    case("flags", DEADLINE, async |case| {
        let proxy = Proxy::start(&case.access).await;
        for (number, (flags, words)) in CONTRADICTIONS.iter().enumerate() {
            // Clap takes the last of a flag that may be given once only if it is told so, thus the defaults are left out.
            let mut launch = case.launch(&format!("flags{number}"), &proxy, flags);
            launch.bare = true;
            let mut controller = Controller::start(&launch);
            let status = controller.ended(SOON).await;
            assert!(status.code().is_some_and(|code| code == 1 || code == 2), "{flags:?}: {status}");
            let said = controller.logged();
            for word in *words {
                assert!(said.contains(word), "{flags:?}: {word:?} is not in {said:?}");
            }
            assert!(!said.contains("panicked"), "{said}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn a_kubeconfig_that_is_not_there_ends_the_controller_with_a_sentence() {
    case("nokubeconfig", DEADLINE, async |case| {
        let proxy = Proxy::start(&case.access).await;
        let mut launch = case.launch("a", &proxy, &[]);
        launch.kubeconfig = launch.kubeconfig.with_file_name("nowhere");
        let mut controller = Controller::start(&launch);
        let status = controller.ended(SOON).await;
        assert_eq!(status.code(), Some(1));
        let said = controller.logged();
        assert!(said.contains("KUBECONFIG") && said.contains("nowhere"), "{said}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn an_api_server_that_is_away_or_refuses_the_token_is_told_while_the_controller_waits() {
    case("noserver", DEADLINE, async |case| {
        let mut launch = case.launch("away", &Proxy::start(&case.access).await, &[]);
        // The proxy has ended, so nobody listens there.
        let mut away = Controller::start(&launch);
        says(&away, &["lease"], Duration::from_secs(30)).await;

        let proxy = Proxy::start(&case.access).await;
        launch = case.launch("refused", &proxy, &[]);
        let kubeconfig = std::fs::read_to_string(&launch.kubeconfig).expect("a kubeconfig");
        let mut wrong: serde_json::Value = serde_json::from_str(&kubeconfig).expect("JSON");
        wrong["users"][0]["user"]["token"] = json!("not-a-token");
        std::fs::write(&launch.kubeconfig, wrong.to_string()).expect("a file");
        let mut refused = Controller::start(&launch);
        says(&refused, &["lease", "Unauthorized"], Duration::from_secs(30)).await;
        assert!(away.is_running() && refused.is_running());
    })
    .await;
}

/// Takes the controller's rights on this resource away. Answers the Role as it was.
async fn without_right(case: &Case, resource: &str) -> Role {
    let roles: Api<Role> = Api::namespaced(case.admin.clone(), &case.namespace);
    let role = roles.get(RELEASE).await.expect("the chart's Role");
    let mut less = role.clone();
    less.rules
        .as_mut()
        .expect("rules")
        .retain(|rule| rule.resources.iter().flatten().all(|granted| granted != resource));
    roles.replace(RELEASE, &PostParams::default(), &less).await.expect("the Role can be changed");
    role
}

async fn give_back(case: &Case, role: Role) {
    let roles: Api<Role> = Api::namespaced(case.admin.clone(), &case.namespace);
    let fresh = Role { metadata: roles.get(RELEASE).await.expect("the Role").metadata, ..role };
    roles.replace(RELEASE, &PostParams::default(), &fresh).await.expect("the Role can be changed");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn a_right_that_is_missing_is_named_and_used_once_it_is_granted() {
    // The name tells the comparison of rights that refusals are meant here.
    case("deprived", DEADLINE, async |case| {
        let role = without_right(case, "deployments").await;

        let mut replica = case.controller().await;
        says(&replica.controller, &["deployments", "cannot be read", "Role"], Duration::from_secs(30)).await;
        assert!(replica.controller.is_running());

        give_back(case, role).await;
        works(case).await;

        // Taken away under a running controller: what it knows stays, and the condition of its work is told.
        let bindings: Api<RoleBinding> = Api::namespaced(case.admin.clone(), &case.namespace);
        let binding = bindings.get(RELEASE).await.expect("the chart's RoleBinding");
        bindings.delete(RELEASE, &DeleteParams::default()).await.expect("it can be deleted");
        case.keeps("linux", 1..=1, Duration::from_secs(20)).await;
        let again = RoleBinding {
            metadata: kube::api::ObjectMeta { name: Some(RELEASE.to_owned()), ..Default::default() },
            ..binding
        };
        bindings.create(&PostParams::default(), &again).await.expect("it can be made again");
        case.buildkite.jobs("linux", 3);
        case.reaches("linux", 3, Duration::from_secs(40)).await;
        assert!(replica.controller.is_running());
    })
    .await;
}

/// A raise is recorded after it is made: where it cannot be made, there is nothing to wait for.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn a_raise_that_is_refused_is_told_in_the_condition_and_made_once_it_may() {
    case("deprived-of-scale", DEADLINE, async |case| {
        let _replica = case.controller().await;
        case.create_pool(with(pool("linux"), json!({ "spec": { "scaling": { "min": 1 } } }))).await;
        case.reaches("linux", 1, SOON).await;
        let role = without_right(case, "deployments/scale").await;
        // Rights are known to the API server a moment later.
        tokio::time::sleep(Duration::from_secs(2)).await;
        case.buildkite.jobs("linux", 3);
        let refused = case.condition_for("linux", "Ready", "WriteRefused", SOON).await;
        assert!(refused.message.contains("scale"), "{refused:?}");

        give_back(case, role).await;
        case.reaches("linux", 3, Duration::from_secs(40)).await;
        case.condition_for("linux", "Ready", "Deciding", SOON).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn missing_or_older_definitions_are_told_until_the_right_ones_are_installed() {
    if control_plane::is_foreign() {
        println!("left out: this case needs a cluster without our definitions");
        return;
    }
    let plane = tokio::task::spawn_blocking(|| ControlPlane::start(None)).await.expect("a control plane");
    case_on(plane.access.clone(), "definitions", DEADLINE, async |case| {
        let replica = case.controller().await;
        says(&replica.controller, &["not installed", "kitepool crd"], Duration::from_secs(30)).await;

        for mut older in chart::definitions() {
            let schema = older.spec.versions.first_mut().and_then(|version| version.schema.as_mut()).expect("a schema");
            let properties =
                schema.open_api_v3_schema.as_mut().and_then(|schema| schema.properties.as_mut()).expect("properties");
            let status = properties.get_mut("status").and_then(|status| status.properties.as_mut());
            if let Some(status) = status {
                status.remove("memory").expect("a field that the controller cannot do without");
            }
            chart::apply_definition(&case.admin, &older).await;
        }
        says(&replica.controller, &["older than this controller", "status.memory"], Duration::from_secs(30)).await;

        for definition in chart::definitions() {
            chart::apply_definition(&case.admin, &definition).await;
        }
        works(case).await;
    })
    .await;
    drop(tokio::task::spawn_blocking(move || drop(plane)).await);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn a_namespace_that_is_not_there_does_not_stop_the_others() {
    case("nonamespace", DEADLINE, async |case| {
        let mut replica = case.replica("a", &["--namespace", "nobody-made-this"]).await;
        works(case).await;
        let (_, text) = replica.controller.get("/readyz").await.expect("an answer");
        assert!(text.contains("nobody-made-this"), "{text}");
        assert!(replica.controller.is_running());
        // A pod that the kubelet restarts must not be told the same for ever by a log that grows.
        let lines = replica.controller.logged().lines().filter(|line| line.contains("nobody-made-this")).count();
        assert!(lines < 60, "{lines} lines about it");
    })
    .await;
}
