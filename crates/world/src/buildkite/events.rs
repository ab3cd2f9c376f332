//! Job Scheduled events: published when a job becomes runnable, and late, lost or doubled on their way.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Buildkite, JobId, ORGANIZATION_UUID, outbox::Outbox, settings::Delivery, time::later};
use crate::{Agenda, Chance};

/// What AWS writes around an event; the account and the source's number are those of the documented sample.
const ACCOUNT: &str = "123123123123";
const REGION: &str = "us-east-1";
const SOURCE: &str = "0106-187c-12cd4fe";
/// The one pipeline of this world, and its one build.
const PIPELINE_UUID: &str = "00000000-0000-4000-8000-000000000003";
pub(super) const BUILD_UUID: &str = "00000000-0000-4000-8000-000000000004";

/// An event that has been delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobEvent {
    /// AWS's id. A second copy has the same.
    pub id: String,
    /// When it was there.
    pub at: Timestamp,
    /// When Buildkite sent it.
    pub published_at: Timestamp,
    /// The job that it is about.
    pub job: JobId,
    /// Its UUID.
    pub uuid: String,
    /// Its queue, which its rules need not name.
    pub queue: Arc<str>,
    /// Its rules as they were written.
    pub rules: Vec<String>,
    /// Since when it is runnable, to the second as on the wire.
    pub runnable_at: Timestamp,
    /// The cluster's UUID, or [`UNCLUSTERED`](crate::UNCLUSTERED). The wire does not say.
    pub cluster: Arc<str>,
    /// The organization's slug.
    pub organization: String,
    /// Whether an agent was given it before this was delivered: the payload's state may be ahead of the event.
    pub is_assigned: bool,
}

impl JobEvent {
    /// The body that `EventBridge` delivers, with all fields that Buildkite documents.
    pub fn eventbridge(&self) -> Value {
        json!({
            "version": "0",
            "id": self.id,
            "detail-type": "Job Scheduled",
            "source": format!("aws.partner/buildkite.com/{}/{SOURCE}", self.organization),
            "account": ACCOUNT,
            "time": self.published_at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            "region": REGION,
            "resources": [],
            "detail": {
                "version": 1,
                "job": self.job(),
                "build": {
                    "uuid": BUILD_UUID,
                    "graphql_id": graphql_id("Build", BUILD_UUID),
                    "number": 1,
                    "commit": "0000000000000000000000000000000000000000",
                    "message": "simulated",
                    "branch": "main",
                    "state": "started",
                    "blocked_state": null,
                    "source": "webhook",
                    "started_at": written(self.runnable_at),
                    "failing_at": null,
                    "finished_at": null,
                    "meta_data": {},
                },
                "pipeline": {
                    "uuid": PIPELINE_UUID,
                    "graphql_id": graphql_id("Pipeline", PIPELINE_UUID),
                    "slug": "simulated",
                    "repo": "git@example.com:simulated.git",
                },
                "organization": {
                    "uuid": ORGANIZATION_UUID,
                    "graphql_id": graphql_id("Organization", ORGANIZATION_UUID),
                    "slug": self.organization,
                },
            },
        })
    }

    fn job(&self) -> Value {
        json!({
            "uuid": self.uuid,
            "graphql_id": graphql_id("Job", &self.uuid),
            "type": "script",
            "label": "simulated",
            "step_key": "simulated",
            "command": "true",
            "agent_query_rules": self.rules,
            "exit_status": null,
            "signal_reason": null,
            "passed": false,
            "soft_failed": false,
            "state": if self.is_assigned { "assigned" } else { "scheduled" },
            "broken_reason": null,
            "runnable_at": written(self.runnable_at),
            "started_at": null,
            "finished_at": null,
            "unblocked_by": null,
            "retried_in_job_id": null,
        })
    }
}

/// As Buildkite writes instants in events, which is not ISO 8601.
fn written(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// The kind and the UUID in Base64.
fn graphql_id(kind: &str, uuid: &str) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let text = format!("{kind}---{uuid}");
    let mut encoded = String::new();
    for three in text.as_bytes().chunks(3) {
        let bits = (0..3).fold(0_usize, |bits, place| bits << 8 | three.get(place).copied().map_or(0, usize::from));
        for place in 0..4 {
            let letter = LETTERS.get(bits >> (18 - 6 * place) & 63).copied().filter(|_| place <= three.len());
            encoded.push(char::from(letter.unwrap_or(b'=')));
        }
    }
    encoded
}

/// Events on their way, and those that have come.
#[derive(Debug)]
pub(super) struct Announcer {
    delays: Chance,
    losses: Chance,
    doublings: Chance,
    second_delays: Chance,
    published: u64,
    on_the_way: Agenda<JobEvent>,
    delivered: Outbox<JobEvent>,
}

impl Announcer {
    pub(super) fn new(seed: u64) -> Self {
        let chance = |purpose| Chance::new(seed, purpose);
        Self {
            delays: chance("event delays"),
            losses: chance("event losses"),
            doublings: chance("event doublings"),
            second_delays: chance("delays of second events"),
            published: 0,
            on_the_way: Agenda::default(),
            delivered: Outbox::default(),
        }
    }

    pub(super) fn next_at(&self) -> Option<Timestamp> {
        self.on_the_way.next_at()
    }

    /// Each event draws once from each stream, so that what befalls one does not move another.
    fn publish(&mut self, event: JobEvent, delivery: Delivery) {
        let arrives = later(event.published_at, delivery.delay.draw(&mut self.delays));
        let arrives_again = later(event.published_at, delivery.delay.draw(&mut self.second_delays));
        let is_lost = self.losses.permille(delivery.lost_permille);
        let is_doubled = self.doublings.permille(delivery.doubled_permille);
        if is_lost {
            return;
        }
        if is_doubled {
            self.on_the_way.enter(arrives_again, JobEvent { at: arrives_again, ..event.clone() });
        }
        self.on_the_way.enter(arrives, JobEvent { at: arrives, ..event });
    }
}

impl Buildkite {
    /// Sends the event of a job that has just become ready.
    pub(super) fn announce(&mut self, id: JobId) {
        let Some(job) = self.jobs.get(id.0) else { return };
        self.announcer.published += 1;
        let runnable_at = job.runnable_at.unwrap_or(self.now);
        let event = JobEvent {
            id: self.uuid(2, self.announcer.published),
            at: self.now,
            published_at: self.now,
            job: id,
            uuid: job.uuid.clone(),
            queue: Arc::clone(&job.queue),
            rules: job.rules.clone(),
            runnable_at: Timestamp::from_second(runnable_at.as_second()).unwrap_or(runnable_at),
            cluster: Arc::clone(&job.cluster),
            organization: self.settings.organization.clone(),
            is_assigned: false,
        };
        self.announcer.publish(event, self.settings.events);
    }

    /// The next event that has come by `now` is there.
    pub(super) fn receive(&mut self, now: Timestamp) {
        if let Some((_, event)) = self.announcer.on_the_way.due(now) {
            let is_assigned = self.job(event.job).is_some_and(|job| job.assignments > 0);
            self.announcer.delivered.push(JobEvent { is_assigned, ..event });
        }
    }

    /// The events that have been delivered up to `now` and were not taken before, in the order in which they came.
    pub fn take_events(&mut self, now: Timestamp) -> Vec<JobEvent> {
        self.advance(now);
        self.announcer.delivered.take()
    }

    /// What becomes of the events that are sent from now on.
    pub fn set_delivery(&mut self, delivery: Delivery, now: Timestamp) {
        self.advance(now);
        self.settings.events = delivery;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn graphql_ids_are_those_of_the_documented_sample() {
        for (kind, uuid, expected) in [
            ("Job", "9e6c3f19-4fdb-4e8e-b925-28cd7504e17f", "Sm9iLS0tOWU2YzNmMTktNGZkYi00ZThlLWI5MjUtMjhjZDc1MDRlMTdm"),
            (
                "Build",
                "8fcaa7b9-e175-4110-9f48-f79949806a31",
                "QnVpbGQtLS04ZmNhYTdiOS1lMTc1LTQxMTAtOWY0OC1mNzk5NDk4MDZhMzE=",
            ),
            (
                "Pipeline",
                "88d73553-5533-4f56-9c16-fb38d7817d8f",
                "UGlwZWxpbmUtLS04OGQ3MzU1My01NTMzLTRmNTYtOWMxNi1mYjM4ZDc4MTdkOGY=",
            ),
        ] {
            assert_eq!(graphql_id(kind, uuid), expected, "{kind}");
        }
    }
}
