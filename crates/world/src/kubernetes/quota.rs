//! Quotas on the number of objects of a kind: counted up by admission, counted anew by a controller.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{
    Event, Kubernetes,
    kind::Kind,
    object::{Key, number_in, set, text},
    refusal::Refusal,
};

/// How often the controller counts anew though nothing was deleted.
const RECOUNT_EVERY: Duration = Duration::from_mins(5);

impl Kubernetes {
    /// Whether one more may be created. It is counted here and now, before anything else is looked at: what is refused later
    /// because it is there already stays counted until the controller counts anew.
    pub(super) fn charge_quotas(&mut self, kind: Kind, namespace: &str, name: &str) -> Result<(), Refusal> {
        let counted = format!("count/{}", kind.qualified());
        let quotas: Vec<Key> = self.store.of(Kind::ResourceQuota, namespace).map(|(key, _)| key.clone()).collect();
        for key in quotas {
            let Some(quota) = self.store.get(&key) else { continue };
            let of = |part: &str| quota.pointer(part).and_then(|counts| counts.get(&counted));
            let Some(hard) = of("/spec/hard") else { continue };
            let Some(limit) = number_in(hard) else {
                return Err(Refusal::unknown(&format!("the quantity {hard} in quota {}", key.name)));
            };
            let used = of("/status/used").and_then(number_in).unwrap_or_default();
            if used >= limit {
                let why = format!(
                    "exceeded quota: {}, requested: {counted}=1, used: {counted}={used}, limited: {counted}={limit}",
                    text(quota, "/metadata/name")
                );
                return Err(Refusal::forbidden(kind, name, &why));
            }
            let now_used = json!((used + 1).to_string());
            self.change(&key, |quota| set(quota, &["status", "used", &counted], now_used));
        }
        Ok(())
    }

    /// A new quota is counted at once, and then every few minutes.
    pub(super) fn begin_counting(&mut self, quota: &Key) {
        self.count_quota(quota);
        let at = self.after(RECOUNT_EVERY);
        self.agenda.enter(at, Event::Recount(quota.clone()));
    }

    pub(super) fn recount(&mut self, quota: &Key) {
        if self.store.get(quota).is_some() {
            self.begin_counting(quota);
        }
    }

    /// Counts what a quota bounds.
    pub(super) fn count_quota(&mut self, key: &Key) {
        let Some(quota) = self.store.get(key) else { return };
        let hard = quota.pointer("/spec/hard").and_then(Value::as_object).cloned().unwrap_or_default();
        let used: Map<String, Value> = hard
            .keys()
            .filter_map(|counted| {
                let kind = Kind::ALL.into_iter().find(|kind| *counted == format!("count/{}", kind.qualified()))?;
                Some((counted.clone(), json!(self.store.of(kind, &key.namespace).count().to_string())))
            })
            .collect();
        self.change(key, |quota| set(quota, &["status"], json!({ "hard": hard, "used": used })));
    }
}
