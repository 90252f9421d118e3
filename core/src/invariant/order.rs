//! Order (G1): the output is in strictly ascending position.

use super::{Event, Violation};

/// Finds what came out at or after a position that it should have come before.
pub fn check(history: &[Event]) -> Vec<Violation> {
    let mut last = None;
    let mut violations = Vec::new();
    for event in history {
        let Event::Delivered { position, id, .. } = event else {
            continue;
        };
        if let Some(last) = last
            && *position <= last
        {
            violations.push(Violation {
                invariant: "order",
                position: Some(*position),
                id: Some(id.clone()),
                what: format!("came out after position {last}"),
            });
        }
        last = last.max(Some(*position));
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
    fn a_gap_is_no_disorder() {
        assert_eq!(check(&[delivered(1, "a", 0), delivered(7, "b", 0)]), []);
    }
}
