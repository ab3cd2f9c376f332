//! Carries simulated events to the simulated API server, as a writer of hints does: one `JobHint` for a batch, by `create` alone.

use kitepool_api::{Job, JobHint};
use kitepool_world::{
    Joined,
    buildkite::JobEvent,
    kubernetes::{ApiAnswer, ApiRequest},
};

use jiff::Timestamp;

/// Who hints are said to be from.
const SOURCE: &str = "simulated";

/// As many jobs as one hint may hold.
const BATCH_MAX: usize = 100;

/// What became of events.
#[derive(Debug, Default, Clone)]
pub struct Carried<'a> {
    /// Stored, or there already.
    pub stored: Vec<&'a JobEvent>,
    /// How many were refused, by a full quota for one.
    pub shed: usize,
}

/// Stores what these events tell of.
pub fn carry<'a>(events: &'a [JobEvent], world: &Joined, namespace: &str, now: Timestamp) -> Carried<'a> {
    let mut carried = Carried::default();
    for batch in events.chunks(BATCH_MAX) {
        let jobs = batch.iter().map(job).collect();
        let Ok(hint) = JobHint::of_jobs(SOURCE, jobs) else { continue };
        if create(&hint, world, namespace, now) { carried.stored.extend(batch) } else { carried.shed += batch.len() }
    }
    carried
}

fn job(event: &JobEvent) -> Job {
    Job {
        id: event.uuid.clone(),
        queue: event.queue.to_string(),
        rules: event.rules.clone(),
        runnable_at: event.runnable_at.to_string(),
        cluster: None,
        organization: Some(event.organization.clone()),
    }
}

fn create(hint: &JobHint, world: &Joined, namespace: &str, now: Timestamp) -> bool {
    let Ok(body) = serde_json::to_vec(hint) else { return false };
    let request = ApiRequest {
        method: "POST".to_owned(),
        path: format!("/apis/kitepool.dev/v1alpha1/namespaces/{namespace}/jobhints"),
        query: String::new(),
        content_type: "application/json".to_owned(),
        user_agent: SOURCE.to_owned(),
        body,
    };
    match world.kubernetes().with(now, |kubernetes| kubernetes.answer(&request, now)) {
        // Named by its jobs: the same one again is what was wanted.
        ApiAnswer::Told { status, .. } => matches!(status, 201 | 409),
        ApiAnswer::Watching(_) | ApiAnswer::Later(_) | ApiAnswer::Lost => false,
    }
}
