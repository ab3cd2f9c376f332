//! One draw for a whole value: a tape of numbers that a function makes the value of, one number after the other.
//!
//! A strategy for each part would say the same, but tens of thousands of large observations are drawn, and a tree of strategies
//! takes longer than what is tested with them.

use std::{fmt, rc::Rc, vec};

use proptest::{
    num,
    prelude::Rng as _,
    strategy::{NewTree, Strategy, ValueTree},
    test_runner::TestRunner,
};

/// The numbers, and how far they have been read. A smaller number makes a simpler value, zero the simplest.
pub(crate) struct Tape {
    rest: vec::IntoIter<u32>,
}

impl Tape {
    fn number(&mut self) -> u32 {
        self.rest.next().unwrap_or(0)
    }

    pub(crate) fn bits(&mut self) -> u64 {
        u64::from(self.number()) << 32 | u64::from(self.number())
    }

    /// Less than `end`, and rising with the number that is read.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        (u64::from(self.number()) * end) >> 32
    }

    pub(crate) fn between(&mut self, first: i64, last: i64) -> i64 {
        first + i64::try_from(self.below(u64::try_from(last - first + 1).unwrap())).unwrap()
    }

    /// True once in so many.
    pub(crate) fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == times - 1
    }

    pub(crate) fn any_of<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[usize::try_from(self.below(u64::try_from(choices.len()).unwrap())).unwrap()].clone()
    }

    pub(crate) fn maybe<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        (self.below(2) == 1).then(|| make(self))
    }

    /// Fewer than `end` of them.
    pub(crate) fn some<T>(&mut self, end: u64, mut make: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.below(end)).map(|_| make(self)).collect()
    }
}

/// Values that are made of tapes.
pub(crate) struct Made<T> {
    length: usize,
    make: Rc<dyn Fn(&mut Tape) -> T>,
}

/// Made of so many numbers. Whatever is made beyond the end is made of zeros.
pub(crate) fn made<T: fmt::Debug>(length: usize, make: impl Fn(&mut Tape) -> T + 'static) -> Made<T> {
    Made { length, make: Rc::new(make) }
}

impl<T> fmt::Debug for Made<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("made of a tape")
    }
}

impl<T: fmt::Debug> Strategy for Made<T> {
    type Tree = Drawn<T>;
    type Value = T;

    fn new_tree(&self, runner: &mut TestRunner) -> NewTree<Self> {
        let rng = runner.rng();
        let numbers = (0..self.length).map(|_| rng.next_u32()).collect();
        Ok(Drawn { make: Rc::clone(&self.make), numbers, smaller: None, next: 0 })
    }
}

/// A tape that was drawn. What fails is made simpler number by number, from the front.
pub(crate) struct Drawn<T> {
    make: Rc<dyn Fn(&mut Tape) -> T>,
    numbers: Vec<u32>,
    smaller: Option<num::u32::BinarySearch>,
    next: usize,
}

impl<T: fmt::Debug> ValueTree for Drawn<T> {
    type Value = T;

    fn current(&self) -> T {
        (self.make)(&mut Tape { rest: self.numbers.clone().into_iter() })
    }

    fn simplify(&mut self) -> bool {
        while let Some(number) = self.numbers.get_mut(self.next) {
            let smaller = self.smaller.get_or_insert_with(|| num::u32::BinarySearch::new(*number));
            if smaller.simplify() {
                *number = smaller.current();
                return true;
            }
            self.smaller = None;
            self.next += 1;
        }
        false
    }

    fn complicate(&mut self) -> bool {
        let (Some(number), Some(smaller)) = (self.numbers.get_mut(self.next), &mut self.smaller) else { return false };
        let is_other = smaller.complicate();
        *number = smaller.current();
        is_other
    }
}

#[test]
fn what_fails_is_told_as_its_simplest() {
    let mut runner = TestRunner::deterministic();
    let pairs = made(4, |tape| (tape.below(1_000), tape.below(1_000), tape.maybe(|tape| tape.below(9))));
    let failed = runner.run(&pairs, |(first, second, _)| {
        if first >= 200 && second >= 300 {
            return Err(proptest::test_runner::TestCaseError::fail("too large"));
        }
        Ok(())
    });
    let Err(proptest::test_runner::TestError::Fail(_, simplest)) = failed else { panic!("found nothing: {failed:?}") };
    assert_eq!(simplest, (200, 300, None));
}
