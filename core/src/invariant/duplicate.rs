//! Duplicate (G3): at most one record per id, and its result comes out at most once. A tombstone is no result: it stands
//! for a position, and an id that failed at one may be sent again and succeed at another. Nothing comes out twice at one
//! position, tombstones neither: where there is no order, nothing else would tell.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use super::{Event, Violation};
use crate::message::{Id, Position};

/// Finds ids that came out, or stand in the record, more than once, and positions that came out more than once.
pub fn check(history: &[Event]) -> Vec<Violation> {
    let mut places = HashSet::new();
    let mut delivered = HashMap::new();
    let mut recorded = HashMap::new();
    history
        .iter()
        .filter_map(|event| match event {
            Event::Delivered { position, id, dead, .. } => {
                let is_new = places.insert(*position);
                let again = (!dead).then(|| again(&mut delivered, id, *position, "delivered"));
                again.flatten().or_else(|| (!is_new).then(|| twice(*position, id)))
            }
            Event::Recorded { position, id } => again(&mut recorded, id, *position, "recorded"),
            _ => None,
        })
        .collect()
}

fn twice(position: Position, id: &Id) -> Violation {
    Violation {
        invariant: "duplicate",
        position: Some(position),
        id: Some(id.clone()),
        what: "delivered at a position that had come out".to_owned(),
    }
}

fn again<'a>(seen: &mut HashMap<&'a Id, Position>, id: &'a Id, position: Position, what: &str) -> Option<Violation> {
    match seen.entry(id) {
        Entry::Vacant(slot) => {
            slot.insert(position);
            None
        }
        Entry::Occupied(first) => Some(Violation {
            invariant: "duplicate",
            position: Some(position),
            id: Some(id.clone()),
            what: format!("{what} again, first at position {}", first.get()),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::plant::delivered;
    use super::*;
    use crate::time::Micros;

    fn recorded(position: u64, id: &str) -> Event {
        Event::Recorded {
            id: Id::given(id),
            position: Position(position),
        }
    }

    #[test]
    fn an_id_that_comes_out_twice_is_found() {
        let found = check(&[delivered(1, "a", 0), delivered(2, "b", 0), delivered(3, "a", 0)]);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].position, Some(Position(3)));
        assert_eq!(found[0].id, Some(Id::given("a")));
    }

    #[test]
    fn a_tombstone_is_no_result() {
        let tombstone = |position| Event::Delivered {
            position: Position(position),
            id: Id::given("a"),
            at: Micros(0),
            dead: true,
        };
        assert_eq!(check(&[tombstone(1), tombstone(2), delivered(3, "a", 0)]), []);
        assert_eq!(
            check(&[tombstone(1), delivered(2, "a", 0), delivered(3, "a", 0)]).len(),
            1
        );
    }

    #[test]
    fn a_position_that_comes_out_twice_is_found() {
        let tombstone = |position, id| Event::Delivered {
            position: Position(position),
            id: Id::given(id),
            at: Micros(0),
            dead: true,
        };
        assert_eq!(check(&[tombstone(1, "a"), tombstone(1, "a")]).len(), 1);
        assert_eq!(check(&[tombstone(1, "a"), delivered(1, "a", 0)]).len(), 1);
        assert_eq!(check(&[delivered(1, "a", 0), delivered(1, "b", 0)]).len(), 1);
        let again = check(&[delivered(1, "a", 0), delivered(1, "a", 0)]);
        assert_eq!(again.len(), 1, "told once: {again:?}");
    }

    #[test]
    fn an_id_with_two_records_is_found() {
        let found = check(&[recorded(1, "a"), recorded(2, "a")]);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].id, Some(Id::given("a")));
    }

    #[test]
    fn one_record_and_one_output_are_no_duplicates() {
        assert_eq!(check(&[recorded(1, "a"), delivered(1, "a", 0), recorded(2, "b")]), []);
    }
}
