//! Who is to be asked when, and what each said.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use tokio::time::Instant;

use crate::{
    agents::{Address, Said, Silence},
    cluster::view::PodView,
};

/// How soon a pod is asked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pace {
    /// Pods of its pool are to go: what it says decides.
    Near,
    /// As often as it asks Buildkite itself: what it does changes no faster, most of the time.
    Usual,
    /// Nothing can follow from what it says, but that a guard is put up or taken away.
    Seldom,
}

impl Pace {
    const fn interval(self) -> Duration {
        match self {
            Self::Near => Duration::from_secs(2),
            Self::Usual => Duration::from_secs(10),
            Self::Seldom => Duration::from_secs(30),
        }
    }
}

/// An attempt that may have failed by chance is made again so soon.
const AGAIN: Duration = Duration::from_secs(1);

/// So many attempts that fail in a row, each of which may have by chance, are none.
const CHANCES: u32 = 2;

/// An answer that is older is none: two of the longest intervals. It comes to that when the budget is too small for all pods.
const FRESH: Duration = Duration::from_mins(1);

/// A pod to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Target {
    /// Where.
    address: Address,
    /// How often.
    pace: Pace,
    /// Whether Kubernetes calls it ready. When that changes, it is asked at once.
    is_ready: bool,
}

/// What is known of a pod's agents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// They were not asked yet, or too long ago.
    NotYet,
    /// They said this.
    Said(Said),
    /// They did not answer.
    Silent(Silence),
}

/// The same, dated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// What.
    pub heard: Heard,
    /// Since when it has been so, whatever the reason of a silence.
    pub since: Timestamp,
    /// When it was heard last.
    pub at: Timestamp,
}

#[derive(Debug)]
struct Entry {
    target: Target,
    /// The pod as it was when the target was made: an object that is the same has the same address.
    pod: Arc<PodView>,
    /// The last round in which it was wanted.
    wanted_in: u64,
    next_at: Instant,
    is_asked: bool,
    failures: u32,
    look: Option<Look>,
    /// When it was asked last, or was made.
    asked_at: Option<Instant>,
}

/// All pods that are asked.
#[derive(Debug, Default)]
pub(super) struct Book {
    entries: HashMap<String, Entry>,
    /// Those that are not being asked, by their time.
    due: BTreeSet<(Instant, String)>,
    /// The running round of wishes.
    round: u64,
}

impl Book {
    /// A pod is to be asked, at this pace; `address` says where, should that not be known. Answers whether somebody is due sooner
    /// than before.
    pub(super) fn want(
        &mut self,
        pod: &Arc<PodView>,
        pace: Pace,
        now: Instant,
        address: impl FnOnce() -> Option<Address>,
    ) -> bool {
        let Self { entries, due, round } = self;
        let Some(entry) = entries.get_mut(&pod.uid) else {
            let Some(address) = address() else { return false };
            let entry = Entry {
                target: Target { address, pace, is_ready: pod.is_ready },
                pod: Arc::clone(pod),
                wanted_in: *round,
                next_at: now,
                is_asked: false,
                failures: 0,
                look: None,
                asked_at: None,
            };
            due.insert((now, pod.uid.clone()));
            entries.insert(pod.uid.clone(), entry);
            return true;
        };
        let is_same = Arc::ptr_eq(&entry.pod, pod);
        if is_same && entry.target.pace == pace {
            entry.wanted_in = *round;
            return false;
        }
        // One that has none any more is not wanted.
        let Some(address) = address() else { return false };
        entry.wanted_in = *round;
        entry.pod = Arc::clone(pod);
        let target = Target { address, pace, is_ready: pod.is_ready };
        if entry.target == target {
            return false;
        }
        let is_news = entry.target.is_ready != target.is_ready || entry.target.address != target.address;
        let paced = entry.asked_at.map_or(now, |asked_at| asked_at + target.pace.interval());
        let next_at = entry.next_at.min(if is_news { now } else { paced });
        entry.target = target;
        let is_sooner = next_at < entry.next_at && !entry.is_asked;
        if is_sooner {
            due.remove(&(entry.next_at, pod.uid.clone()));
            due.insert((next_at, pod.uid.clone()));
        }
        entry.next_at = next_at;
        is_sooner
    }

    /// All that are wanted have been said: the others are not asked any more.
    pub(super) fn end_round(&mut self) {
        let Self { entries, due, round } = self;
        entries.retain(|uid, entry| {
            let stays = entry.wanted_in == *round;
            if !stays && !entry.is_asked {
                due.remove(&(entry.next_at, uid.clone()));
            }
            stays
        });
        *round = round.wrapping_add(1);
    }

    /// The next one whose time has come; it counts as being asked from now on.
    pub(super) fn due(&mut self, now: Instant) -> Option<(String, Address)> {
        // Of those that are late, the nearest first; there are more than a few only where the budget is too small.
        let late = self.due.iter().take_while(|(at, _)| *at <= now);
        let pace = |uid: &str| self.entries.get(uid).map(|entry| entry.target.pace);
        let first = late.min_by_key(|(at, uid)| (pace(uid), *at)).cloned()?;
        self.due.remove(&first);
        let entry = self.entries.get_mut(&first.1)?;
        (entry.is_asked, entry.asked_at) = (true, Some(now));
        Some((first.1, entry.target.address.clone()))
    }

    pub(super) fn next_at(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Takes an answer in. Answers whether it is news. That the same was said again is not: who waits for it looks every second.
    pub(super) fn take_in(&mut self, uid: &str, answer: Result<Said, Silence>, now: Instant, wall: Timestamp) -> bool {
        let Some(entry) = self.entries.get_mut(uid).filter(|entry| entry.is_asked) else { return false };
        let interval = entry.target.pace.interval();
        let (heard, wait) = match answer {
            Ok(said) => {
                entry.failures = 0;
                (Some(Heard::Said(said)), interval)
            }
            Err(silence) => {
                entry.failures = entry.failures.saturating_add(1);
                let is_chance = !silence.is_definite() && entry.failures < CHANCES;
                // One that has just become ready may need a moment to listen.
                let wait = if entry.failures < CHANCES { AGAIN } else { interval };
                (Some(Heard::Silent(silence)).filter(|_| !is_chance), wait)
            }
        };
        let is_news = heard.is_some_and(|heard| entry.hear(heard, wall));
        let asked_at = entry.asked_at.unwrap_or(now);
        entry.is_asked = false;
        entry.next_at = (asked_at + wait).max(now + AGAIN.min(wait) / 2);
        self.due.insert((entry.next_at, uid.to_owned()));
        is_news
    }

    /// Takes in what a pod said besides its turns. Its turns stay as they are, and a silence tells nothing new.
    pub(super) fn overhear(&mut self, uid: &str, said: Said, wall: Timestamp) -> bool {
        self.entries.get_mut(uid).is_some_and(|entry| entry.hear(Heard::Said(said), wall))
    }

    pub(super) fn look(&self, uid: &str, now: Instant) -> Option<Look> {
        let entry = self.entries.get(uid)?;
        let look = entry.look?;
        let is_old = entry.asked_at.is_none_or(|asked_at| now.saturating_duration_since(asked_at) > FRESH);
        Some(if is_old { Look { heard: Heard::NotYet, ..look } } else { look })
    }
}

impl Entry {
    /// Answers whether it is another word than before.
    fn hear(&mut self, heard: Heard, wall: Timestamp) -> bool {
        let before = self.look;
        let goes_on = |look: &Look| match (look.heard, heard) {
            (Heard::Silent(_), Heard::Silent(_)) => true,
            (before, now) => before == now,
        };
        let since = before.filter(goes_on).map_or(wall, |look| look.since);
        self.look = Some(Look { heard, since, at: wall });
        before.map(|look| look.heard) != Some(heard)
    }
}
