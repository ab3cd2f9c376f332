//! What the controllers of a case have recorded of their ticks, put to the same question as every simulated history: which
//! invariants were broken?

use std::{collections::BTreeMap, fmt, path::Path};

use jiff::Timestamp;
use kitepool::control::record::Line;
use kitepool_policy::violations::{History, Tick};

/// The end of a record's file name; what stands before it names the replica and how often it had been started.
const SUFFIX: &str = "record";

/// Far more often than any case starts one.
const STARTS_MAX: u32 = 1000;

/// What follows from each other: the ticks of one queue in one term of leadership.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Thread {
    term: Timestamp,
    identity: String,
    queue: String,
    /// Counts up where lines are missing: what follows them is looked at by itself.
    part: usize,
}

/// All records of a case, the terms in the order of time.
#[derive(Debug, Default)]
pub(crate) struct Records {
    threads: BTreeMap<Thread, Vec<Tick>>,
    lost: u64,
}

/// Where a controller records that logs there: a file for each start, so that whatever a kill cut off is the last line.
pub(crate) fn free_path(log: &Path) -> std::path::PathBuf {
    let mut paths = (1..=STARTS_MAX).map(|start| log.with_extension(format!("{start}.{SUFFIX}")));
    paths.find(|path| !path.exists()).expect("no case starts a controller so often")
}

/// Reads all records in a folder.
pub(crate) fn read(folder: &Path) -> Records {
    let mut records = Records::default();
    for entry in std::fs::read_dir(folder).expect("the folder").map(|entry| entry.expect("an entry")) {
        // A record that was full was put aside, and a case that is so long would have lost its beginning.
        assert!(entry.path().extension().is_none_or(|end| end != "1"), "{}: a full record", entry.path().display());
        if entry.path().extension().is_some_and(|end| end == SUFFIX) {
            let text = std::fs::read(entry.path()).expect("a record");
            records.take_in(whole_lines(&text).iter().map(|line| {
                serde_json::from_slice(line).unwrap_or_else(|error| panic!("{}: {error}", entry.path().display()))
            }));
        }
    }
    records
}

/// A controller that is killed in the middle of a write leaves a last line without its end. Nothing else may be cut.
fn whole_lines(text: &[u8]) -> Vec<&[u8]> {
    let mut lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').collect();
    lines.pop();
    lines
}

impl Records {
    /// Takes in the lines of one file.
    fn take_in(&mut self, lines: impl Iterator<Item = Line>) {
        let mut part = 0;
        for line in lines {
            part += usize::from(line.lost > 0);
            self.lost += line.lost;
            let thread = Thread { term: line.term, identity: line.identity, queue: line.queue, part };
            let ticks = self.threads.entry(thread).or_default();
            let as_before = || {
                let before = ticks.last().expect("a line that repeats another comes after it");
                (before.queue.clone(), before.decisions.clone())
            };
            let (queue, decisions) = line.seen.map_or_else(as_before, |seen| (seen.observation, seen.decisions));
            // The simulated Buildkite is told what to say, and nobody tells when that becomes true.
            ticks.push(Tick { now: line.now, queue, decisions, truth: None });
        }
    }

    /// Every tick, term by term.
    pub(crate) fn ticks_mut(&mut self) -> impl Iterator<Item = &mut Tick> {
        self.threads.values_mut().flatten()
    }

    /// What was violated, each with the term that it happened in.
    pub(crate) fn violations(&self) -> Vec<String> {
        let in_thread = |(thread, ticks): (&Thread, &Vec<Tick>)| {
            let Thread { term, identity, queue, .. } = thread;
            let about = format!("queue {queue}, led by {identity} since {term}");
            let found = kitepool_policy::violations(&History { ticks: ticks.clone() });
            found.into_iter().map(move |violation| format!("{violation} ({about})")).collect::<Vec<_>>()
        };
        self.threads.iter().flat_map(in_thread).collect()
    }
}

impl fmt::Display for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ticks: usize = self.threads.values().map(Vec::len).sum();
        write!(f, "recorded: {ticks} decisions about queues, {} lost, in {} histories", self.lost, self.threads.len())
    }
}

#[cfg(test)]
mod tests {
    use super::whole_lines;

    #[test]
    fn only_a_last_line_without_its_end_is_left_out() {
        assert_eq!(whole_lines(b""), [b""; 0]);
        assert_eq!(whole_lines(b"one\ntwo\n"), [b"one", b"two"]);
        assert_eq!(whole_lines(b"one\nha"), [b"one"]);
        assert_eq!(whole_lines(b"ha\nwhole\n"), [&b"ha"[..], b"whole"], "one in the middle is read, and found out");
    }
}
