//! The event that Buildkite's partner source puts on an EventBridge bus.

use serde_json::Value;

use super::{Assumed, Places, Told, Unusable, fields, instant};
use crate::HintedJob;

/// The `detail-type` of a job that became runnable.
pub const EVENT_KIND: &str = "Job Scheduled";

/// What the name of every source of Buildkite begins with; the organization's slug comes next.
const SOURCE_PREFIX: &str = "aws.partner/buildkite.com/";

const REMEDY: &str = "send the whole event as EventBridge has it, without InputPath or InputTransformer";

const PLACES: Places = Places {
    id: "detail.job.uuid",
    rules: "detail.job.agent_query_rules",
    runnable_at: "detail.job.runnable_at",
    other: "detail",
};

/// The job of an event in its JSON text.
pub fn read_event(body: &[u8], assumed: &Assumed) -> Result<HintedJob, Unusable> {
    job_of_event(&fields::json(body, "event", REMEDY)?, assumed)
}

/// The job of an event.
///
/// The job's `state` is not looked at: it may be later than the event, and a job that has gone on is one that the next
/// reading settles.
pub fn job_of_event(event: &Value, assumed: &Assumed) -> Result<HintedJob, Unusable> {
    let kind = fields::text(event, "detail-type", REMEDY)?;
    if kind != EVENT_KIND {
        return Err(Unusable::OtherEvent { kind: fields::word(kind) });
    }
    let kind = fields::text(event, "detail.job.type", REMEDY)?;
    if kind != "script" {
        return Err(Unusable::NotScript { kind: fields::word(kind) });
    }
    // The envelope's time is when the event was made, which is when the job became runnable, give or take a second.
    let runnable_at = instant::first(event, &[PLACES.runnable_at, "time"])?
        .ok_or_else(|| fields::malformed(PLACES.runnable_at, "it is missing, and so is `time`", REMEDY))?;
    let told = Told {
        id: fields::text(event, PLACES.id, REMEDY)?.to_owned(),
        rules: fields::texts(event, PLACES.rules, REMEDY)?,
        runnable_at,
        // Not sent as of now. The names are those of the other payloads, should it come.
        cluster: ["detail.cluster.uuid", "detail.job.cluster_id", "detail.pipeline.cluster_id"]
            .iter()
            .find_map(|path| fields::uuid(event, path)),
        organization: organization(event).map(str::to_owned),
    };
    told.into_job(assumed, &PLACES)
}

fn organization(event: &Value) -> Option<&str> {
    let by_source = || fields::extra(event, "source")?.strip_prefix(SOURCE_PREFIX)?.split('/').next();
    fields::extra(event, "detail.organization.slug").or_else(by_source).filter(|slug| !slug.is_empty())
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    /// The sample of Buildkite's documents, as it stands there but for the emoji's escapes.
    pub(crate) const SAMPLE: &str = include_str!("samples/job_scheduled.json");

    fn sample() -> Value {
        serde_json::from_str(SAMPLE).unwrap()
    }

    /// The sample with one thing changed.
    fn with(pointer: &str, value: Value) -> Value {
        let mut event = sample();
        *event.pointer_mut(pointer).unwrap() = value;
        event
    }

    fn read(event: &Value) -> Result<HintedJob, Unusable> {
        job_of_event(event, &Assumed::default())
    }

    #[test]
    fn the_documented_event_is_a_job() {
        let job = read_event(SAMPLE.as_bytes(), &Assumed::default()).unwrap();
        let expected = HintedJob {
            id: "9e6c3f19-4fdb-4e8e-b925-28cd7504e17f".to_owned(),
            queue: "default".to_owned(),
            rules: Vec::new(),
            runnable_at: "2019-08-11T06:01:14Z".parse().unwrap(),
            cluster: None,
            organization: Some("my-org".to_owned()),
        };
        assert_eq!(job, expected);
    }

    #[test]
    fn the_queue_is_found_wherever_it_stands_and_the_other_rules_stay() {
        let rules = "/detail/job/agent_query_rules";
        for (list, queue, rest) in [
            (json!(["os=linux", "queue=gpu", "arch=arm64"]), "gpu", vec!["os=linux", "arch=arm64"]),
            (json!(["queue=gpu"]), "gpu", vec![]),
            (json!(["queue=gpu", "queue=gpu"]), "gpu", vec![]),
            (json!(["queue=a=b"]), "a=b", vec![]),
            (json!(["os=linux"]), "fallback", vec!["os=linux"]),
            (json!(["queue=*"]), "fallback", vec![]),
            (json!(["subqueue=x"]), "fallback", vec!["subqueue=x"]),
            (json!([]), "fallback", vec![]),
            (json!(null), "fallback", vec![]),
        ] {
            let assumed = Assumed { default_queue: "fallback".to_owned(), cluster: None };
            let job = job_of_event(&with(rules, list.clone()), &assumed).unwrap();
            assert_eq!(
                (job.queue.as_str(), job.rules),
                (queue, rest.into_iter().map(str::to_owned).collect()),
                "{list}"
            );
        }
    }

    #[test]
    fn any_state_is_taken_and_what_is_unknown_passed_over() {
        for state in [json!("scheduled"), json!("assigned"), json!("running"), json!("anything"), json!(7), json!(null)]
        {
            assert!(read(&with("/detail/job/state", state)).is_ok());
        }
        let least = json!({
            "detail-type": "Job Scheduled", "time": "2026-01-31T12:00:00Z", "surprise": [1, 2],
            "detail": { "job": { "uuid": "a", "type": "script" } },
        });
        let job = read(&least).unwrap();
        assert_eq!((job.queue.as_str(), job.organization), ("default", None));
        assert_eq!(job.runnable_at.to_string(), "2026-01-31T12:00:00Z", "the envelope's time stands in");
    }

    #[test]
    fn organization_and_cluster_come_from_where_they_stand() {
        let by_source = with("/detail/organization", json!(null));
        assert_eq!(read(&by_source).unwrap().organization.as_deref(), Some("buildkite"));
        let uuid = "01a2b3c4-0000-4000-8000-0123456789ab";
        let assumed = Assumed { cluster: Some("assumed".to_owned()), ..Assumed::default() };
        assert_eq!(job_of_event(&sample(), &assumed).unwrap().cluster.as_deref(), Some("assumed"));
        let mut event = sample();
        event["detail"]["cluster"] = json!({ "uuid": uuid });
        assert_eq!(job_of_event(&event, &assumed).unwrap().cluster.as_deref(), Some(uuid));
    }

    #[test]
    fn other_events_and_other_steps_have_reasons_of_their_own() {
        let other = read(&with("/detail-type", json!("Job Started"))).unwrap_err();
        assert_eq!(other, Unusable::OtherEvent { kind: "Job Started".to_owned() });
        let manual = read(&with("/detail/job/type", json!("manual"))).unwrap_err();
        assert_eq!(manual, Unusable::NotScript { kind: "manual".to_owned() });
        let long = read(&with("/detail-type", json!("x".repeat(9_999)))).unwrap_err();
        assert!(long.to_string().len() < 200, "{long}");
    }

    #[test]
    fn what_a_hint_needs_is_asked_for_by_its_place() {
        let long = "x".repeat(300);
        for (pointer, value, path) in [
            ("/detail-type", json!(null), "detail-type"),
            ("/detail-type", json!(["Job Scheduled"]), "detail-type"),
            ("/detail", json!("{}"), "detail.job.type"),
            ("/detail/job/type", json!(null), "detail.job.type"),
            ("/detail/job/uuid", json!(null), "detail.job.uuid"),
            ("/detail/job/uuid", json!(12), "detail.job.uuid"),
            ("/detail/job/uuid", json!(""), "detail.job.uuid"),
            ("/detail/job/uuid", json!("a\nb"), "detail.job.uuid"),
            ("/detail/job/uuid", json!(long), "detail.job.uuid"),
            ("/detail/job/runnable_at", json!("soon"), "detail.job.runnable_at"),
            ("/detail/job/runnable_at", json!(1_565_503_274), "detail.job.runnable_at"),
            ("/detail/job/agent_query_rules", json!("queue=a"), "detail.job.agent_query_rules"),
            ("/detail/job/agent_query_rules", json!(["os=x", 1]), "detail.job.agent_query_rules[1]"),
            ("/detail/job/agent_query_rules", json!(["queue="]), "detail.job.agent_query_rules"),
            ("/detail/job/agent_query_rules", json!([format!("queue={long}")]), "detail.job.agent_query_rules"),
            ("/detail/job/agent_query_rules", json!([long]), "detail.job.agent_query_rules"),
            ("/detail/job/agent_query_rules", json!(vec!["a=b"; 33]), "detail.job.agent_query_rules"),
            ("/detail/job/agent_query_rules", json!(["queue=a", "queue=b"]), "detail.job.agent_query_rules"),
            ("/detail/organization/slug", json!(long), "detail"),
        ] {
            let Err(Unusable::Malformed(problem)) = read(&with(pointer, value)) else { panic!("{pointer} was taken") };
            assert_eq!(problem.path, path);
            assert!(!problem.to_string().contains(&long), "{problem}");
        }
        let Err(Unusable::Malformed(problem)) = read_event(b"not json", &Assumed::default()) else { panic!() };
        assert_eq!(problem.path, "event");
    }

    #[test]
    fn a_detail_without_its_envelope_is_told_how_to_mend_it() {
        let detail = sample()["detail"].to_string();
        let problem = read_event(detail.as_bytes(), &Assumed::default()).unwrap_err().to_string();
        assert!(problem.contains("without InputPath"), "{problem}");
    }
}
