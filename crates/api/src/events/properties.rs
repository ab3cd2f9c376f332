//! What holds for whatever comes in: no panic, and what is taken is a hint that its reader takes as well.
//!
//! Good payloads with a few wounds get further than noise does. `fuzz/run` looks for longer and for what reaches new code.

use fastrand::Rng;
use jiff::Timestamp;
use kube::core::DynamicObject;

use super::{Assumed, eventbridge, job_of_webhook, read_event, read_invocation, webhook};
use crate::{HintedJob, JobHint, parse_hint};

/// Enough for a second of an unoptimized build.
const INPUTS: usize = 20_000;

/// What a wound is made of: what the parsers look for, and what breaks JSON, texts and numbers.
const SPLINTERS: &[&str] = &[
    "null",
    "{}",
    "[]",
    "\"\"",
    "0",
    "-1",
    "1e999",
    "true",
    "\"queue=\"",
    "\"queue=*\"",
    "\"queue=a\",",
    "\\u0000",
    "\\ud800",
    "\"",
    ",",
    ":",
    "}",
    "]",
    "{",
    "[",
    "\u{0}",
    "é",
    "🦆",
    "UTC",
    "Z",
    "9999-12-31 23:59:60 UTC",
    "-0001",
    "\"script\"",
];

/// The same as in the fuzz target.
fn hold(job: HintedJob) {
    let hint = JobHint::of_jobs("eventbridge", vec![job.clone().into()]).expect("what is taken is a hint");
    let stored: DynamicObject = serde_json::from_value(serde_json::to_value(&hint).unwrap()).unwrap();
    assert_eq!(parse_hint(&stored), Ok(vec![job]), "it is read as it was written");
}

fn wounded(sample: &str, rng: &mut Rng) -> Vec<u8> {
    let mut bytes = sample.as_bytes().to_vec();
    for _ in 0..rng.usize(1..4) {
        let at = rng.usize(..bytes.len());
        let until = bytes.len().min(at + rng.usize(..24));
        let splinter = SPLINTERS[rng.usize(..SPLINTERS.len())].as_bytes();
        match rng.u8(..4) {
            0 => drop(bytes.splice(at..until, splinter.iter().copied())),
            1 => drop(bytes.splice(at..at, splinter.iter().copied())),
            2 => bytes[at] = rng.u8(..),
            _ => bytes.truncate(at.max(1)),
        }
        if bytes.is_empty() {
            break;
        }
    }
    bytes
}

#[test]
fn no_input_makes_a_panic_or_a_hint_that_cannot_be_stored() {
    let mut rng = Rng::with_seed(0x00e7_e275);
    let assumed = Assumed::default();
    let batch =
        serde_json::json!({ "Records": [{ "messageId": "1", "body": eventbridge::tests::SAMPLE }] }).to_string();
    let (mut taken, mut refused) = (0, 0);
    for _ in 0..INPUTS {
        let event = wounded(eventbridge::tests::SAMPLE, &mut rng);
        let webhook = wounded(webhook::tests::SAMPLE, &mut rng);
        let batch = wounded(&batch, &mut rng);
        let mut jobs = vec![read_event(&event, &assumed), job_of_webhook(&webhook, Timestamp::UNIX_EPOCH, &assumed)];
        jobs.extend(read_invocation(&batch, &assumed).records().iter().map(|record| record.job.clone()));
        for job in jobs {
            match job {
                Ok(job) => {
                    taken += 1;
                    hold(job);
                }
                Err(unusable) => {
                    refused += 1;
                    assert!(unusable.to_string().len() < 1_000, "a sentence stays one");
                }
            }
        }
    }
    assert!(taken > INPUTS / 10 && refused > INPUTS / 10, "both happen: {taken} taken, {refused} refused");
}
