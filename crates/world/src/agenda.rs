//! What is going to happen, in the order in which it will: by its instant, then by when it was entered.

use std::collections::BTreeMap;

use jiff::Timestamp;

/// Events to come. Two of the same instant come in the order in which they were entered, so a world goes the same way twice.
#[derive(Debug, Clone)]
pub struct Agenda<E> {
    entries: BTreeMap<(Timestamp, u64), E>,
    entered: u64,
}

impl<E> Default for Agenda<E> {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), entered: 0 }
    }
}

impl<E> Agenda<E> {
    /// Enters an event.
    pub fn enter(&mut self, at: Timestamp, event: E) {
        self.entered = self.entered.wrapping_add(1);
        self.entries.insert((at, self.entered), event);
    }

    /// When the next one is due.
    pub fn next_at(&self) -> Option<Timestamp> {
        self.entries.first_key_value().map(|((at, _), _)| *at)
    }

    /// Takes the next one that is due at `now`, with its own instant.
    pub fn due(&mut self, now: Timestamp) -> Option<(Timestamp, E)> {
        self.next_at().filter(|at| *at <= now)?;
        self.entries.pop_first().map(|((at, _), event)| (at, event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_and_those_of_one_instant_as_they_were_entered() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut agenda = Agenda::default();
        for (second, event) in [(5, 'c'), (1, 'a'), (5, 'd'), (1, 'b'), (9, 'e')] {
            agenda.enter(at(second), event);
        }
        let due: Vec<_> = std::iter::from_fn(|| agenda.due(at(5))).collect();
        assert_eq!(due, [(at(1), 'a'), (at(1), 'b'), (at(5), 'c'), (at(5), 'd')]);
        assert_eq!(agenda.next_at(), Some(at(9)));
    }
}
