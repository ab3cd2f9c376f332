//! Cases whose pods are processes: their nodes, their pods, and how many such cases run at once.

use std::{path::Path, time::Duration};

use k8s_openapi::{
    api::core::v1::{Namespace, Pod},
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::{Api, Resource as _, api::PostParams};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::{Case, case, eventually, pools::with};
use crate::{
    process_kubelet::{
        ProcessKubelet,
        settings::{Images, NodeSpec, Settings},
    },
    simulated_kubelet::NODES_OF_PROCESSES,
};

/// On the nodes of a case, as label and taint, with the case's namespace.
const OF_CASE: &str = "e2e/kubelet";

/// How much of the machine such cases may use together: a case with a few processes weighs one, one with sixty agents four.
static SHARE: Semaphore = Semaphore::const_new(4);

/// As [`case`], while there is room for its processes.
pub(crate) async fn process_case(name: &str, weight: u32, deadline: Duration, body: impl AsyncFnOnce(&Case)) {
    let _room = SHARE.acquire_many(weight).await.expect("it is never closed");
    case(name, deadline, body).await;
}

impl Case {
    /// The name of a node of this case.
    pub(crate) fn process_node(&self, number: usize) -> String {
        format!("{NODES_OF_PROCESSES}{}-{number}", self.namespace)
    }

    /// A node that takes pods of this case alone.
    pub(crate) fn node_spec(&self, number: usize) -> NodeSpec {
        NodeSpec::new(&self.process_node(number)).label(OF_CASE, &self.namespace).taint(OF_CASE, &self.namespace)
    }

    /// A kubelet with so many nodes, which go with the case's namespace.
    pub(crate) async fn process_kubelet(
        &self,
        nodes: usize,
        images: &str,
        change: impl FnOnce(&mut Settings),
    ) -> ProcessKubelet {
        // Left in the case's folder, where whoever looks into a failure finds which image was which program.
        let file = self.folder().join("images.yaml");
        std::fs::write(&file, images).expect("a file");
        let images = Images::read(&file).expect("an image file");
        let mut settings = Settings::new((1..=nodes).map(|number| self.node_spec(number)).collect(), images);
        change(&mut settings);
        let namespaces: Api<Namespace> = Api::all(self.admin.clone());
        let owner: Option<OwnerReference> =
            namespaces.get(&self.namespace).await.expect("the namespace").owner_ref(&());
        ProcessKubelet::start(self.admin.clone(), self.folder(), owner, settings).await
    }

    /// A pod template for the nodes of this case.
    pub(crate) fn on_processes(&self, template: Value) -> Value {
        let tolerations = json!([{ "key": OF_CASE, "operator": "Equal", "value": self.namespace }]);
        with(template, json!({ "spec": { "nodeSelector": { OF_CASE: self.namespace }, "tolerations": tolerations } }))
    }

    /// Creates a pod there. `more` is merged into its metadata and spec.
    pub(crate) async fn create_process_pod(&self, name: &str, more: Value) {
        let pod = json!({ "metadata": { "name": name }, "spec": { "automountServiceAccountToken": false } });
        let pod: Pod = serde_json::from_value(self.on_processes(with(pod, more))).expect("a pod");
        // The namespace's account comes a moment after the namespace.
        eventually("the pod is taken", Duration::from_secs(20), async || {
            self.pods().create(&PostParams::default(), &pod).await.map(drop).map_err(|error| error.to_string())
        })
        .await;
    }

    /// Waits until a pod is as it should be.
    pub(crate) async fn pod_becomes(
        &self,
        name: &str,
        what: &str,
        within: Duration,
        is_so: impl Fn(&Value) -> bool,
    ) -> Value {
        eventually(&format!("pod {name} {what}"), within, async || {
            let pod = self.pods().get(name).await.map_err(|error| error.to_string())?;
            let pod = serde_json::to_value(pod).map_err(|error| error.to_string())?;
            if is_so(&pod) { Ok(pod) } else { Err(pod["status"].to_string()) }
        })
        .await
    }

    /// Waits until a pod's object is gone.
    pub(crate) async fn pod_goes(&self, name: &str, within: Duration) {
        eventually(&format!("pod {name} goes"), within, async || {
            match self.pods().get_opt(name).await.map_err(|error| error.to_string())? {
                None => Ok(()),
                Some(pod) => Err(format!("{:?}", pod.status)),
            }
        })
        .await;
    }
}

/// What a condition of a pod says; empty where it is not there.
pub(crate) fn pod_condition<'a>(pod: &'a Value, kind: &str) -> &'a str {
    let conditions = pod["status"]["conditions"].as_array().map_or(&[][..], Vec::as_slice);
    let condition = conditions.iter().find(|condition| condition["type"] == kind);
    condition.and_then(|condition| condition["status"].as_str()).unwrap_or_default()
}

/// Whether there is such a process.
pub(crate) fn is_alive(pid: i32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}
