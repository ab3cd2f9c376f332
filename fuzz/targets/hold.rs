//! What holds for whatever was read: a job becomes a hint that is read again as it was written, a reason stays short.

use kitepool_api::{HintedJob, JobHint, events::Unusable, parse_hint};
use kube::core::DynamicObject;

pub fn hold(read: Result<HintedJob, Unusable>) {
    match read {
        Ok(job) => {
            let hint = JobHint::of_jobs("fuzz", vec![job.clone().into()]).expect("what is taken is a hint");
            let stored = serde_json::to_value(&hint).expect("a hint is JSON");
            let stored: DynamicObject = serde_json::from_value(stored).expect("a hint is an object");
            assert_eq!(parse_hint(&stored), Ok(vec![job]));
        }
        Err(unusable) => assert!(unusable.to_string().len() < 1_000),
    }
}
