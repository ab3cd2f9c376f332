//! Whose credentials sign: the function's own, which Lambda puts into its environment, or those of a role that it
//! assumes.

use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use bytes::Bytes;
use http::{HeaderValue, Method, header};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::Mutex;

use super::{
    region::Region,
    sign::{Signed, encoded},
};
use crate::{
    clock::Clock,
    http_client::{Call, Client, Reply},
    trouble::Trouble,
};

/// What stands in a session's name, for whoever reads a trail.
const SESSION: &str = "kitepool-lambda";

/// The longest session that one role may have in the name of another.
const SESSION_SECONDS: u32 = 3_600;

/// Assumed credentials that end sooner are not used for anything new.
const RENEWED_BEFORE: SignedDuration = SignedDuration::from_mins(5);

/// How long STS may take.
const ANSWER_TIME: Duration = Duration::from_secs(3);

/// Credentials that may change.
#[derive(Debug)]
pub enum Provider {
    /// Those that the process began with. Lambda replaces the process before they end.
    Own(Credentials),
    /// Those of another role, had with our own.
    Assumed(Box<AssumedRole>),
}

impl Provider {
    /// Credentials, and when they end, if that is known.
    pub async fn credentials(&self, afresh: bool) -> Result<(Credentials, Option<Timestamp>), Trouble> {
        match self {
            Self::Own(credentials) => Ok((credentials.clone(), None)),
            Self::Assumed(role) => role.credentials(afresh).await.map(|(credentials, end)| (credentials, Some(end))),
        }
    }
}

/// A role to be assumed.
#[derive(Debug)]
pub struct AssumedRole {
    own: Credentials,
    arn: String,
    region: Region,
    sts: Client,
    clock: Clock,
    kept: Mutex<Option<(Credentials, Timestamp)>>,
}

impl AssumedRole {
    /// With our own credentials, at the STS of this region.
    pub fn new(own: Credentials, arn: String, region: Region, sts: Client, clock: Clock) -> Self {
        Self { own, arn, region, sts, clock, kept: Mutex::new(None) }
    }

    async fn credentials(&self, afresh: bool) -> Result<(Credentials, Timestamp), Trouble> {
        let mut kept = self.kept.lock().await;
        let now = self.clock.now();
        let is_good = |end: Timestamp| end.duration_since(now) > RENEWED_BEFORE;
        if let Some((credentials, end)) = kept.as_ref().filter(|(_, end)| is_good(*end) && !afresh) {
            return Ok((credentials.clone(), *end));
        }
        let assumed = self.assume(now).await?;
        *kept = Some(assumed.clone());
        Ok(assumed)
    }

    async fn assume(&self, now: Timestamp) -> Result<(Credentials, Timestamp), Trouble> {
        let body = format!(
            "Action=AssumeRole&Version=2011-06-15&RoleArn={}&RoleSessionName={SESSION}&DurationSeconds={SESSION_SECONDS}",
            encoded(&self.arn),
        );
        let form = HeaderValue::from_static("application/x-www-form-urlencoded; charset=utf-8");
        let headers = vec![(header::CONTENT_TYPE, form)];
        let mut call = Call { method: Method::POST, path: "/".to_owned(), headers, body: Bytes::from(body) };
        let signed = Signed { credentials: &self.own, region: &self.region, service: "sts", now };
        signed.call(&mut call, &self.sts.origin().authority())?;
        read_assumed(&self.sts.origin().to_string(), &self.sts.call(&call, Some(ANSWER_TIME)).await?)
    }
}

/// STS answers in XML without attributes or anything nested within what is looked for here.
fn read_assumed(origin: &str, reply: &Reply) -> Result<(Credentials, Timestamp), Trouble> {
    let text = String::from_utf8_lossy(&reply.body);
    if reply.status != 200 {
        let words = element(&text, "Message").or_else(|| element(&text, "Code")).unwrap_or_default();
        return Err(Trouble::refused(origin, reply.status, words));
    }
    // Never the answer itself: it is full of secrets.
    let missing = |name: &str| Trouble::Unreadable { origin: origin.to_owned(), detail: format!("it has no {name}") };
    let get = |name: &str| element(&text, name).filter(|value| !value.is_empty()).ok_or_else(|| missing(name));
    let end: Timestamp = get("Expiration")?.parse().map_err(|_| missing("Expiration that is an instant"))?;
    let token = Some(get("SessionToken")?.to_owned());
    let (id, key) = (get("AccessKeyId")?, get("SecretAccessKey")?);
    Ok((Credentials::new(id, key, token, Some(SystemTime::from(end)), "AssumeRole"), end))
}

fn element<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    Some(rest.split_once(&format!("</{name}>"))?.0.trim())
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    fn reply(status: u16, body: &'static str) -> Reply {
        Reply { status, headers: HeaderMap::new(), body: Bytes::from_static(body.as_bytes()) }
    }

    #[test]
    fn what_sts_answers_is_read_and_never_repeated() {
        let answer =
            "<AssumeRoleResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><AssumeRoleResult><Credentials>
            <AccessKeyId>ASIAEXAMPLE</AccessKeyId><SecretAccessKey>a+b/c=</SecretAccessKey>
            <SessionToken>t+/=</SessionToken><Expiration>2026-01-31T13:00:00Z</Expiration>
            </Credentials></AssumeRoleResult></AssumeRoleResponse>";
        let (credentials, end) = read_assumed("sts", &reply(200, answer)).unwrap();
        assert_eq!((credentials.access_key_id(), credentials.secret_access_key()), ("ASIAEXAMPLE", "a+b/c="));
        assert_eq!(credentials.session_token(), Some("t+/="));
        assert_eq!(end.to_string(), "2026-01-31T13:00:00Z");
        let cut = reply(200, "<Expiration>2026-01-31T13:00:00Z</Expiration><SecretAccessKey>hidden");
        let trouble = read_assumed("sts", &cut).unwrap_err().to_string();
        assert!(!trouble.contains("hidden"), "{trouble}");
        assert!(!format!("{credentials:?}").contains("a+b/c="), "nor by Debug");
    }

    #[test]
    fn a_refusal_is_told_in_the_words_of_sts() {
        let refusal = "<ErrorResponse><Error><Code>AccessDenied</Code><Message>User is not authorized to perform: \
            sts:AssumeRole</Message></Error></ErrorResponse>";
        let trouble = read_assumed("sts", &reply(403, refusal)).unwrap_err();
        assert_eq!(trouble.category(), "forbidden");
        assert!(trouble.to_string().contains("sts:AssumeRole"), "{trouble}");
    }
}
