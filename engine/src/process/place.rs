//! The place of a processor in a line of several partitions: what a message there is called, and whether it belongs there.

use conga_core::message::{Entry, Id, Input, Position, Reject};
use conga_core::route::{By, Router};

/// Which partition of which line a processor serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The partition, from 0 on.
    pub partition: u32,
    /// How messages come to their partitions.
    pub router: Router,
}

impl Place {
    /// Gives a message that has no identity one that no other partition gives.
    pub(super) fn name(&self, id: &mut Id, position: Position) {
        if id.is_of_position() {
            *id = Id::of_place(self.partition, position);
        }
    }

    /// The same, and refuses what can't come out in the line's order from here: where that is by sequence, what has none or
    /// one of another partition. By key and identity a message in another partition than its own comes out all the same.
    pub(super) fn settle(&self, input: &mut Input, position: Position) -> Result<(), Reject> {
        self.name(&mut input.id, position);
        if self.router.by() != By::Sequence {
            return Ok(());
        }
        let bad = |reason: String| Reject::BadField {
            field: "sequence",
            reason,
        };
        let partitions = self.router.partitions();
        let sequence = input.sequence.unwrap_or_default();
        let id = Some(input.id.as_str()).filter(|_| input.sequence.is_some());
        match self.router.partition(None, id, input.sequence, 0) {
            Ok(home) if home == self.partition => Ok(()),
            Ok(home) => Err(bad(format!(
                "{sequence} belongs into partition {home} of {partitions} (the remainder of {sequence} by {partitions}), \
                 and was sent into partition {}",
                self.partition
            ))),
            Err(error) => Err(bad(error.to_string())),
        }
    }

    /// The sequence of what is refused, if it stands in it and belongs here: so that its tombstone has its place in the order.
    pub(super) fn sequence_of(&self, entry: &Entry) -> Option<u64> {
        #[derive(serde::Deserialize)]
        struct Numbered {
            sequence: u64,
        }
        let Entry::Whole(bytes) = entry else { return None };
        if self.router.by() != By::Sequence {
            return None;
        }
        let Numbered { sequence } = serde_json::from_slice(bytes).ok()?;
        let home = self.router.partition(None, None, Some(sequence), 0).ok()?;
        (home == self.partition).then_some(sequence)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use conga_core::message::{Format, parse};

    use super::*;

    fn settled(by: By, text: &'static str) -> Result<Id, Reject> {
        let (partition, position) = (1, Position(17));
        let router = Router::new(by, 3);
        let mut input = parse(&Entry::Whole(Bytes::from(text)), position, Format::Any, 1_000)?;
        Place { partition, router }.settle(&mut input, position)?;
        Ok(input.id)
    }

    #[test]
    fn what_has_no_id_is_called_by_partition_and_position() {
        assert_eq!(settled(By::Key, "plain").unwrap(), Id::given("@1.17"));
        assert_eq!(settled(By::Key, r#"{"id":"a","payload":0}"#).unwrap(), Id::given("a"));
        assert_eq!(
            settled(By::Sequence, r#"{"sequence":4,"payload":0}"#).unwrap(),
            Id::given("4")
        );
    }

    #[test]
    fn what_has_no_place_in_the_order_is_refused() {
        for text in ["plain", r#"{"sequence":0,"payload":0}"#] {
            let refused = settled(By::Sequence, text).unwrap_err();
            assert!(refused.to_string().contains("total order over several"), "{refused}");
        }
        let two = settled(By::Sequence, r#"{"sequence":4,"id":"a","payload":0}"#).unwrap_err();
        assert!(two.to_string().contains("leave out the `id`"), "{two}");
        let elsewhere = settled(By::Sequence, r#"{"sequence":5,"payload":0}"#).unwrap_err();
        assert!(elsewhere.to_string().contains("partition 2 of 3"), "{elsewhere}");
    }
    #[test]
    fn the_tombstone_of_what_is_refused_has_its_sequence() {
        let place = Place {
            partition: 1,
            router: Router::new(By::Sequence, 3),
        };
        let of = |text: &'static str| place.sequence_of(&Entry::Whole(Bytes::from(text)));
        assert_eq!(of(r#"{"sequence":4,"id":"a","payload":0}"#), Some(4));
        assert_eq!(of(r#"{"sequence":4,"created":"yesterday","payload":0}"#), Some(4));
        assert_eq!(of(r#"{"sequence":5,"payload":0}"#), None, "it is another partition's");
        assert_eq!(of(r#"{"sequence":-4,"payload":0}"#), None);
        assert_eq!(of("plain"), None);
        assert_eq!(place.sequence_of(&Entry::Oversize { bytes: 9 }), None);
    }
}
