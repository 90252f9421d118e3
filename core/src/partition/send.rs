//! Send: messages into the input; and those of a producer that numbers them, each once.
//!
//! A producer that numbers its messages can be killed and run again, and send again whatever had no answer: for each
//! producer the partition keeps the highest number that it has accepted, and appends only what goes beyond it. That
//! costs memory for each producer, not for each message, and a producer that was not heard of for [`KEPT_US`] is
//! forgotten.
//!
//! Each process that sends under a producer's name does so in a session of its own, and only the latest session counts, as
//! with terms. So what one that was killed still has on its way is not done any more once its successor has begun.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::Partition;
use crate::lease::one_word;
use crate::time::Micros;

/// A producer that was not heard of for so long is forgotten, some time after: seven days.
pub const KEPT_US: u64 = 7 * 24 * 3_600 * 1_000_000;

/// So many producers are forgotten at most when a new one comes: so their number shrinks, and no step takes long.
pub const FORGOTTEN_AT_ONCE: usize = 2;

/// A producer's name. Whoever sends under it, now or after a restart, is the same producer: one at a time, the one with
/// the latest session.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProducerId(Arc<str>);

impl ProducerId {
    /// Takes any text without white space: stores keep it as one word. White space is replaced by `_`, and an empty name
    /// becomes `_`.
    pub fn new(name: impl AsRef<str>) -> Self {
        Self(one_word(name.as_ref()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ProducerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A process's turn at a producer's name. It is opened by a send, of no messages perhaps, under a number that is higher
/// than the latest; who does not know that begins with 1 and is told. The process proposes the number, for a store that
/// counted them by itself would count an opening that is done late, or twice, as another one that comes after.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Session {
    /// From 1 on; it only grows.
    pub number: u64,
    /// Drawn by the process, to tell two apart that propose the same number. The first has it then.
    pub process: u64,
}

impl Session {
    /// Whether a send under this one counts where `latest` is the latest: it is the same, or goes beyond. (It is lower than
    /// what a process has opened where a store has come back older than it was.)
    pub fn counts_after(self, latest: Self) -> bool {
        self == latest || self.number > latest.number
    }
}

/// Whose messages are sent, and which of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Numbered {
    /// Who sends.
    pub producer: ProducerId,
    /// Which process under that name. The first send of a session opens it, whatever becomes of its messages.
    pub session: Session,
    /// The number of the first of the messages: they are numbered 1, 2, 3 … without a gap, whatever the batches. 0
    /// counts as 1.
    pub first: u64,
    /// What the producer wants to be told with the number of the last of them: of what it sent so far, a checksum.
    pub mark: u64,
    /// No more messages than this may wait to be claimed after the send, whoever sent them. `None`: however many.
    pub max_waiting: Option<u64>,
}

impl Numbered {
    /// Whether so many more may be appended where so many wait. Nothing always may.
    pub fn has_room(&self, waiting: u64, more: u64) -> bool {
        let most = self.max_waiting.unwrap_or(u64::MAX);
        more == 0 || waiting.saturating_add(more) <= most
    }
}

/// What became of a send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sent {
    /// All of them are in the line: since now, or since before.
    Accepted {
        /// The highest number accepted from this producer. 0: none, or it does not number.
        last: u64,
        /// The mark that came with it.
        mark: u64,
    },
    /// Nothing was appended, for something is missing before them: the producer has left it out, or the store has come
    /// back older than it was.
    Missing {
        /// The lowest number that is missing.
        from: u64,
    },
    /// Nothing was appended, for too many messages would wait then.
    Full {
        /// How many wait.
        waiting: u64,
        /// The highest number accepted from this producer: these it has, whatever else was sent now.
        last: u64,
    },
    /// Nothing was changed: another session is the latest, so another process sends under the name.
    Replaced {
        /// The latest.
        session: Session,
    },
}

impl Sent {
    /// The answer to who does not number.
    pub const UNNUMBERED: Self = Self::Accepted { last: 0, mark: 0 };
}

/// What is known of a producer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Producer {
    last: u64,
    mark: u64,
    session: Session,
    heard: Micros,
}

impl Partition {
    /// Appends entries to the input, in their order.
    pub fn send(&mut self, entries: &[Bytes]) {
        self.entries.extend(entries.iter().cloned());
    }

    /// Appends those of a producer's messages that are not there yet, or none if there were a gap, or if too many waited. Without messages it
    /// tells which was the last one. Under any but the latest session it does nothing.
    pub fn send_numbered(&mut self, now: Micros, numbered: &Numbered, entries: &[Bytes]) -> Sent {
        let known = self.producers.get(&numbered.producer);
        if let Some(Producer { session, .. }) = known
            && !numbered.session.counts_after(*session)
        {
            return Sent::Replaced { session: *session };
        }
        let is_new = known.is_none();
        let (last, mark) = known.map_or((0, 0), |producer| (producer.last, producer.mark));
        let (first, next) = (numbered.first.max(1), last.saturating_add(1));
        let is_missing = first > next && !entries.is_empty();
        let there = usize::try_from(next.saturating_sub(first)).unwrap_or(usize::MAX);
        let mut news = match entries.get(there..) {
            Some(news) if !is_missing => news,
            _ => &[],
        };
        let waiting = self.waiting();
        let is_full = !numbered.has_room(waiting, news.len() as u64);
        if is_full {
            news = &[];
        }
        self.send(news);
        if is_new {
            self.forget_producers(now);
        }
        let producer = Producer {
            last: last + news.len() as u64,
            mark: if news.is_empty() { mark } else { numbered.mark },
            session: numbered.session,
            heard: now,
        };
        let (last, mark) = (producer.last, producer.mark);
        self.producers.insert(numbered.producer.clone(), producer);
        if is_missing {
            return Sent::Missing { from: next };
        }
        if is_full {
            return Sent::Full { waiting, last };
        }
        Sent::Accepted { last, mark }
    }

    /// Forgets a few of those that were not heard of for long, the longest first.
    fn forget_producers(&mut self, now: Micros) {
        let mut old: Vec<_> = self
            .producers
            .iter()
            .filter(|(_, producer)| now.since(producer.heard) >= KEPT_US)
            .map(|(name, producer)| (producer.heard, name.clone()))
            .collect();
        old.sort();
        for (_, name) in old.into_iter().take(FORGOTTEN_AT_ONCE) {
            self.producers.remove(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(number: u64, process: u64) -> Session {
        Session { number, process }
    }

    #[test]
    fn a_session_counts_if_it_is_the_latest_or_goes_beyond() {
        assert!(session(2, 7).counts_after(session(2, 7)));
        assert!(session(3, 1).counts_after(session(2, 7)));
        for late in [session(2, 8), session(2, 6), session(1, 7)] {
            assert!(!late.counts_after(session(2, 7)), "{late:?}");
        }
    }

    #[test]
    fn what_was_replaced_changes_nothing() {
        let mut partition = Partition::default();
        let mut send = |number, process, first, entries: &[Bytes]| {
            let numbered = Numbered {
                producer: ProducerId::new("a"),
                session: session(number, process),
                first,
                mark: 5,
                max_waiting: None,
            };
            partition.send_numbered(Micros(number), &numbered, entries)
        };
        let entries = [Bytes::from_static(b"1"), Bytes::from_static(b"2")];
        let accepted = |last, mark| Sent::Accepted { last, mark };
        assert_eq!(send(1, 1, 1, &entries), accepted(2, 5));
        assert_eq!(send(2, 2, 1, &[]), accepted(2, 5), "a successor");
        let replaced = Sent::Replaced { session: session(2, 2) };
        assert_eq!(send(1, 1, 3, &entries), replaced, "a late send");
        assert_eq!(send(2, 1, 3, &entries), replaced, "a late opening");
        assert_eq!(send(2, 2, 1, &[]), accepted(2, 5), "an opening that is done twice");
        assert_eq!(send(3, 3, 9, &entries), Sent::Missing { from: 3 });
        assert_eq!(
            send(2, 2, 3, &entries),
            Sent::Replaced { session: session(3, 3) },
            "it was opened all the same"
        );
        assert_eq!(send(3, 3, 2, &entries), accepted(3, 5));
        assert_eq!(partition.entries.len(), 3);
    }
}
