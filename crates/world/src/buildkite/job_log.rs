//! What a job's command wrote, as far as it is kept.

use std::collections::BTreeMap;

/// So many bytes of a log are kept, its newest: more than any test writes before what it looks for.
const KEPT_MAX: usize = 1 << 20;

/// The log of a job. Its pieces come in any order, and some twice.
#[derive(Debug, Clone, Default)]
pub struct JobLog {
    chunks: BTreeMap<u64, Vec<u8>>,
    kept: usize,
    dropped: usize,
}

impl JobLog {
    pub(super) fn add(&mut self, sequence: u64, text: Vec<u8>) {
        self.kept += text.len();
        if let Some(before) = self.chunks.insert(sequence, text) {
            self.kept -= before.len();
        }
        while self.kept > KEPT_MAX {
            let Some((_, oldest)) = self.chunks.pop_first() else { return };
            self.kept -= oldest.len();
            self.dropped += oldest.len();
        }
    }

    /// The newest MiB of it, with what a terminal would make of neither letters nor lines left as it is.
    pub fn text(&self) -> String {
        let bytes: Vec<u8> = self.chunks.values().flatten().copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// How many bytes have come, those that were not kept with them.
    pub const fn size(&self) -> usize {
        self.kept + self.dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_put_together_by_the_numbers_of_its_pieces() {
        let mut log = JobLog::default();
        for (sequence, text) in [(2, "world\n"), (1, "hello, "), (2, "world\n")] {
            log.add(sequence, text.into());
        }
        assert_eq!((log.text().as_str(), log.size()), ("hello, world\n", 13));
    }

    #[test]
    fn of_a_long_log_the_newest_is_kept_and_all_is_counted() {
        let mut log = JobLog::default();
        for sequence in 0..30 {
            log.add(sequence, vec![b'a' + u8::try_from(sequence).unwrap(); 100_000]);
        }
        let text = log.text();
        assert_eq!((text.len(), log.size()), (1_000_000, 3_000_000));
        assert!(text.starts_with('u'), "{}", &text[..1]);
    }
}
