//! The ground that the other cases stand on: what is simulated does what it says, and the proxy disturbs as it is told.

use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::{
    Api, Client, Config,
    api::{ListParams, PostParams, WatchEvent, WatchParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::json;

use crate::{
    harness::{
        Case, case,
        deployments::{POOL_LABEL, template},
        disturbance::{Treatment, is_write},
        eventually,
        proxy::Proxy,
        stays,
    },
    simulated_kubelet::Fate,
};

const DEADLINE: Duration = Duration::from_secs(90);

/// A Deployment that looks like a generation of pool `linux`.
async fn deployment(case: &Case, name: &str, replicas: i32) {
    let mut template = template("agent", "ground");
    template["metadata"]["labels"] = json!({ POOL_LABEL: "linux", "of": name });
    let deployment: Deployment = serde_json::from_value(json!({
        "metadata": { "name": name, "labels": { POOL_LABEL: "linux" } },
        "spec": { "replicas": replicas, "selector": { "matchLabels": { "of": name } }, "template": template },
    }))
    .expect("a Deployment");
    case.deployments().create(&PostParams::default(), &deployment).await.expect("it is taken");
}

/// A client with the rights of the chart that talks through the proxy.
async fn client_through(case: &Case, proxy: &Proxy) -> Client {
    let path = case.kubeconfig("client", &format!("http://{}", proxy.address));
    let kubeconfig = Kubeconfig::read_from(path).expect("a kubeconfig");
    let config =
        Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.expect("a configuration");
    Client::try_from(config).expect("a client")
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn the_simulated_kubelet_makes_pods_ready_and_lets_deleted_ones_go_after_their_drain() {
    case("kubelet", DEADLINE, async |case| {
        deployment(case, "linux-1", 3).await;
        case.reaches("linux", 3, Duration::from_secs(20)).await;

        case.kubelet.learn(|habits| habits.drain = Duration::from_secs(4));
        case.scale_by_hand("linux-1", 1, "a-person").await;
        case.reaches("linux", 1, Duration::from_secs(20)).await;
        assert_eq!(case.pods_of("linux").await.len(), 3, "two of them drain");
        eventually("the drained ones go", Duration::from_secs(20), async || {
            let left = case.pods_of("linux").await.len();
            if left == 1 { Ok(()) } else { Err(format!("{left} pods")) }
        })
        .await;
        assert_eq!(case.history.sizes("linux"), [3, 1]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn the_simulated_kubelet_can_leave_pods_unready_or_crash_looping() {
    case("fates", DEADLINE, async |case| {
        for (name, fate) in [("unready", Fate::Unready), ("crashing", Fate::CrashLooping)] {
            case.kubelet.learn(|habits| habits.fate = fate);
            deployment(case, name, 1).await;
            eventually("the pod runs without being ready", Duration::from_secs(20), async || {
                let pods = case.pods().list(&ListParams::default().labels(&format!("of={name}"))).await;
                let status = pods.expect("a list").items.pop().and_then(|pod| pod.status).unwrap_or_default();
                let container = status.container_statuses.unwrap_or_default().pop().ok_or("no container yet")?;
                let waits = container.state.is_some_and(|state| state.waiting.is_some());
                if !container.ready && waits == (fate == Fate::CrashLooping) { Ok(()) } else { Err("ready".to_owned()) }
            })
            .await;
        }
        stays("none is ready", Duration::from_secs(2), async || {
            let size = case.size("linux").await;
            if size.ready == 0 { Ok(()) } else { Err(format!("{size:?}")) }
        })
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn the_proxy_passes_a_watch_on_as_it_comes_and_cuts_it_when_told() {
    case("watch", DEADLINE, async |case| {
        let proxy = Proxy::start(&case.access).await;
        let pods: Api<Pod> = Api::namespaced(client_through(case, &proxy).await, &case.namespace);
        let version =
            pods.list(&ListParams::default()).await.expect("a list").metadata.resource_version.expect("a version");
        let mut events = pods.watch(&WatchParams::default(), &version).await.expect("a watch").boxed();
        deployment(case, "linux-1", 1).await;
        let event =
            tokio::time::timeout(Duration::from_secs(10), events.try_next()).await.expect("an event comes at once");
        assert!(matches!(event, Ok(Some(WatchEvent::Added(_)))), "{event:?}");

        proxy.cut_watches();
        // The client's library takes a lost connection for the end of the watch, so that is all there is to see here.
        tokio::time::timeout(Duration::from_secs(5), events.collect::<Vec<_>>()).await.expect("the watch ends");
        assert!(proxy.records().iter().any(|record| record.path.contains("watch=") && record.status == Some(200)));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn the_proxy_refuses_or_loses_what_it_is_told_to_and_counts_writes() {
    case("refuse", DEADLINE, async |case| {
        let proxy = Proxy::start(&case.access).await;
        let api: Api<Deployment> = Api::namespaced(client_through(case, &proxy).await, &case.namespace);
        let mut wanted: Deployment = serde_json::from_value(json!({
            "metadata": { "name": "refused" },
            "spec": { "replicas": 0, "selector": { "matchLabels": { "of": "x" } }, "template": template("agent", "x") },
        }))
        .expect("a Deployment");
        wanted.spec.as_mut().expect("a spec").template.metadata.as_mut().expect("metadata").labels =
            Some([("of".to_owned(), "x".to_owned())].into());

        proxy.treat(is_write, Treatment::Refuse);
        assert!(api.create(&PostParams::default(), &wanted).await.is_err());
        assert!(case.deployments().get_opt("refused").await.expect("an answer").is_none(), "it never got there");

        proxy.behave();
        proxy.treat(is_write, Treatment::LoseAnswer);
        assert!(api.create(&PostParams::default(), &wanted).await.is_err());
        assert!(case.deployments().get_opt("refused").await.expect("an answer").is_some(), "it got there");

        let writes: Vec<_> =
            proxy.records().into_iter().filter(super::super::harness::disturbance::Record::is_write).collect();
        assert_eq!(writes.iter().map(|write| write.status).collect::<Vec<_>>(), [None, Some(201)]);
    })
    .await;
}
