//! The first signal asks for an orderly stop, the second ends the program at once.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// What a shell reports for a program that an interrupt ended.
const EXIT_ON_SECOND_SIGNAL: i32 = 130;

/// A token that is cancelled by the first SIGTERM or SIGINT.
pub fn on_signal() -> std::io::Result<CancellationToken> {
    let token = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = token.clone();
    tokio::spawn(async move {
        for already_stopping in [false, true] {
            tokio::select! {
                biased;
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if already_stopping {
                tracing::warn!("second signal: ending at once");
                exit_now();
            }
            tracing::info!("signal received: finishing writes in flight and giving up the lease");
            stop.cancel();
        }
    });
    Ok(token)
}

#[expect(clippy::exit, reason = "a second signal means now")]
fn exit_now() -> ! {
    std::process::exit(EXIT_ON_SECOND_SIGNAL)
}
