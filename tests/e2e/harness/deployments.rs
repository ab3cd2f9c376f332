//! Generations and their pods, as the API server shows them.

use std::{collections::BTreeSet, time::Duration};

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Pod, PodTemplate, Secret},
    events::v1::Event,
};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use super::{Case, eventually};

pub(crate) const POOL_LABEL: &str = "kitepool.dev/pool";
pub(crate) const GENERATION_LABEL: &str = "kitepool.dev/generation";

/// What a pool has at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    /// Over all generations, as asked for.
    pub(crate) replicas: i32,
    /// Pods that are ready and not draining.
    pub(crate) ready: usize,
}

pub(crate) fn replicas(deployment: &Deployment) -> i32 {
    deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

pub(crate) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    pod.metadata.deletion_timestamp.is_none()
        && conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

impl Case {
    pub(crate) fn deployments(&self) -> Api<Deployment> {
        Api::namespaced(self.admin.clone(), &self.namespace)
    }

    pub(crate) fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.admin.clone(), &self.namespace)
    }

    /// The pool's Deployments, oldest first.
    pub(crate) async fn generations(&self, pool: &str) -> Vec<Deployment> {
        let of_pool = ListParams::default().labels(&format!("{POOL_LABEL}={pool}"));
        let mut generations = self.deployments().list(&of_pool).await.expect("a list").items;
        generations.sort_by_key(|deployment| deployment.metadata.creation_timestamp.clone());
        generations
    }

    pub(crate) async fn pods_of(&self, pool: &str) -> Vec<Pod> {
        let of_pool = ListParams::default().labels(&format!("{POOL_LABEL}={pool}"));
        self.pods().list(&of_pool).await.expect("a list").items
    }

    pub(crate) async fn size(&self, pool: &str) -> Size {
        let replicas = self.generations(pool).await.iter().map(replicas).sum();
        let ready = self.pods_of(pool).await.iter().filter(|pod| is_ready(pod)).count();
        Size { replicas, ready }
    }

    /// Waits until so many replicas are asked for and as many pods are ready.
    pub(crate) async fn reaches(&self, pool: &str, pods: i32, within: Duration) {
        let wanted = Size { replicas: pods, ready: usize::try_from(pods).expect("no negative number") };
        eventually(&format!("pool {pool} has {pods} pods"), within, async || {
            let size = self.size(pool).await;
            if size == wanted { Ok(()) } else { Err(format!("{size:?}")) }
        })
        .await;
    }

    /// Sees that replicas stay within bounds for so long.
    pub(crate) async fn keeps(&self, pool: &str, bounds: std::ops::RangeInclusive<i32>, how_long: Duration) {
        super::stays(&format!("pool {pool} keeps {bounds:?} replicas"), how_long, async || {
            let size = self.size(pool).await;
            if bounds.contains(&size.replicas) { Ok(()) } else { Err(format!("{size:?}")) }
        })
        .await;
    }

    pub(crate) async fn uids(&self, pool: &str) -> BTreeSet<String> {
        self.pods_of(pool).await.iter().filter_map(Pod::uid).collect()
    }

    /// Scales as a person does with kubectl, under that person's name.
    pub(crate) async fn scale_by_hand(&self, deployment: &str, replicas: i32, who: &str) {
        let params = PatchParams { field_manager: Some(who.to_owned()), ..PatchParams::default() };
        let patch = Patch::Merge(json!({ "spec": { "replicas": replicas } }));
        self.deployments().patch_scale(deployment, &params, &patch).await.expect("a person may scale");
    }

    /// Creates or replaces the pod definition of that name.
    pub(crate) async fn define(&self, name: &str, template: Value) {
        let api: Api<PodTemplate> = Api::namespaced(self.admin.clone(), &self.namespace);
        let definition =
            json!({ "apiVersion": "v1", "kind": "PodTemplate", "metadata": { "name": name }, "template": template });
        let definition: PodTemplate = serde_json::from_value(definition).expect("a pod definition");
        match api.create(&PostParams::default(), &definition).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 409 => {
                api.replace(
                    name,
                    &PostParams::default(),
                    &PodTemplate { metadata: current(&api, name).await, ..definition },
                )
                .await
                .expect("the definition can be replaced");
            }
            Err(error) => panic!("the definition {name} is refused: {error}"),
        }
    }

    pub(crate) async fn undefine(&self, name: &str) {
        let api: Api<PodTemplate> = Api::namespaced(self.admin.clone(), &self.namespace);
        api.delete(name, &kube::api::DeleteParams::default()).await.expect("the definition can be deleted");
    }

    /// Creates or replaces a Secret.
    pub(crate) async fn keep_secret(&self, name: &str, key: &str, value: &str) {
        let api: Api<Secret> = Api::namespaced(self.admin.clone(), &self.namespace);
        let patch =
            json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name }, "stringData": { key: value } });
        let params = PatchParams::apply("e2e").force();
        api.patch(name, &params, &Patch::Apply(&patch)).await.expect("the Secret is taken");
    }

    /// Replaces a Secret by one that has these entries and no others; without any there is none.
    pub(crate) async fn replace_secret(&self, name: &str, entries: &[(&str, &str)]) {
        let api: Api<Secret> = Api::namespaced(self.admin.clone(), &self.namespace);
        match api.delete(name, &DeleteParams::default()).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => panic!("the Secret {name} cannot be deleted: {error}"),
        }
        if !entries.is_empty() {
            let text = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
            let secret = Secret {
                metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
                string_data: Some(entries.iter().map(text).collect()),
                ..Secret::default()
            };
            api.create(&PostParams::default(), &secret).await.expect("the Secret is taken");
        }
    }

    /// Events about a pool: reason and note, as often as each was told. The same one again is counted up rather than written.
    pub(crate) async fn events(&self, pool: &str) -> Vec<(String, String)> {
        let api: Api<Event> = Api::namespaced(self.admin.clone(), &self.namespace);
        let events = api.list(&ListParams::default()).await.expect("a list").items;
        let about = |event: &Event| {
            event
                .regarding
                .as_ref()
                .is_some_and(|about| about.kind.as_deref() == Some("AgentPool") && about.name.as_deref() == Some(pool))
        };
        let text = |text: Option<String>| text.unwrap_or_default();
        let told = events.into_iter().filter(about).flat_map(|event| {
            let times = event.series.map_or(1, |series| series.count);
            let (reason, note) = (text(event.reason), text(event.note));
            (0..times).map(move |_| (reason.clone(), note.clone()))
        });
        told.collect()
    }
}

async fn current(api: &Api<PodTemplate>, name: &str) -> kube::api::ObjectMeta {
    api.get(name).await.expect("the definition is there").metadata
}

/// A pod template as small as the API server takes it. `mark` makes one definition differ from another.
pub(crate) fn template(container: &str, mark: &str) -> Value {
    json!({
        "metadata": { "labels": { "app.kubernetes.io/name": "buildkite-agent" }, "annotations": { "e2e/mark": mark } },
        "spec": {
            "containers": [{
                "name": container,
                "image": "buildkite/agent:3.137.2",
                "args": ["start"],
                "resources": { "requests": { "cpu": "1m", "memory": "1Mi" } },
            }],
        },
    })
}
