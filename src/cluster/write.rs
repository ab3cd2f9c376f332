//! The writes that there are, each with its precondition, its budget and its deadline.

use std::{future::Future, num::NonZeroU32, time::Duration};

use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kitepool_api::{AgentPool, JobHint};
use kitepool_policy::{observation::Sign, spec::PoolName};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
    core::{ApiResource, DynamicObject},
};
use serde_json::{Value, json};

use super::{error::Error, fence::WRITE_DEADLINE, sign, view::resource_version};
use crate::{budget::Budget, clock::Clock};

/// Under this name our writes stand in `managedFields`; every other name is somebody else.
pub const FIELD_MANAGER: &str = "kitepool";

/// Whether a write may wait for a quieter moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// Agents wait for it, or the next write does.
    Act,
    /// It tells or tidies up.
    Report,
}

/// One in so many writes of the budget may be a report. What they leave is there at once when agents wait for it, however much there is
/// to tell; and with half of it a large pool's guards are still up within seconds.
const REPORTS_PART: u32 = 2;

/// Makes writes. Clones of the client share its connections.
pub struct Writer {
    client: Client,
    /// Of all.
    budget: Budget,
    /// The part of it that reports may have.
    reports: Budget,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("budget", &self.budget).finish_non_exhaustive()
    }
}

impl Writer {
    /// `writes_per_second` over everything that this process writes, the lease and Events apart.
    pub fn new(client: Client, writes_per_second: NonZeroU32, clock: Clock) -> Self {
        let part = writes_per_second.get() / REPORTS_PART;
        let second = |calls, clock| Budget::new(calls, Duration::from_secs(1), WRITE_DEADLINE, clock);
        let reports = second(NonZeroU32::new(part).unwrap_or(NonZeroU32::MIN), clock.clone());
        Self { client, budget: second(writes_per_second, clock), reports }
    }

    pub(super) fn client(&self) -> Client {
        self.client.clone()
    }

    /// What raises or lowers a pool stands in line for its turn; what only reports or tidies up takes one that is free, or
    /// is told to come again, so that it never delays the other.
    pub(super) async fn in_time<T>(
        &self,
        urgency: Urgency,
        call: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, Error> {
        let deadline = || Error::Deadline { seconds: WRITE_DEADLINE.as_secs() };
        let turn = match urgency {
            Urgency::Act => self.budget.turn().await,
            Urgency::Report => self.reports.turn_if_free().and_then(|()| self.budget.turn_if_free()),
        };
        turn.map_err(|_spent| Error::BudgetSpent)?;
        match tokio::time::timeout(WRITE_DEADLINE, call).await {
            Ok(answer) => answer.map_err(Error::from),
            Err(_elapsed) => Err(deadline()),
        }
    }

    /// Sets replicas to `to` if they still are `from`. Answers the Deployment's new resource version.
    ///
    /// A `test` on the value rather than on the version: the version moves with every pod that comes up (measured: 53 of 58
    /// writes conflict), the value only when somebody scales.
    pub async fn scale(&self, namespace: &str, name: &str, from: u32, to: u32) -> Result<u64, Error> {
        let api: Api<Deployment> = Api::namespaced(self.client(), namespace);
        let patch: Patch<()> = json_patch(&scale_operations(from, to))?;
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        match self.in_time(Urgency::Act, api.patch_scale(name, &params, &patch)).await {
            Ok(scale) => Ok(resource_version(&scale.metadata)),
            // The failed `test` (measured: 422, with nothing in the message that tells it from other refusals).
            Err(Error::Invalid { .. }) => Err(Error::Conflict { status: 422 }),
            Err(error) => Err(error),
        }
    }

    /// Puts a sign up on a pod in place of any other. By name alone: no other pod ever has a name that a `ReplicaSet` drew.
    pub async fn sign_pod(&self, namespace: &str, name: &str, sign: Sign) -> Result<u64, Error> {
        let api: Api<Pod> = Api::namespaced(self.client(), namespace);
        let patch = Patch::Merge(sign::patch(sign));
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let signed = self.in_time(Urgency::Report, api.patch_metadata(name, &params, &patch)).await?;
        Ok(resource_version(&signed.metadata))
    }

    /// Creates a generation. Exists already: a conflict.
    pub async fn create_deployment(&self, namespace: &str, manifest: &Value) -> Result<u64, Error> {
        let resource = ApiResource::erase::<Deployment>(&());
        let api: Api<DynamicObject> = Api::namespaced_with(self.client(), namespace, &resource);
        let object: DynamicObject =
            serde_json::from_value(manifest.clone()).map_err(|error| Error::Invalid { message: error.to_string() })?;
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let created = self.in_time(Urgency::Act, api.create(&params, &object)).await?;
        Ok(resource_version(&created.metadata))
    }

    /// Deletes an empty generation, if it still is the object we looked at.
    pub async fn delete_deployment(&self, namespace: &str, name: &str, uid: &str) -> Result<(), Error> {
        let api: Api<Deployment> = Api::namespaced(self.client(), namespace);
        let same = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
        self.in_time(Urgency::Act, api.delete(name, &DeleteParams::background().preconditions(same))).await.map(|_| ())
    }

    /// Replaces a pool's status, if it still is the pool that we looked at.
    pub async fn put_pool_status(
        &self,
        pool: &PoolName,
        uid: &str,
        status: &Value,
        urgency: Urgency,
    ) -> Result<(), Error> {
        let PoolName { namespace, name } = pool;
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.client(), namespace, &ApiResource::erase::<AgentPool>(&()));
        let patch: Patch<()> = json_patch(&json!([
            { "op": "test", "path": "/metadata/uid", "value": uid },
            { "op": "add", "path": "/status", "value": status },
        ]))?;
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        self.in_time(urgency, api.patch_status(name, &params, &patch)).await.map(|_| ())
    }

    /// Deletes a hint; one that is gone already, or made anew since, is fine.
    pub async fn delete_hint(&self, namespace: &str, name: &str, uid: &str) -> Result<(), Error> {
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.client(), namespace, &ApiResource::erase::<JobHint>(&()));
        let same = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
        match self.in_time(Urgency::Report, api.delete(name, &DeleteParams::default().preconditions(same))).await {
            Ok(_) | Err(Error::NotFound | Error::Conflict { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// At zero the scale object holds no `replicas` at all (the field is left out when empty), so there the test is on the whole
/// spec and the change an addition (tried on 1.36).
fn scale_operations(from: u32, to: u32) -> Value {
    if from == 0 {
        json!([
            { "op": "test", "path": "/spec", "value": {} },
            { "op": "add", "path": "/spec/replicas", "value": to },
        ])
    } else {
        json!([
            { "op": "test", "path": "/spec/replicas", "value": from },
            { "op": "replace", "path": "/spec/replicas", "value": to },
        ])
    }
}

fn json_patch(operations: &Value) -> Result<Patch<()>, Error> {
    let patch =
        serde_json::from_value(operations.clone()).map_err(|error| Error::Invalid { message: error.to_string() })?;
    Ok(Patch::Json(patch))
}

#[cfg(test)]
mod tests {
    use http::{Request, Response};
    use jiff::Timestamp;
    use kube::client::Body;
    use tokio::time::Instant;
    use tower::service_fn;

    use super::*;

    fn writer(writes_per_second: u32, clock: &Clock) -> Writer {
        let body = r#"{"apiVersion":"autoscaling/v1","kind":"Scale","metadata":{"name":"a","resourceVersion":"7"}}"#;
        let server = service_fn(move |_: Request<Body>| async move {
            Ok::<_, std::convert::Infallible>(Response::new(Body::from(body.as_bytes().to_vec())))
        });
        Writer::new(Client::new(server, "ci"), NonZeroU32::new(writes_per_second).unwrap(), clock.clone())
    }

    /// When so many reports were written, asked for as often as they are refused.
    async fn reports(writer: &Writer, clock: &Clock, until: Instant) -> Vec<Instant> {
        let mut written = Vec::new();
        while clock.mono() < until {
            match writer.sign_pod("ci", "a", Sign::Busy).await {
                Ok(_) => written.push(clock.mono()),
                Err(Error::BudgetSpent) => tokio::time::sleep(Duration::from_millis(1)).await,
                Err(error) => panic!("{error}"),
            }
        }
        written
    }

    #[tokio::test(start_paused = true)]
    async fn however_much_there_is_to_tell_acts_find_room_at_once() {
        let clock = Clock::fixed(Timestamp::UNIX_EPOCH);
        let writer = writer(80, &clock);
        for _ in 0..3 {
            // The burst of all is twenty, and reports may have ten of it and then thirty a second.
            reports(&writer, &clock, clock.mono() + Duration::from_secs(1)).await;
            let start = clock.mono();
            for _ in 0..10 {
                writer.scale("ci", "a", 1, 2).await.unwrap();
            }
            assert_eq!(clock.mono(), start);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_second_sees_more_writes_than_the_budget_nor_more_reports_than_their_part() {
        let clock = Clock::fixed(Timestamp::UNIX_EPOCH);
        let writer = writer(80, &clock);
        let until = clock.mono() + Duration::from_secs(5);
        let acts = async {
            let mut written = Vec::new();
            while clock.mono() < until {
                // A burst and a rest, so that both kinds come through.
                for _ in 0..30 {
                    writer.scale("ci", "a", 1, 2).await.unwrap();
                    written.push(clock.mono());
                }
                tokio::time::sleep(Duration::from_millis(700)).await;
            }
            written
        };
        let (acts, reports) = tokio::join!(acts, reports(&writer, &clock, until));
        let most = |times: &[Instant]| {
            let is_within = |at: Instant, end: Instant| at <= end && end - at < Duration::from_secs(1);
            let within = |end: &Instant| times.iter().filter(|at| is_within(**at, *end)).count();
            times.iter().map(within).max().unwrap_or_default()
        };
        assert!(most(&reports) <= 40 && reports.len() > 20, "{} of {}", most(&reports), reports.len());
        let all = [acts, reports].concat();
        assert!(most(&all) <= 80, "{}", most(&all));
    }
}
