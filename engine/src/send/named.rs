//! A producer that numbers what it sends: it can be killed and run again, and what has no answer can be sent again.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use conga_core::partition::{Numbered, ProducerId, Sent};
use tokio::time::timeout;

use super::{Outgoing, Producer};
use crate::persist::persist;
use crate::random::Random;
use crate::store::{Result, SharedStore, StoreError};

/// Puts messages into a line, each once, although they need no identity: they are numbered 1, 2, 3 … under the producer's
/// name, and the line knows the last number of each name. So whatever had no answer is sent again without harm, and who
/// is started again under the same name asks by [`NamedProducer::last`] where to go on.
///
/// One process at a time may use a name. That another does, or that a send of one that was killed arrives only after the
/// next has asked where to go on, is found out by the marks, and is an error; but not for who sends the same messages
/// again by [`NamedProducer::send_marked`]. The line forgets a name that was not used for seven days
/// ([`conga_core::partition::KEPT_US`]).
#[derive(Debug)]
pub struct NamedProducer {
    store: SharedStore,
    random: Random,
    patience: Option<Duration>,
    name: ProducerId,
    /// The last number that is in the line, and its mark; nothing, if that has to be asked.
    last: Option<(u64, u64)>,
    /// What comes after it: given, and not known to be in the line. Each with its mark, if that was given too.
    pending: Vec<(Bytes, Option<u64>)>,
    /// A number that is in the line already although it was not sent here yet, and its mark.
    ahead: Option<(u64, u64)>,
    /// What came before it, for a store that comes back older than it was.
    tail: Tail,
}

impl Producer {
    /// A producer for the line that `store` was opened for, that numbers its messages under `name`.
    pub fn named(store: SharedStore, name: impl AsRef<str>) -> NamedProducer {
        NamedProducer {
            store,
            random: Random::default(),
            patience: None,
            name: ProducerId::new(name),
            last: None,
            pending: Vec::new(),
            ahead: None,
            tail: Tail::default(),
        }
    }
}

impl NamedProducer {
    /// The same, with its jitter drawn from `random`.
    #[must_use]
    pub fn with_random(self, random: Random) -> Self {
        Self { random, ..self }
    }

    /// The same, but gives up when a store has been away for so long.
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Self {
        Self {
            patience: Some(patience),
            ..self
        }
    }

    /// The number of the last message that is in the line: so many were sent under this name. 0: none yet.
    ///
    /// # Errors
    /// Only what no repetition can help; while the store is away it goes on trying.
    ///
    /// # Cancellation
    /// Safe.
    pub async fn last(&mut self) -> Result<u64> {
        self.ask().await.map(|(last, _)| last)
    }

    /// The mark that came with the last message: see [`NamedProducer::send_marked`].
    ///
    /// # Errors
    /// As [`NamedProducer::last`].
    pub async fn mark(&mut self) -> Result<u64> {
        self.ask().await.map(|(_, mark)| mark)
    }

    /// Sends messages, in their order, and goes on trying while the store is away.
    ///
    /// # Errors
    /// Only what no repetition can help, as that a person has to send again what a store has lost that came back older
    /// than it was; and, with [`NamedProducer::with_patience`], that it has been away for so long. Then it is not known whether these are in the line, and [`NamedProducer::last`] tells.
    ///
    /// # Cancellation
    /// What was given is taken: if this is dropped, the next call sends it first.
    pub async fn send(&mut self, batch: &[Outgoing]) -> Result<()> {
        let entries: Vec<Bytes> = batch.iter().map(Outgoing::to_entry).collect();
        self.send_entries(&entries).await
    }

    /// Sends entries as they are: envelopes, or any bytes, which then are payloads as a whole.
    ///
    /// # Errors
    /// As [`NamedProducer::send`].
    ///
    /// # Cancellation
    /// As [`NamedProducer::send`].
    pub async fn send_entries(&mut self, entries: &[Bytes]) -> Result<()> {
        self.pending.extend(entries.iter().map(|entry| (entry.clone(), None)));
        self.flush().await
    }

    /// As [`NamedProducer::send_entries`], with a mark for each: a checksum of all that was sent under this name up to it, by
    /// which who is started again can tell whether it sends the same. The line keeps that of the last. It need not be the
    /// entry that is sent that is summed up, but what is the same in each run.
    ///
    /// # Errors
    /// As [`NamedProducer::send`].
    ///
    /// # Cancellation
    /// As [`NamedProducer::send`].
    pub async fn send_marked(&mut self, entries: &[(Bytes, u64)]) -> Result<()> {
        let marked = entries.iter().map(|(entry, mark)| (entry.clone(), Some(*mark)));
        self.pending.extend(marked);
        self.flush().await
    }

    async fn ask(&mut self) -> Result<(u64, u64)> {
        if let Some(last) = self.last {
            return Ok(last);
        }
        let nothing = Numbered {
            producer: self.name.clone(),
            first: 1,
            mark: 0,
        };
        let last = match self.ask_store(&[], &nothing).await? {
            Sent::Accepted { last, mark } => (last, mark),
            Sent::Missing { from } => (from.saturating_sub(1), 0),
        };
        self.last = Some(last);
        Ok(last)
    }

    /// Goes on until there is an answer, or patience is over.
    async fn ask_store(&self, entries: &[Bytes], numbered: &Numbered) -> Result<Sent> {
        let in_doubt = AtomicBool::new(false);
        let mut trouble = None;
        let ask = || async {
            let doubted = in_doubt.swap(true, Ordering::Relaxed);
            let sent = self.store.send(entries, Some(numbered)).await;
            let unknown = matches!(sent, Err(StoreError::Unknown(_)));
            in_doubt.store(doubted || unknown, Ordering::Relaxed);
            sent
        };
        let asked = persist("send", &self.random, ask, |error| trouble = Some(error.to_string()));
        let Some(patience) = self.patience else {
            return asked.await;
        };
        if let Ok(sent) = timeout(patience, asked).await {
            return sent;
        }
        let why = trouble.unwrap_or_else(|| "there was no answer".to_owned());
        Err(if in_doubt.load(Ordering::Relaxed) && !entries.is_empty() {
            StoreError::Unknown(why)
        } else {
            StoreError::Unavailable(why)
        })
    }

    /// Sends what is pending.
    async fn flush(&mut self) -> Result<()> {
        while !self.pending.is_empty() {
            if let Err(error) = self.try_flush().await {
                // Whoever hears of it decides what becomes of these; what is there has to be asked.
                self.pending.clear();
                self.tail = Tail::default();
                (self.last, self.ahead) = (None, None);
                return Err(error);
            }
        }
        Ok(())
    }

    async fn try_flush(&mut self) -> Result<()> {
        let (last, before) = self.ask().await?;
        let (mut entries, mut marks) = (Vec::new(), Vec::new());
        let mut sum = before;
        for (entry, mark) in &self.pending {
            sum = mark.unwrap_or_else(|| checksum(sum, entry));
            entries.push(entry.clone());
            marks.push(sum);
        }
        let numbered = Numbered {
            producer: self.name.clone(),
            first: last + 1,
            mark: sum,
        };
        let end = (last + entries.len() as u64, sum);
        match self.ask_store(&entries, &numbered).await? {
            Sent::Accepted { last: there, mark } => {
                let is_replay = self.pending.iter().all(|(_, mark)| mark.is_some());
                if there > end.0 && is_replay {
                    // Sent by an earlier run, and arrived since this one has asked. What it was will be seen.
                    self.ahead = Some((there, mark));
                } else if (there, mark) != end {
                    return Err(self.another());
                }
                if let Some((number, mark)) = self.ahead.filter(|(number, _)| *number <= end.0) {
                    let nth = usize::try_from(number.saturating_sub(last + 1)).ok();
                    if nth.and_then(|nth| marks.get(nth)) != Some(&mark) {
                        return Err(self.another());
                    }
                    self.ahead = None;
                }
                self.last = Some(end);
                self.pending.clear();
                self.tail.add(entries.into_iter().zip(marks));
                Ok(())
            }
            Sent::Missing { from } => {
                let lost = last + 1 - from.min(last + 1);
                let Some(again) = self.tail.take(lost) else {
                    return Err(StoreError::Broken(format!(
                        "the store has come back older than it was: of what `{}` has sent it lacks the messages from \
                         number {from} on, which are not at hand here any more; send them again from there",
                        self.name
                    )));
                };
                tracing::warn!(producer = %self.name, from, last, "the store has come back older than it was; sending again");
                self.pending
                    .splice(..0, again.into_iter().map(|(entry, mark)| (entry, Some(mark))));
                self.ahead = None;
                // Each of these has its mark, so that of the one before them is of no use.
                self.last = Some((from.saturating_sub(1), 0));
                Ok(())
            }
        }
    }
}

impl NamedProducer {
    fn another(&self) -> StoreError {
        StoreError::Broken(format!(
            "another process sends under the name `{}`, or has sent something else under it, so that what only one of them \
             has sent may be left out: give each a name of its own, and send again what is missing",
            self.name
        ))
    }
}

/// A checksum of an entry, and of all before it, whose checksum is `before`. Source: G. Fowler, L. Noll, K. Vo, FNV-1a,
/// 64 bits; with the length in front, so that where one entry ends and the next begins counts too.
pub fn checksum(before: u64, entry: &[u8]) -> u64 {
    let length = (entry.len() as u64).to_le_bytes();
    let bytes = length.iter().chain(entry);
    let start = before ^ 0xcbf2_9ce4_8422_2325;
    bytes.fold(start, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// What was accepted lately. A failover takes back the last moments, and then this may be all there is of them.
#[derive(Debug, Default)]
struct Tail {
    entries: VecDeque<(Bytes, u64)>,
    bytes: usize,
}

/// So much of it is kept.
const KEPT: usize = 10_000;
const KEPT_BYTES: usize = 8 << 20;

impl Tail {
    fn add(&mut self, entries: impl Iterator<Item = (Bytes, u64)>) {
        for entry in entries {
            self.bytes += entry.0.len();
            self.entries.push_back(entry);
        }
        while (self.entries.len() > KEPT || self.bytes > KEPT_BYTES)
            && let Some(oldest) = self.entries.pop_front()
        {
            self.bytes -= oldest.0.len();
        }
    }

    /// The newest `count`, if there are so many.
    fn take(&mut self, count: u64) -> Option<Vec<(Bytes, u64)>> {
        let count = usize::try_from(count).ok()?;
        let from = self.entries.len().checked_sub(count)?;
        let taken: Vec<_> = self.entries.split_off(from).into();
        self.bytes -= taken.iter().map(|(entry, _)| entry.len()).sum::<usize>();
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::Clock;
    use crate::store::Store as _;
    use crate::store::memory::MemoryStore;

    fn entries(numbers: std::ops::Range<u32>) -> Vec<Bytes> {
        numbers.map(|number| Bytes::from(number.to_string())).collect()
    }

    #[tokio::test]
    async fn who_is_started_again_goes_on_where_it_was() {
        let store = Arc::new(MemoryStore::new(Clock::Store));
        let mut first = Producer::named(store.clone(), "a b");
        first.send_entries(&entries(1..4)).await.unwrap();
        let mut second = Producer::named(store.clone(), "a b");
        assert_eq!(second.last().await, Ok(3));
        assert_eq!(second.mark().await, first.mark().await);
        second.send_entries(&entries(4..6)).await.unwrap();
        assert_eq!(store.status().await.unwrap().waiting, 5);
        assert!(
            matches!(first.send_entries(&entries(9..10)).await, Err(StoreError::Broken(why)) if why.contains("another")),
            "two at once"
        );
        assert_eq!(store.status().await.unwrap().producers, 1);
    }

    /// Dropped while it was on its way: nobody knows whether it was done.
    #[tokio::test]
    async fn what_was_given_up_is_sent_first() {
        for done in [false, true] {
            let store = Arc::new(MemoryStore::new(Clock::Store));
            let mut producer = Producer::named(store.clone(), "a");
            producer.send_entries(&entries(1..2)).await.unwrap();
            producer.pending = entries(2..4).into_iter().map(|entry| (entry, None)).collect();
            if done {
                let mut same = Producer::named(store.clone(), "a");
                same.send_entries(&entries(2..4)).await.unwrap();
            }
            producer.send_entries(&entries(4..5)).await.unwrap();
            assert_eq!(producer.last().await, Ok(4));
            assert_eq!(store.status().await.unwrap().waiting, 4);
        }
    }

    /// Found by the simulation (seed 937 of that time): a process was killed, its send arrived after the next had asked.
    #[tokio::test]
    async fn a_send_of_an_earlier_run_that_arrives_late_is_the_same_or_an_error() {
        let marked = |numbers: std::ops::Range<u32>, start: u64| -> Vec<(Bytes, u64)> {
            let mut mark = start;
            let entries = entries(numbers).into_iter();
            entries
                .map(|entry| {
                    mark = checksum(mark, &entry);
                    (entry, mark)
                })
                .collect()
        };
        for same in [true, false] {
            let store = Arc::new(MemoryStore::new(Clock::Store));
            let (mut earlier, mut later) = (Producer::named(store.clone(), "a"), Producer::named(store.clone(), "a"));
            assert_eq!(later.last().await, Ok(0));
            let all = marked(1..7, 0);
            let late = if same { all[..5].to_vec() } else { marked(1..6, 9) };
            earlier.send_marked(&late).await.unwrap();
            later.send_marked(&all[..2]).await.unwrap();
            let rest = later.send_marked(&all[2..]).await;
            assert_eq!(rest.is_ok(), same, "{rest:?}");
            assert_eq!(store.status().await.unwrap().waiting, 6);
            // Who makes up its messages anew is told at once.
            let mut other = Producer::named(store.clone(), "b");
            assert_eq!(other.last().await, Ok(0));
            Producer::named(store, "b").send_entries(&entries(1..4)).await.unwrap();
            assert!(other.send_entries(&entries(1..2)).await.is_err());
        }
    }

    /// A store that came back older, or a new one, is given what is still at hand.
    #[tokio::test]
    async fn a_store_that_lacks_the_last_ones_gets_them_again() {
        let (old, new) = (Arc::new(MemoryStore::default()), Arc::new(MemoryStore::default()));
        let mut producer = Producer::named(old, "a");
        producer.send_entries(&entries(1..4)).await.unwrap();
        producer.store = new.clone();
        producer.send_entries(&entries(4..5)).await.unwrap();
        assert_eq!(new.status().await.unwrap().waiting, 4);
        producer.tail = Tail::default();
        producer.store = Arc::new(MemoryStore::default());
        let lost = producer.send_entries(&entries(5..6)).await;
        assert!(matches!(lost, Err(StoreError::Broken(why)) if why.contains("from number 1 on")));
        assert_eq!(producer.last().await, Ok(0), "and asks");
    }

    #[test]
    fn the_tail_is_bounded() {
        let mut tail = Tail::default();
        let marked = |entries: Vec<Bytes>| entries.into_iter().map(|entry| (entry, 5));
        tail.add(marked(entries(0..20_000)));
        assert_eq!(tail.entries.len(), KEPT);
        assert!(tail.take(KEPT as u64 + 1).is_none());
        assert_eq!(tail.take(2), Some(marked(entries(19_998..20_000)).collect()));
        tail.add(marked(vec![Bytes::from(vec![0; KEPT_BYTES + 1])]));
        assert!(tail.entries.is_empty() && tail.bytes == 0);
    }
}
