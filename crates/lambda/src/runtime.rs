//! Lambda's Runtime API: asks for an invocation, answers it, asks for the next.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, header};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use crate::{
    clock::Clock,
    deliver::Hints,
    function::{Function, write_log},
    http_client::{Call, Client, Origin, Reply},
    trouble::Trouble,
};

/// The version of the API, which has stayed the same since there is one.
const BASE: &str = "/2018-06-01/runtime";

/// How long the API may take for anything but the next invocation. It is in the same sandbox.
const ANSWER_TIME: Duration = Duration::from_secs(5);

/// Taken where an invocation does not say how long it has; Lambda always does.
const USUAL_TIME: Duration = Duration::from_secs(10);

/// The longest that Lambda grants.
const LONGEST_TIME: Duration = Duration::from_mins(15);

/// The Runtime API of this sandbox.
#[derive(Debug)]
pub struct Runtime {
    client: Client,
    clock: Clock,
}

impl Runtime {
    /// At the host and port that `AWS_LAMBDA_RUNTIME_API` names.
    pub fn new(authority: &str, clock: Clock) -> Result<Self, Trouble> {
        Ok(Self { client: Client::new(Origin::runtime_api(authority)?, None, clock.clone()), clock })
    }

    /// Serves until the API fails; then the sandbox is of no use any more and the process ends.
    pub async fn serve<H: Hints>(&self, function: &Function<H>) -> Trouble {
        loop {
            if let Err(trouble) = self.serve_one(function).await {
                return trouble;
            }
        }
    }

    async fn serve_one<H: Hints>(&self, function: &Function<H>) -> Result<(), Trouble> {
        // Without a bound: the sandbox is frozen until there is an invocation.
        let next = self.client.call(&call(Method::GET, "/invocation/next", Bytes::new()), None).await?;
        let next = accepted(&self.client, next)?;
        let id = text(&next, "lambda-runtime-aws-request-id").filter(|id| is_plain(id)).ok_or_else(|| {
            Trouble::Unreadable {
                origin: self.client.origin().to_string(),
                detail: "an invocation without an id".to_owned(),
            }
        })?;
        let time = self.time_for(&next);
        let done = function.run(id, &next.body, time).await;
        write_log(&done.log);
        let answer = match done.answer {
            Ok(answer) => call(Method::POST, &format!("/invocation/{id}/response"), Bytes::from(answer.to_string())),
            Err(why) => failure(&format!("/invocation/{id}/error"), "NotStored", &why),
        };
        let answered = self.client.call(&answer, Some(ANSWER_TIME)).await?;
        accepted(&self.client, answered).map(drop)
    }

    /// Tells why there is nothing to serve with. Whether that is heard changes nothing.
    pub async fn fail_to_start(&self, why: &str) {
        drop(self.client.call(&failure("/init/error", "BadSettings", why), Some(ANSWER_TIME)).await);
    }

    fn time_for(&self, invocation: &Reply) -> Duration {
        let deadline = text(invocation, "lambda-runtime-deadline-ms").and_then(|text| text.parse().ok());
        let deadline = deadline.and_then(|deadline| Timestamp::from_millisecond(deadline).ok());
        let left: Option<SignedDuration> = deadline.map(|deadline| deadline.duration_since(self.clock.now()));
        left.map_or(USUAL_TIME, |left| Duration::try_from(left).unwrap_or_default().min(LONGEST_TIME))
    }
}

fn text<'a>(reply: &'a Reply, header: &str) -> Option<&'a str> {
    reply.headers.get(header)?.to_str().ok()
}

/// It goes into a path.
fn is_plain(id: &str) -> bool {
    !id.is_empty() && id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
}

fn accepted(client: &Client, reply: Reply) -> Result<Reply, Trouble> {
    if (200..300).contains(&reply.status) {
        return Ok(reply);
    }
    Err(Trouble::refused(&client.origin().to_string(), reply.status, &String::from_utf8_lossy(&reply.body)))
}

fn call(method: Method, path: &str, body: Bytes) -> Call {
    let headers = vec![(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    Call { method, path: format!("{BASE}{path}"), headers, body }
}

fn failure(path: &str, kind: &'static str, why: &str) -> Call {
    let body = json!({ "errorType": kind, "errorMessage": why }).to_string();
    let mut call = call(Method::POST, path, Bytes::from(body));
    let name = HeaderName::from_static("lambda-runtime-function-error-type");
    call.headers.push((name, HeaderValue::from_static(kind)));
    call
}
