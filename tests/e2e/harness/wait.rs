//! Waiting for something to be so, and seeing that something stays so. Both say what they saw instead.

use std::time::Duration;

use tokio::time::Instant;

/// Often enough for times in seconds, seldom enough that thirty cases at once leave the API server its time.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Waits until `look` answers, or ends the case with what it saw last.
pub(crate) async fn eventually<T>(what: &str, within: Duration, mut look: impl AsyncFnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match look().await {
            Ok(answer) => return answer,
            Err(seen) if start.elapsed() > within => panic!("{what}: not within {within:?}; seen last: {seen}"),
            Err(_not_yet) => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}

/// Looks again and again for so long, and ends the case as soon as it is not so.
pub(crate) async fn stays(what: &str, how_long: Duration, mut look: impl AsyncFnMut() -> Result<(), String>) {
    let start = Instant::now();
    while start.elapsed() < how_long {
        if let Err(seen) = look().await {
            panic!("{what}: not so after {:?}; seen: {seen}", start.elapsed());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
