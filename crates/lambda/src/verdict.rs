//! What an API server's answer to a new hint means: it is there, there is no room, it will never be taken, or ask
//! again.

use std::time::Duration;

use serde::Deserialize;

use crate::{http_client::Reply, trouble::Trouble};

/// What became of a hint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Stored, now or before: its name says what is in it.
    There,
    /// The namespace's quota is full. There are hints enough for the controller to work on, and it deletes what is
    /// settled.
    Full(String),
    /// The API server will not take this object, however often it comes.
    Invalid(String),
    /// Not stored, or nobody knows.
    NotYet(Trouble, Again),
}

/// When it makes sense to ask again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// At once, or after what the server asked for.
    Soon(Option<Duration>),
    /// Somebody has to mend something first, or time has to pass.
    Later,
}

/// What the API server says of itself beside a status. All of it may be missing: a proxy answers otherwise.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    reason: String,
    message: String,
}

/// Reads the answer to a creation.
pub fn read(origin: &str, reply: &Reply) -> Verdict {
    let code = reply.status;
    if (200..300).contains(&code) {
        return Verdict::There;
    }
    let status: Status = serde_json::from_slice(&reply.body).unwrap_or_default();
    let trouble = || Trouble::refused(origin, code, &status.message);
    let words = || crate::trouble::shortened(&status.message);
    match code {
        409 if status.reason == "AlreadyExists" => Verdict::There,
        // Two writers met at the quota's counter. Nothing was stored.
        409 => Verdict::NotYet(trouble(), Again::Soon(None)),
        // Said of a name that is there already as well: a full quota is looked at before the name.
        403 if status.message.contains("exceeded quota") => Verdict::Full(words()),
        // A quota that Kubernetes has not counted yet, for up to five minutes after its creation: there may well be
        // room.
        403 if status.message.contains("status unknown for quota") => Verdict::NotYet(trouble(), Again::Later),
        422 => Verdict::Invalid(words()),
        429 | 500.. => Verdict::NotYet(trouble(), Again::Soon(retry_after(reply))),
        _ => Verdict::NotYet(trouble(), Again::Later),
    }
}

/// What a call without an answer means: it may have been done.
pub fn of_trouble(trouble: Trouble) -> Verdict {
    let again = match trouble {
        Trouble::Unreachable { .. } | Trouble::BrokenOff { .. } | Trouble::Deadline { .. } => Again::Soon(None),
        Trouble::TooLarge { .. } | Trouble::Refused { .. } | Trouble::Unreadable { .. } | Trouble::Unusable(_) => {
            Again::Later
        }
    };
    Verdict::NotYet(trouble, again)
}

fn retry_after(reply: &Reply) -> Option<Duration> {
    let seconds = reply.headers.get(http::header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::HeaderMap;
    use serde_json::json;

    use super::*;

    fn reply(status: u16, reason: &str, message: &str) -> Reply {
        let body = json!({ "kind": "Status", "reason": reason, "message": message, "code": status }).to_string();
        Reply { status, headers: HeaderMap::new(), body: Bytes::from(body) }
    }

    /// The verdict in a word.
    fn word(verdict: &Verdict) -> &'static str {
        match verdict {
            Verdict::There => "there",
            Verdict::Full(_) => "full",
            Verdict::Invalid(_) => "invalid",
            Verdict::NotYet(_, Again::Soon(_)) => "soon",
            Verdict::NotYet(_, Again::Later) => "later",
        }
    }

    #[test]
    fn each_answer_of_an_api_server_has_one_meaning() {
        // The sentences are those of Kubernetes 1.36.
        for (status, reason, message, expected) in [
            (201, "", "", "there"),
            (200, "", "", "there"),
            (409, "AlreadyExists", "jobhints.kitepool.dev \"hint-1\" already exists", "there"),
            (
                409,
                "Conflict",
                "Operation cannot be fulfilled on resourcequotas \"kitepool-hints\": the object has been modified",
                "soon",
            ),
            (409, "", "", "soon"),
            (
                403,
                "Forbidden",
                "jobhints.kitepool.dev \"hint-1\" is forbidden: exceeded quota: kitepool-hints, requested: count/jobhints.kitepool.dev=1, used: count/jobhints.kitepool.dev=2, limited: count/jobhints.kitepool.dev=2",
                "full",
            ),
            (
                403,
                "Forbidden",
                "jobhints.kitepool.dev \"hint-1\" is forbidden: status unknown for quota: kitepool-hints, resources: count/jobhints.kitepool.dev",
                "later",
            ),
            (
                403,
                "Forbidden",
                "jobhints.kitepool.dev is forbidden: User \"x\" cannot create resource \"jobhints\"",
                "later",
            ),
            (422, "Invalid", "JobHint.kitepool.dev \"hint-1\" is invalid", "invalid"),
            (429, "TooManyRequests", "storage is (re)initializing", "soon"),
            (500, "InternalError", "", "soon"),
            (503, "ServiceUnavailable", "", "soon"),
            (504, "Timeout", "", "soon"),
            (400, "BadRequest", "", "later"),
            (401, "Unauthorized", "", "later"),
            (404, "NotFound", "", "later"),
            (302, "", "", "later"),
        ] {
            assert_eq!(word(&read("api", &reply(status, reason, message))), expected, "{status} {reason}: {message}");
        }
    }

    #[test]
    fn an_answer_that_is_no_status_is_judged_by_its_number() {
        for (status, expected) in [(409, "soon"), (403, "later"), (502, "soon")] {
            let page = Reply { body: Bytes::from_static(b"<html>"), ..reply(status, "", "") };
            assert_eq!(word(&read("api", &page)), expected);
        }
    }

    #[test]
    fn a_wish_to_be_asked_later_is_kept() {
        let mut busy = reply(429, "TooManyRequests", "");
        busy.headers.insert("retry-after", "2".parse().unwrap());
        let Verdict::NotYet(_, again) = read("api", &busy) else { panic!() };
        assert_eq!(again, Again::Soon(Some(Duration::from_secs(2))));
    }
}
