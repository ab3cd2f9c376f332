//! What the API server says when it refuses, in its own words.

use serde_json::{Value, json};

use super::{kind::Kind, object::set};

/// A refused request, or a failed one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: u16,
    reason: &'static str,
    message: String,
    details: Option<Value>,
}

/// One of several reasons of a refusal: the field, the sentence, the word.
pub(super) type Cause = (String, String, &'static str);

impl Refusal {
    const fn new(code: u16, reason: &'static str, message: String) -> Self {
        Self { code, reason, message, details: None }
    }

    /// Which object it is about: its group, the word for its kind, its name. What is empty is left out.
    fn about(mut self, group: &str, kind: &str, name: &str) -> Self {
        let details = self.details.get_or_insert_with(|| json!({}));
        for (key, word) in [("group", group), ("kind", kind), ("name", name)] {
            if !word.is_empty() {
                set(details, &[key], json!(word));
            }
        }
        self
    }

    fn because(mut self, causes: &[Cause]) -> Self {
        let causes = causes
            .iter()
            .map(|(field, message, reason)| json!({ "field": field, "message": message, "reason": reason }));
        set(self.details.get_or_insert_with(|| json!({})), &["causes"], causes.collect());
        self
    }

    fn of(self, kind: Kind, name: &str) -> Self {
        self.about(kind.traits().group, kind.plural(), name)
    }

    pub(super) fn not_found(kind: Kind, name: &str) -> Self {
        Self::new(404, "NotFound", format!("{} {name:?} not found", kind.qualified())).of(kind, name)
    }

    /// Nothing is served at the path. The one answer that is no JSON.
    pub(super) const fn no_such_page() -> Self {
        Self::new(404, "", String::new())
    }

    pub(super) fn already_exists(kind: Kind, name: &str) -> Self {
        Self::new(409, "AlreadyExists", format!("{} {name:?} already exists", kind.qualified())).of(kind, name)
    }

    pub(super) fn conflict(kind: Kind, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} {name:?}: {why}", kind.qualified());
        Self::new(409, "Conflict", message).of(kind, name)
    }

    /// The object that was sent is based on an older one.
    pub(super) fn modified(kind: Kind, name: &str) -> Self {
        Self::conflict(
            kind,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// A deletion's condition does not hold. Here the kind stands where elsewhere its plural does.
    pub(super) fn precondition(kind: Kind, name: &str, why: &str) -> Self {
        let group = kind.traits().group;
        let dot = if group.is_empty() { "" } else { "." };
        let message = format!("Operation cannot be fulfilled on {}{dot}{group} {name:?}: {why}", kind.name());
        Self::new(409, "Conflict", message).about(group, kind.name(), name)
    }

    pub(super) fn apply_conflict(message: String, causes: &[Cause]) -> Self {
        Self::new(409, "Conflict", message).because(causes)
    }

    pub(super) fn forbidden(kind: Kind, name: &str, why: &str) -> Self {
        Self::new(403, "Forbidden", format!("{} {name:?} is forbidden: {why}", kind.qualified())).of(kind, name)
    }

    /// Fields of an object, or of the request's options, that cannot be.
    pub(super) fn invalid((group, kind, name): (&str, &str, &str), causes: &[Cause]) -> Self {
        let mut sentences: Vec<String> = causes.iter().map(|(field, why, _)| format!("{field}: {why}")).collect();
        sentences.dedup();
        let message = format!("{kind}.{group} {name:?} is invalid: {}", sentences.join(", "));
        Self::new(422, "Invalid", message).about(group, kind, name).because(causes)
    }

    /// A JSON patch that does not fit the object, a failed `test` among them: nothing in it tells which.
    pub(super) fn patch_failed() -> Self {
        let message = "the server rejected our request due to an error in our request".to_owned();
        Self { details: Some(json!({})), ..Self::new(422, "Invalid", message) }
    }

    pub(super) const fn bad_request(message: String) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// What the API server itself takes for its own failure.
    pub(super) const fn internal(message: String) -> Self {
        Self::new(500, "", message)
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

    /// The body of the answer.
    pub(super) fn body(&self) -> String {
        if self.message.is_empty() { "404 page not found\n".to_owned() } else { self.status().to_string() }
    }

    /// The `Status` that the client reads.
    pub(super) fn status(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "code": self.code,
        });
        if !self.reason.is_empty() {
            set(&mut status, &["reason"], json!(self.reason));
        }
        if let Some(details) = &self.details {
            set(&mut status, &["details"], details.clone());
        }
        status
    }
}
