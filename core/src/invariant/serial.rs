//! Serial: where the messages of a key are processed one after the other, the work that led to one's result ended before
//! that of the next began. Both times are the store's, so a clock that is set back can look like a violation.

use std::collections::HashMap;
use std::hash::Hash;

use super::Violation;
use crate::message::{Id, Position};
use crate::time::Micros;

/// The work that led to an output: from the claim to the record.
#[derive(Debug, Clone, Copy)]
pub struct Span<'a> {
    /// The output's place.
    pub position: Position,
    /// Its identity.
    pub id: &'a Id,
    /// When it was claimed.
    pub from: Micros,
    /// When its result was recorded.
    pub to: Micros,
}

/// Finds what was begun before the one before it of the same key was done.
pub fn check<'a, K: Eq + Hash>(outputs: impl IntoIterator<Item = (K, Span<'a>)>) -> Vec<Violation> {
    let mut of: HashMap<K, Vec<Span<'a>>> = HashMap::new();
    for (key, span) in outputs {
        of.entry(key).or_default().push(span);
    }
    let mut violations = Vec::new();
    for spans in of.values_mut() {
        spans.sort_by_key(|span| span.position);
        // What comes twice is found by others.
        spans.dedup_by_key(|span| span.position);
        let overlapping = spans.windows(2).filter(|pair| pair[1].from < pair[0].to);
        violations.extend(overlapping.map(|pair| Violation {
            invariant: "serial",
            position: Some(pair[1].position),
            id: Some(pair[1].id.clone()),
            what: format!("begun before position {} of its key was done", pair[0].position),
        }));
    }
    violations.sort_by_key(|violation| violation.position);
    violations
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_begun_too_early_is_found() {
        let id = Id::given("a");
        let span = |position, from, to| Span {
            position: Position(position),
            id: &id,
            from: Micros(from),
            to: Micros(to),
        };
        let good = [("k", span(3, 20, 25)), ("k", span(1, 1, 20)), ("l", span(2, 2, 30))];
        assert_eq!(check(good), []);
        let found = check([("k", span(3, 19, 25)), ("k", span(1, 1, 20)), ("l", span(2, 2, 30))]);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].position, Some(Position(3)));
    }
}
