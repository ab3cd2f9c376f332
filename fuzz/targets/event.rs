//! Any bytes as an event of EventBridge.
#![no_main]

mod hold;

use kitepool_api::events::{Assumed, read_event};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| hold::hold(read_event(body, &Assumed::default())));
