//! The flight recorder: what each tick saw and decided, a line of JSON for each queue, in files that stay small.
//!
//! ```text
//!  tick ──line──► bounded channel ──► a thread of its own: JSON ──► FILE ──full──► FILE.1, FILE anew
//!          └─ full: counted, and told in the next line
//! ```
//!
//! Every tick has its line for each queue that it served, so `kitepool_policy::violations` can be asked about any stretch of them. A tick that saw and decided
//! what the one before did says only that, since a busy controller ticks twenty times a second or more and most queues are at rest. A
//! line holds what the policy sees: numbers, names of pools, queues and Deployments, ids and tags of jobs. The policy never
//! sees a token.

use std::{
    collections::BTreeMap,
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
/// takes. A line with something new has 2 to 4 KiB and a quarter of one for each pod, one without 200 bytes: ten queues at rest
/// fill one in nine hours, and the wildest minute of twenty of them takes a third.
pub const FILE_BYTES_MAX: u64 = 64 << 20;

/// A disk that is full stays so for a while, and each line would say it again.
const COMPLAIN_EVERY: Duration = Duration::from_secs(10);

/// One queue in one tick.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
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
    /// What was seen and decided; `None`: the same as in the line before of this queue, in this file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<Seen>,
}

/// What a tick saw and decided of one queue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Seen {
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
    /// What the file says of each queue. As much as one file holds, since it begins anew with each.
    last: BTreeMap<String, Seen>,
}

impl Recorder {
    /// Opens the file. Lines are written by [`Writing::until_the_end`].
    pub fn open(path: &Path, identity: &str, metrics: &Metrics, clock: &Clock) -> io::Result<(Self, Writing)> {
        Ok(Self::into_files(Files::open(path, FILE_BYTES_MAX)?, identity, metrics, clock))
    }

    fn into_files(files: Files, identity: &str, metrics: &Metrics, clock: &Clock) -> (Self, Writing) {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        let recorder = Self::to(sender, identity, metrics);
        let (clock, metrics) = (clock.clone(), metrics.clone());
        let writing = Writing { lines: receiver, files, clock, metrics, last: BTreeMap::new() };
        (recorder, writing)
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
            seen: Some(Seen { observation: observation.clone(), decisions: decisions.to_vec() }),
        });
    }
}

impl Writing {
    /// Writes until every recorder is gone and all that waited is written. Blocks its thread.
    pub fn until_the_end(mut self) {
        let mut complaints = Complaints { clock: self.clock.clone(), last: None, lost: 0 };
        // Whatever could not be written is told in the next line that can be.
        let mut unwritten = 0;
        let mut term = None;
        while let Some(mut line) = self.lines.blocking_recv() {
            complaints.lost += line.lost;
            line.lost += unwritten;
            if line.lost > 0 || term.replace(line.term) != Some(line.term) {
                self.last.clear();
            }
            let failure = self.write(&line).err();
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

    fn write(&mut self, line: &Line) -> io::Result<()> {
        let is_new = self.last.get(&line.queue) != line.seen.as_ref();
        let short = Line { seen: None, identity: line.identity.clone(), queue: line.queue.clone(), ..*line };
        let mut bytes = as_json(if is_new { line } else { &short })?;
        if self.files.is_full_with(&bytes) {
            self.files.put_aside()?;
            // A file can be read without the one before.
            self.last.clear();
            bytes = as_json(line)?;
        }
        self.files.write(&bytes)?;
        if let Some(seen) = &line.seen
            && self.last.get(&line.queue) != Some(seen)
        {
            self.last.insert(line.queue.clone(), seen.clone());
        }
        Ok(())
    }
}

fn as_json(line: &Line) -> io::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(line)?;
    bytes.push(b'\n');
    Ok(bytes)
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

    /// Whether the line would make the file too large. An empty one takes any.
    fn is_full_with(&self, line: &[u8]) -> bool {
        self.open.as_ref().is_some_and(|(_, bytes)| *bytes > 0 && bytes.saturating_add(length(line)) > self.bytes_max)
    }

    /// Begins the file anew and keeps the full one beside it, in place of the one before.
    fn put_aside(&mut self) -> io::Result<()> {
        let mut aside = OsString::from(&self.path);
        aside.push(".1");
        std::fs::rename(&self.path, aside)?;
        self.open = None;
        self.open = Some(self.reopened()?);
        Ok(())
    }

    /// At once and unbuffered: the end of a killed process is what somebody will want to read.
    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        let (mut file, bytes) = match self.open.take() {
            Some(open) => open,
            None => self.reopened()?,
        };
        file.write_all(line)?;
        self.open = Some((file, bytes.saturating_add(length(line))));
        Ok(())
    }
}

fn length(line: &[u8]) -> u64 {
    u64::try_from(line.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use kitepool_policy::{
        hints::Hints,
        observation::{Reading, Trouble},
        units::Agents,
        unsatisfiable::Watch,
    };

    use super::*;
    use crate::sense::poll::TokenKey;

    fn observation(number: i64) -> QueueObservation {
        let reading = Reading { last_good: None, trouble: Some(Trouble::NotRead) };
        let (hints, pools, watch) = (Hints::default(), Vec::new(), Watch::default());
        QueueObservation { queue: number.to_string(), reading, hints, standing: Agents::ZERO, pools, watch }
    }

    fn key() -> QueueKey {
        QueueKey::Unknown("linux".to_owned(), TokenKey::File("/mnt/token".to_owned()))
    }

    fn opened(path: &Path, bytes_max: u64) -> (Recorder, Writing) {
        let files = Files::open(path, bytes_max).unwrap();
        Recorder::into_files(files, "a", &Metrics::new(&[]).0, &Clock::fixed(Timestamp::UNIX_EPOCH))
    }

    /// A tick each second that sees something new every `every` seconds.
    fn take_down(recorder: &Recorder, seconds: std::ops::Range<i64>, every: i64) {
        for second in seconds {
            let now = Timestamp::from_second(second).unwrap();
            recorder.take_down(Timestamp::UNIX_EPOCH, now, &key(), &observation(second / every), &[]);
        }
    }

    async fn written(writing: Writing) {
        tokio::task::spawn_blocking(|| writing.until_the_end()).await.unwrap();
    }

    fn lines(path: &Path) -> Vec<Line> {
        let text = std::fs::read_to_string(path).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[tokio::test]
    async fn every_tick_has_its_line_and_what_it_saw_where_that_is_new() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("record");
        let (recorder, writing) = opened(&path, FILE_BYTES_MAX);
        take_down(&recorder, 0..4, 2);
        drop(recorder);
        written(writing).await;
        let lines = lines(&path);
        assert_eq!(lines.iter().map(|line| line.now.as_second()).collect::<Vec<_>>(), [0, 1, 2, 3]);
        let seen = |number| Some(Seen { observation: observation(number), decisions: Vec::new() });
        assert_eq!(lines.iter().map(|line| line.seen.clone()).collect::<Vec<_>>(), [seen(0), None, seen(1), None]);
        assert_eq!(lines[0].queue, "linux, by file /mnt/token");
    }

    #[tokio::test]
    async fn a_disk_that_does_not_keep_up_costs_lines_and_the_next_one_says_how_many() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("record");
        let (recorder, writing) = opened(&path, FILE_BYTES_MAX);
        let room = i64::try_from(WAITING_MAX).unwrap();
        take_down(&recorder, 0..room + 7, room * 2);
        let writing = tokio::spawn(written(writing));
        while recorder.0.as_ref().unwrap().lines.capacity() == 0 {
            tokio::task::yield_now().await;
        }
        take_down(&recorder, room + 7..room + 8, room * 2);
        drop(recorder);
        writing.await.unwrap();
        let lines = lines(&path);
        assert_eq!(lines.len(), WAITING_MAX + 1);
        assert_eq!(lines.iter().map(|line| line.lost).sum::<u64>(), 7);
        let last = lines.last().unwrap();
        assert!(last.lost == 7 && last.seen.is_some(), "after a gap a line is whole: {last:?}");
    }

    #[tokio::test]
    async fn a_full_file_is_put_aside_and_the_next_one_can_be_read_without_it() {
        let folder = tempfile::tempdir().unwrap();
        let (path, aside) = (folder.path().join("record"), folder.path().join("record.1"));
        let (recorder, writing) = opened(&path, 2_000);
        take_down(&recorder, 0..60, 1_000);
        drop(recorder);
        written(writing).await;
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
        let (new, old) = (lines(&path), lines(&aside));
        assert!(new[0].seen.is_some() && old[0].seen.is_some() && new[1].seen.is_none());
        assert!(std::fs::metadata(&aside).unwrap().len() <= 2_000);
        let seconds = old.iter().chain(&new).map(|line| line.now.as_second()).collect::<Vec<_>>();
        assert!(seconds[0] > 0, "the first of three is gone");
        assert_eq!(seconds, (seconds[0]..60).collect::<Vec<_>>());
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
    fn a_full_file_that_cannot_be_put_aside_is_tried_again_at_the_next_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("record");
        let (recorder, mut writing) = opened(&path, 1);
        take_down(&recorder, 0..3, 1);
        let mut next = || {
            let line = writing.lines.try_recv().unwrap();
            writing.write(&line)
        };
        next().unwrap();
        let aside = folder.path().join("record.1");
        std::fs::create_dir(&aside).unwrap();
        assert!(next().is_err(), "nothing can be put where a folder is");
        std::fs::remove_dir(&aside).unwrap();
        next().unwrap();
        assert_eq!(lines(&path)[0].now.as_second(), 2);
    }
}
