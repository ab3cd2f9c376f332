//! Chance that repeats: every purpose draws from a stream of its own, so that one draw more here moves nothing there.

use std::time::Duration;

use sha2::{Digest as _, Sha256};

/// One stream of chance.
#[derive(Debug, Clone)]
pub struct Chance(fastrand::Rng);

impl Chance {
    /// The stream of this seed for this purpose.
    pub fn new(seed: u64, purpose: &str) -> Self {
        let digest = Sha256::new().chain_update(seed.to_be_bytes()).chain_update(purpose).finalize();
        let stream = digest.iter().take(8).fold(0, |number: u64, byte| number << 8 | u64::from(*byte));
        Self(fastrand::Rng::with_seed(stream))
    }

    /// Evenly from `shortest` up to, and without, `longest`; `shortest` where there is nothing between.
    pub fn between(&mut self, shortest: Duration, longest: Duration) -> Duration {
        let spread = longest.saturating_sub(shortest);
        shortest.saturating_add(spread.mul_f64(self.0.f64()))
    }

    /// True so many times of a thousand.
    pub fn permille(&mut self, times: u32) -> bool {
        self.0.u32(0..1_000) < times
    }

    /// Evenly from 0 up to, and without, `end`; 0 for 0.
    pub fn below(&mut self, end: u32) -> u32 {
        if end == 0 { 0 } else { self.0.u32(0..end) }
    }

    /// With this mean, as the time until the next of many independent events is.
    pub fn exponential(&mut self, mean: Duration) -> Duration {
        // 1 - [0, 1) is never zero, whose logarithm would be infinite.
        mean.mul_f64(-(1.0 - self.0.f64()).ln())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draws(seed: u64, purpose: &str) -> Vec<u32> {
        let mut chance = Chance::new(seed, purpose);
        (0..20).map(|_| chance.below(1_000_000)).collect()
    }

    #[test]
    fn a_stream_repeats_and_differs_by_seed_and_purpose() {
        assert_eq!(draws(1, "pings"), draws(1, "pings"));
        assert_ne!(draws(1, "pings"), draws(2, "pings"));
        assert_ne!(draws(1, "pings"), draws(1, "losses"));
    }

    #[test]
    fn draws_stay_within_their_bounds() {
        let mut chance = Chance::new(7, "bounds");
        let (short, long) = (Duration::from_secs(2), Duration::from_secs(3));
        for _ in 0..1_000 {
            assert!((short..long).contains(&chance.between(short, long)));
        }
        assert_eq!((chance.between(long, short), chance.below(0)), (long, 0));
        assert!(!chance.permille(0) && chance.permille(1_000));
        let mean = (0..10_000).map(|_| chance.exponential(short).as_secs_f64()).sum::<f64>() / 10_000.0;
        assert!((1.8..2.2).contains(&mean), "{mean}");
    }
}
