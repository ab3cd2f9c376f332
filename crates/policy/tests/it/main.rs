//! The policy through its public face: examples, properties, and a small world around it.
//!
//! A failing property prints the smallest input it found and writes its seed to `tests/proptest-regressions/`, from where it is
//! run first ever after; commit that file. `PROPTEST_CASES` raises the number of cases.

#[cfg(test)]
mod arbitrary;
#[cfg(test)]
mod breaker;
#[cfg(test)]
mod build;
#[cfg(test)]
mod buildkite;
#[cfg(test)]
mod closed_loop;
#[cfg(test)]
mod demand;
#[cfg(test)]
mod history;
#[cfg(test)]
mod ledger;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod polling;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod protocol;
#[cfg(test)]
mod recorded;
#[cfg(test)]
mod rolling;
#[cfg(test)]
mod rules;
#[cfg(feature = "saboteurs")]
#[cfg(test)]
mod saboteurs;
#[cfg(test)]
mod schedule;
#[cfg(test)]
mod share;
#[cfg(test)]
mod shrink;
#[cfg(test)]
mod stabilise;
#[cfg(test)]
mod tape;
#[cfg(test)]
mod unsatisfiable;
#[cfg(test)]
mod world;
