//! Loss (G2): each accepted message is delivered, dead or still in the line.

use std::collections::HashSet;

use super::{Event, Violation};
use crate::message::Id;

/// How many messages there were. "Lost: 0" means something only next to how many were sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    /// Accepted; one sent again under its id counts once.
    pub sent: u64,
    /// Of these, found again: delivered, dead or still in the line.
    pub accounted: u64,
    /// Of these, gone.
    pub lost: u64,
}

/// Counts what was sent and what of it was found again.
pub fn count(history: &[Event]) -> Count {
    let (sent, lost) = compare(history);
    let lost = lost.len() as u64;
    Count {
        sent,
        accounted: sent - lost,
        lost,
    }
}

/// Finds what was sent and is nowhere.
pub fn check(history: &[Event]) -> Vec<Violation> {
    let (_, lost) = compare(history);
    lost.into_iter()
        .map(|id| Violation {
            invariant: "loss",
            position: None,
            id: Some(id.clone()),
            what: "sent, and neither delivered, nor dead, nor left in the line".to_owned(),
        })
        .collect()
}

/// How many ids were sent, and those of them that are nowhere, in the order in which they were sent.
fn compare(history: &[Event]) -> (u64, Vec<&Id>) {
    let found: HashSet<&Id> = history
        .iter()
        .filter_map(|event| match event {
            Event::Delivered { id, .. } | Event::DeadLetter { id } | Event::Left { id } => Some(id),
            _ => None,
        })
        .collect();
    let mut sent = HashSet::new();
    let lost = history
        .iter()
        .filter_map(|event| match event {
            Event::Sent { id, .. } if sent.insert(id) && !found.contains(id) => Some(id),
            _ => None,
        })
        .collect();
    (sent.len() as u64, lost)
}

#[cfg(test)]
mod tests {
    use super::super::tests::plant::{delivered, sent};
    use super::*;

    #[test]
    fn the_one_that_is_nowhere_is_found_and_counted() {
        let history = [sent("a", 0), sent("b", 0), sent("b", 0), delivered(1, "a", 1)];
        let found = check(&history);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].id, Some(Id::given("b")));
        let count = count(&history);
        assert_eq!((count.sent, count.accounted, count.lost), (2, 1, 1));
    }

    #[test]
    fn delivered_dead_and_left_are_not_lost() {
        let history = [
            sent("a", 0),
            sent("b", 0),
            sent("c", 0),
            delivered(1, "a", 1),
            Event::DeadLetter { id: Id::given("b") },
            Event::Left { id: Id::given("c") },
        ];
        assert_eq!(check(&history), []);
        assert_eq!(count(&history).accounted, 3);
    }

    #[test]
    fn a_record_alone_is_no_delivery() {
        let history = [
            sent("a", 0),
            Event::Recorded {
                id: Id::given("a"),
                position: crate::message::Position(1),
            },
        ];
        assert_eq!(check(&history).len(), 1);
    }
}
