//! `/healthz`: should the kubelet restart us? `/readyz`: do we do our work, and if not, why?

use std::time::Duration;

use axum::{extract::State, http::StatusCode};

use super::Shown;
use crate::control::status::Phase;

/// A leader ticks at least once a second. One that has not for a minute hangs, and a restart costs nothing but the lease's
/// fifteen seconds.
const HANGS_AFTER: Duration = Duration::from_mins(1);

/// Alive, unless the loop hangs.
pub(super) async fn healthz(State(shown): State<Shown>) -> (StatusCode, String) {
    let is_leading = matches!(shown.board.phase(), Phase::Leading { .. } | Phase::Blocked { .. });
    let idle = shown.board.last_tick().map(|tick| shown.clock.mono().saturating_duration_since(tick));
    match idle {
        Some(idle) if is_leading && idle > HANGS_AFTER => {
            (StatusCode::INTERNAL_SERVER_ERROR, format!("no tick for {} s\n", idle.as_secs()))
        }
        _ => (StatusCode::OK, "ok\n".to_owned()),
    }
}

/// Ready when leading and deciding, or standing by to.
pub(super) async fn readyz(State(shown): State<Shown>) -> (StatusCode, String) {
    match shown.board.phase() {
        Phase::Starting => (StatusCode::SERVICE_UNAVAILABLE, "starting: the lease was not seen yet\n".to_owned()),
        Phase::NoLease { why } => (StatusCode::SERVICE_UNAVAILABLE, format!("not leading: {why}\n")),
        Phase::Standby => (StatusCode::OK, "standby: another replica leads\n".to_owned()),
        Phase::Leading { troubles } if troubles.is_empty() => (StatusCode::OK, "leading\n".to_owned()),
        Phase::Leading { troubles } => (StatusCode::OK, format!("leading, but:\n  {}\n", troubles.join("\n  "))),
        Phase::Blocked { why } => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("leading, but nothing can be decided:\n  {}\n", why.join("\n  ")))
        }
        Phase::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "stopping\n".to_owned()),
    }
}
