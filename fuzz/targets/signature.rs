//! Any bytes as the proof that comes with a webhook: only who holds the secret is believed.
//!
//! The input is a line for the header, and the body after it; the first eight bytes of the body are an instant as well.
#![no_main]

// Alone: the whole controller would be built with counters, for one file of it.
#[allow(dead_code)]
#[path = "../../src/ingest/signature.rs"]
mod signature;

use std::fmt::Write as _;

use hmac::{Hmac, KeyInit as _, Mac as _};
use http::{HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use secrecy::SecretString;
use sha2::Sha256;
use signature::{Unproven, verify};

const SECRET: &str = "s3cret";
const NOW: i64 = 1_619_071_700;

fuzz_target!(|input: &[u8]| {
    let line = input.iter().position(|byte| *byte == b'\n').unwrap_or(input.len());
    let (proof, body) = (&input[..line], input.get(line + 1..).unwrap_or_default());
    if let Ok(value) = HeaderValue::from_bytes(proof) {
        as_signature(&value, body);
        as_token(&value, body);
    }
    of_the_secret(body);
});

fn outcome(name: &'static str, value: &HeaderValue, body: &[u8]) -> Result<(), Unproven> {
    let headers = HeaderMap::from_iter([(HeaderName::from_static(name), value.clone())]);
    let secrets = ["another", SECRET].map(SecretString::from);
    verify(&headers, body, &secrets, Timestamp::from_second(NOW).expect("an instant"))
}

/// Whatever it says, it is no signature: to find one takes the secret. Unless it holds the right one of its own instant.
fn as_signature(value: &HeaderValue, body: &[u8]) {
    let outcome = outcome("x-buildkite-signature", value, body);
    if matches!(outcome, Ok(()) | Err(Unproven::Expired)) {
        let text = value.to_str().expect("what was read is text");
        let parts = text.split(',').filter_map(|part| part.split_once('='));
        let timestamp = parts.filter(|(key, _)| key.trim() == "timestamp").map(|(_, value)| value.trim()).next();
        let right = digest(timestamp.expect("it has an instant"), body);
        assert!(text.to_lowercase().contains(&right), "believed: {text}");
    }
}

fn as_token(value: &HeaderValue, body: &[u8]) {
    let is_ours = ["another", SECRET].iter().any(|secret| secret.as_bytes() == value.as_bytes());
    assert_eq!(outcome("x-buildkite-token", value, body).is_ok(), is_ours);
}

/// What is signed holds for its time, and for nothing else than its body.
fn of_the_secret(body: &[u8]) {
    let seconds = body.first_chunk().map_or(NOW, |bytes| i64::from_le_bytes(*bytes));
    let header = |signed: &[u8]| {
        let text = format!("timestamp={seconds},signature={}", digest(&seconds.to_string(), signed));
        HeaderValue::from_str(&text).expect("text")
    };
    let expected = if seconds.abs_diff(NOW) <= 300 { Ok(()) } else { Err(Unproven::Expired) };
    assert_eq!(outcome("x-buildkite-signature", &header(body), body), expected);
    let mut other = body.to_vec();
    match other.last_mut() {
        Some(last) => *last ^= 1,
        None => other.push(0),
    }
    assert_eq!(outcome("x-buildkite-signature", &header(&other), body), Err(Unproven::Wrong));
}

fn digest(timestamp: &str, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).expect("a key of any length");
    mac.update(timestamp.as_bytes());
    mac.update(b".");
    mac.update(body);
    mac.finalize().into_bytes().iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("text");
        text
    })
}
