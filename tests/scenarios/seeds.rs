//! Stories drawn by chance: no invariant breaks in any of them, and the same seed gives the same bytes.

use jiff::Timestamp;
use kitepool::simulate::random;
use sha2::{Digest as _, Sha256};

use crate::told;

/// In each run of the tests. Optimised, `examples/seeds` is ten times as fast: the gate tries fifty there, and anybody as many
/// as they like.
const SEEDS: u64 = 4;

fn hash(seed: u64) -> (String, Vec<String>) {
    let outcome = told(random::story(seed, Timestamp::UNIX_EPOCH));
    let text = format!("{:?} {:?}", outcome.transcript, outcome.summary);
    (format!("{:x?}", Sha256::digest(text.as_bytes())), outcome.wrong)
}

#[test]
fn whatever_happens_no_invariant_breaks() {
    for seed in 0..SEEDS {
        let (_, wrong) = hash(seed);
        assert_eq!(
            wrong,
            Vec::<String>::new(),
            "seed {seed}; repeat it with: cargo run --release --example seeds -- --whole --seed {seed}"
        );
    }
}

#[test]
fn a_seed_gives_the_same_bytes_on_every_thread() {
    let seeds = [3, 5];
    let alone: Vec<_> = seeds.iter().map(|seed| hash(*seed)).collect();
    let threads: Vec<_> = seeds.into_iter().map(|seed| std::thread::spawn(move || hash(seed))).collect();
    let together: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert_eq!(alone, together);
}
