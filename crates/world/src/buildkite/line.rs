//! A queue: the jobs that are ready in their order, the idle agents in theirs, and who fits whom.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{agent::AgentId, job::JobId};
use crate::Queue;

/// A queue of this world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LineId(usize);

/// By priority, then by age.
pub(super) type Place = (Reverse<i64>, JobId);

/// Which idle agent is asked first: one that did not leave a job lying, then the one that most recently finished one well, then
/// the one that has been there longest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Warmth {
    /// Whether it did not accept the job it was last given.
    pub(super) lapsed: bool,
    /// Counts the jobs of this world that finished well; 0 for none.
    pub(super) finished: Reverse<u64>,
    pub(super) agent: AgentId,
}

/// Jobs are kept by what they want, and agents by what they offer, so that finding a pair looks at kinds and not at each one.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) cluster: Arc<str>,
    pub(super) name: Arc<str>,
    /// Whether its dispatch is paused.
    pub(super) paused: bool,
    /// What Buildkite counts here at this instant.
    pub(super) load: Queue,
    ready: BTreeMap<Arc<[String]>, BTreeSet<Place>>,
    idle: BTreeMap<Arc<[String]>, BTreeSet<Warmth>>,
}

impl Line {
    pub(super) fn add_job(&mut self, wants: &Arc<[String]>, place: Place) {
        self.ready.entry(Arc::clone(wants)).or_default().insert(place);
    }

    pub(super) fn remove_job(&mut self, wants: &Arc<[String]>, place: Place) {
        remove(&mut self.ready, wants, &place);
    }

    pub(super) fn add_agent(&mut self, tags: &Arc<[String]>, warmth: Warmth) {
        self.idle.entry(Arc::clone(tags)).or_default().insert(warmth);
    }

    pub(super) fn remove_agent(&mut self, tags: &Arc<[String]>, warmth: Warmth) {
        remove(&mut self.idle, tags, &warmth);
    }

    /// The first job that an idle agent may run, and the agent to give it to. Nothing is taken out.
    pub(super) fn pair(&self) -> Option<(JobId, AgentId)> {
        if self.paused || self.ready.is_empty() || self.idle.is_empty() {
            return None;
        }
        let kinds = self.ready.iter().filter_map(|(wants, jobs)| Some((*jobs.first()?, self.warmest(wants)?)));
        kinds.min().map(|((_, job), warmth)| (job, warmth.agent))
    }

    fn warmest(&self, wants: &[String]) -> Option<Warmth> {
        let kinds = self.idle.iter().filter(|(tags, _)| satisfies(tags, wants));
        kinds.filter_map(|(_, agents)| agents.first()).min().copied()
    }
}

fn remove<T: Ord>(kinds: &mut BTreeMap<Arc<[String]>, BTreeSet<T>>, kind: &Arc<[String]>, one: &T) {
    if let Some(all) = kinds.get_mut(kind) {
        all.remove(one);
        // A kind without any would be looked at for ever.
        if all.is_empty() {
            kinds.remove(kind);
        }
    }
}

/// Whether every rule holds: the tag itself, or with a `*` at its end any tag that begins like it.
fn satisfies(tags: &[String], wants: &[String]) -> bool {
    wants.iter().all(|rule| match rule.strip_suffix('*') {
        None => tags.contains(rule),
        Some(beginning) => beginning.is_empty() || tags.iter().any(|tag| tag.starts_with(beginning)),
    })
}

/// What a job's rules ask beyond its queue, or what an agent offers beyond its own; in one order, so that equal ones meet.
pub(super) fn beyond_queue(words: &[String]) -> Arc<[String]> {
    let other: BTreeSet<&String> = words.iter().filter(|word| !word.starts_with("queue=")).collect();
    other.into_iter().cloned().collect()
}

/// All queues.
#[derive(Debug, Default)]
pub(super) struct Lines {
    all: Vec<Line>,
    by_name: BTreeMap<Arc<str>, BTreeMap<Arc<str>, LineId>>,
}

impl Lines {
    /// The queue of this name; it comes to be if it is not there.
    pub(super) fn named(&mut self, cluster: &str, name: &str) -> LineId {
        if let Some(id) = self.find(cluster, name) {
            return id;
        }
        let id = LineId(self.all.len());
        let (cluster, name) = (Arc::<str>::from(cluster), Arc::<str>::from(name));
        self.by_name.entry(Arc::clone(&cluster)).or_default().insert(Arc::clone(&name), id);
        let (ready, idle) = (BTreeMap::new(), BTreeMap::new());
        self.all.push(Line { cluster, name, paused: false, load: Queue::default(), ready, idle });
        id
    }

    pub(super) fn find(&self, cluster: &str, name: &str) -> Option<LineId> {
        self.by_name.get(cluster)?.get(name).copied()
    }

    pub(super) fn get(&self, id: LineId) -> Option<&Line> {
        self.all.get(id.0)
    }

    pub(super) fn get_mut(&mut self, id: LineId) -> Option<&mut Line> {
        self.all.get_mut(id.0)
    }

    /// The queues of a cluster by name.
    pub(super) fn of(&self, cluster: &str) -> impl Iterator<Item = (&Arc<str>, LineId)> {
        self.by_name.get(cluster).into_iter().flatten().map(|(name, id)| (name, *id))
    }

    /// What is counted now, to be asked for with [`counted`].
    pub(super) fn loads(&self) -> Vec<Queue> {
        self.all.iter().map(|line| line.load).collect()
    }
}

/// One queue's load among those of [`Lines::loads`]; nothing for a queue that came later.
pub(super) fn counted(loads: &[Queue], line: LineId) -> Queue {
    loads.get(line.0).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_holds_by_the_tag_itself_or_by_its_beginning() {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        for (tags, rules, expected) in [
            ("", "", true),
            ("os=linux", "", true),
            ("os=linux", "os=linux", true),
            ("os=linux", "os=linux gpu=true", false),
            ("gpu=true os=linux", "os=linux gpu=true", true),
            ("os=linux", "os=*", true),
            ("osx=linux", "os=*", false),
            ("os=linux", "os=lin*", true),
            ("", "*", true),
            ("os=linux2", "os=linux", false),
        ] {
            assert_eq!(satisfies(&words(tags), &words(rules)), expected, "{tags:?} {rules:?}");
        }
        assert_eq!(*beyond_queue(&words("queue=q os=linux gpu=true os=linux")), words("gpu=true os=linux"));
    }
}
