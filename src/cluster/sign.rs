//! What is written on a pod, for those who take pods and nodes away: read from its metadata, and put there.
//!
//! | sign | whom it speaks to |
//! |---|---|
//! | busy | Cluster Autoscaler (`safe-to-evict`), Karpenter (`do-not-disrupt`), the `ReplicaSet` (a positive cost), and by the label a `PodDisruptionBudget` |
//! | leaving | the `ReplicaSet` alone (a negative cost) |
//!
//! These five are the controller's; what a pod definition says of them is overwritten with the first change.

use std::collections::BTreeMap;

use kitepool_api::BUSY_LABEL;
use kitepool_policy::observation::Sign;
use serde_json::{Value, json};

/// The order in which a `ReplicaSet` takes pods that are alike otherwise: the least first; no number counts as zero.
const COST: &str = "controller.kubernetes.io/pod-deletion-cost";
const SAFE_TO_EVICT: &str = "cluster-autoscaler.kubernetes.io/safe-to-evict";
const DO_NOT_DISRUPT: &str = "karpenter.sh/do-not-disrupt";

const BUSY_COST: &str = "1000";
const LEAVING_COST: &str = "-1000";

/// The sign that these make.
pub fn read(labels: &BTreeMap<String, String>, annotations: &BTreeMap<String, String>) -> Sign {
    let found = (
        labels.get(BUSY_LABEL).map(String::as_str),
        annotations.get(SAFE_TO_EVICT).map(String::as_str),
        annotations.get(DO_NOT_DISRUPT).map(String::as_str),
        annotations.get(COST).map(String::as_str),
    );
    match found {
        (Some("true"), Some("false"), Some("true"), Some(BUSY_COST)) => Sign::Busy,
        (None, None, None, Some(LEAVING_COST)) => Sign::Leaving,
        (None, None, None, None) => Sign::Plain,
        _ => Sign::Mixed,
    }
}

/// The merge patch that makes this sign of any other.
pub(super) fn patch(sign: Sign) -> Value {
    let is_busy = sign == Sign::Busy;
    let cost = match sign {
        Sign::Busy => Some(BUSY_COST),
        Sign::Leaving => Some(LEAVING_COST),
        Sign::Plain | Sign::Mixed | Sign::Moving => None,
    };
    json!({ "metadata": {
        "labels": { BUSY_LABEL: is_busy.then_some("true") },
        "annotations": {
            SAFE_TO_EVICT: is_busy.then_some("false"),
            DO_NOT_DISRUPT: is_busy.then_some("true"),
            COST: cost,
        },
    } })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_back(metadata: &Value) -> Sign {
        let strings = |key: &str| serde_json::from_value(metadata[key].clone()).unwrap_or_default();
        read(&strings("labels"), &strings("annotations"))
    }

    #[test]
    fn a_sign_takes_the_place_of_any_other_and_is_read_back() {
        let all = [Sign::Busy, Sign::Leaving, Sign::Plain];
        for (before, after) in all.iter().flat_map(|before| all.iter().map(move |after| (*before, *after))) {
            let mut pod = json!({ "metadata": { "labels": { "app": "x" }, "annotations": { "a": "b" } } });
            json_patch::merge(&mut pod, &patch(before));
            assert_eq!(read_back(&pod["metadata"]), before);
            json_patch::merge(&mut pod, &patch(after));
            assert_eq!(read_back(&pod["metadata"]), after);
            assert_eq!(
                (&pod["metadata"]["labels"]["app"], &pod["metadata"]["annotations"]["a"]),
                (&json!("x"), &json!("b"))
            );
        }
    }

    #[test]
    fn what_somebody_else_wrote_is_no_sign_of_ours() {
        let cost = json!({ "annotations": { COST: "5" } });
        let half = json!({ "labels": { BUSY_LABEL: "true" } });
        let kept = json!({ "annotations": { SAFE_TO_EVICT: "false" } });
        assert_eq!([cost, half, kept].map(|metadata| read_back(&metadata)), [Sign::Mixed; 3]);
    }
}
