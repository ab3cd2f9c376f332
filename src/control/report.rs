//! When a status is written that no act follows. It tells a person of the pool, and records which pods are to go and what was raised; no job
//! waits for it.

use std::time::Duration;

use tokio::time::Instant;

use super::pace;

/// It is written at most this often: a burst moves the numbers twenty times a second, and nobody reads so fast.
const INTERVAL_MIN: Duration = Duration::from_secs(1);

/// It is not begun while the hints of the queue change: the job after this one may need an agent, and its act would wait for the
/// report. Events of one build come within some milliseconds of each other.
const HINTS_SETTLE: Duration = pace::INTERVAL;

/// However many hints come in, it does not rest for longer.
const REST_MAX: Duration = INTERVAL_MIN;

/// What there is to tell of a pool.
#[derive(Debug, Clone, Copy)]
pub(super) struct News {
    /// Another status than the one that stands.
    pub(super) has_changed: bool,
    /// A raise waits for it for too long.
    pub(super) is_overdue: bool,
    /// Before enough is known.
    pub(super) is_early: bool,
    /// When a status was last written.
    pub(super) written_at: Option<Instant>,
    /// When the queue's hints were last others than before.
    pub(super) hinted_at: Option<Instant>,
    /// Since when it rests.
    pub(super) rested_since: Option<Instant>,
}

/// Whether it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Report {
    /// It stands already.
    NoNews,
    /// Not yet.
    Later,
    /// Not while hints come in.
    Rests {
        /// Since when.
        since: Instant,
        /// Until then, if no other hint comes.
        until: Instant,
    },
    /// Now.
    Due,
}

impl Report {
    pub(super) fn of(news: &News, at: Instant) -> Self {
        let is_within = |time: Instant, limit: Duration| at.saturating_duration_since(time) < limit;
        let is_recent = news.written_at.is_some_and(|written| is_within(written, INTERVAL_MIN));
        let since = news.rested_since.unwrap_or(at);
        let rests_until = news.hinted_at.map(|hinted| (hinted + HINTS_SETTLE).min(since + REST_MAX));
        if !news.has_changed {
            Self::NoNews
        } else if news.is_overdue {
            Self::Due
        } else if news.is_early || is_recent {
            Self::Later
        } else if let Some(until) = rests_until.filter(|until| at < *until) {
            Self::Rests { since, until }
        } else {
            Self::Due
        }
    }

    pub(super) const fn rests_since(self) -> Option<Instant> {
        match self {
            Self::Rests { since, .. } => Some(since),
            Self::NoNews | Self::Later | Self::Due => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    const TICK: Duration = Duration::from_millis(10);

    fn start() -> Instant {
        Clock::fixed(jiff::Timestamp::UNIX_EPOCH).mono()
    }

    fn news(hinted_at: Option<Instant>) -> News {
        News { has_changed: true, is_overdue: false, is_early: false, written_at: None, hinted_at, rested_since: None }
    }

    #[tokio::test(start_paused = true)]
    async fn what_no_hint_moved_is_told_at_once_and_once_a_second() {
        let at = start();
        assert_eq!(Report::of(&news(None), at), Report::Due);
        let written = News { written_at: Some(at), ..news(None) };
        assert_eq!(Report::of(&written, at + INTERVAL_MIN - TICK), Report::Later);
        assert_eq!(Report::of(&written, at + INTERVAL_MIN), Report::Due);
        assert_eq!(Report::of(&News { has_changed: false, ..written }, at + INTERVAL_MIN), Report::NoNews);
        assert_eq!(Report::of(&News { is_early: true, ..written }, at + INTERVAL_MIN), Report::Later);
        let overdue = News { is_overdue: true, is_early: true, hinted_at: Some(at), ..written };
        assert_eq!(Report::of(&overdue, at), Report::Due, "a raise is recorded in any case");
        assert_eq!(Report::of(&News { has_changed: false, ..overdue }, at), Report::NoNews);
    }

    #[tokio::test(start_paused = true)]
    async fn a_report_lets_the_next_hint_go_first() {
        let at = start();
        assert_eq!(Report::of(&news(Some(at)), at), Report::Rests { since: at, until: at + HINTS_SETTLE });
        assert_eq!(Report::of(&news(Some(at)), at + HINTS_SETTLE), Report::Due);
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_hints_keeps_reports_back_for_a_second_each() {
        let start = start();
        let mut told = Vec::new();
        let (mut rested_since, mut written_at) = (None, None);
        for tick in 0..600 {
            let at = start + TICK * tick;
            let report = Report::of(&News { written_at, rested_since, ..news(Some(at)) }, at);
            rested_since = report.rests_since();
            if report == Report::Due {
                told.push(at - start);
                written_at = Some(at);
            }
        }
        assert_eq!(told, [1, 3, 5].map(Duration::from_secs));
    }
}
