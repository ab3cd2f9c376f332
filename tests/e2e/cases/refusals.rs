//! What the definitions refuse, the real API server refuses, with our sentence.

use std::time::Duration;

use kitepool_api::refusals::{refusals, valid_manifest};
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
    core::DynamicObject,
};
use serde_json::{Value, json};

use crate::harness::{
    Case, case,
    pools::{pool, resource, with},
};

const DEADLINE: Duration = Duration::from_mins(1);

async fn create(case: &Case, manifest: Value) -> Result<(), kube::Error> {
    let kind = manifest["kind"].as_str().expect("a kind").to_owned();
    let object: DynamicObject = serde_json::from_value(manifest).expect("an object");
    let api: Api<DynamicObject> = Api::namespaced_with(case.admin.clone(), &case.namespace, &resource(&kind));
    api.create(&PostParams::default(), &object).await.map(drop)
}

async fn replace(case: &Case, manifest: Value) -> Result<(), kube::Error> {
    let kind = manifest["kind"].as_str().expect("a kind").to_owned();
    let name = manifest["metadata"]["name"].as_str().expect("a name").to_owned();
    let patch = with(manifest, json!({ "metadata": { "name": null } }));
    let api: Api<DynamicObject> = Api::namespaced_with(case.admin.clone(), &case.namespace, &resource(&kind));
    api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn each_rule_refuses_with_its_sentence() {
    case("rules", DEADLINE, async |case| {
        // The quota would answer before the rules while it is not counted.
        case.takes_hints().await;
        create(case, valid_manifest("valid")).await.expect("the valid one is taken");
        create(case, pool("linux")).await.expect("the one of all these cases is taken");
        let all = refusals();
        let mut wrong = Vec::new();
        for refusal in &all {
            let tried = match &refusal.before {
                None => create(case, refusal.manifest.clone()).await,
                Some(before) => {
                    create(case, before.clone()).await.expect("what stands before is taken");
                    replace(case, refusal.manifest.clone()).await
                }
            };
            match tried {
                Err(kube::Error::Api(status)) if status.code == 422 && status.message.contains(refusal.sentence) => {}
                Err(error) => wrong.push(format!("{}: wanted {:?}, got {error}", refusal.name, refusal.sentence)),
                Ok(()) => {
                    wrong.push(format!("{}: it was taken", refusal.name));
                    // Room for the next one of that name.
                    drop(case.pools().delete("wrong", &kube::api::DeleteParams::default()).await);
                }
            }
        }
        println!("{} of {} refused as they should be", all.len() - wrong.len(), all.len());
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the control plane: tests/e2e/run"]
async fn a_stored_hint_cannot_be_changed() {
    case("immutable", DEADLINE, async |case| {
        case.takes_hints().await;
        case.hint("linux", "one", jiff::Timestamp::now()).await.expect("a hint");
        let patch = Patch::Merge(json!({ "spec": { "source": "somebody-else" } }));
        let refused = case.hints().patch("job-one", &PatchParams::default(), &patch).await.expect_err("a refusal");
        assert!(refused.to_string().contains("a JobHint cannot be changed"), "{refused}");
    })
    .await;
}
