//! Pools as a person writes them, and what the controller says about them.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ResourceQuota;
use kube::{
    Api,
    api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams},
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use serde_json::{Value, json};

use super::{Case, eventually};

/// The definition that each case's namespace starts with.
pub(crate) const DEFINITION: &str = "agent";

/// A pool that reacts at once in both directions, so that a case waits for nothing but what it is about.
pub(crate) fn pool(name: &str) -> Value {
    json!({
        "apiVersion": "kitepool.dev/v1alpha1",
        "kind": "AgentPool",
        "metadata": { "name": name },
        "spec": {
            "queue": name,
            "token": { "secretRef": { "name": "buildkite-agent-token", "key": "token" } },
            "podTemplateRef": { "name": DEFINITION },
            "longestJob": "1h",
            "scaling": {
                "min": 0,
                "max": 10,
                "spare": { "agents": 0 },
                "scaleUp": { "cooldown": "0s", "step": { "percent": 100, "agents": 100, "per": "1s" } },
                "scaleDown": {
                    "cooldown": "1s", "window": "2s", "step": { "percent": 100, "agents": 100, "per": "1s" }, "minAge": "0s",
                },
                "hintTtl": "30s",
                "staleAfter": "15s",
            },
        },
    })
}

/// `value` with a JSON merge patch applied: what the patch names is replaced, what it sets to null is taken away.
pub(crate) fn with(mut value: Value, patch: Value) -> Value {
    merge(&mut value, patch);
    value
}

fn merge(into: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *into = patch;
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    let Value::Object(object) = into else { unreachable!("made an object above") };
    for (key, change) in patch {
        if change.is_null() {
            object.remove(&key);
        } else {
            merge(object.entry(key).or_insert(Value::Null), change);
        }
    }
}

pub(crate) fn resource(kind: &str) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("kitepool.dev", "v1alpha1", kind))
}

/// One of a pool's conditions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Condition {
    pub(crate) status: String,
    pub(crate) reason: String,
    pub(crate) message: String,
}

/// A pool as the API server shows it.
#[derive(Debug, Clone)]
pub(crate) struct Pool(pub(crate) Value);

impl Pool {
    pub(crate) fn condition(&self, kind: &str) -> Option<Condition> {
        let conditions = self.0.pointer("/status/conditions")?.as_array()?;
        let condition = conditions.iter().find(|condition| condition["type"] == kind)?;
        let text = |key: &str| condition[key].as_str().unwrap_or_default().to_owned();
        Some(Condition { status: text("status"), reason: text("reason"), message: text("message") })
    }

    pub(crate) fn status(&self) -> &Value {
        &self.0["status"]
    }
}

impl Case {
    pub(crate) fn pools(&self) -> Api<DynamicObject> {
        Api::namespaced_with(self.admin.clone(), &self.namespace, &resource("AgentPool"))
    }

    pub(crate) fn hints(&self) -> Api<DynamicObject> {
        Api::namespaced_with(self.admin.clone(), &self.namespace, &resource("JobHint"))
    }

    pub(crate) async fn create_pool(&self, pool: Value) {
        let object: DynamicObject = serde_json::from_value(pool).expect("an object");
        self.pools().create(&PostParams::default(), &object).await.expect("the API server takes the pool");
    }

    pub(crate) async fn change_pool(&self, name: &str, patch: Value) {
        self.pools()
            .patch(name, &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .expect("the pool takes the change");
    }

    pub(crate) async fn annotate_pool(&self, name: &str, annotation: &str, value: Option<&str>) {
        self.change_pool(name, json!({ "metadata": { "annotations": { annotation: value } } })).await;
    }

    pub(crate) async fn delete_pool(&self, name: &str) {
        self.pools().delete(name, &DeleteParams::default()).await.expect("the pool can be deleted");
    }

    pub(crate) async fn pool(&self, name: &str) -> Pool {
        let object = self.pools().get(name).await.expect("the pool is there");
        Pool(serde_json::to_value(object).expect("JSON"))
    }

    /// Waits for a condition to have a status, and answers it.
    pub(crate) async fn condition(&self, pool: &str, kind: &str, status: &str, within: Duration) -> Condition {
        eventually(&format!("{kind} of pool {pool} is {status}"), within, async || {
            match self.pool(pool).await.condition(kind) {
                Some(condition) if condition.status == status => Ok(condition),
                other => Err(format!("{other:?}")),
            }
        })
        .await
    }

    /// Waits for a condition to be so for this reason: on the way there it may be so for others.
    pub(crate) async fn condition_for(&self, pool: &str, kind: &str, reason: &str, within: Duration) -> Condition {
        eventually(&format!("{kind} of pool {pool} is so for {reason}"), within, async || {
            match self.pool(pool).await.condition(kind) {
                Some(condition) if condition.reason == reason => Ok(condition),
                other => Err(format!("{other:?}")),
            }
        })
        .await
    }

    /// A job's event as the Lambda or the webhook stores it.
    pub(crate) async fn hint(&self, queue: &str, job: &str, runnable_at: Timestamp) -> Result<(), kube::Error> {
        self.hint_with(queue, job, runnable_at, &[]).await
    }

    pub(crate) async fn hint_with(
        &self,
        queue: &str,
        job: &str,
        runnable_at: Timestamp,
        rules: &[&str],
    ) -> Result<(), kube::Error> {
        let rules: Vec<String> =
            std::iter::once(format!("queue={queue}")).chain(rules.iter().map(ToString::to_string)).collect();
        let hint = json!({
            "apiVersion": "kitepool.dev/v1alpha1",
            "kind": "JobHint",
            "metadata": { "name": format!("job-{job}") },
            "spec": {
                "source": "eventbridge",
                "jobs": [{ "id": job, "queue": queue, "rules": rules, "runnableAt": runnable_at.to_string() }],
            },
        });
        let object: DynamicObject = serde_json::from_value(hint).expect("an object");
        loop {
            match self.hints().create(&PostParams::default(), &object).await {
                // Two creations at once, and one of them could not be counted: it was not stored, unlike one that exists.
                Err(kube::Error::Api(status)) if status.code == 409 && status.reason == "Conflict" => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                answer => return answer.map(drop),
            }
        }
    }

    /// The quota controller looks for new kinds of objects every half minute. Until it has seen ours, hints are refused.
    pub(crate) async fn takes_hints(&self) {
        let api: Api<ResourceQuota> = Api::namespaced(self.admin.clone(), &self.namespace);
        let is_counted = |quota: &ResourceQuota| quota.status.as_ref().is_some_and(|status| status.used.is_some());
        for _ in 0..15 {
            for _ in 0..20 {
                let quotas = api.list(&ListParams::default()).await.expect("a list").items;
                if !quotas.is_empty() && quotas.iter().all(is_counted) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            // A quota that was made before that is looked at again after five minutes only; a new one is looked at at once.
            for mut quota in api.list(&ListParams::default()).await.expect("a list").items {
                let name = quota.metadata.name.clone().expect("a name");
                api.delete(&name, &DeleteParams::default()).await.expect("it can be deleted");
                quota.metadata = ObjectMeta { name: Some(name), ..ObjectMeta::default() };
                api.create(&PostParams::default(), &quota).await.expect("it can be made again");
            }
        }
        panic!("the quota of hints is never counted");
    }
}
