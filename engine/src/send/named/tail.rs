//! What was accepted lately.

use std::collections::VecDeque;

use bytes::Bytes;

/// What was accepted lately. A failover takes back the last moments, and then this may be all there is of them.
#[derive(Debug, Default)]
pub(super) struct Tail {
    /// Each with its mark.
    entries: VecDeque<(Bytes, u64)>,
    bytes: usize,
}

/// So much of it is kept.
const KEPT: usize = 10_000;
const KEPT_BYTES: usize = 8 << 20;

impl Tail {
    pub(super) fn add(&mut self, entries: impl Iterator<Item = (Bytes, u64)>) {
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
    pub(super) fn take(&mut self, count: u64) -> Option<Vec<(Bytes, u64)>> {
        let count = usize::try_from(count).ok()?;
        let from = self.entries.len().checked_sub(count)?;
        let taken: Vec<_> = self.entries.split_off(from).into();
        self.bytes -= taken.iter().map(|(entry, _)| entry.len()).sum::<usize>();
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(numbers: std::ops::Range<u32>) -> Vec<Bytes> {
        numbers.map(|number| Bytes::from(number.to_string())).collect()
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
