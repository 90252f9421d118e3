//! Send, into the partition where each message belongs.

use bytes::Bytes;
use conga_core::route::{NoPlace, Router};
use futures_util::future::{join_all, try_join_all};

use super::Shards;
use crate::random::Random;
use crate::send::{NamedProducer, Outgoing, Producer, checksum};
use crate::store::{Result, SharedStore, StoreError};

impl From<NoPlace> for StoreError {
    fn from(error: NoPlace) -> Self {
        Self::Broken(error.to_string())
    }
}

/// Puts messages into a line, whatever number of partitions it has.
#[derive(Debug, Clone)]
pub struct Producers {
    router: Router,
    each: Vec<Producer>,
}

impl Producers {
    /// A producer for all partitions.
    pub fn new(shards: &Shards) -> Self {
        Self {
            router: shards.router(),
            each: shards.partitions().iter().cloned().map(Producer::new).collect(),
        }
    }

    /// The same, with its jitter drawn from `random`.
    #[must_use]
    pub fn with_random(self, random: &Random) -> Self {
        let each = self.each.into_iter();
        Self {
            each: each.map(|producer| producer.with_random(random.clone())).collect(),
            ..self
        }
    }

    /// Sends a batch, in its order within each partition. What goes into one partition gets there as a whole or not at all.
    ///
    /// # Errors
    /// As [`Producer::send`]; [`StoreError::Broken`] where one needs a sequence and has none, and then nothing is sent.
    pub async fn send(&self, batch: &[Outgoing]) -> Result<()> {
        let entries: Vec<Bytes> = batch.iter().map(Outgoing::to_entry).collect();
        let parts = self.split(batch, entries.into_iter())?;
        let each = self.each.iter().zip(&parts);
        try_join_all(each.map(|(producer, entries)| producer.send_entries(entries)))
            .await
            .map(drop)
    }

    /// As [`Producer::insist`]: for messages that each have an id or a sequence, until all of them are in the line.
    ///
    /// # Errors
    /// As [`Producer::insist`] and [`Producers::send`].
    pub async fn insist(&self, batch: &[Outgoing]) -> Result<()> {
        if let [only] = self.each.as_slice() {
            return only.insist(batch).await;
        }
        let parts = self.split(batch, batch.iter().cloned())?;
        let each = self.each.iter().zip(&parts);
        try_join_all(each.map(|(producer, part)| producer.insist(part)))
            .await
            .map(drop)
    }

    fn split<T>(&self, batch: &[Outgoing], given: impl Iterator<Item = T>) -> Result<Vec<Vec<T>>> {
        let mut parts: Vec<Vec<T>> = self.each.iter().map(|_| Vec::new()).collect();
        for ((message, given), turn) in batch.iter().zip(given).zip(1..) {
            let (key, id) = (message.key.as_deref(), message.id.as_deref());
            let partition = self.router.partition(key, id, message.sequence, turn)?;
            parts[partition as usize].push(given);
        }
        Ok(parts)
    }
}

/// So many lines may wait until it is clear of each partition that the input begins as before. One that was killed had
/// given no more than that to the store without an answer.
const DOUBTED: usize = 10_000;

/// Puts the lines of one input into a line of whatever number of partitions, each once, although they need no identity:
/// numbered by its partition's own [`NamedProducer`]. Each line's partition depends on nothing but what is in it and how
/// manieth it is, so one that is started again from the beginning of the same input numbers them as before.
#[derive(Debug)]
pub struct Lines {
    router: Router,
    each: Vec<Lane>,
    /// How many lines were given.
    given: u64,
}

#[derive(Debug)]
struct Lane {
    producer: NamedProducer,
    /// How many lines of an earlier run the partition has.
    there: u64,
    /// How many of them were given again.
    skipped: u64,
    /// A checksum of all lines given so far.
    mark: u64,
    waiting: Vec<(Bytes, u64)>,
}

/// The input does not begin with the lines that were sent under this name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("another input")]
pub struct AnotherInput {
    /// How many were.
    pub there: u64,
}

impl Lines {
    /// An input whose lines are numbered under `name`; each partition's producer comes from `make`.
    ///
    /// # Errors
    /// As [`NamedProducer::last`].
    pub async fn begin(shards: &Shards, make: impl Fn(SharedStore) -> NamedProducer) -> Result<Self> {
        let opening = shards.partitions().iter().map(|store| {
            let mut producer = make(store.clone());
            async move {
                Ok::<_, StoreError>(Lane {
                    there: producer.last().await?,
                    producer,
                    skipped: 0,
                    mark: 0,
                    waiting: Vec::new(),
                })
            }
        });
        Ok(Self {
            router: shards.router(),
            each: try_join_all(opening).await?,
            given: 0,
        })
    }

    /// How many lines of an earlier run were given again.
    pub fn skipped(&self) -> u64 {
        self.each.iter().map(|lane| lane.skipped).sum()
    }

    /// How many lines an earlier run has sent.
    pub fn there(&self) -> u64 {
        self.each.iter().map(|lane| lane.there).sum()
    }

    /// Takes the next line, which `entry` makes the entry of the input for; it is sent by [`Lines::flush`].
    ///
    /// # Errors
    /// [`AnotherInput`] or [`NoPlace`] inside: nothing of this line is sent.
    pub async fn give(&mut self, line: &Bytes, entry: impl FnOnce() -> Bytes) -> std::result::Result<(), Refused> {
        self.given += 1;
        let partition = self.router.partition_of(line, self.given).map_err(Refused::NoPlace)?;
        let there = self.there();
        let lane = &mut self.each[partition as usize];
        lane.mark = checksum(lane.mark, line);
        if lane.skipped < lane.there {
            lane.skipped += 1;
            if lane.skipped == lane.there && lane.mark != lane.producer.mark().await.map_err(Refused::Store)? {
                return Err(Refused::AnotherInput(AnotherInput { there }));
            }
            return Ok(());
        }
        lane.waiting.push((entry(), lane.mark));
        Ok(())
    }

    /// How many lines wait to be sent.
    pub fn waiting(&self) -> usize {
        self.each.iter().map(|lane| lane.waiting.len()).sum()
    }

    /// Sends what waits, into all partitions at once; nothing, as long as it is not clear that the input is the same as before.
    /// How many lines were sent.
    ///
    /// # Errors
    /// As [`NamedProducer::send`], and [`AnotherInput`] where too much waits. Where a partition has no room
    /// ([`StoreError::Full`], with [`WhenFull::Refuse`](crate::send::WhenFull::Refuse)) the lines that it refused still wait: the
    /// next call sends them. After any other error begin anew, with the same input.
    ///
    /// # Cancellation
    /// What was on its way is sent first by the next call that has something to send there.
    pub async fn flush(&mut self) -> std::result::Result<u64, Refused> {
        let waiting = self.waiting() as u64;
        if self.skipped() < self.there() {
            if waiting > DOUBTED as u64 {
                return Err(Refused::AnotherInput(AnotherInput { there: self.there() }));
            }
            return Ok(0);
        }
        let sending = self
            .each
            .iter_mut()
            .filter(|lane| !lane.waiting.is_empty())
            .map(|lane| async {
                let batch = std::mem::take(&mut lane.waiting);
                let sent = lane.producer.send_marked(&batch).await;
                let refused = lane.producer.refused().into_iter();
                lane.waiting = refused.map(|(line, mark)| (line, mark.unwrap_or_default())).collect();
                sent
            });
        // To the end, so that what is not done is known.
        for sent in join_all(sending).await {
            sent.map_err(Refused::Store)?;
        }
        Ok(waiting)
    }

    /// That was the whole input.
    ///
    /// # Errors
    /// [`AnotherInput`], if it was shorter than what was sent before.
    pub fn end(&self) -> std::result::Result<(), AnotherInput> {
        let there = self.there();
        if self.skipped() < there {
            return Err(AnotherInput { there });
        }
        Ok(())
    }
}

/// Why a line was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The input does not begin as before.
    #[error(transparent)]
    AnotherInput(AnotherInput),
    /// It belongs to no partition.
    #[error(transparent)]
    NoPlace(NoPlace),
    /// The store.
    #[error(transparent)]
    Store(StoreError),
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use conga_core::lease::OwnerId;
    use conga_core::partition::{ClaimRequest, Limits};
    use conga_core::route::By;

    use super::*;
    use crate::send::WhenFull;
    use crate::store::Store as _;
    use crate::store::memory::MemoryStore;

    /// Refused by one, and not by another: each line is sent once, as soon as there is room.
    #[tokio::test]
    async fn what_was_refused_waits_and_is_sent_with_what_comes_next() {
        let stores = [0, 1].map(|_| Arc::new(MemoryStore::default()));
        let partitions = stores.iter().map(|store| store.clone() as SharedStore).collect();
        let shards = Shards::of(Arc::new(MemoryStore::default()), partitions, By::Key);
        let named = |store| Producer::named(store, "a").with_max_waiting(2, WhenFull::Refuse);
        let mut lines = Lines::begin(&shards, named).await.unwrap();
        for line in 1..=7 {
            let line = Bytes::from(line.to_string());
            lines.give(&line.clone(), || line).await.unwrap();
        }
        let count = async |at: usize| {
            stores[at].status().await.unwrap().next.0 - 1 + stores[at].status().await.unwrap().waiting
        };
        let mut refusals = 0;
        while let Err(error) = lines.flush().await {
            assert!(matches!(error, Refused::Store(StoreError::Full { .. })), "{error}");
            refusals += 1;
            assert_eq!(lines.waiting() as u64 + count(0).await + count(1).await, 7);
            for store in &stores {
                let request = ClaimRequest {
                    owner: OwnerId::new("p"),
                    max: 1,
                    lease_us: 3_600_000_000,
                    window: 1_000,
                    below: None,
                    limits: Limits::default(),
                };
                store.claim(&request).await.unwrap();
            }
        }
        assert!(refusals > 0);
        assert_eq!((lines.waiting(), count(0).await + count(1).await), (0, 7));
    }
}
