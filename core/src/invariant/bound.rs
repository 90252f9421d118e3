//! Bound (G6): what is claimed and not yet delivered never exceeds the window.

use std::collections::BTreeSet;

use super::{Event, Violation};
use crate::message::Position;

/// Finds new messages that were claimed beyond the window. A window that becomes smaller takes nothing back: what is
/// in flight then may stay, but nothing new may join it. Without a [`Event::Window`] there is no bound.
pub fn check(history: &[Event]) -> Vec<Violation> {
    let mut window = u64::MAX;
    let mut head = Position::FIRST;
    let mut claimed = BTreeSet::new();
    let mut violations = Vec::new();
    for event in history {
        match event {
            Event::Window { size } => window = *size,
            Event::Head { position: to } | Event::Emitted { to, accepted: true, .. } => {
                head = head.max(*to);
                while claimed.first().is_some_and(|first| *first < head) {
                    claimed.pop_first();
                }
            }
            Event::Claimed { position, .. } => {
                let joined = *position >= head && claimed.insert(*position);
                if joined && claimed.len() as u64 > window {
                    violations.push(Violation {
                        invariant: "bound",
                        position: Some(*position),
                        id: None,
                        what: format!(
                            "claimed as number {} from head {head} on, the window is {window}",
                            claimed.len()
                        ),
                    });
                }
            }
            _ => {}
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::super::tests::plant::claimed;
    use super::*;

    fn head(position: u64) -> Event {
        Event::Head {
            position: Position(position),
        }
    }

    #[test]
    fn one_claim_too_many_is_found() {
        let history = [
            Event::Window { size: 2 },
            claimed(1, 1, "a"),
            claimed(2, 1, "a"),
            claimed(3, 1, "b"),
        ];
        let found = check(&history);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].position, Some(Position(3)));
    }

    #[test]
    fn a_claim_again_and_a_window_that_shrinks_are_no_violation() {
        let history = [
            Event::Window { size: 3 },
            claimed(1, 1, "a"),
            claimed(2, 1, "a"),
            claimed(3, 1, "a"),
            Event::Window { size: 1 },
            claimed(2, 2, "b"),
            head(4),
            claimed(4, 1, "b"),
        ];
        assert_eq!(check(&history), []);
        let more = [&history[..], &[claimed(5, 1, "b")]].concat();
        assert_eq!(check(&more).len(), 1, "but nothing new may join");
    }
}
