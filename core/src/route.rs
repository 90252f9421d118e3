//! Route: which partition of a line a message belongs to. Producers decide it, Conga's and foreign ones alike, so it is by
//! what any language has: CRC-32 and the remainder of a division.

use crate::message::{Entry, Format, Id, Input, Position, Record, parse};

/// By what a message belongs to a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum By {
    /// Its key, so that what has to keep its order stays together; what has none by its identity.
    #[default]
    Key,
    /// Its sequence: what the whole line is put in order by. A message without one belongs nowhere.
    Sequence,
    /// Its identity, so that what is sent twice meets itself.
    Identity,
}

/// Sends each message to its partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Router {
    by: By,
    partitions: u32,
}

/// The last place that a line in total order over several partitions has.
pub const LAST_SEQUENCE: u64 = (1 << 48) - 1;

/// A message that belongs to no partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoPlace {
    /// It has no sequence.
    #[error(
        "a message without a `sequence` has no place in a line in total order over several partitions: number them 1, 2, 3 …"
    )]
    NoSequence,
    /// It has one that can't be.
    #[error("a `sequence` is a number from 1 to {LAST_SEQUENCE} in a line in total order over several partitions")]
    OutOfRange,
    /// It has an id besides. Of two ids with one sequence only one could come out, and of two sequences with one id.
    #[error(
        "in a line in total order over several partitions a message's `sequence` is its identity: leave out the `id`"
    )]
    OtherId,
}

impl Router {
    /// For a line of so many partitions; none is one.
    pub fn new(by: By, partitions: u32) -> Self {
        Self {
            by,
            partitions: partitions.max(1),
        }
    }

    /// How many there are.
    pub fn partitions(&self) -> u32 {
        self.partitions
    }

    /// By what it decides.
    pub fn by(&self) -> By {
        self.by
    }

    /// The partition of a message: by [`By`], and what has neither key, id nor sequence by `turn`, which a producer counts
    /// on with each of its messages. One that sends the same messages again counts the same again.
    ///
    /// # Errors
    /// [`NoPlace`], by [`By::Sequence`]. With one partition everything belongs there.
    pub fn partition(
        &self,
        key: Option<&str>,
        id: Option<&str>,
        sequence: Option<u64>,
        turn: u64,
    ) -> Result<u32, NoPlace> {
        if self.partitions == 1 {
            return Ok(0);
        }
        let key = key.filter(|_| self.by == By::Key);
        Ok(match (self.by, key.or(id), sequence) {
            (By::Sequence, _, None) => return Err(NoPlace::NoSequence),
            (By::Sequence, _, Some(sequence)) if sequence == 0 || sequence > LAST_SEQUENCE => {
                return Err(NoPlace::OutOfRange);
            }
            (By::Sequence, Some(id), Some(sequence)) if id != sequence.to_string() => return Err(NoPlace::OtherId),
            (By::Sequence, _, Some(sequence)) => self.remainder(sequence),
            (_, Some(text), _) => self.of_text(text),
            (_, None, Some(sequence)) => self.of_text(&sequence.to_string()),
            (_, None, None) => self.remainder(turn),
        })
    }

    /// The partition of an entry of the input, read as a processor will. One that can't be read, and will be a dead letter,
    /// goes by `turn`, whatever the line goes by.
    ///
    /// # Errors
    /// As [`Router::partition`].
    pub fn partition_of(&self, entry: &bytes::Bytes, turn: u64) -> Result<u32, NoPlace> {
        if self.partitions == 1 {
            return Ok(0);
        }
        let nowhere = Position(0);
        match parse(&Entry::Whole(entry.clone()), nowhere, Format::Any, u64::MAX) {
            Ok(input) => self.partition_of_input(&input, turn),
            Err(_) => Ok(self.remainder(turn)),
        }
    }

    fn partition_of_input(self, input: &Input, turn: u64) -> Result<u32, NoPlace> {
        let id = (input.id != Id::of_position(Position(0))).then(|| input.id.as_str());
        self.partition(input.key.as_deref(), id, input.sequence, turn)
    }

    /// The partition that an output comes from, if its message was sent where it belongs; none, where nothing of it says so.
    pub fn partition_of_output(&self, record: &Record) -> Option<u32> {
        let id = record.id.as_str();
        let (key, given) = (record.key.as_deref(), !id.starts_with('@'));
        match (self.by, key) {
            (By::Sequence, _) => self.partition(None, None, record.sequence, 0).ok(),
            (By::Key, Some(key)) => Some(self.of_text(key)),
            _ if given => Some(self.of_text(id)),
            _ => {
                // A place, or a producer's id that begins like one.
                let place = id.get(1..)?.split_once('.')?.0.parse().ok();
                place.filter(|partition| *partition < self.partitions && record.sequence.is_none())
            }
        }
    }

    fn of_text(self, text: &str) -> u32 {
        crc32(text.as_bytes()) % self.partitions
    }

    fn remainder(self, number: u64) -> u32 {
        // Smaller than a number of 32 bits, so it is one.
        u32::try_from(number % u64::from(self.partitions)).unwrap_or(0)
    }
}

/// CRC-32 as zlib, gzip and PNG have it. Source: RFC 1952, section 8.
pub fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| TABLE[usize::from(crc.to_le_bytes()[0] ^ byte)] ^ (crc >> 8);
    !bytes.iter().fold(!0, step)
}

const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0_u32;
    while byte < 256 {
        let mut crc = byte;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 {
                0xEDB8_8320 ^ (crc >> 1)
            } else {
                crc >> 1
            };
            bit += 1;
        }
        table[byte as usize] = crc;
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    /// What other languages answer: `zlib.crc32(b"…")` in Python, `zlib.crc32("…")` in Node, `System.IO.Hashing.Crc32` in C#.
    #[test]
    fn the_hash_is_the_one_that_all_languages_have() {
        assert_eq!(crc32(b""), 0);
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
        assert_eq!(crc32("Z\u{fc}rich".as_bytes()), 0xd30b_a93e);
    }

    #[test]
    fn a_key_stays_together_and_an_id_meets_itself() {
        let by_key = Router::new(By::Key, 4);
        let of = |text: &'static str, turn| by_key.partition_of(&Bytes::from(text), turn);
        let home = of(r#"{"key":"a","id":"1","payload":0}"#, 1);
        for turn in 0..9 {
            assert_eq!(of(r#"{"payload":7,"key":"a"}"#, turn), home);
        }
        assert_eq!(of(r#"{"id":"a","payload":0}"#, 3), home, "an id is a text as a key is");
        assert_eq!(of(r#"{"sequence":12,"payload":0}"#, 1), Ok(crc32(b"12") % 4));
        let by_identity = Router::new(By::Identity, 4);
        let entry = Bytes::from_static(br#"{"key":"b","id":"a","payload":0}"#);
        assert_eq!(by_identity.partition_of(&entry, 1), home);
    }

    #[test]
    fn what_has_nothing_goes_in_turn() {
        let router = Router::new(By::Key, 3);
        let turns: Vec<_> = (1..7)
            .map(|turn| router.partition_of(&Bytes::from_static(b"plain"), turn).unwrap())
            .collect();
        assert_eq!(turns, [1, 2, 0, 1, 2, 0]);
    }

    #[test]
    fn total_order_goes_by_the_sequence_and_needs_one() {
        let router = Router::new(By::Sequence, 3);
        let of = |text: &'static str| router.partition_of(&Bytes::from(text), 0);
        assert_eq!(of(r#"{"sequence":7,"key":"k","payload":0}"#), Ok(1));
        assert_eq!(of(r#"{"sequence":7,"id":"7","payload":0}"#), Ok(1));
        assert_eq!(of(r#"{"sequence":7,"id":"x","payload":0}"#), Err(NoPlace::OtherId));
        assert_eq!(of(r#"{"id":"x","payload":0}"#), Err(NoPlace::NoSequence));
        for bad in ["0", "281474976710656"] {
            let entry = Bytes::from(format!("{{\"sequence\":{bad},\"payload\":0}}"));
            assert_eq!(router.partition_of(&entry, 0), Err(NoPlace::OutOfRange));
        }
        assert_eq!(of(r#"{"sequence":-1,"payload":0}"#), Ok(0), "it will be a dead letter");
        let one = Router::new(By::Sequence, 1);
        assert_eq!(one.partition_of(&Bytes::from_static(b"x"), 5), Ok(0));
    }
}
