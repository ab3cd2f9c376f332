//! The cases, one theme a file. Each is a sentence, has a deadline and runs beside all others.

mod adoption;
mod agents_first;
mod agents_load;
mod agents_picked;
mod agents_removals;
mod agents_trouble;
mod away;
mod broken;
mod checked;
mod chosen;
mod compared;
mod decay;
mod definitions;
mod disturbed;
mod generations;
mod ground;
mod growth;
mod hands;
mod hints;
mod idle;
mod killed;
mod kubelet;
mod kubelet_ends;
mod latency;
mod leaders;
mod library;
mod library_checkouts;
mod limits;
mod recorded;
mod refusals;
mod start;
mod tokens;
mod webhook;
mod zz_rights;

use std::time::Duration;

/// What is to happen at once, on a machine that does other things besides.
const SOON: Duration = Duration::from_secs(20);

/// A shrink waits for a reading that surely knows the last change, which takes about ten seconds, for its window, and for the
/// second answer of those that are chosen, which takes ten more; and it may take two rounds.
const SHRINKS: Duration = Duration::from_secs(75);
