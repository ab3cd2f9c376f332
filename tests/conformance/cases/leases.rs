//! The lease, written as `kube-lease-manager` does it.

use serde_json::{Value, json};

use super::COORDINATION;
use crate::{
    server::{APPLY, STRATEGIC, Server},
    transcript::Transcript,
};

fn lease(spec: &Value) -> Value {
    json!({ "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "spec": spec })
}

fn take(holder: &str, second: u32) -> Value {
    let now = format!("2026-01-01T00:00:{second:02}.000000Z");
    lease(&json!({ "acquireTime": now, "renewTime": now, "holderIdentity": holder, "leaseDurationSeconds": 15 }))
}

pub(crate) async fn a_lease_is_taken_renewed_contended_and_given_back(server: &Server, transcript: &mut Transcript) {
    let one = server.path(COORDINATION, "leases/kitepool");
    transcript.answer("read what is not there", &server.get(&one).await);
    let empty = json!({ "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": { "name": "kitepool" } });
    transcript.answer("create", &server.post(&server.path(COORDINATION, "leases"), &empty).await);
    transcript.answer("create again", &server.post(&server.path(COORDINATION, "leases"), &empty).await);
    let by = |manager: &str| format!("{one}?fieldManager={manager}");
    transcript.answer("a takes it", &server.patch(&by("manager-a"), APPLY, &take("a", 0)).await);
    let turns = lease(&json!({ "leaseTransitions": 1 }));
    transcript.answer("and counts", &server.patch(&by("manager-a"), STRATEGIC, &turns).await);
    transcript.answer("b is too late", &server.patch(&by("manager-b"), APPLY, &take("b", 1)).await);
    let renewal = lease(&json!({ "renewTime": "2026-01-01T00:00:05.000000Z", "leaseDurationSeconds": 15 }));
    transcript.answer("a renews it", &server.patch(&by("manager-a"), STRATEGIC, &renewal).await);
    transcript.answer("b is too late again", &server.patch(&by("manager-b"), APPLY, &take("b", 6)).await);
    transcript.answer("a takes it again", &server.patch(&by("manager-a"), APPLY, &take("a", 7)).await);
    let nothing =
        lease(&json!({ "acquireTime": null, "renewTime": null, "holderIdentity": null, "leaseDurationSeconds": null }));
    transcript.answer("a gives it back", &server.patch(&by("manager-a"), STRATEGIC, &nothing).await);
    transcript.answer("b takes it", &server.patch(&by("manager-b"), APPLY, &take("b", 8)).await);
    let force = lease(&json!({ "holderIdentity": "c", "leaseTransitions": 2 }));
    transcript.answer("c takes it from b", &server.patch(&by("manager-c"), STRATEGIC, &force).await);
    transcript.answer("b wants it", &server.patch(&by("manager-b"), APPLY, &take("b", 9)).await);
    let forced = format!("{}&force=true", by("manager-b"));
    transcript.answer("b insists", &server.patch(&forced, APPLY, &take("b", 9)).await);
    transcript.answer("read", &server.get(&one).await);
    let fresh = format!("{}?fieldManager=manager-a", server.path(COORDINATION, "leases/fresh"));
    let mut named = take("a", 0);
    named["metadata"] = json!({ "name": "fresh" });
    transcript.answer("apply what is not there", &server.patch(&fresh, APPLY, &named).await);
    transcript.answer("apply without a manager", &server.patch(&one, APPLY, &take("b", 9)).await);
}
