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
/// One process at a time may use a name. That another does is found out by the marks as soon as both have sent a message of
/// the same number, and is an error. One that was killed may still have a send on its way: to who sends the same again, by
/// [`NamedProducer::send_marked`], it is no other, and is compared by its mark. To who makes up its messages anew it is, for
/// what this one has sent under those numbers would be left out. The line forgets a name that was not used for seven days
/// ([`conga_core::partition::KEPT_US`]).
#[derive(Debug)]
pub struct NamedProducer {
    store: SharedStore,
    random: Random,
    patience: Option<Duration>,
    name: ProducerId,
    /// The last number that is in the line, and its mark; nothing, if that has to be asked.
    last: Option<(u64, u64)>,
    /// A later number that was found in the line, and its mark: it was sent under this name before, or by another process.
    ahead: Option<(u64, u64)>,
    /// What comes after `last`: given, and not known to be in the line; each with its mark, if that was given too.
    pending: Vec<(Bytes, Option<u64>)>,
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
            ahead: None,
            pending: Vec::new(),
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

    /// The same, for a name that was never used: so it need not be asked how far it is.
    #[must_use]
    pub fn with_a_new_name(self) -> Self {
        Self {
            last: Some((0, 0)),
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

    /// As [`NamedProducer::send_entries`], each with a mark, of which the line keeps the last: of all that was sent under
    /// this name so far, a checksum, by which who is started again can tell whether it sends the same.
    ///
    /// # Errors
    /// As [`NamedProducer::send`].
    ///
    /// # Cancellation
    /// As [`NamedProducer::send`].
    pub async fn send_marked(&mut self, entries: &[(Bytes, u64)]) -> Result<()> {
        self.pending
            .extend(entries.iter().map(|(entry, mark)| (entry.clone(), Some(*mark))));
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
        let asked = persist("send", &self.random, ask, |error| trouble = Some(error.clone()));
        let Some(patience) = self.patience else {
            return asked.await;
        };
        if let Ok(sent) = timeout(patience, asked).await {
            return sent;
        }
        let why = match trouble {
            Some(StoreError::Unknown(why) | StoreError::Unavailable(why)) => why,
            Some(error) => error.to_string(),
            None => "there was no answer".to_owned(),
        };
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
        let (entries, marks) = self.marked(before);
        let is_replay = self.pending.iter().all(|(_, mark)| mark.is_some());
        let end = (last + entries.len() as u64, marks.last().copied().unwrap_or(before));
        // What was found ahead is behind by now: it has to be the same.
        if let Some((number, mark)) = self.ahead.take_if(|(number, _)| *number <= end.0) {
            let ours = (number.checked_sub(last + 1)).and_then(|nth| marks.get(usize::try_from(nth).ok()?));
            if ours != Some(&mark) {
                return Err(self.another());
            }
        }
        let numbered = Numbered {
            producer: self.name.clone(),
            first: last + 1,
            mark: end.1,
        };
        match self.ask_store(&entries, &numbered).await? {
            Sent::Accepted { last, mark } if (last, mark) == end || (last > end.0 && is_replay) => {
                self.ahead = (last > end.0).then_some((last, mark));
                self.last = Some(end);
                self.pending.clear();
                self.tail.add(entries.into_iter().zip(marks));
                Ok(())
            }
            Sent::Accepted { .. } => Err(self.another()),
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
                // The mark before these is not known here, and of no use where each has its own.
                self.last = Some((from.saturating_sub(1), 0));
                Ok(())
            }
        }
    }
}

impl NamedProducer {
    /// What is pending, and the mark of each.
    fn marked(&self, before: u64) -> (Vec<Bytes>, Vec<u64>) {
        let mut mark = before;
        let marked = self.pending.iter().map(|(entry, given)| {
            mark = given.unwrap_or_else(|| checksum(mark, entry));
            (entry.clone(), mark)
        });
        marked.unzip()
    }

    fn another(&self) -> StoreError {
        StoreError::Broken(format!(
            "another process sends under the name `{}`, so that what only one of them has sent may be left out: give each a \
             name of its own, and send again what is missing",
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
    /// Each with its mark.
    entries: VecDeque<(Bytes, u64)>,
    bytes: usize,
}

/// So much of it is kept.
const KEPT: usize = 10_000;
const KEPT_BYTES: usize = 8 << 20;

impl Tail {
    fn add(&mut self, entries: impl Iterator<Item = (Bytes, u64)>) {
        for (entry, mark) in entries {
            self.bytes += entry.len();
            self.entries.push_back((entry, mark));
        }
        while (self.entries.len() > KEPT || self.bytes > KEPT_BYTES)
            && let Some((oldest, _)) = self.entries.pop_front()
        {
            self.bytes -= oldest.len();
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

    fn marked(numbers: std::ops::Range<u32>, before: u64) -> Vec<(Bytes, u64)> {
        let mut mark = before;
        let entries = entries(numbers).into_iter();
        entries
            .map(|entry| {
                mark = checksum(mark, &entry);
                (entry, mark)
            })
            .collect()
    }

    /// Found by the simulation (seed 248 of that time): the send of one that was killed was done after its successor had
    /// asked where to go on, and the successor gave up.
    #[tokio::test]
    async fn what_a_predecessor_still_had_on_its_way_is_no_other_process() {
        let all = marked(1..9, 0);
        for ends in [[2, 4, 8], [1, 7, 8], [4, 5, 8]] {
            let store = Arc::new(MemoryStore::new(Clock::Store));
            let mut second = Producer::named(store.clone(), "a");
            assert_eq!(second.last().await, Ok(0));
            let mut first = Producer::named(store.clone(), "a");
            first.send_marked(&all[..5]).await.unwrap();
            let mut sent = 0;
            for end in ends {
                second.send_marked(&all[sent..end]).await.unwrap();
                sent = end;
            }
            assert_eq!(store.status().await.unwrap().waiting, 8);
        }
    }

    /// One that sends something else is found by the first number that both have.
    #[tokio::test]
    async fn what_another_process_has_sent_is_another_process() {
        let store = Arc::new(MemoryStore::new(Clock::Store));
        let mut second = Producer::named(store.clone(), "a");
        assert_eq!(second.last().await, Ok(0));
        let mut first = Producer::named(store.clone(), "a");
        first.send_marked(&marked(1..6, 0)).await.unwrap();
        second.send_marked(&marked(11..14, 0)).await.unwrap();
        let other = second.send_marked(&marked(14..18, 1)).await;
        assert!(matches!(other, Err(StoreError::Broken(why)) if why.contains("another")));
        assert_eq!(store.status().await.unwrap().waiting, 5, "none of it went in");
    }

    /// Who makes up its messages anew is told at once: they would be left out, and it believe that they are there.
    #[tokio::test]
    async fn messages_that_are_made_up_anew_are_not_taken_for_those_of_a_predecessor() {
        let store = Arc::new(MemoryStore::new(Clock::Store));
        let mut second = Producer::named(store.clone(), "a");
        assert_eq!(second.last().await, Ok(0));
        let mut first = Producer::named(store.clone(), "a");
        first.send_entries(&entries(1..6)).await.unwrap();
        assert!(second.send_entries(&entries(11..14)).await.is_err());
        // It asks anew, and goes on after those.
        second.send_entries(&entries(11..14)).await.unwrap();
        assert_eq!(second.last().await, Ok(8));
        assert_eq!(store.status().await.unwrap().waiting, 8);
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
        let marked = |numbers| entries(numbers).into_iter().zip(0..);
        tail.add(marked(0..20_000));
        assert_eq!(tail.entries.len(), KEPT);
        assert!(tail.take(KEPT as u64 + 1).is_none());
        let newest: Vec<Bytes> = tail.take(2).unwrap().into_iter().map(|(entry, _)| entry).collect();
        assert_eq!(newest, entries(19_998..20_000));
        tail.add([(Bytes::from(vec![0; KEPT_BYTES + 1]), 0)].into_iter());
        assert!(tail.entries.is_empty() && tail.bytes == 0);
    }
}
