//! A producer that numbers what it sends: it can be killed and run again, and what has no answer can be sent again.

use std::time::Duration;

use bytes::Bytes;
use conga_core::partition::{ProducerId, Sent, Session};
use tokio::time::Instant;

use super::{Outgoing, Producer};
use crate::random::Random;
use crate::store::{Result, SharedStore, StoreError};

mod room;
mod session;
mod tail;

pub use room::WhenFull;
use session::{Doubt, KNOWN, Open};
use tail::Tail;

/// Puts messages into a line, each once, although they need no identity: they are numbered 1, 2, 3 … under the producer's
/// name, and the line knows the last number of each name. So whatever had no answer is sent again without harm, and who
/// is started again under the same name asks by [`NamedProducer::last`] where to go on.
///
/// One process at a time may use a name. Each opens a session, and the line takes nothing under an earlier one: what one
/// that was killed still had on its way is not done once its successor has begun, and one that lives hears with its next
/// call, as an error, that another has begun. The line forgets a name that was not used for seven days
/// ([`conga_core::partition::KEPT_US`]).
#[derive(Debug)]
pub struct NamedProducer {
    store: SharedStore,
    random: Random,
    patience: Option<Duration>,
    name: ProducerId,
    open: Option<Open>,
    /// The last session that was opened.
    before: Option<Session>,
    doubt: Doubt,
    /// Up to when the line has not forgotten the name, for sure.
    known_until: Instant,
    /// Another process has opened a later one.
    is_replaced: bool,
    /// What comes after `last`: given, and not known to be in the line; each with its mark, if that was given too.
    pending: Vec<(Bytes, Option<u64>)>,
    /// So many of them, the first, were in the line before, and are for that never refused.
    again: u64,
    /// What there was no room for, until the next send.
    refused: Vec<(Bytes, Option<u64>)>,
    /// What came before it, for a store that comes back older than it was.
    tail: Tail,
    /// How many messages may wait in the line after a send, and what to do where more would.
    most: Option<(u64, WhenFull)>,
}

impl Producer {
    /// A producer for the line that `store` was opened for, that numbers its messages under `name`.
    pub fn named(store: SharedStore, name: impl AsRef<str>) -> NamedProducer {
        NamedProducer {
            store,
            random: Random::default(),
            patience: None,
            name: ProducerId::new(name),
            open: None,
            before: None,
            doubt: Doubt::default(),
            known_until: Instant::now(),
            is_replaced: false,
            pending: Vec::new(),
            again: 0,
            refused: Vec::new(),
            tail: Tail::default(),
            most: None,
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

    /// The number of the last message that is in the line: so many were sent under this name. 0: none yet. What a dropped send
    /// was given is sent first.
    ///
    /// # Errors
    /// Only what no repetition can help, as that another process has begun to send under this name; while the store is
    /// away it goes on trying. As [`NamedProducer::send`] where a send was dropped.
    ///
    /// # Cancellation
    /// Safe.
    pub async fn last(&mut self) -> Result<u64> {
        self.ask_all().await.map(|open| open.last)
    }

    /// The mark that came with the last message: see [`NamedProducer::send_marked`].
    ///
    /// # Errors
    /// As [`NamedProducer::last`].
    pub async fn mark(&mut self) -> Result<u64> {
        self.ask_all().await.map(|open| open.mark)
    }

    /// Sends messages, in their order, and goes on trying while the store is away.
    ///
    /// # Errors
    /// Only what no repetition can help, as that another process has begun to send under this name, or that a person has
    /// to send again what a store has lost that came back older than it was; and, with
    /// [`NamedProducer::with_patience`], that it has been away for so long. Then it is not known whether these are in the
    /// line, and [`NamedProducer::last`] tells.
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

    /// How far it is, with all that was given.
    async fn ask_all(&mut self) -> Result<Open> {
        self.flush().await?;
        self.ask().await
    }

    /// What the last send was refused for want of room, in its order; none of it is in the line.
    pub(crate) fn refused(&mut self) -> Vec<(Bytes, Option<u64>)> {
        std::mem::take(&mut self.refused)
    }

    /// Sends what is pending.
    async fn flush(&mut self) -> Result<()> {
        self.refused.clear();
        // Without a limit all goes at once.
        let most = self.most.map_or(u64::MAX, |(most, _)| most);
        let mut room = most;
        while !self.pending.is_empty() {
            match self.try_flush(room).await {
                // There may be more by now than there was.
                Ok(None) => room = room.saturating_mul(2).min(most),
                Ok(Some(waiting)) => room = self.wait_for_room(waiting).await,
                Err(error) => {
                    let given_up = std::mem::take(&mut self.pending);
                    self.again = 0;
                    if matches!(error, StoreError::Full { .. }) {
                        self.refused = given_up;
                    } else {
                        // Whoever hears of it decides what becomes of these; what is there has to be asked, in a new session,
                        // for a part of these may still be on its way.
                        self.tail = Tail::default();
                        self.open = None;
                    }
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Sends what is pending, the first `room` of them. How many wait in the line, where that was too much.
    async fn try_flush(&mut self, room: u64) -> Result<Option<u64>> {
        let open = self.ask().await?;
        let most = if self.again > 0 { self.again } else { room };
        let (entries, marks) = self.marked(open.mark, most);
        let end = Open {
            last: open.last + entries.len() as u64,
            mark: marks.last().copied().unwrap_or(open.mark),
            ..open
        };
        if self.doubt.highest() > end.last {
            self.settle(open).await?;
            return Ok(None);
        }
        let numbered = self.numbered(open.session, open.last + 1, end.mark);
        let asked = Instant::now();
        let sent = self.ask_store(&entries, &numbered).await?;
        self.known_until = asked + KNOWN;
        match sent {
            Sent::Accepted { last, mark } if (last, mark) == (end.last, end.mark) => {
                self.done(end, entries, marks);
                Ok(None)
            }
            Sent::Full { waiting, last } => {
                // A part of them may be there since an attempt that was given up, or come in late.
                if self.doubt.highest() > last {
                    self.settle(open).await?;
                } else {
                    self.found(last, None)?;
                }
                if self.again > 0 || self.open.is_some_and(|open| open.last >= end.last) {
                    return Ok(None);
                }
                match self.most {
                    Some((most, WhenFull::Refuse)) => Err(StoreError::Full { waiting, most }),
                    _ => Ok(Some(waiting)),
                }
            }
            // In a session only its own process sends.
            Sent::Accepted { .. } => Err(self.another()),
            Sent::Replaced { .. } => Err(self.replaced()),
            Sent::Missing { from } => self.lost(from).map(|()| None),
        }
    }

    /// What is pending is in the line up to this number, the last of which has this mark, if that is known.
    fn found(&mut self, last: u64, mark: Option<u64>) -> Result<()> {
        let open = self.open.ok_or_else(|| self.another())?;
        let count = last.checked_sub(open.last).ok_or_else(|| self.another())?;
        let (entries, marks) = self.marked(open.mark, count);
        let is_same = marks.last().is_none_or(|own| mark.is_none_or(|mark| mark == *own));
        if entries.len() as u64 != count || !is_same {
            return Err(self.another());
        }
        let mark = marks.last().copied().unwrap_or(open.mark);
        self.done(Open { last, mark, ..open }, entries, marks);
        Ok(())
    }

    /// The store has come back older than it was, and lacks what there was from this number on: it is sent again.
    fn lost(&mut self, from: u64) -> Result<()> {
        let open = self.open.ok_or_else(|| self.another())?;
        let lost = open.last + 1 - from.min(open.last + 1);
        let Some(again) = self.tail.take(lost) else {
            return Err(StoreError::Broken(format!(
                "the store has come back older than it was: of what `{}` has sent it lacks the messages from number {from} \
                 on, which are not at hand here any more; send them again from there",
                self.name
            )));
        };
        tracing::warn!(producer = %self.name, from, last = open.last, "the store has come back older than it was; sending again");
        let again = again.into_iter().map(|(entry, mark)| (entry, Some(mark)));
        self.again += again.len() as u64;
        self.pending.splice(..0, again);
        // The mark before these is not known here, and of no use where each has its own.
        let last = from.saturating_sub(1);
        self.open = Some(Open { last, mark: 0, ..open });
        Ok(())
    }

    /// The first of what is pending are in the line.
    fn done(&mut self, end: Open, entries: Vec<Bytes>, marks: Vec<u64>) {
        self.open = Some(end);
        self.pending.drain(..entries.len());
        self.again = self.again.saturating_sub(entries.len() as u64);
        self.tail.add(entries.into_iter().zip(marks));
    }

    /// The first of what is pending, at most so many, and the mark of each.
    fn marked(&self, before: u64, most: u64) -> (Vec<Bytes>, Vec<u64>) {
        let mut mark = before;
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let marked = self.pending.iter().take(most).map(|(entry, given)| {
            mark = given.unwrap_or_else(|| checksum(mark, entry));
            (entry.clone(), mark)
        });
        marked.unzip()
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use conga_core::partition::KEPT_US;
    use conga_core::time::Micros;

    use super::*;
    use crate::clock::{Clock, ManualClock};
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
        assert_eq!(store.status().await.unwrap().producers, 1);
    }

    fn is_another<T>(answer: Result<T>) -> bool {
        matches!(answer, Err(StoreError::Broken(why)) if why.contains("another process sends under the name `a`"))
    }

    /// Whatever either has sent, none of it is taken for the other's.
    #[tokio::test]
    async fn of_two_at_once_the_older_one_hears_that_it_is_not_alone() {
        for also_sends in [false, true] {
            let store = Arc::new(MemoryStore::new(Clock::Store));
            let mut older = Producer::named(store.clone(), "a");
            older.send_entries(&entries(1..4)).await.unwrap();
            let mut newer = Producer::named(store.clone(), "a");
            assert_eq!(newer.last().await, Ok(3));
            if also_sends {
                newer.send_entries(&entries(11..13)).await.unwrap();
            }
            assert!(is_another(older.send_entries(&entries(4..5)).await));
            assert!(is_another(older.send_entries(&entries(4..5)).await), "for good");
            assert!(is_another(older.last().await));
            newer.send_entries(&entries(13..14)).await.unwrap();
            assert_eq!(newer.last().await, Ok(4 + 2 * u64::from(also_sends)));
            assert_eq!(store.status().await.unwrap().waiting, 4 + 2 * u64::from(also_sends));
        }
    }

    /// Found by the simulation: the send of one that was killed was done after its successor had asked where to go on.
    #[tokio::test]
    async fn what_a_predecessor_still_had_on_its_way_is_refused() {
        let store = Arc::new(MemoryStore::new(Clock::Store));
        let mut first = Producer::named(store.clone(), "a");
        first.send_entries(&entries(1..4)).await.unwrap();
        let session = first.open.unwrap().session;
        let mut second = Producer::named(store.clone(), "a");
        assert_eq!(second.last().await, Ok(3));
        let replaced = Sent::Replaced {
            session: second.open.unwrap().session,
        };
        for (late, first_number) in [(entries(4..9), 4), (entries(2..9), 2), (Vec::new(), 1)] {
            let numbered = first.numbered(session, first_number, 0);
            assert_eq!(store.send(&late, Some(&numbered)).await, Ok(replaced));
        }
        // Nor does one take its place that was killed while it opened its session.
        let unborn = Session {
            process: !session.process,
            ..second.open.unwrap().session
        };
        let opening = first.numbered(unborn, 1, 0);
        assert_eq!(store.send(&[], Some(&opening)).await, Ok(replaced));
        second.send_entries(&entries(4..6)).await.unwrap();
        second.send_entries(&entries(6..8)).await.unwrap();
        assert_eq!(store.status().await.unwrap().waiting, 7);
    }

    /// One that lives for long, and has sent nothing for so long that its name was forgotten: what came before is not lost.
    #[tokio::test(start_paused = true)]
    async fn what_was_sent_before_its_name_was_forgotten_is_not_sent_again() {
        for pause in [KEPT_US - 1, KEPT_US + 1] {
            let clock = ManualClock::going(Micros(1));
            let store = Arc::new(MemoryStore::new(Clock::Manual(clock)));
            let mut producer = Producer::named(store.clone(), "a");
            producer.send_entries(&entries(1..4)).await.unwrap();
            tokio::time::sleep(Duration::from_micros(pause)).await;
            Producer::named(store.clone(), "b").last().await.unwrap();
            producer.send_entries(&entries(4..5)).await.unwrap();
            assert_eq!(store.status().await.unwrap().waiting, 4);
            producer.send_entries(&entries(5..6)).await.unwrap();
            assert_eq!(store.status().await.unwrap().waiting, 5);
        }
    }

    /// Whoever gives up a send asks again where it was, and that in a new session: the send may be done late.
    #[tokio::test]
    async fn what_was_given_up_as_a_failure_is_not_done_later() {
        let store = Arc::new(MemoryStore::new(Clock::Store));
        let mut producer = Producer::named(store.clone(), "a");
        producer.send_entries(&entries(1..4)).await.unwrap();
        let given_up = producer.numbered(producer.open.unwrap().session, 4, 0);
        producer.open = None;
        assert_eq!(producer.last().await, Ok(3));
        let late = store.send(&entries(4..6), Some(&given_up)).await;
        assert!(matches!(late, Ok(Sent::Replaced { .. })));
        // Unless another has come in between.
        producer.open = None;
        assert_eq!(Producer::named(store.clone(), "a").last().await, Ok(3));
        assert!(is_another(producer.last().await));
    }

    /// Dropped while it was on its way: nobody knows whether it was done. Whoever asks how far it is hears of it too.
    #[tokio::test]
    async fn what_was_given_up_is_sent_first() {
        for (done, asks) in [(false, false), (false, true), (true, false), (true, true)] {
            let store = Arc::new(MemoryStore::new(Clock::Store));
            let mut producer = Producer::named(store.clone(), "a");
            producer.send_entries(&entries(1..2)).await.unwrap();
            producer.pending = entries(2..4).into_iter().map(|entry| (entry, None)).collect();
            if done {
                let (batch, marks) = producer.marked(producer.open.unwrap().mark, u64::MAX);
                let numbered = producer.numbered(producer.open.unwrap().session, 2, marks[1]);
                store.send(&batch, Some(&numbered)).await.unwrap();
            }
            if asks {
                assert_eq!(producer.last().await, Ok(3));
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

    /// What may be done late is longer than what is sent next: it could be done in between.
    #[tokio::test]
    async fn what_is_in_doubt_is_kept_out_before_less_is_sent() {
        let store = Arc::new(MemoryStore::default());
        let mut producer = Producer::named(store.clone(), "a").with_max_waiting(3, WhenFull::Wait);
        assert_eq!(producer.last().await, Ok(0));
        let late = producer.numbered(producer.open.unwrap().session, 1, 0);
        producer.pending = entries(1..4).into_iter().map(|entry| (entry, None)).collect();
        // Given up without an answer.
        producer.doubt.set(3);
        while producer.pending.len() == 3 {
            assert_eq!(producer.try_flush(1).await, Ok(None));
        }
        let replaced = store.send(&entries(1..4), Some(&late)).await;
        assert!(matches!(replaced, Ok(Sent::Replaced { .. })), "{replaced:?}");
        assert_eq!(producer.pending.len(), 2);
        assert!(!producer.is_in_doubt());
    }
}
