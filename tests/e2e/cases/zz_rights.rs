//! The rights of the chart are those that the controllers of a whole run used, no more and no fewer.

use std::path::PathBuf;

use crate::harness::audit;

#[test]
#[ignore = "needs the audit log of a whole run: tests/e2e/run"]
fn the_rights_used_in_a_run_are_the_rights_of_the_chart() {
    let Some(log) = std::env::var_os("KITEPOOL_E2E_AUDIT_LOG").map(PathBuf::from) else {
        println!("left out: KITEPOOL_E2E_AUDIT_LOG names no audit log");
        return;
    };
    let asked = audit::asked(&log, |namespace| namespace.contains("deprived") || namespace.contains("nonamespace"));
    let granted = audit::granted();
    assert!(asked.requests > 0, "no controller of ours is in the audit log");
    let missing: Vec<String> = asked.denied.iter().cloned().collect();
    let unused: Vec<String> = granted.difference(&asked.used).map(ToString::to_string).collect();
    let beyond: Vec<String> = asked.used.difference(&granted).map(ToString::to_string).collect();
    println!("{} requests of controllers used {} of {} rights", asked.requests, asked.used.len(), granted.len());
    assert!(
        missing.is_empty() && unused.is_empty() && beyond.is_empty(),
        "refused: {missing:?}\ngranted and never used: {unused:?}\nused and not granted by the chart: {beyond:?}"
    );
}
