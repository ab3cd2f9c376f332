//! `JobHint`: jobs that an event told of; small, immutable, named by what is in it, so that telling twice changes nothing.

#![expect(unreachable_pub, reason = "the derived shadow of each struct is public within a function")]

use std::fmt::Write as _;

use jiff::Timestamp;
use kitepool_policy::observation::Hint;
use kube::{CustomResource, KubeSchema, core::DynamicObject};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::Problem;

/// Jobs in one hint at most.
pub const JOBS_MAX: usize = 100;

/// Jobs that became runnable.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "kitepool.dev",
    version = "v1alpha1",
    kind = "JobHint",
    plural = "jobhints",
    namespaced,
    category = "kitepool",
    doc = "Buildkite jobs that an event told of. Written once; deleted by the controller when a reading has caught up.",
    derive = "PartialEq",
    validation = Rule::new("self.spec == oldSelf.spec").message("a JobHint cannot be changed; create another one"),
    printcolumn = r#"{"name":"Source","type":"string","jsonPath":".spec.source"}"#,
    printcolumn = r#"{"name":"Queues","type":"string","jsonPath":".spec.jobs[*].queue"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct JobHintSpec {
    /// Who told: `eventbridge`, `webhook`, or a name of your own.
    #[schemars(length(min = 1, max = 63))]
    pub source: String,
    /// The jobs.
    #[schemars(length(min = 1, max = 100))]
    pub jobs: Vec<Job>,
}

/// One job.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Job {
    /// Its uuid.
    #[schemars(length(min = 1, max = 64))]
    pub id: String,
    /// The queue's key; the writer puts in the default queue's where the job names none.
    #[schemars(length(min = 1, max = 255))]
    pub queue: String,
    /// What else it asks of an agent, as `key=value`.
    #[serde(default)]
    #[schemars(length(max = 32), inner(length(max = 255)))]
    pub rules: Vec<String>,
    /// When it became runnable, by Buildkite's clock. RFC 3339.
    #[schemars(length(max = 40), extend("format" = "date-time"))]
    pub runnable_at: String,
    /// The cluster's uuid, where the event names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255))]
    pub cluster: Option<String>,
    /// The organization's slug, where the event names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255))]
    pub organization: Option<String>,
}

impl JobHint {
    /// A hint of these jobs, named by them; each once, in the order of their ids.
    pub fn of_jobs(source: &str, mut jobs: Vec<Job>) -> Result<Self, Problem> {
        jobs.sort_by(|a, b| a.id.cmp(&b.id));
        jobs.dedup_by(|a, b| a.id == b.id);
        if jobs.is_empty() || jobs.len() > JOBS_MAX {
            return Err(Problem::new(
                "spec.jobs",
                format!("{} jobs are not a hint", jobs.len()),
                format!("tell of 1 to {JOBS_MAX} jobs"),
            ));
        }
        let name = hint_name(jobs.iter().map(|job| job.id.as_str()));
        Ok(Self::new(&name, JobHintSpec { source: source.to_owned(), jobs }))
    }
}

/// The name of a hint of these jobs, whatever their order.
pub fn hint_name<'a>(ids: impl Iterator<Item = &'a str>) -> String {
    let mut ids: Vec<&str> = ids.collect();
    ids.sort_unstable();
    ids.dedup();
    let mut hash = Sha256::new();
    for id in ids {
        hash.update(id.as_bytes());
        // No id holds a line break, so no two lists read alike.
        hash.update(b"\n");
    }
    let digest = hash.finalize();
    digest.iter().take(16).fold("hint-".to_owned(), |mut name, byte| {
        let _ = write!(name, "{byte:02x}");
        name
    })
}

/// A job of a stored hint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HintedJob {
    /// Its uuid.
    pub id: String,
    /// The queue's key.
    pub queue: String,
    /// What else it asks for.
    pub rules: Vec<String>,
    /// Buildkite's clock when it became runnable.
    pub runnable_at: Timestamp,
    /// The cluster's uuid.
    pub cluster: Option<String>,
    /// The organization's slug.
    pub organization: Option<String>,
}

impl HintedJob {
    /// As the policy sees it.
    pub fn as_seen(&self, stored_at: Timestamp) -> Hint {
        Hint { job: self.id.clone(), runnable_at: self.runnable_at, stored_at, rules: self.rules.clone() }
    }
}

/// The jobs of a stored hint, or what is wrong with it.
pub fn parse_hint(object: &DynamicObject) -> Result<Vec<HintedJob>, Problem> {
    let spec = object.data.get("spec").cloned().unwrap_or_default();
    let spec: JobHintSpec = serde_json::from_value(spec)
        .map_err(|error| Problem::new("spec", error.to_string(), "write it as the definition of JobHint says"))?;
    spec.jobs
        .into_iter()
        .take(JOBS_MAX)
        .map(|job| {
            let runnable_at = job.runnable_at.parse().map_err(|_| {
                Problem::new(
                    "spec.jobs.runnableAt",
                    format!("{:?} is no instant", job.runnable_at),
                    "write it like 2026-01-31T12:00:00Z",
                )
            })?;
            Ok(HintedJob {
                id: job.id,
                queue: job.queue,
                rules: job.rules,
                runnable_at,
                cluster: job.cluster,
                organization: job.organization,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(id: &str) -> Job {
        Job {
            id: id.to_owned(),
            queue: "linux".to_owned(),
            rules: Vec::new(),
            runnable_at: "2026-01-31T12:00:00Z".to_owned(),
            cluster: None,
            organization: None,
        }
    }

    #[test]
    fn a_hint_is_named_by_its_jobs_in_any_order_each_once() {
        let one = JobHint::of_jobs("webhook", vec![job("b"), job("a"), job("b")]).unwrap();
        let other = JobHint::of_jobs("eventbridge", vec![job("a"), job("b")]).unwrap();
        assert_eq!(one.metadata.name, other.metadata.name);
        assert_eq!(one.spec.jobs.len(), 2);
        assert_ne!(hint_name(["ab"].into_iter()), hint_name(["a", "b"].into_iter()));
    }

    #[test]
    fn the_name_never_changes_between_versions() {
        assert_eq!(hint_name(["a", "b"].into_iter()), "hint-911169ddaaf146aff539f58c26c489af");
    }

    #[test]
    fn too_many_or_no_jobs_are_no_hint() {
        assert!(JobHint::of_jobs("x", Vec::new()).is_err());
        assert!(JobHint::of_jobs("x", (0..101).map(|n| job(&n.to_string())).collect()).is_err());
    }
}
