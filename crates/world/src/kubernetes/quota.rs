//! Quotas on the number of objects of a kind.

use serde_json::Value;

use super::{kind::Kind, object::text, refusal::Refusal, store::Store};

/// Whether one more may be created. Unlike the real one, which counts by a controller and may lag behind deletions, this
/// counts what is there.
pub(super) fn admit(store: &Store, kind: Kind, namespace: &str, name: &str) -> Result<(), Refusal> {
    let counted = format!("count/{}", kind.qualified());
    for (quota, object) in store.of(Kind::ResourceQuota, namespace) {
        let hard = object.pointer("/spec/hard").and_then(|hard| hard.get(&counted));
        let Some(hard) = hard else { continue };
        let Some(limit) = limit(hard) else {
            return Err(Refusal::unknown(&format!("the quantity {hard} in quota {}", quota.name)));
        };
        let used = store.of(kind, namespace).count();
        if used >= limit {
            let quota = text(object, "/metadata/name");
            let why = format!(
                "exceeded quota: {quota}, requested: {counted}=1, used: {counted}={used}, limited: {counted}={limit}"
            );
            return Err(Refusal::forbidden(kind, name, &why));
        }
    }
    Ok(())
}

fn limit(quantity: &Value) -> Option<usize> {
    match quantity {
        Value::String(text) => text.parse().ok(),
        Value::Number(number) => number.as_u64().and_then(|number| usize::try_from(number).ok()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}
