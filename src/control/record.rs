//! The flight recorder: what each tick saw and decided, a line of JSON for each queue, in files that stay small.
//!
//! ```text
//!  tick ──line──► bounded channel ──► a thread of its own: JSON ──► FILE ──full──► FILE.1, FILE anew
//!          └─ full: counted, and told in the next line
//! ```
//!
//! A line is whole by itself, so `kitepool_policy::violations` can be asked about any stretch of them. It holds what the policy
//! sees: numbers, names of pools, queues and Deployments, ids and tags of jobs. The policy never sees a token.

use std::{
    ffi::OsString,
    fs::{File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use kitepool_policy::{decision::Decision, observation::QueueObservation};
use serde::{Deserialize, Serialize};
use tokio::{sync::mpsc, time::Instant};

use super::{metrics::Metrics, readings::QueueKey};
use crate::clock::Clock;

/// Lines that wait to be written: ten ticks of a hundred queues. A disk that is further behind than that will not catch up by
/// being given more memory.
const WAITING_MAX: usize = 1000;

/// The file is put aside when it would become larger, and the one put aside before is lost: twice this much is all it ever
/// takes. A line has 2 to 4 KiB, so ten queues at a tick a second fill one in half an hour.
pub const FILE_BYTES_MAX: u64 = 64 << 20;

/// A disk that is full stays so for a while, and each line would say it again.
const COMPLAIN_EVERY: Duration = Duration::from_secs(10);

/// One queue in one tick.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    /// When.
    pub now: Timestamp,
    /// Who decided.
    pub identity: String,
    /// When this term of leadership began: lines of one term follow from each other.
    pub term: Timestamp,
    /// Which queue, unique over all tokens.
    pub queue: String,
    /// Lines that were lost just before this one, of whatever queue.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lost: u64,
    /// What was seen.
    pub observation: QueueObservation,
    /// What was decided, whether or not it was carried out.
    pub decisions: Vec<Decision>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
const fn is_zero(lost: &u64) -> bool {
    *lost == 0
}

/// Takes lines from the ticks. Clones write to the same file; a recorder that is off takes nothing.
#[derive(Debug, Clone, Default)]
pub struct Recorder(Option<Recording>);

#[derive(Debug, Clone)]
struct Recording {
    lines: mpsc::Sender<Line>,
    identity: String,
    lost: Arc<AtomicU64>,
    metrics: Metrics,
}

/// The other end: what writes, on a thread that may block.
#[derive(Debug)]
pub struct Writing {
    lines: mpsc::Receiver<Line>,
    files: Files,
    clock: Clock,
    metrics: Metrics,
}

impl Recorder {
    /// Opens the file. Lines are written by [`Writing::until_the_end`].
    pub fn open(path: &Path, identity: &str, metrics: &Metrics, clock: &Clock) -> io::Result<(Self, Writing)> {
        let files = Files::open(path, FILE_BYTES_MAX)?;
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        let writing = Writing { lines: receiver, files, clock: clock.clone(), metrics: metrics.clone() };
        Ok((Self::to(sender, identity, metrics), writing))
    }

    /// Hands the lines to whoever asked for them.
    pub fn to(lines: mpsc::Sender<Line>, identity: &str, metrics: &Metrics) -> Self {
        Self(Some(Recording { lines, identity: identity.to_owned(), lost: Arc::default(), metrics: metrics.clone() }))
    }

    /// Takes down one queue of a tick. Never waits: what the disk has not kept up with is lost, and counted.
    pub fn take_down(
        &self,
        term: Timestamp,
        now: Timestamp,
        queue: &QueueKey,
        observation: &QueueObservation,
        decisions: &[Decision],
    ) {
        let Some(recording) = &self.0 else { return };
        let Ok(place) = recording.lines.try_reserve() else {
            recording.lost.fetch_add(1, Ordering::Relaxed);
            recording.metrics.record_lost();
            return;
        };
        place.send(Line {
            now,
            identity: recording.identity.clone(),
            term,
            queue: queue.to_string(),
            lost: recording.lost.swap(0, Ordering::Relaxed),
            observation: observation.clone(),
            decisions: decisions.to_vec(),
        });
    }
}

impl Writing {
    /// Writes until every recorder is gone and all that waited is written. Blocks its thread.
    pub fn until_the_end(mut self) {
        let mut complaints = Complaints { clock: self.clock, last: None, lost: 0 };
        // Whatever could not be written is told in the next line that can be.
        let mut unwritten = 0;
        while let Some(mut line) = self.lines.blocking_recv() {
            complaints.lost += line.lost;
            line.lost += unwritten;
            let written = serde_json::to_vec(&line).map_err(io::Error::from).and_then(|mut bytes| {
                bytes.push(b'\n');
                self.files.write(&bytes)
            });
            let failure = written.err();
            if failure.is_some() {
                unwritten = line.lost + 1;
                complaints.lost += 1;
                self.metrics.record_lost();
            } else {
                unwritten = 0;
            }
            complaints.say(failure.as_ref(), &self.files.path);
        }
    }
}

/// What the log is told of lost lines.
struct Complaints {
    clock: Clock,
    last: Option<Instant>,
    lost: u64,
}

impl Complaints {
    fn say(&mut self, failure: Option<&io::Error>, path: &Path) {
        let now = self.clock.mono();
        if self.lost == 0 || self.last.is_some_and(|last| now.saturating_duration_since(last) < COMPLAIN_EVERY) {
            return;
        }
        let why = failure.map_or_else(|| "they came faster than they were written".to_owned(), ToString::to_string);
        tracing::warn!(lost = self.lost, why, path = %path.display(), "lines of the record are lost");
        (self.last, self.lost) = (Some(now), 0);
    }
}

/// The file that is written, and its size.
#[derive(Debug)]
struct Files {
    path: PathBuf,
    bytes_max: u64,
    /// `None` after a failure: the next line opens it again.
    open: Option<(File, u64)>,
}

impl Files {
    fn open(path: &Path, bytes_max: u64) -> io::Result<Self> {
        let mut files = Self { path: path.to_owned(), bytes_max, open: None };
        files.open = Some(files.reopened()?);
        Ok(files)
    }

    /// Goes on where the file ends. One that was cut off in the middle of a line keeps that line to itself.
    fn reopened(&self) -> io::Result<(File, u64)> {
        // Names of pools and ids of jobs are not everybody's business.
        let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&self.path)?;
        let mut bytes = file.seek(SeekFrom::End(0))?;
        if bytes > 0 {
            let mut last = [0];
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
            if last != *b"\n" {
                file.write_all(b"\n")?;
                bytes += 1;
            }
        }
        Ok((file, bytes))
    }

    /// At once and unbuffered: the end of a killed process is what somebody will want to read.
    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        let (mut file, mut bytes) = match self.open.take() {
            Some(open) => open,
            None => self.reopened()?,
        };
        let length = u64::try_from(line.len()).unwrap_or(u64::MAX);
        if bytes > 0 && bytes.saturating_add(length) > self.bytes_max {
            let mut aside = OsString::from(&self.path);
            aside.push(".1");
            std::fs::rename(&self.path, aside)?;
            (file, bytes) = self.reopened()?;
        }
        file.write_all(line)?;
        self.open = Some((file, bytes.saturating_add(length)));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use kitepool_policy::{
        observation::{Reading, Trouble},
        units::Agents,
        unsatisfiable::Watch,
    };

    use super::*;
    use crate::sense::poll::TokenKey;

    fn observation(queue: &str) -> QueueObservation {
        let reading = Reading { last_good: None, trouble: Some(Trouble::NotRead) };
        let (hints, pools) = (kitepool_policy::hints::Hints::default(), Vec::new());
        QueueObservation {
            queue: queue.to_owned(),
            reading,
            hints,
            standing: Agents::ZERO,
            pools,
            watch: Watch::default(),
        }
    }

    fn key() -> QueueKey {
        QueueKey::Unknown(TokenKey::File("/mnt/token".to_owned()), "linux".to_owned())
    }

    fn opened(path: &Path) -> (Recorder, Writing) {
        Recorder::open(path, "a", &Metrics::new(&[]).0, &Clock::fixed(Timestamp::UNIX_EPOCH)).unwrap()
    }

    fn take_down(recorder: &Recorder, seconds: std::ops::Range<i64>) {
        for second in seconds {
            let now = Timestamp::from_second(second).unwrap();
            recorder.take_down(Timestamp::UNIX_EPOCH, now, &key(), &observation("linux"), &[]);
        }
    }

    fn lines(path: &Path) -> Vec<Line> {
        let text = std::fs::read_to_string(path).unwrap();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    #[tokio::test]
    async fn what_was_taken_down_is_read_back_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("record");
        let (recorder, writing) = opened(&path);
        take_down(&recorder, 0..3);
        drop(recorder);
        tokio::task::spawn_blocking(|| writing.until_the_end()).await.unwrap();
        let lines = lines(&path);
        assert_eq!(lines.iter().map(|line| line.now.as_second()).collect::<Vec<_>>(), [0, 1, 2]);
        assert!(lines.iter().all(|line| line.observation == observation("linux") && line.lost == 0));
        assert_eq!(lines[0].queue, "linux, by file /mnt/token");
    }

    #[tokio::test]
    async fn a_disk_that_does_not_keep_up_costs_lines_and_the_next_one_says_how_many() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("record");
        let (recorder, writing) = opened(&path);
        let room = i64::try_from(WAITING_MAX).unwrap();
        take_down(&recorder, 0..room + 7);
        let writing = tokio::task::spawn_blocking(|| writing.until_the_end());
        while recorder.0.as_ref().unwrap().lines.capacity() == 0 {
            tokio::task::yield_now().await;
        }
        take_down(&recorder, room + 7..room + 8);
        drop(recorder);
        writing.await.unwrap();
        let lines = lines(&path);
        assert_eq!(lines.len(), WAITING_MAX + 1);
        assert_eq!(lines.last().map(|line| line.lost), Some(7));
        assert_eq!(lines.iter().map(|line| line.lost).sum::<u64>(), 7);
    }

    #[test]
    fn a_full_file_is_put_aside_and_the_one_before_it_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("record");
        let mut files = Files::open(&path, 10).unwrap();
        for line in ["one\n", "two\n", "three\n", "four\n", "five\n", "a line that is longer than a file may be\n"] {
            files.write(line.as_bytes()).unwrap();
        }
        assert_eq!(std::fs::read_to_string(folder.path().join("record.1")).unwrap(), "four\nfive\n");
        assert!(std::fs::read_to_string(&path).unwrap().starts_with("a line"));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_file_that_ends_in_half_a_line_goes_on_with_a_new_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("record");
        std::fs::write(&path, "whole\nha").unwrap();
        Files::open(&path, FILE_BYTES_MAX).unwrap().write(b"next\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "whole\nha\nnext\n");
    }

    #[test]
    fn a_file_that_was_in_the_way_is_tried_again_at_the_next_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("record");
        let mut files = Files::open(&path, 10).unwrap();
        files.write(b"12345678\n").unwrap();
        let aside = folder.path().join("record.1");
        std::fs::create_dir(&aside).unwrap();
        assert!(files.write(b"lost\n").is_err(), "nothing can be put where a folder is");
        std::fs::remove_dir(&aside).unwrap();
        files.write(b"next\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "next\n");
    }
}
