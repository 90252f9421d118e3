//! Deliver, from all partitions: each in its own order, and among them as it comes.

use std::task::Poll;

use futures_util::StreamExt as _;
use futures_util::future::poll_fn;

use super::Shards;
use crate::deliver::{Batch, Batches, Consumer};
use crate::random::Random;
use crate::store::{Result, SharedStore};

/// Some outputs of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Portion {
    /// Which.
    pub partition: usize,
    /// What it has handed out.
    pub batch: Batch,
}

/// Reads the output of a line, whatever number of partitions it has: the active consumer of each that no other consumer
/// reads.
#[derive(Debug)]
pub struct Consumers {
    each: Vec<Batches>,
    /// The partition that is asked first, so that one that always has something does not keep the others waiting.
    first: usize,
}

impl Consumers {
    /// A consumer of all partitions, of at most `max` outputs at once.
    pub fn new(shards: &Shards, max: usize) -> Self {
        Self::drawn(shards, max, Random::default)
    }

    /// The same, with the name and the jitter of each drawn from its own of `randoms`.
    pub fn drawn(shards: &Shards, max: usize, randoms: impl Fn() -> Random) -> Self {
        let consumer = |store: &SharedStore| Consumer::new(store.clone()).with_random(randoms());
        let each = shards.outlets().iter();
        Self {
            each: each.map(|store| consumer(store).into_stream(max)).collect(),
            first: 0,
        }
    }

    /// The next outputs of some partition: as soon as one has any.
    ///
    /// # Errors
    /// Only what no repetition can help; while a store is away it goes on trying.
    ///
    /// # Cancellation
    /// Safe: what was not acknowledged is handed out again.
    pub async fn next(&mut self) -> Result<Portion> {
        let (count, first) = (self.each.len(), self.first);
        let (partition, batch) = poll_fn(|cx| {
            for turn in 0..count {
                let partition = (first + turn) % count;
                if let Poll::Ready(Some(batch)) = self.each[partition].poll_next_unpin(cx) {
                    return Poll::Ready((partition, batch));
                }
            }
            Poll::Pending
        })
        .await;
        self.first = (partition + 1) % count;
        batch.map(|batch| Portion { partition, batch })
    }

    /// Says that a portion is written down, as [`Consumer::acknowledge`].
    pub fn acknowledge(&mut self, portion: &Portion) {
        self.each[portion.partition].acknowledge(&portion.batch);
    }

    /// As [`Consumer::finish`], at all partitions.
    ///
    /// # Errors
    /// As [`Consumer::finish`]; the others are finished all the same.
    pub async fn finish(self) -> Result<()> {
        let finished = futures_util::future::join_all(self.each.into_iter().map(Batches::finish)).await;
        finished.into_iter().collect()
    }
}
