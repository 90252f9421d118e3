//! Order (G1): the output is in strictly ascending position; where order is by key, that of each key is.

use std::collections::HashMap;
use std::hash::Hash;

use super::{Event, Violation};
use crate::message::{Id, Position};

/// Finds what came out at or after a position that it should have come before.
pub fn check(history: &[Event]) -> Vec<Violation> {
    check_by(history, |_, _| Some(()))
}

/// The same among those alone that have the same key. Messages without a key have no order, but even they come out once:
/// of that the positions tell nothing here, and [`super::duplicate`] does.
pub fn check_by<K: Eq + Hash>(history: &[Event], key_of: impl Fn(Position, &Id) -> Option<K>) -> Vec<Violation> {
    let mut last_of: HashMap<K, Option<Position>> = HashMap::new();
    let mut violations = Vec::new();
    for event in history {
        let Event::Delivered { position, id, .. } = event else {
            continue;
        };
        let Some(key) = key_of(*position, id) else { continue };
        let last = last_of.entry(key).or_default();
        if let Some(last) = *last
            && *position <= last
        {
            violations.push(Violation {
                invariant: "order",
                position: Some(*position),
                id: Some(id.clone()),
                what: format!("came out after position {last}"),
            });
        }
        *last = (*last).max(Some(*position));
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::super::tests::plant::delivered;
    use super::*;
    use crate::message::Position;

    #[test]
    fn two_that_changed_places_are_found() {
        let found = check(&[delivered(1, "a", 0), delivered(3, "c", 0), delivered(2, "b", 0)]);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].position, Some(Position(2)));
    }

    #[test]
    fn a_position_that_comes_twice_is_found() {
        let found = check(&[delivered(1, "a", 0), delivered(1, "a", 0), delivered(2, "b", 0)]);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].position, Some(Position(1)));
    }

    #[test]
    fn each_key_has_an_order_of_its_own() {
        let history = [4, 1, 3, 2, 6, 5].map(|position| delivered(position, "x", 0));
        let found = |parts: u64| {
            check_by(&history, |position, _| {
                (position.0 % parts > 0).then_some(position.0 % parts)
            })
        };
        let positions = |parts| {
            found(parts)
                .iter()
                .map(|violation| violation.position.unwrap().0)
                .collect::<Vec<_>>()
        };
        assert_eq!(positions(2), [0; 0], "1, 3, 5; the others have none");
        assert_eq!(positions(3), [1], "4 and 1, 2 and 5");
    }

    #[test]
    fn a_gap_is_no_disorder() {
        assert_eq!(check(&[delivered(1, "a", 0), delivered(7, "b", 0)]), []);
    }
}
