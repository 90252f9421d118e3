//! Send: messages into the input; and those of a producer that numbers them, each once.
//!
//! A producer that numbers its messages can be killed and run again, and send again whatever had no answer: for each
//! producer the partition keeps the highest number that it has accepted, and appends only what goes beyond it. That
//! costs memory for each producer, not for each message, and a producer that was not heard of for [`KEPT_US`] is
//! forgotten.

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

/// A producer's name. Whoever sends under it, now or after a restart, is the same producer: one at a time.
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

/// Whose messages are sent, and which of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Numbered {
    /// Who sends.
    pub producer: ProducerId,
    /// The number of the first of the messages: they are numbered 1, 2, 3 … without a gap, whatever the batches. 0
    /// counts as 1.
    pub first: u64,
    /// What the producer wants to be told with the number of the last of them: of what it sent so far, a checksum.
    pub mark: u64,
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
    heard: Micros,
}

impl Partition {
    /// Appends entries to the input, in their order.
    pub fn send(&mut self, entries: &[Bytes]) {
        self.entries.extend(entries.iter().cloned());
    }

    /// Appends those of a producer's messages that are not there yet, or none if there were a gap. Without messages it
    /// tells which was the last one.
    pub fn send_numbered(&mut self, now: Micros, numbered: &Numbered, entries: &[Bytes]) -> Sent {
        let known = self.producers.get_mut(&numbered.producer);
        let is_new = known.is_none();
        let (last, mark) = known.map_or((0, 0), |producer| {
            producer.heard = now;
            (producer.last, producer.mark)
        });
        let first = numbered.first.max(1);
        if entries.is_empty() {
            return Sent::Accepted { last, mark };
        }
        let next = last.saturating_add(1);
        if first > next {
            return Sent::Missing { from: next };
        }
        let there = usize::try_from(next - first).unwrap_or(usize::MAX);
        let Some(news) = entries.get(there..).filter(|news| !news.is_empty()) else {
            return Sent::Accepted { last, mark };
        };
        self.send(news);
        if is_new {
            self.forget_producers(now);
        }
        let (last, mark) = (last + news.len() as u64, numbered.mark);
        let heard = now;
        self.producers
            .insert(numbered.producer.clone(), Producer { last, mark, heard });
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
