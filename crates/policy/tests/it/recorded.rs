//! What is recorded of a tick is read back as it was, and nothing that no constructor would make.

use kitepool_policy::{
    decide,
    decision::Decision,
    observation::QueueObservation,
    spec::{Fraction, Limits, Percent, Schedule, Step},
    units::AgentsPerPod,
};
use proptest::{prelude::*, test_runner::Config};
use serde::de::DeserializeOwned;

use crate::{arbitrary, build::at};

proptest! {
    // The types have no say in the values, so a few of each kind show as much as many.
    #![proptest_config(Config { cases: 200, ..Config::default() })]

    #[test]
    fn a_recorded_tick_is_read_back_as_it_was(queue in arbitrary::queues()) {
        let decisions = decide(&queue, at(0));
        let written = serde_json::to_string(&(&queue, &decisions)).unwrap();
        let read: (QueueObservation, Vec<Decision>) = serde_json::from_str(&written).unwrap();
        prop_assert_eq!(read, (queue, decisions));
    }
}

fn is_refused<T: DeserializeOwned>(written: &str) -> bool {
    serde_json::from_str::<T>(written).is_err()
}

#[test]
fn what_no_constructor_would_make_is_not_read_either() {
    assert!(!is_refused::<Limits>(r#"{"min":1,"max":1}"#));
    assert!(is_refused::<Limits>(r#"{"min":2,"max":1}"#));
    assert!(is_refused::<Percent>("1001"));
    assert!(is_refused::<Fraction>("1001"));
    assert!(is_refused::<AgentsPerPod>("0"));
    assert!(is_refused::<Step>(r#"{"percent":0,"agents":0,"per":{"secs":1,"nanos":0}}"#));
    let schedule = |day: u8, zone: &str| {
        format!(r#"{{"days":[{day}],"from":"08:00:00","to":"19:00:00","timeZone":"{zone}","min":1}}"#)
    };
    assert!(!is_refused::<Schedule>(&schedule(7, "Europe/London")));
    assert!(is_refused::<Schedule>(&schedule(8, "Europe/London")));
    assert!(is_refused::<Schedule>(&schedule(7, "Europe/Nowhere")));
}
