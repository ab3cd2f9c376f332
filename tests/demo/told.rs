//! The demonstration's story, told in virtual time, and what a person would have seen of it.

use std::time::Duration;

use kitepool::simulate::{
    demo,
    news::{Frame, News, Row, WAITING_MAX},
    stage::{Outcome, Stage, never_killed},
};
use tokio::sync::mpsc;

/// All of it.
pub(crate) struct Told {
    pub(crate) outcome: Outcome,
    frames: Vec<Frame>,
    lines: Vec<String>,
}

/// Tells it.
pub(crate) fn told(seed: u64) -> Told {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let (sender, mut news) = mpsc::channel(WAITING_MAX);
    let story = demo::own_story(seed).unwrap();
    let outcome = runtime.block_on(async { Stage::new(story, never_killed()).watched_by(sender).play().await });
    let (mut frames, mut lines) = (Vec::new(), Vec::new());
    while let Ok(piece) = news.try_recv() {
        match piece {
            News::Frame(frame) => frames.push(frame),
            News::Line(line) => lines.push(line),
        }
    }
    Told { outcome, frames, lines }
}

pub(crate) fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

impl Told {
    /// A pool, frame by frame.
    pub(crate) fn rows(&self, pool: &str) -> impl Iterator<Item = (Duration, &Row)> {
        self.frames
            .iter()
            .filter_map(move |frame| frame.rows.iter().find(|row| row.pool == pool).map(|row| (frame.since, row)))
    }

    pub(crate) fn all(&self, pool: &str, is_so: impl Fn(&Row) -> bool) -> bool {
        assert!(self.rows(pool).count() > 100, "the pool was never seen");
        self.rows(pool).all(|(_, row)| is_so(row))
    }

    /// When it is so for the first time, from an instant on.
    pub(crate) fn first(&self, pool: &str, from: Duration, is_so: impl Fn(&Row) -> bool) -> Option<Duration> {
        self.rows(pool).find(|(at, row)| *at >= from && is_so(row)).map(|(at, _)| at)
    }

    /// Lines carry their instant in front: `00:01:02.3`.
    pub(crate) fn lines_between(&self, from: Duration, to: Duration) -> impl Iterator<Item = &str> {
        self.lines.iter().map(String::as_str).filter(move |line| {
            let at = seconds(line[3..5].parse::<f64>().unwrap() * 60.0 + line[6..10].parse::<f64>().unwrap());
            (from..to).contains(&at)
        })
    }
}
