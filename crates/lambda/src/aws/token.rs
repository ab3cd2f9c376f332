//! The token by which an EKS cluster knows a role: an address of STS, signed here, that the cluster calls to learn who
//! signed.
//!
//! Making one asks nobody and needs no right. It is kept for a while all the same, since the API server remembers whose
//! a token is, and a new one each time would make it ask STS each time.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::Mutex;

use super::{credentials::Provider, region::Region, sign::Signed};
use crate::{clock::Clock, cluster::Secret, trouble::Trouble};

/// What each begins with.
const PREFIX: &str = "k8s-aws-v1.";

/// The header by which a token is for one cluster and no other.
const CLUSTER_HEADER: &str = "x-k8s-aws-id";

/// For how long the address is signed. What counts to the cluster is its date, but it wants to see this, and the
/// reference client says 60 s.
const SIGNED_FOR: Duration = Duration::from_mins(1);

/// A cluster takes a token for 15 minutes from its date. Its clock may be ahead of ours by one of them.
const GOOD_FOR: SignedDuration = SignedDuration::from_mins(14);

/// The longest that a cluster reads.
const LENGTH_MAX: usize = 4_096;

/// Tokens for one cluster.
#[derive(Debug)]
pub struct Tokens {
    provider: Arc<Provider>,
    cluster: String,
    region: Region,
    clock: Clock,
    kept: Mutex<Option<Kept>>,
}

#[derive(Debug)]
struct Kept {
    token: Secret,
    made_at: Timestamp,
    good_until: Timestamp,
}

impl Tokens {
    /// For the cluster of this name in this region.
    pub fn new(provider: Arc<Provider>, cluster: String, region: Region, clock: Clock) -> Self {
        Self { provider, cluster, region, clock, kept: Mutex::new(None) }
    }

    /// A token that is good now; `afresh` after one was refused.
    pub async fn token(&self, afresh: bool) -> Result<Secret, Trouble> {
        let mut kept = self.kept.lock().await;
        let now = self.clock.now();
        // One from the future was made before the clock was set back, and nobody knows how long ago.
        let is_good = |kept: &&Kept| kept.made_at <= now && now < kept.good_until;
        if let Some(kept) = kept.as_ref().filter(is_good).filter(|_| !afresh) {
            return Ok(kept.token.clone());
        }
        let (credentials, end) = self.provider.credentials(afresh).await?;
        let signed = Signed { credentials: &credentials, region: &self.region, service: "sts", now };
        let token = make(&signed, &self.cluster)?;
        let good_until = now.saturating_add(GOOD_FOR).unwrap_or(now);
        let good_until = end.map_or(good_until, |end| end.min(good_until));
        *kept = Some(Kept { token: token.clone(), made_at: now, good_until });
        Ok(token)
    }
}

/// One token.
fn make(signed: &Signed<'_>, cluster: &str) -> Result<Secret, Trouble> {
    // The regional STS: the global one is in one place, and a cluster refuses what is of another partition.
    let address = format!("https://{}/?Action=GetCallerIdentity&Version=2011-06-15", signed.region.host("sts"));
    let address = signed.address(&address, (CLUSTER_HEADER, cluster), SIGNED_FOR)?;
    let token = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(address));
    if token.len() > LENGTH_MAX {
        let sentence = format!("the token has {} characters and a cluster reads {LENGTH_MAX}", token.len());
        return Err(Trouble::Unusable(format!("{sentence}; the session's policies or tags make it so long")));
    }
    Ok(Secret::new(token))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use aws_credential_types::Credentials;

    use super::*;

    /// As botocore 1.44.8 signs the same, with a session token that holds everything that means something in an
    /// address.
    const NASTY: &str = "IQoJb3JpZ2luX2VjE+/+Q==%3D &é?#";
    const AS_BOTOCORE_NASTY: &str = "https://sts.eu-west-1.amazonaws.com/?Action=GetCallerIdentity&Version=2011-06-15\
        &X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIDEXAMPLE%2F20260131%2Feu-west-1%2Fsts%2Faws4_request\
        &X-Amz-Date=20260131T120000Z&X-Amz-Expires=60&X-Amz-SignedHeaders=host%3Bx-k8s-aws-id\
        &X-Amz-Security-Token=IQoJb3JpZ2luX2VjE%2B%2F%2BQ%3D%3D%253D%20%26%C3%A9%3F%23\
        &X-Amz-Signature=7a2633eb222044017d15365932782f01dd5fe128905bf6e89042fafd1522ad29";
    const AS_BOTOCORE_PLAIN: &str = "https://sts.eu-west-1.amazonaws.com/?Action=GetCallerIdentity&Version=2011-06-15\
        &X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIDEXAMPLE%2F20260131%2Feu-west-1%2Fsts%2Faws4_request\
        &X-Amz-Date=20260131T120000Z&X-Amz-Expires=60&X-Amz-SignedHeaders=host%3Bx-k8s-aws-id\
        &X-Amz-Signature=29c695409310abb2d7c805770d9e1cff7e2a327f52437de48ed4b01d165dc1c0";

    fn credentials(session: Option<&str>) -> Credentials {
        let secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
        Credentials::new("AKIDEXAMPLE", secret, session.map(str::to_owned), None, "test")
    }

    fn noon() -> Timestamp {
        "2026-01-31T12:00:00Z".parse().unwrap()
    }

    /// Tokens at a time that the test moves, in seconds from noon.
    fn tokens(session: Option<&str>) -> (Tokens, Arc<AtomicI64>) {
        let seconds = Arc::new(AtomicI64::new(0));
        let known = Arc::clone(&seconds);
        let clock = Clock::of(move || noon() + SignedDuration::from_secs(known.load(Ordering::Relaxed)));
        let provider = Arc::new(Provider::Own(credentials(session)));
        (Tokens::new(provider, "ci cluster".to_owned(), Region::parse("eu-west-1").unwrap(), clock), seconds)
    }

    fn address(token: &Secret) -> String {
        let encoded = token.expose().strip_prefix(PREFIX).unwrap();
        String::from_utf8(URL_SAFE_NO_PAD.decode(encoded).unwrap()).unwrap()
    }

    /// The parameters of an address, sorted: their order is nobody's business.
    fn sorted(address: &str) -> Vec<&str> {
        let mut parts: Vec<&str> = address.split(['?', '&']).collect();
        parts.sort_unstable();
        parts
    }

    #[tokio::test]
    async fn a_token_is_signed_as_botocore_signs_it_with_an_awkward_session_token_too() {
        for (session, expected) in [(Some(NASTY), AS_BOTOCORE_NASTY), (None, AS_BOTOCORE_PLAIN)] {
            let token = tokens(session).0.token(false).await.unwrap();
            assert_eq!(sorted(&address(&token)), sorted(expected));
        }
    }

    #[tokio::test]
    async fn a_token_is_kept_by_the_wall_clock_for_fourteen_minutes() {
        let (tokens, seconds) = tokens(None);
        let mut made = Vec::new();
        // On, to the end of its time, past it, and back before it was made: a frozen sandbox sees any of these.
        for at in [0, 839, 840, 600] {
            seconds.store(at, Ordering::Relaxed);
            made.push(address(&tokens.token(false).await.unwrap()));
        }
        let dates: Vec<&str> = made
            .iter()
            .map(|address| address.split("X-Amz-Date=20260131T").nth(1).unwrap().get(..6).unwrap())
            .collect();
        assert_eq!(dates, ["120000", "120000", "121400", "121000"]);
    }

    #[tokio::test]
    async fn a_refused_token_is_made_afresh() {
        let (tokens, seconds) = tokens(None);
        let first = tokens.token(false).await.unwrap();
        seconds.store(5, Ordering::Relaxed);
        let second = tokens.token(true).await.unwrap();
        assert!(address(&second).contains("120005") && first.expose() != second.expose());
        seconds.store(6, Ordering::Relaxed);
        assert_eq!(tokens.token(false).await.unwrap().expose(), second.expose());
    }

    #[tokio::test]
    async fn a_token_that_no_cluster_would_read_is_a_sentence_without_it() {
        let session = "x".repeat(4_000);
        let trouble = tokens(Some(&session)).0.token(false).await.unwrap_err().to_string();
        assert!(trouble.contains("4096") && !trouble.contains("xxx"), "{trouble}");
    }
}
