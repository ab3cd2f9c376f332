//! The body of Buildkite's `job.scheduled` webhook: the job as its REST API shows it.

use jiff::Timestamp;

use super::{Assumed, Places, Told, Unusable, fields, instant};
use crate::HintedJob;

/// The webhook's name for a job that became runnable.
pub const WEBHOOK_EVENT: &str = "job.scheduled";

/// What the address of everything of an organization begins with; its slug comes next.
const ORGANIZATIONS: &str = "https://api.buildkite.com/v2/organizations/";

const REMEDY: &str = "send the body as Buildkite does";

const PLACES: Places =
    Places { id: "job.id", rules: "job.agent_query_rules", runnable_at: "job.runnable_at", other: "job" };

/// The job of a webhook's body, which was sent at `sent_at`: a job whose body does not say so became runnable by then.
///
/// Whether the body comes from Buildkite is a question to be asked before.
pub fn job_of_webhook(body: &[u8], sent_at: Timestamp, assumed: &Assumed) -> Result<HintedJob, Unusable> {
    let body = fields::json(body, "body", REMEDY)?;
    let event = fields::text(&body, "event", REMEDY)?;
    if event != WEBHOOK_EVENT {
        return Err(Unusable::OtherEvent { kind: fields::word(event) });
    }
    let kind = fields::text(&body, "job.type", REMEDY)?;
    if kind != "script" {
        return Err(Unusable::NotScript { kind: fields::word(kind) });
    }
    let by_address = |path: &&str| fields::extra(&body, path)?.strip_prefix(ORGANIZATIONS)?.split('/').next();
    let organization = ["pipeline.url", "build.url"].iter().find_map(by_address).filter(|slug| !slug.is_empty());
    let cluster = ["job.cluster_id", "pipeline.cluster_id", "build.cluster_id"];
    let told = Told {
        id: fields::text(&body, PLACES.id, REMEDY)?.to_owned(),
        rules: fields::texts(&body, PLACES.rules, REMEDY)?,
        runnable_at: instant::first(&body, &[PLACES.runnable_at])?.unwrap_or(sent_at),
        cluster: cluster.iter().find_map(|path| fields::uuid(&body, path)),
        organization: organization.map(str::to_owned),
    };
    told.into_job(assumed, &PLACES)
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// Composed of Buildkite's sample of a REST job and the documented shape of the body; not taken from the wire.
    pub(crate) const SAMPLE: &str = include_str!("samples/webhook_job_scheduled.json");

    fn with(pointer: &str, value: Value) -> Vec<u8> {
        let mut body: Value = serde_json::from_str(SAMPLE).unwrap();
        *body.pointer_mut(pointer).unwrap() = value;
        body.to_string().into_bytes()
    }

    fn read(body: &[u8]) -> Result<HintedJob, Unusable> {
        job_of_webhook(body, "2026-01-31T12:00:00Z".parse().unwrap(), &Assumed::default())
    }

    #[test]
    fn the_body_of_a_scheduled_job_is_a_job() {
        let job = read(SAMPLE.as_bytes()).unwrap();
        assert_eq!((job.id.as_str(), job.queue.as_str()), ("b63254c0-3271-4a98-8270-7cfbd6c2f14e", "default"));
        assert_eq!(job.runnable_at.to_string(), "2015-05-09T21:06:00Z");
        assert_eq!((job.cluster, job.organization), (None, None));
    }

    #[test]
    fn cluster_and_organization_are_taken_where_the_body_has_them() {
        let uuid = "01a2b3c4-0000-4000-8000-0123456789ab";
        assert_eq!(read(&with("/job/cluster_id", json!(uuid))).unwrap().cluster.as_deref(), Some(uuid));
        let mut body: Value = serde_json::from_str(SAMPLE).unwrap();
        body["pipeline"]["url"] = json!("https://api.buildkite.com/v2/organizations/acme/pipelines/deploy");
        assert_eq!(read(body.to_string().as_bytes()).unwrap().organization.as_deref(), Some("acme"));
        body["pipeline"]["url"] = json!("https://elsewhere.example/v2/organizations/acme/pipelines/deploy");
        assert_eq!(read(body.to_string().as_bytes()).unwrap().organization, None);
    }

    #[test]
    fn a_job_that_does_not_say_when_became_runnable_when_it_was_told() {
        let job = read(&with("/job/runnable_at", json!(null))).unwrap();
        assert_eq!(job.runnable_at.to_string(), "2026-01-31T12:00:00Z");
        assert!(read(&with("/job/runnable_at", json!("soon"))).is_err());
    }

    #[test]
    fn other_events_other_steps_and_broken_bodies_have_their_reasons() {
        for (pointer, value, category) in [
            ("/event", json!("job.started"), "other_event"),
            ("/event", json!("ping"), "other_event"),
            ("/event", json!(null), "malformed"),
            ("/job/type", json!("manual"), "not_script"),
            ("/job/type", json!("waiter"), "not_script"),
            ("/job/type", json!(null), "malformed"),
            ("/job", json!([]), "malformed"),
            ("/job/id", json!(null), "malformed"),
            ("/job/agent_query_rules", json!({ "queue": "a" }), "malformed"),
        ] {
            assert_eq!(read(&with(pointer, value)).unwrap_err().category(), category, "{pointer}");
        }
        assert_eq!(read(b"").unwrap_err().category(), "malformed");
    }
}
