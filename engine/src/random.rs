//! Where names and jitter are drawn from.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use uuid::Uuid;

/// A source of randomness. Nothing that has to be right depends on it: it names processes, and spreads in time what
/// they would otherwise all do at once.
#[derive(Debug, Clone, Default)]
pub enum Random {
    /// The operating system's.
    #[default]
    System,
    /// Numbers that follow from a seed, so that a run can be had again.
    Seeded(SeededRandom),
}

impl Random {
    /// The next number, evenly distributed over all of `u64`.
    pub(crate) fn draw(&self) -> u64 {
        match self {
            Self::System => Uuid::new_v4().as_u64_pair().0,
            Self::Seeded(seeded) => seeded.draw(),
        }
    }

    /// A name that no other process has.
    pub(crate) fn name(&self, kind: &str) -> String {
        match self {
            Self::System => format!("{kind}-{}", Uuid::now_v7().simple()),
            Self::Seeded(seeded) => format!("{kind}-{:016x}", seeded.draw()),
        }
    }
}

/// Numbers that follow from a seed. Clones draw from the same sequence. Source: `SplitMix64`, G. Steele, D. Lea,
/// C. Flood, "Fast splittable pseudorandom number generators", 2014.
#[derive(Debug, Clone)]
pub struct SeededRandom(Arc<AtomicU64>);

impl SeededRandom {
    /// The sequence of this seed.
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(AtomicU64::new(seed)))
    }

    /// The next number, evenly distributed over all of `u64`.
    pub fn draw(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut mixed = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_sequence_and_clones_share_it() {
        let (one, other) = (SeededRandom::new(7), SeededRandom::new(7));
        let clone = one.clone();
        let drawn = [one.draw(), clone.draw(), one.draw()];
        assert_eq!(drawn, [other.draw(), other.draw(), other.draw()]);
        assert_ne!(drawn[0], drawn[1]);
        assert_ne!(SeededRandom::new(8).draw(), drawn[0]);
    }

    #[test]
    fn a_name_is_new_each_time() {
        for random in [Random::System, Random::Seeded(SeededRandom::new(1))] {
            assert_ne!(random.name("processor"), random.name("processor"));
        }
    }
}
