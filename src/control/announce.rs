//! The sentences of Kubernetes Events.

use kitepool_policy::decision::ForeignChange;

use super::{act::Act, conditions::Condition};
use crate::cluster::events::{Notice, PoolReference};

/// A write that landed.
pub fn act(pool: &PoolReference, act: &Act, why: &str) -> Notice {
    let (reason, note) = match act {
        Act::Create { generation, replicas, .. } => {
            ("GenerationCreated", format!("created Deployment {generation} with {replicas} replicas: {why}"))
        }
        Act::Scale { generation, from, to } => {
            let reason = if to > from { "ScaledUp" } else { "ScaledDown" };
            (reason, format!("Deployment {generation} from {from} to {to} replicas: {why}"))
        }
        Act::Delete { generation, .. } => {
            ("GenerationDeleted", format!("deleted Deployment {generation}: it is empty and no longer wanted"))
        }
    };
    Notice { pool: pool.clone(), is_warning: false, reason, note }
}

/// A condition that changed.
pub fn condition(pool: &PoolReference, condition: &Condition) -> Notice {
    let kind = condition.kind.as_str();
    let state = if condition.is_true { "" } else { "not " };
    let note = format!("{state}{kind}: {}", condition.message);
    Notice { pool: pool.clone(), is_warning: condition.is_warning(), reason: condition.reason, note }
}

/// Replicas that somebody else changed.
pub fn foreign(pool: &PoolReference, change: &ForeignChange, who: Option<&str>) -> Notice {
    let who = who.map_or_else(|| "somebody else".to_owned(), |manager| format!("`{manager}`"));
    let note = format!(
        "{who} changed the replicas of Deployment {} from {} to {}; the pool decides again. To set limits, edit spec.scaling of \
         the pool instead",
        change.generation, change.expected, change.found
    );
    Notice { pool: pool.clone(), is_warning: true, reason: "ForeignScale", note }
}
