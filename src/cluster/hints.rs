//! Creates hints: the one write that every replica makes, whoever leads.

use std::time::Duration;

use kitepool_api::JobHint;
use kube::{
    Api, Client,
    api::PostParams,
    core::{ApiResource, DynamicObject},
};

use super::{error::Error, write::FIELD_MANAGER};

/// A sender waits for this. Buildkite does not say how long it does; a hint that takes longer is of little use.
const CREATE_DEADLINE: Duration = Duration::from_secs(2);

/// How a hint came to be there, or why it is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// It is new.
    Created,
    /// One of the same jobs is there.
    Known,
    /// The namespace holds as many as it may.
    QuotaFull,
}

/// Writes hints without asking the fence: a hint decides nothing and is named by its jobs, so two writers do no harm.
#[derive(Clone)]
pub struct HintWriter(Client);

impl std::fmt::Debug for HintWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("HintWriter").finish()
    }
}

impl HintWriter {
    /// With a client that does not retry: the sender does, and knows how long it wants to.
    pub const fn new(client: Client) -> Self {
        Self(client)
    }

    /// Stores a hint.
    pub async fn create(&self, namespace: &str, hint: &JobHint) -> Result<Stored, Error> {
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.0.clone(), namespace, &ApiResource::erase::<JobHint>(&()));
        let object = serde_json::to_value(hint).and_then(serde_json::from_value);
        let object: DynamicObject = object.map_err(|error| Error::Invalid { message: error.to_string() })?;
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        match tokio::time::timeout(CREATE_DEADLINE, api.create(&params, &object)).await {
            Err(_elapsed) => Err(Error::Deadline { seconds: CREATE_DEADLINE.as_secs() }),
            Ok(Ok(_created)) => Ok(Stored::Created),
            Ok(Err(error)) => told_apart(error),
        }
    }
}

/// Two refusals are answers. A quota under which many create at once may answer 409 as well, and then nothing is stored
/// (measured: reason `Conflict`); with a full quota a hint that is there answers 403 like any other.
fn told_apart(error: kube::Error) -> Result<Stored, Error> {
    if let kube::Error::Api(status) = &error {
        if status.code == 409 && status.reason == "AlreadyExists" {
            return Ok(Stored::Known);
        }
        if status.code == 403 && status.message.contains("exceeded quota") {
            return Ok(Stored::QuotaFull);
        }
    }
    Err(error.into())
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    fn refused(code: u16, reason: &str, message: &str) -> kube::Error {
        kube::Error::Api(Box::new(Status::failure(message, reason).with_code(code)))
    }

    #[test]
    fn refusals_that_are_answers_are_told_from_those_that_stored_nothing() {
        let exists = refused(409, "AlreadyExists", r#"jobhints.kitepool.dev "hint-1" already exists"#);
        assert_eq!(told_apart(exists).unwrap(), Stored::Known);
        let full = "jobhints.kitepool.dev \"x\" is forbidden: exceeded quota: kitepool-hints, requested: count/jobhints.kitepool.dev=1";
        assert_eq!(told_apart(refused(403, "Forbidden", full)).unwrap(), Stored::QuotaFull);

        let contended =
            "Operation cannot be fulfilled on resourcequotas \"kitepool-hints\": the object has been modified";
        assert!(matches!(told_apart(refused(409, "Conflict", contended)), Err(Error::Conflict { .. })));
        let young = "jobhints.kitepool.dev \"x\" is forbidden: status unknown for quota: kitepool-hints";
        assert!(matches!(told_apart(refused(403, "Forbidden", young)), Err(Error::Forbidden { .. })));
        assert!(matches!(told_apart(refused(403, "Forbidden", "no right")), Err(Error::Forbidden { .. })));
    }
}
