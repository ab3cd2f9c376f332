//! The body of `/status.json`, as `buildkite-agent` writes it since v3.72.0.

use kitepool_policy::units::Agents;
use serde::Deserialize;

use super::Said;

#[derive(Deserialize)]
struct Status {
    workers: Vec<Worker>,
}

#[derive(Deserialize)]
struct Worker {
    status: Word,
}

/// Another word is not understood, rather than taken for idle.
#[derive(Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Word {
    Busy,
    Idle,
}

/// What it says; `None` for what no agent would say.
pub(super) fn understood(body: &[u8]) -> Option<Said> {
    let Status { workers } = serde_json::from_slice(body).ok()?;
    let busy = workers.iter().filter(|worker| worker.status == Word::Busy).count();
    (!workers.is_empty()).then(|| Said { busy: Agents(u32::try_from(busy).unwrap_or(u32::MAX)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn busy(body: &str) -> Option<u32> {
        understood(body.as_bytes()).map(|said| said.busy.0)
    }

    #[test]
    fn what_the_real_agent_says_is_understood() {
        let idle =
            r#"{"health":"ok","aggregate_status":"idle","workers":[{"status":"idle","id":"0198","spawn_index":1}]}"#;
        assert_eq!(busy(idle), Some(0));
        let both = r#"{"health":"ok","aggregate_status":"busy","workers":[{"status":"idle","id":"1","spawn_index":1},
                       {"status":"busy","current_job_id":"2","id":"3","spawn_index":2}]}"#;
        assert_eq!(busy(both), Some(1));
    }

    #[test]
    fn what_is_not_surely_an_agents_word_says_nothing() {
        for body in [
            "",
            "ok",
            "{}",
            r#"{"status":"idle"}"#,
            r#"{"workers":[]}"#,
            r#"{"workers":[{"id":"1"}]}"#,
            r#"{"workers":[{"status":"idle"},{"status":"draining"}]}"#,
            r#"{"aggregate_status":"idle"}"#,
        ] {
            assert_eq!(busy(body), None, "{body}");
        }
    }
}
