//! Whether a request comes from whoever holds the webhook's secret.
//!
//! Buildkite signs (`X-Buildkite-Signature: timestamp=…,signature=…`, HMAC-SHA256 of `timestamp.body` in hexadecimal), or
//! sends the secret itself (`X-Buildkite-Token`), as the webhook is set up.

use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use http::HeaderMap;
use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::Sha256;

/// How far a signature's instant may lie from ours, either way: what Buildkite's documentation recommends against replays.
pub const SIGNATURE_AGE_MAX: Duration = Duration::from_mins(5);

const SIGNATURE: &str = "x-buildkite-signature";
const TOKEN: &str = "x-buildkite-token";

/// Hexadecimal digits of SHA-256, halved.
const DIGEST_BYTES: usize = 32;

/// Why a request is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unproven {
    /// There is no secret to hold it against.
    #[error("the webhook's secret is not there yet; see the controller's log")]
    NoSecret,
    /// It shows nothing.
    #[error("neither X-Buildkite-Signature nor X-Buildkite-Token; choose one of them in the webhook's settings")]
    Nothing,
    /// The signature cannot be read.
    #[error("X-Buildkite-Signature is not `timestamp=<seconds>,signature=<64 hexadecimal digits>`")]
    Unreadable,
    /// No secret of ours made it.
    #[error("signature or token do not fit the secret; compare the webhook's token with --webhook-secret-file")]
    Wrong,
    /// It is right, and of another time.
    #[error("the signature is more than five minutes old, or of the future; compare the clocks")]
    Expired,
}

/// Holds a request's headers and body against the secrets that are valid at the moment. A request that has a signature is
/// held to it, whatever else it brings.
pub fn verify(headers: &HeaderMap, body: &[u8], secrets: &[SecretString], now: Timestamp) -> Result<(), Unproven> {
    if secrets.is_empty() {
        return Err(Unproven::NoSecret);
    }
    if let Some(header) = headers.get(SIGNATURE) {
        let signature = header.to_str().ok().and_then(Signature::read).ok_or(Unproven::Unreadable)?;
        // Each is tried, so that the time it takes says nothing of which one fits.
        let fits = secrets.iter().filter(|secret| signature.is_of(body, secret)).count();
        if fits == 0 {
            return Err(Unproven::Wrong);
        }
        return signature.is_of_now(now).then_some(()).ok_or(Unproven::Expired);
    }
    let token = headers.get(TOKEN).ok_or(Unproven::Nothing)?;
    let fits = secrets.iter().filter(|secret| is_same(token.as_bytes(), secret)).count();
    if fits == 0 { Err(Unproven::Wrong) } else { Ok(()) }
}

#[derive(Debug)]
struct Signature<'a> {
    /// As it was signed.
    timestamp: &'a str,
    seconds: i64,
    digest: [u8; DIGEST_BYTES],
}

impl<'a> Signature<'a> {
    /// Parts in any order, with space around them; other parts may join in later.
    fn read(header: &'a str) -> Option<Self> {
        let part = |name: &str| {
            let mut parts = header.split(',').filter_map(|part| part.split_once('='));
            parts.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim())
        };
        let timestamp = part("timestamp")?;
        Some(Self { timestamp, seconds: timestamp.parse().ok()?, digest: unhex(part("signature")?)? })
    }

    fn is_of(&self, body: &[u8], secret: &SecretString) -> bool {
        let Some(mut mac) = keyed(secret) else { return false };
        mac.update(self.timestamp.as_bytes());
        mac.update(b".");
        mac.update(body);
        mac.verify_slice(&self.digest).is_ok()
    }

    fn is_of_now(&self, now: Timestamp) -> bool {
        let seconds = SIGNATURE_AGE_MAX.as_secs();
        now.as_second().abs_diff(self.seconds) <= seconds
    }
}

/// A key of any length will do.
fn keyed(secret: &SecretString) -> Option<Hmac<Sha256>> {
    Hmac::new_from_slice(secret.expose_secret().as_bytes()).ok()
}

/// Compares what each comes to under a keyed hash: in the same time however much of them is alike.
fn is_same(token: &[u8], secret: &SecretString) -> bool {
    let (Some(mut theirs), Some(mut ours)) = (keyed(secret), keyed(secret)) else { return false };
    theirs.update(token);
    ours.update(secret.expose_secret().as_bytes());
    theirs.verify(&ours.finalize().into_bytes()).is_ok()
}

fn unhex(text: &str) -> Option<[u8; DIGEST_BYTES]> {
    let mut bytes = [0; DIGEST_BYTES];
    let digits = text.as_bytes();
    if digits.len() != DIGEST_BYTES * 2 {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let mut digits = pair.iter().map(|digit| char::from(*digit).to_digit(16));
        let (high, low) = (digits.next()??, digits.next()??);
        *byte = u8::try_from(high * 16 + low).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const NOW: i64 = 1_619_071_700;
    const BODY: &[u8] = br#"{"event":"ping"}"#;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn secrets(texts: &[&str]) -> Vec<SecretString> {
        texts.iter().map(|text| SecretString::from(*text)).collect()
    }

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(http::HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())])
    }

    /// What `printf '1619071700.{"event":"ping"}' | openssl dgst -sha256 -hmac s3cret` prints.
    const BY_OPENSSL: &str = "1a8f545083d45bec707d089d226af7524170c17ee29c1c58e6981bee26e49227";

    fn signed(timestamp: &str, signature: &str) -> HeaderMap {
        headers(SIGNATURE, &format!("timestamp={timestamp},signature={signature}"))
    }

    #[test]
    fn a_signature_of_openssl_is_right() {
        let headers = signed("1619071700", BY_OPENSSL);
        assert_eq!(verify(&headers, BODY, &secrets(&["s3cret"]), at(NOW)), Ok(()));
        assert_eq!(verify(&headers, BODY, &secrets(&["new", "s3cret"]), at(NOW)), Ok(()), "during a rotation");
        assert_eq!(verify(&headers, BODY, &secrets(&["other"]), at(NOW)), Err(Unproven::Wrong));
        assert_eq!(verify(&headers, BODY, &[], at(NOW)), Err(Unproven::NoSecret));
        assert_eq!(verify(&headers, b"{}", &secrets(&["s3cret"]), at(NOW)), Err(Unproven::Wrong));
        let other_time = signed("1619071701", BY_OPENSSL);
        assert_eq!(verify(&other_time, BODY, &secrets(&["s3cret"]), at(NOW)), Err(Unproven::Wrong));
        let loud = signed("1619071700", &BY_OPENSSL.to_uppercase());
        assert_eq!(verify(&loud, BODY, &secrets(&["s3cret"]), at(NOW)), Ok(()));
        let turned = format!("signature={BY_OPENSSL} , timestamp=1619071700, version=2");
        assert_eq!(verify(&super::tests::headers(SIGNATURE, &turned), BODY, &secrets(&["s3cret"]), at(NOW)), Ok(()));
    }

    #[test]
    fn a_right_signature_holds_for_five_minutes_either_way() {
        let headers = signed("1619071700", BY_OPENSSL);
        for (off, expected) in
            [(300, Ok(())), (-300, Ok(())), (301, Err(Unproven::Expired)), (-301, Err(Unproven::Expired))]
        {
            assert_eq!(verify(&headers, BODY, &secrets(&["s3cret"]), at(NOW + off)), expected, "{off} s");
        }
    }

    #[test]
    fn what_is_no_signature_is_told_apart_from_a_wrong_one() {
        let digest = "0".repeat(64);
        let unreadable = [
            String::new(),
            "timestamp=1619071700".to_owned(),
            format!("signature={digest}"),
            format!("timestamp=soon,signature={digest}"),
            format!("timestamp=99999999999999999999,signature={digest}"),
            "timestamp=1619071700,signature=abc".to_owned(),
            format!("timestamp=1619071700,signature={}", "g".repeat(64)),
        ];
        for text in unreadable {
            let outcome = verify(&headers(SIGNATURE, &text), BODY, &secrets(&["s3cret"]), at(NOW));
            assert_eq!(outcome, Err(Unproven::Unreadable), "{text}");
        }
        assert_eq!(verify(&signed("1619071700", &digest), BODY, &secrets(&["s"]), at(NOW)), Err(Unproven::Wrong));
        let far = signed("-9223372036854775808", &digest);
        assert_eq!(verify(&far, BODY, &secrets(&["s"]), at(NOW)), Err(Unproven::Wrong));
    }

    #[test]
    fn a_token_in_clear_is_compared_as_a_whole() {
        let known = secrets(&["new", "s3cret"]);
        assert_eq!(verify(&headers(TOKEN, "s3cret"), BODY, &known, at(NOW)), Ok(()));
        for wrong in ["s3cre", "s3crett", "", "S3CRET"] {
            assert_eq!(verify(&headers(TOKEN, wrong), BODY, &known, at(NOW)), Err(Unproven::Wrong), "{wrong}");
        }
        assert_eq!(verify(&HeaderMap::new(), BODY, &known, at(NOW)), Err(Unproven::Nothing));
    }

    #[test]
    fn a_token_does_not_help_a_wrong_signature() {
        let mut both = signed("1619071700", &"0".repeat(64));
        both.extend(headers(TOKEN, "s3cret"));
        assert_eq!(verify(&both, BODY, &secrets(&["s3cret"]), at(NOW)), Err(Unproven::Wrong));
    }
}
