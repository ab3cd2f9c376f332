//! What the API server says when it refuses, in its own words.

use serde_json::{Value, json};

use super::kind::Kind;

/// A refused request, or a failed one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: u16,
    reason: &'static str,
    message: String,
    about: Option<(Kind, String)>,
}

impl Refusal {
    const fn new(code: u16, reason: &'static str, message: String) -> Self {
        Self { code, reason, message, about: None }
    }

    fn about(self, kind: Kind, name: &str) -> Self {
        Self { about: Some((kind, name.to_owned())), ..self }
    }

    pub(super) fn not_found(kind: Kind, name: &str) -> Self {
        let message = format!("{} {name:?} not found", kind.qualified());
        Self::new(404, "NotFound", message).about(kind, name)
    }

    /// Nothing is served at the path.
    pub(super) fn no_such_resource() -> Self {
        Self::new(404, "NotFound", "the server could not find the requested resource".to_owned())
    }

    pub(super) fn already_exists(kind: Kind, name: &str) -> Self {
        let message = format!("{} {name:?} already exists", kind.qualified());
        Self::new(409, "AlreadyExists", message).about(kind, name)
    }

    pub(super) fn conflict(kind: Kind, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} {name:?}: {why}", kind.qualified());
        Self::new(409, "Conflict", message).about(kind, name)
    }

    /// The object that was sent is based on an older one.
    pub(super) fn modified(kind: Kind, name: &str) -> Self {
        Self::conflict(
            kind,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    pub(super) const fn apply_conflict(message: String) -> Self {
        Self::new(409, "Conflict", message)
    }

    pub(super) fn forbidden(kind: Kind, name: &str, why: &str) -> Self {
        let message = format!("{} {name:?} is forbidden: {why}", kind.qualified());
        Self::new(403, "Forbidden", message).about(kind, name)
    }

    pub(super) fn invalid(kind: Kind, name: &str, why: &str) -> Self {
        let Some(group) = Some(kind.traits().group).filter(|group| !group.is_empty()) else {
            return Self::new(422, "Invalid", format!("{} {name:?} is invalid: {why}", kind.name())).about(kind, name);
        };
        Self::new(422, "Invalid", format!("{}.{group} {name:?} is invalid: {why}", kind.name())).about(kind, name)
    }

    /// A JSON patch that does not fit the object, a failed `test` among them: nothing in it tells which.
    pub(super) fn patch_failed() -> Self {
        Self::new(422, "Invalid", "the server rejected our request due to an error in our request".to_owned())
    }

    pub(super) const fn bad_request(message: String) -> Self {
        Self::new(400, "BadRequest", message)
    }

    pub(super) fn unknown_format(accepted: &str) -> Self {
        let message =
            format!("the body of the request was in an unknown format - accepted media types include: {accepted}");
        Self::new(415, "UnsupportedMediaType", message)
    }

    /// The version is no longer remembered.
    pub(super) const fn expired(message: String) -> Self {
        Self::new(410, "Expired", message)
    }

    pub(super) const fn timeout(message: String) -> Self {
        Self::new(504, "Timeout", message)
    }

    /// Something that this simulation does not know. No API server answers so.
    pub(super) fn unknown(sentence: &str) -> Self {
        Self::new(501, "NotSimulated", format!("the simulated Kubernetes does not know this: {sentence}"))
    }

    /// The sentence, if it is about something that is not simulated.
    pub(super) fn unknown_sentence(&self) -> Option<&str> {
        (self.code == 501).then_some(&self.message)
    }

    /// As a settable fault.
    pub(super) fn simulated(code: u16) -> Self {
        let reason = match code {
            401 => "Unauthorized",
            403 => "Forbidden",
            404 => "NotFound",
            409 => "Conflict",
            422 => "Invalid",
            429 => "TooManyRequests",
            500 => "InternalError",
            503 => "ServiceUnavailable",
            504 => "Timeout",
            _ => "",
        };
        Self::new(code, reason, "simulated fault".to_owned())
    }

    /// The `Status` that the client reads.
    pub(super) fn status(&self) -> Value {
        let mut details = json!({});
        if let (Some((kind, name)), Some(map)) = (&self.about, details.as_object_mut()) {
            map.insert("name".to_owned(), json!(name));
            if !kind.traits().group.is_empty() {
                map.insert("group".to_owned(), json!(kind.traits().group));
            }
            map.insert("kind".to_owned(), json!(kind.plural()));
        }
        json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "details": details, "code": self.code,
        })
    }
}
