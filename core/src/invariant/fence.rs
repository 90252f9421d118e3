//! Fence (laws 2, 3 and 6): what an earlier leader, or an earlier holder of a lease, still sends does not count.

use std::collections::HashMap;

use super::{Event, Violation};
use crate::lease::{Attempt, OwnerId};
use crate::message::Position;
use crate::term::Term;

/// Finds terms that did not grow, and what counted though its term or its attempt was over.
pub fn check(history: &[Event]) -> Vec<Violation> {
    let mut terms = Terms::default();
    let mut leases: HashMap<Position, Leases<'_>> = HashMap::new();
    history
        .iter()
        .filter_map(|event| {
            let (position, what) = match event {
                Event::Elected { term, owner } => (None, terms.elected(*term, owner)?),
                Event::Emitted {
                    term,
                    from,
                    to,
                    accepted: true,
                } => (Some(*from), terms.emitted(*term, *from, *to)?),
                Event::Claimed {
                    position,
                    attempt,
                    owner,
                    ..
                } => {
                    let leases = leases.entry(*position).or_default();
                    (Some(*position), leases.claimed(*attempt, owner)?)
                }
                Event::Completed {
                    position,
                    attempt,
                    owner,
                    accepted: true,
                } => {
                    let leases = leases.entry(*position).or_default();
                    (Some(*position), leases.completed(*attempt, owner)?)
                }
                _ => return None,
            };
            Some(Violation {
                invariant: "fence",
                position,
                id: None,
                what,
            })
        })
        .collect()
}

/// The reigns so far.
#[derive(Default)]
struct Terms {
    highest: Term,
    /// The position after the last one that was delivered.
    emitted: Option<Position>,
}

impl Terms {
    fn elected(&mut self, term: Term, owner: &OwnerId) -> Option<String> {
        let highest = self.highest;
        self.highest = highest.max(term);
        (term <= highest).then(|| format!("{owner} was elected for term {term} after term {highest}"))
    }

    fn emitted(&mut self, term: Term, from: Position, to: Position) -> Option<String> {
        let before = self.emitted;
        self.emitted = before.max(Some(to));
        if term < self.highest {
            return Some(format!("delivered under term {term} during term {}", self.highest));
        }
        before
            .filter(|before| from < *before)
            .map(|before| format!("delivered from here on when the head was at {before}"))
    }
}

/// The leases on one message so far.
#[derive(Default)]
struct Leases<'a> {
    /// The latest one and who has it.
    latest: Option<(Attempt, &'a OwnerId)>,
    /// The latest one that ended.
    ended: Attempt,
}

impl<'a> Leases<'a> {
    fn claimed(&mut self, attempt: Attempt, owner: &'a OwnerId) -> Option<String> {
        let before = self.latest.replace((attempt, owner));
        before
            .filter(|(latest, _)| attempt <= *latest)
            .map(|(latest, other)| format!("claimed by {owner} as attempt {attempt} after {other}'s attempt {latest}"))
    }

    fn completed(&mut self, attempt: Attempt, owner: &OwnerId) -> Option<String> {
        let ended = self.ended;
        self.ended = ended.max(attempt);
        if attempt <= ended {
            return Some(format!(
                "attempt {attempt} by {owner} counted after attempt {ended} had ended"
            ));
        }
        self.latest
            .filter(|(latest, holder)| attempt < *latest || (attempt == *latest && owner != *holder))
            .map(|(latest, holder)| {
                format!("attempt {attempt} by {owner} counted though {holder} had claimed it as attempt {latest}")
            })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::plant::{claimed, completed};
    use super::*;

    fn elected(term: u64) -> Event {
        Event::Elected {
            term: Term(term),
            owner: OwnerId::new("s"),
        }
    }

    fn emitted(term: u64, from: u64, to: u64, accepted: bool) -> Event {
        Event::Emitted {
            term: Term(term),
            from: Position(from),
            to: Position(to),
            accepted,
        }
    }

    fn found_at(history: &[Event]) -> Vec<Option<u64>> {
        check(history)
            .iter()
            .map(|found| found.position.map(|position| position.0))
            .collect()
    }

    #[test]
    fn a_term_that_does_not_grow_is_found() {
        assert_eq!(found_at(&[elected(2), elected(2)]), [None]);
        assert_eq!(found_at(&[elected(2), elected(1)]), [None]);
    }

    #[test]
    fn an_earlier_leader_that_still_delivers_is_found() {
        let history = [elected(1), emitted(1, 1, 4, true), elected(2), emitted(1, 4, 5, true)];
        assert_eq!(found_at(&history), [Some(4)]);
    }

    #[test]
    fn what_is_delivered_by_two_is_found() {
        assert_eq!(
            found_at(&[elected(1), emitted(1, 1, 4, true), emitted(1, 3, 5, true)]),
            [Some(3)]
        );
    }

    #[test]
    fn a_completion_after_another_claim_is_found() {
        let history = [
            claimed(7, 1, "a"),
            claimed(7, 2, "b"),
            completed(7, 1, "a", true),
            completed(7, 2, "b", true),
        ];
        assert_eq!(found_at(&history), [Some(7)]);
    }

    #[test]
    fn a_completion_of_anothers_lease_or_a_second_one_is_found() {
        assert_eq!(found_at(&[claimed(7, 1, "a"), completed(7, 1, "b", true)]), [Some(7)]);
        let twice = [
            claimed(7, 1, "a"),
            completed(7, 1, "a", true),
            completed(7, 1, "a", true),
        ];
        assert_eq!(found_at(&twice), [Some(7)]);
    }

    #[test]
    fn an_attempt_that_is_claimed_twice_is_found() {
        assert_eq!(found_at(&[claimed(7, 1, "a"), claimed(7, 1, "b")]), [Some(7)]);
    }

    #[test]
    fn what_is_late_and_does_not_count_is_no_violation() {
        let history = [
            elected(1),
            emitted(1, 1, 1, true),
            elected(2),
            emitted(1, 1, 2, false),
            emitted(2, 1, 2, true),
            emitted(2, 1, 2, false),
            claimed(7, 1, "a"),
            claimed(7, 2, "b"),
            completed(7, 1, "a", false),
            completed(7, 2, "b", true),
            claimed(8, 1, "a"),
            completed(8, 1, "a", true),
            claimed(8, 2, "b"),
            completed(8, 2, "b", true),
        ];
        assert_eq!(check(&history), []);
    }
}
