//! Fits: how much may be in one answer. One that does not get through may be too large to, so the next is smaller.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use crate::store::StoreError;

/// How many bytes an answer, or a request, may have. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Fits {
    most: u64,
    now: Arc<Now>,
}

#[derive(Debug)]
struct Now {
    bytes: AtomicU64,
    /// So many have to come through before more is tried.
    patience: AtomicU64,
    /// How many of them have.
    through: AtomicU64,
    /// Whether more was tried since the last one that did not come through.
    has_grown: AtomicU64,
}

/// So that a way that is wide again is found to be so.
const LONGEST_PATIENCE: u64 = 256;

impl Fits {
    /// At first, and at most, `most` bytes.
    pub(crate) fn new(most: u64) -> Self {
        Self {
            most,
            now: Arc::new(Now {
                bytes: AtomicU64::new(most),
                patience: AtomicU64::new(1),
                through: AtomicU64::new(0),
                has_grown: AtomicU64::new(0),
            }),
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.now.bytes.load(Ordering::Relaxed)
    }

    /// One did not come through.
    pub(crate) fn smaller(&self) {
        self.smaller_than(0);
    }

    /// The same, but not below `least`: so large it is in any case.
    fn smaller_than(&self, least: u64) {
        let now = &*self.now;
        let bytes = self.bytes();
        let smaller = bytes.div_ceil(2).max(bytes.min(least));
        now.bytes.store(smaller, Ordering::Relaxed);
        now.through.store(0, Ordering::Relaxed);
        if now.has_grown.swap(0, Ordering::Relaxed) > 0 {
            let longer = now
                .patience
                .load(Ordering::Relaxed)
                .saturating_mul(2)
                .min(LONGEST_PATIENCE);
            now.patience.store(longer, Ordering::Relaxed);
        }
    }

    /// One of so many bytes came through. Grows slower than it shrinks, and the more often that was too much, the more seldom:
    /// where the way is narrow for good, few answers are lost in finding out how narrow. What is small tells nothing.
    pub(crate) fn came(&self, size: u64) {
        let now = &*self.now;
        let bytes = self.bytes();
        if size < bytes / 2 {
            return;
        }
        if bytes >= self.most {
            now.patience.store(1, Ordering::Relaxed);
            return;
        }
        let through = now.through.fetch_add(1, Ordering::Relaxed) + 1;
        if through >= now.patience.load(Ordering::Relaxed) {
            let larger = bytes.saturating_add(bytes / 4 + 1).min(self.most);
            now.bytes.store(larger, Ordering::Relaxed);
            now.through.store(0, Ordering::Relaxed);
            now.has_grown.store(1, Ordering::Relaxed);
        }
    }
}

/// What goes along in one step: so many bytes, and one in any case.
#[derive(Debug)]
pub(crate) struct Load {
    most: u64,
    pub(crate) bytes: u64,
    is_empty: bool,
}

impl Load {
    /// At most `most` bytes.
    pub(crate) fn new(most: u64) -> Self {
        Self {
            most,
            bytes: 0,
            is_empty: true,
        }
    }

    /// Whether so many bytes more go along.
    pub(crate) fn takes(&mut self, bytes: usize) -> bool {
        let bytes = self.bytes + bytes as u64;
        let takes = self.is_empty || bytes <= self.most;
        if takes {
            self.bytes = bytes;
            self.is_empty = false;
        }
        takes
    }
}

/// So many bytes of outputs are asked for at once.
const BYTES: u64 = 8 << 20;
/// So many at first, when nothing is known of how large they are, and so many at most.
const FIRST: u64 = 250;
const MOST: u64 = 1_000;

/// How many outputs to ask for at once: as many as fit by what they have weighed lately.
#[derive(Debug)]
pub(crate) struct Portions {
    fits: Fits,
    /// The bytes of the largest output lately.
    weight: u64,
}

impl Portions {
    pub(crate) fn new() -> Self {
        Self {
            fits: Fits::new(BYTES),
            weight: BYTES / FIRST,
        }
    }

    /// How many outputs to ask for: at least one.
    pub(crate) fn count(&self) -> usize {
        self.within(u64::MAX)
    }

    /// The same where there is room for so many bytes.
    pub(crate) fn within(&self, bytes: u64) -> usize {
        let count = self.fits.bytes().min(bytes) / self.weight.max(1);
        // It is small.
        usize::try_from(count.clamp(1, MOST)).unwrap_or(1)
    }

    /// These came through.
    pub(crate) fn came(&mut self, outputs: &[Bytes]) {
        self.fits.came(outputs.iter().map(|output| output.len() as u64).sum());
        if let Some(largest) = outputs.iter().map(Bytes::len).max() {
            // What was large may come again.
            self.weight = (self.weight - self.weight.div_ceil(8)).max(largest as u64);
        }
    }

    /// There is no answer. One that was refused was not too large.
    pub(crate) fn failed(&self, error: &StoreError) {
        if matches!(error, StoreError::Unknown(_)) {
            self.fits.smaller_than(self.weight);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of 10,000 answers are lost on a way that lets `width` bytes through.
    fn lost(fits: &Fits, width: u64) -> usize {
        let through = (0..10_000).filter(|_| {
            let is_through = fits.bytes() <= width;
            if is_through {
                fits.came(fits.bytes());
            } else {
                fits.smaller();
            }
            is_through
        });
        10_000 - through.count()
    }

    #[test]
    fn where_the_way_stays_narrow_ever_fewer_are_lost() {
        let fits = Fits::new(8 << 20);
        let (first, then) = (lost(&fits, 100_000), lost(&fits, 100_000));
        assert!(first < 30, "{first}");
        assert!(then < 15, "{then}");
        assert!(fits.bytes() > 40_000, "{}", fits.bytes());
    }

    #[test]
    fn what_was_too_much_once_is_tried_again() {
        let fits = Fits::new(8 << 20);
        lost(&fits, 100_000);
        lost(&fits, u64::MAX);
        assert_eq!(fits.bytes(), 8 << 20);
        fits.smaller();
        assert_eq!(lost(&fits, u64::MAX), 0);
        assert_eq!(fits.bytes(), 8 << 20, "and all is forgotten then");
        let away = Fits::new(8 << 20);
        (0..40).for_each(|_| away.smaller());
        assert_eq!((away.bytes(), lost(&away, u64::MAX)), (1, 0));
        assert_eq!(away.bytes(), 8 << 20, "a store that was away is no narrow way");
    }

    #[test]
    fn as_many_are_asked_for_as_fit_by_what_they_weigh() {
        let mut portions = Portions::new();
        assert_eq!((portions.count(), portions.within(1)), (250, 1));
        let of = |bytes: usize| vec![Bytes::from(vec![0; bytes])];
        portions.came(&of(1 << 20));
        assert_eq!((portions.count(), portions.within(3 << 20)), (8, 3));
        portions.came(&of(100));
        assert_eq!(portions.count(), 9, "the next may be as large again");
        (0..100).for_each(|_| portions.came(&of(100)));
        assert_eq!(portions.count(), 1_000);
    }

    #[test]
    fn an_answer_that_is_lost_makes_the_next_smaller_but_none_that_was_refused() {
        let mut portions = Portions::new();
        portions.failed(&StoreError::Unavailable("away".to_owned()));
        assert_eq!(portions.count(), 250);
        portions.failed(&StoreError::Unknown("lost".to_owned()));
        assert_eq!(portions.count(), 125);
        for _ in 0..50 {
            portions.failed(&StoreError::Unknown("lost".to_owned()));
        }
        assert_eq!(portions.count(), 1);
        (0..50).for_each(|_| portions.came(&[]));
        assert_eq!(portions.count(), 1, "nothing at all tells nothing");
        for _ in 0..10 {
            let outputs = vec![Bytes::from(vec![0; 30_000]); portions.count()];
            portions.came(&outputs);
        }
        assert!(
            portions.count() > 4,
            "{}: soon more, for one is what is least",
            portions.count()
        );
    }
}
