//! Any bytes as the input of the function behind EventBridge.
#![no_main]

mod hold;

use kitepool_api::events::{Assumed, read_invocation};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    for record in read_invocation(body, &Assumed::default()).records() {
        hold::hold(record.job.clone());
    }
});
