//! Which acts begin at once, and which wait a moment for more of their kind: the first job's agent is made at once, those of a burst
//! together and not one by one.
//!
//! ```text
//!  an act ─► the pool's last one began less than 50 ms ago? ─────────────────────────────────► then
//!      └─► else four began just now, its queue has hints, and some still come? ──────────────► when none has come for 50 ms,
//!            └─► else at once                                                                  200 ms later at the latest
//! ```
//!
//! Each write costs the API server some ten milliseconds, and the pods that follow it more, so in a burst the first writes are in the way of
//! the hints that are still to come, and each of these makes another write.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use super::pace;

/// Jobs of a build come within some milliseconds of each other.
const TOGETHER: Duration = pace::INTERVAL;

/// So many acts in [`TOGETHER`] are no burst: they are written within it.
const AT_ONCE: usize = 4;

/// However many hints still come, jobs that were told of do not wait for longer. A burst of 500 is told of within some 200 ms, where nothing
/// else is written.
const WAIT_MAX: Duration = Duration::from_millis(200);

/// Whose turn it is.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// When the last acts began, over all pools.
    begun: VecDeque<Instant>,
    /// Whether some pool waited for a burst in this pass.
    gathers: bool,
}

/// What is known of a pool that has something to write.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waiting {
    /// When its last act began.
    pub(super) acted_at: Option<Instant>,
    /// When the last hint came, whatever queue it is for, where it has hints itself.
    pub(super) told_at: Option<Instant>,
    /// Since when it waits for a burst.
    pub(super) since: Option<Instant>,
}

/// What a pool waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wait {
    /// If no other hint comes.
    pub(super) until: Instant,
    /// Since when, if it is for a burst. To keep some distance from the pool's own last act is no reason to wait for what comes after it.
    pub(super) since: Option<Instant>,
}

impl Turns {
    /// All pools are looked at once more.
    pub(super) fn begin_pass(&mut self) {
        self.gathers = false;
    }

    /// Whether some wait for the hints that still come.
    pub(super) const fn gathers(&self) -> bool {
        self.gathers
    }

    /// What it waits for; `None`: its turn is now.
    pub(super) fn wait(&mut self, pool: &Waiting, at: Instant) -> Option<Wait> {
        let is_near = |first: &Instant| at.saturating_duration_since(*first) < TOGETHER;
        let is_burst = self.begun.len() >= AT_ONCE && self.begun.front().is_some_and(is_near);
        let since = pool.since.unwrap_or(at);
        // One that has waited goes on waiting for the last hint, although the burst has stopped meanwhile because all wait.
        let told_at = pool.told_at.filter(|_| is_burst || pool.since.is_some());
        let settles = told_at.map(|told| (told + TOGETHER).min(since + WAIT_MAX)).filter(|until| at < *until);
        self.gathers |= settles.is_some();
        let together = pool.acted_at.map(|acted| acted + TOGETHER).filter(|until| at < *until);
        settles.max(together).map(|until| Wait { until, since: settles.map(|_| since) })
    }

    /// One begins.
    pub(super) fn begins(&mut self, at: Instant) {
        if self.begun.len() >= AT_ONCE {
            self.begun.pop_front();
        }
        self.begun.push_back(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    const MS: Duration = Duration::from_millis(1);

    fn start() -> Instant {
        Clock::fixed(jiff::Timestamp::UNIX_EPOCH).mono()
    }

    fn told(told_at: Instant) -> Waiting {
        Waiting { acted_at: None, told_at: Some(told_at), since: None }
    }

    /// Until when a pool waits, and since when if for a burst; in milliseconds.
    fn waits(turns: &mut Turns, pool: &Waiting, start: Instant, at: Instant) -> Option<(u128, Option<u128>)> {
        let after = |at: Instant| (at - start).as_millis();
        turns.wait(pool, at).map(|wait| (after(wait.until), wait.since.map(after)))
    }

    fn after(acts: usize, at: Instant) -> Turns {
        let mut turns = Turns::default();
        (0..acts).for_each(|_| turns.begins(at));
        turns
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_job_is_served_at_once_and_what_follows_in_the_same_pool_together() {
        let at = start();
        let mut turns = after(AT_ONCE - 1, at);
        assert_eq!(turns.wait(&told(at), at), None);
        let acted = |told_at| Waiting { acted_at: Some(at), ..told(told_at) };
        assert_eq!(waits(&mut turns, &acted(at + MS), at, at + MS), Some((50, None)));
        assert_eq!(turns.wait(&acted(at + 40 * MS), at + TOGETHER), None, "no burst, however the hints come");
        assert!(!turns.gathers());
    }

    #[tokio::test(start_paused = true)]
    async fn in_a_burst_a_pool_waits_until_its_hints_are_all_there() {
        let at = start();
        let mut turns = after(AT_ONCE, at);
        assert_eq!(waits(&mut turns, &told(at), at, at), Some((50, Some(0))));
        assert!(turns.gathers());
        let pool = |told_at| Waiting { since: Some(at), ..told(told_at) };
        let later = |told: u32| pool(at + told * MS);
        assert_eq!(waits(&mut turns, &later(30), at, at + 60 * MS), Some((80, Some(0))), "another one has come");
        assert_eq!(turns.wait(&later(30), at + 80 * MS), None);
        assert_eq!(waits(&mut turns, &later(190), at, at + 190 * MS), Some((200, Some(0))), "they come and come");
        turns.begin_pass();
        assert_eq!(turns.wait(&later(200), at + 200 * MS), None);
        assert!(!turns.gathers());
    }

    #[tokio::test(start_paused = true)]
    async fn what_no_hint_asks_for_waits_for_nobody() {
        let at = start();
        let mut turns = after(AT_ONCE, at);
        assert_eq!(turns.wait(&Waiting { told_at: None, ..told(at) }, at), None);
        assert_eq!(turns.wait(&told(at), at + TOGETHER), None, "its hints are as they were");
    }

    #[tokio::test(start_paused = true)]
    async fn acts_that_are_spread_are_no_burst() {
        let at = start();
        let mut turns = Turns::default();
        for act in 0..100 {
            let at = at + 13 * MS * act;
            assert_eq!(turns.wait(&told(at), at), None);
            turns.begins(at);
        }
        assert_eq!(turns.begun.len(), AT_ONCE);
    }
}
