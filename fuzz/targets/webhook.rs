//! Any bytes as the body of a webhook.
#![no_main]

mod hold;

use jiff::Timestamp;
use kitepool_api::events::{Assumed, job_of_webhook};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| hold::hold(job_of_webhook(body, Timestamp::UNIX_EPOCH, &Assumed::default())));
