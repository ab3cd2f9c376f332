//! What has happened and waits to be taken by the driver.

use std::collections::VecDeque;

/// More than any run makes between two looks. A driver that never looks loses the oldest rather than all memory.
const UNTAKEN_MAX: usize = 1_000_000;

#[derive(Debug)]
pub(super) struct Outbox<T>(VecDeque<T>);

impl<T> Default for Outbox<T> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<T> Outbox<T> {
    pub(super) fn push(&mut self, one: T) {
        if self.0.len() >= UNTAKEN_MAX {
            self.0.pop_front();
        }
        self.0.push_back(one);
    }

    pub(super) fn take(&mut self) -> Vec<T> {
        std::mem::take(&mut self.0).into()
    }
}
