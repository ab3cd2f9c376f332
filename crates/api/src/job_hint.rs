//! `JobHint`: jobs that an event told of; small, immutable, named by what is in it, so that telling twice changes nothing.

use std::fmt::Write as _;

use jiff::Timestamp;
use kitepool_policy::observation::Hint;
use kube::{CustomResource, core::DynamicObject};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{
    Problem,
    rules::{self, validations},
};

/// Jobs in one hint at most: an object of some 20 KiB.
pub const JOBS_MAX: usize = 100;
/// The longest id; a uuid has 36 characters.
const ID_MAX: usize = 64;
/// The longest name of a source.
const SOURCE_MAX: usize = 63;
/// The longest queue key, rule, cluster or organization.
const TEXT_MAX: usize = 255;
/// The most rules of one job.
const RULES_MAX: usize = 32;
/// The longest instant: nanoseconds and an offset take 35 characters.
const INSTANT_MAX: usize = 40;

/// Jobs that became runnable.
#[derive(CustomResource, JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "kitepool.dev",
    version = "v1alpha1",
    kind = "JobHint",
    plural = "jobhints",
    namespaced,
    category = "kitepool",
    doc = "Buildkite jobs that an event told of. Written once; deleted by the controller when a reading has caught up.",
    derive = "PartialEq",
    validation = Rule::new(rules::HINT_FIXED.cel).message(rules::HINT_FIXED.sentence),
    printcolumn = r#"{"name":"Source","type":"string","jsonPath":".spec.source"}"#,
    // The API server shows the first of several values and has no way to count them.
    printcolumn = r#"{"name":"First queue","type":"string","jsonPath":".spec.jobs[0].queue"}"#,
    printcolumn = r#"{"name":"First job","type":"string","jsonPath":".spec.jobs[0].id"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct JobHintSpec {
    /// Who told: `eventbridge`, `webhook`, or a name of your own.
    #[schemars(length(min = 1, max = SOURCE_MAX))]
    pub source: String,
    /// The jobs, each once.
    #[schemars(
        length(min = 1, max = JOBS_MAX),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["id"])
    )]
    pub jobs: Vec<Job>,
}

/// One job.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "camelCase")]
pub struct Job {
    /// Its uuid.
    #[schemars(length(max = ID_MAX), extend("x-kubernetes-validations" = validations(&[rules::JOB_ID])))]
    pub id: String,
    /// The queue's key; the writer puts in the default queue's where the job names none.
    #[schemars(length(min = 1, max = TEXT_MAX))]
    pub queue: String,
    /// What else it asks of an agent, as `key=value`.
    #[serde(default)]
    #[schemars(length(max = RULES_MAX), inner(length(max = TEXT_MAX)))]
    pub rules: Vec<String>,
    /// When it became runnable, by Buildkite's clock. RFC 3339.
    #[schemars(length(max = INSTANT_MAX), extend("format" = "date-time"))]
    pub runnable_at: String,
    /// The cluster's uuid, where the event names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = TEXT_MAX))]
    pub cluster: Option<String>,
    /// The organization's slug, where the event names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = TEXT_MAX))]
    pub organization: Option<String>,
}

impl JobHint {
    /// A hint of these jobs, named by them; each once, in the order of their ids. What the API server would refuse is refused
    /// here, so that a writer can leave out the one job that is wrong.
    pub fn of_jobs(source: &str, mut jobs: Vec<Job>) -> Result<Self, Problem> {
        // Of two that tell the same job differently the smaller one stays, whichever came first.
        jobs.sort();
        jobs.dedup_by(|a, b| a.id == b.id);
        if jobs.is_empty() || jobs.len() > JOBS_MAX {
            return Err(Problem::new(
                "spec.jobs",
                format!("{} jobs are not a hint", jobs.len()),
                format!("tell of 1 to {JOBS_MAX} jobs"),
            ));
        }
        if let Some(problem) = length_problem("spec.source", source, 1, SOURCE_MAX) {
            return Err(problem);
        }
        let problem = jobs.iter().enumerate().find_map(|(index, job)| job.problem(&format!("spec.jobs[{index}]")));
        if let Some(problem) = problem {
            return Err(problem);
        }
        let name = hint_name(jobs.iter().map(|job| job.id.as_str()));
        Ok(Self::new(&name, JobHintSpec { source: source.to_owned(), jobs }))
    }
}

impl Job {
    /// Why the API server, or the controller, would not take it; `path` is where it stands.
    pub fn problem(&self, path: &str) -> Option<Problem> {
        let at = |field: &str| format!("{path}.{field}");
        let is_id = self.id.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-') && !self.id.is_empty();
        if !is_id {
            return Some(rules::JOB_ID.problem(&at("id")));
        }
        if self.rules.len() > RULES_MAX {
            return Some(Problem::new(
                at("rules"),
                format!("there are {}", self.rules.len()),
                format!("keep to {RULES_MAX}"),
            ));
        }
        let optional = |text: &Option<String>| text.clone().unwrap_or_default();
        length_problem(&at("id"), &self.id, 1, ID_MAX)
            .or_else(|| length_problem(&at("queue"), &self.queue, 1, TEXT_MAX))
            .or_else(|| self.rules.iter().find_map(|rule| length_problem(&at("rules"), rule, 0, TEXT_MAX)))
            .or_else(|| length_problem(&at("runnableAt"), &self.runnable_at, 1, INSTANT_MAX))
            .or_else(|| instant(&at("runnableAt"), &self.runnable_at).err())
            .or_else(|| length_problem(&at("cluster"), &optional(&self.cluster), 0, TEXT_MAX))
            .or_else(|| length_problem(&at("organization"), &optional(&self.organization), 0, TEXT_MAX))
    }
}

impl From<HintedJob> for Job {
    fn from(job: HintedJob) -> Self {
        let HintedJob { id, queue, rules, runnable_at, cluster, organization } = job;
        Self { id, queue, rules, runnable_at: runnable_at.to_string(), cluster, organization }
    }
}

/// The text is not repeated: it comes from outside and is as long as its writer likes.
fn length_problem(path: &str, text: &str, least: usize, most: usize) -> Option<Problem> {
    let length = text.chars().count();
    let fits = (least..=most).contains(&length);
    (!fits).then(|| Problem::new(path, format!("it has {length} characters"), format!("write {least} to {most}")))
}

fn instant(path: &str, text: &str) -> Result<Timestamp, Problem> {
    text.parse()
        .map_err(|_| Problem::new(path, format!("{text:?} is no instant"), "write it like 2026-01-31T12:00:00Z"))
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

/// A job of a stored hint, or of an event that becomes one.
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
            let runnable_at = instant("spec.jobs.runnableAt", &job.runnable_at)?;
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
    fn a_job_that_is_told_in_two_ways_makes_one_hint_whichever_came_first() {
        let later = Job { runnable_at: "2026-01-31T12:00:01Z".to_owned(), ..job("a") };
        let one = JobHint::of_jobs("webhook", vec![job("a"), later.clone()]).unwrap();
        let other = JobHint::of_jobs("webhook", vec![later, job("a")]).unwrap();
        assert_eq!(one, other);
        assert_eq!(one.spec.jobs, [job("a")]);
    }

    #[test]
    fn what_the_api_server_would_refuse_is_no_hint() {
        let long = "x".repeat(256);
        let broken = [
            ("id", Job { id: String::new(), ..job("a") }),
            ("id", Job { id: "a\nb".to_owned(), ..job("a") }),
            ("id", Job { id: "x".repeat(65), ..job("a") }),
            ("queue", Job { queue: String::new(), ..job("a") }),
            ("queue", Job { queue: long.clone(), ..job("a") }),
            ("rules", Job { rules: vec![long.clone()], ..job("a") }),
            ("rules", Job { rules: vec!["a=b".to_owned(); 33], ..job("a") }),
            ("runnableAt", Job { runnable_at: "yesterday".to_owned(), ..job("a") }),
            ("cluster", Job { cluster: Some(long.clone()), ..job("a") }),
            ("organization", Job { organization: Some(long.clone()), ..job("a") }),
        ];
        for (field, job) in broken {
            let problem = JobHint::of_jobs("webhook", vec![job]).unwrap_err();
            assert_eq!(problem.path, format!("spec.jobs[0].{field}"));
            assert!(!problem.to_string().contains(&long), "{problem}");
        }
        assert_eq!(JobHint::of_jobs("", vec![job("a")]).unwrap_err().path, "spec.source");
        assert_eq!(JobHint::of_jobs(&long, vec![job("a")]).unwrap_err().path, "spec.source");
    }

    #[test]
    fn too_many_or_no_jobs_are_no_hint() {
        assert!(JobHint::of_jobs("x", Vec::new()).is_err());
        assert!(JobHint::of_jobs("x", (0..101).map(|n| job(&n.to_string())).collect()).is_err());
    }
}
