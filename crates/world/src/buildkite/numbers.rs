//! The numbers that the metrics API tells: counted now and then, and told later.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use jiff::Timestamp;

use super::{
    Buildkite,
    line::{LineId, counted},
    settings::NumbersAge,
    state::{Cluster, Queue, Token, UNCLUSTERED},
    time::{beat, later},
};

/// The finest refresh where there is a lag: nobody asks more often.
const FINEST: Duration = Duration::from_millis(100);
/// As many counts wait to be told: over an hour of lag at the finest refresh of a queue that never rests. With more, the oldest
/// goes and the numbers are less late than asked for.
const COUNTS_MAX: usize = 40_000;

/// Counts of all queues, each with the instant from which on it was the latest.
#[derive(Debug)]
pub(super) struct Numbers {
    start: Timestamp,
    age: NumbersAge,
    next: Timestamp,
    counts: VecDeque<(Timestamp, Vec<Queue>)>,
}

impl Numbers {
    pub(super) fn new(start: Timestamp, age: NumbersAge) -> Self {
        let mut numbers = Self { start, age, next: start, counts: VecDeque::from([(start, Vec::new())]) };
        numbers.next = later(start, numbers.refresh());
        numbers
    }

    /// With a longer lag the numbers that are told stay until it has gone by: they never go back.
    fn set_age(&mut self, age: NumbersAge, now: Timestamp, loads: Vec<Queue>) {
        if self.is_live() {
            self.counts = VecDeque::from([(now, loads)]);
        }
        self.age = age;
        self.next = later(beat(self.start, self.refresh(), now), self.refresh());
    }

    fn refresh(&self) -> Duration {
        self.age.refresh.max(FINEST)
    }

    fn is_live(&self) -> bool {
        self.age.refresh.is_zero() && self.age.lag.is_zero()
    }

    /// Nothing has changed before `now` since it was last called: counts if it was time to.
    pub(super) fn pass(&mut self, now: Timestamp, loads: impl FnOnce() -> Vec<Queue>) {
        if now < self.next || self.is_live() {
            return;
        }
        let loads = loads();
        if self.counts.back().is_none_or(|(_, last)| *last != loads) {
            self.counts.push_back((self.next, loads));
        }
        self.next = later(beat(self.start, self.refresh(), now), self.refresh());
        let told = |(at, _): &(Timestamp, Vec<Queue>)| later(*at, self.age.lag) <= now;
        while self.counts.get(1).is_some_and(told) || self.counts.len() > COUNTS_MAX {
            self.counts.pop_front();
        }
    }

    /// What is told at `now`; `None` for what is counted at this very instant.
    fn told(&self, now: Timestamp) -> Option<&[Queue]> {
        if self.is_live() {
            return None;
        }
        let told = self.counts.iter().rev().find(|(at, _)| later(*at, self.age.lag) <= now);
        told.or_else(|| self.counts.front()).map(|(_, loads)| loads.as_slice())
    }
}

/// What a token may see.
#[derive(Debug)]
pub(super) struct View {
    pub(super) token: Token,
    /// `None` for an unclustered token, and for a cluster that nobody has heard of.
    pub(super) cluster_name: Option<String>,
    /// Those in which there is something to count, and those that are set.
    pub(super) queues: BTreeMap<String, Queue>,
    pub(super) poll_duration: Option<u64>,
}

impl Buildkite {
    /// Makes the metrics API's numbers older or younger from now on.
    pub fn set_numbers_age(&mut self, age: NumbersAge, now: Timestamp) {
        self.advance(now);
        self.settings.numbers = age;
        self.numbers.set_age(age, self.now, self.lines.loads());
    }

    /// The load of each queue of a cluster as the metrics API tells it now.
    pub fn told(&self, cluster: &str) -> BTreeMap<String, Queue> {
        let mut queues = self.state.clusters.get(cluster).map(|cluster| cluster.queues.clone()).unwrap_or_default();
        let told = self.numbers.told(self.now);
        let load = |line: LineId| match told {
            Some(told) => counted(told, line),
            None => self.lines.get(line).map(|line| line.load).unwrap_or_default(),
        };
        for (name, line) in self.lines.of(cluster) {
            let queue = queues.entry(name.to_string()).or_default();
            *queue = queue.plus(load(line));
        }
        queues
    }

    /// What a token may see now; `None` for one that is not let in.
    pub(super) fn view(&self, token: &str) -> Option<View> {
        let token = self.state.tokens.get(token)?.clone();
        let key = token.cluster.as_deref().unwrap_or(UNCLUSTERED);
        let queues = self.told(key);
        let named = self.state.clusters.get(key).map(|Cluster { name, .. }| name.clone());
        let is_known = named.is_some() || !queues.is_empty();
        let cluster_name = token.cluster.clone().filter(|_| is_known).map(|key| named.unwrap_or(key));
        Some(View { token, cluster_name, queues, poll_duration: self.state.poll_duration })
    }
}
