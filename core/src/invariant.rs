//! What must hold of any history of a line, whatever crashed or came twice on the way.
//!
//! A history is what somebody saw from outside: a test's driver, or the benchmark's clients. Each property has a
//! file with its oracle, and each oracle is shown to find what it is for. All of them run in linear time, or nearly,
//! so that they can judge a run of ten million messages.

use std::fmt;

use crate::lease::{Attempt, OwnerId};
use crate::message::{Id, Position};
use crate::term::Term;
use crate::time::Micros;

pub mod bound;
pub mod duplicate;
pub mod fence;
pub mod loss;
pub mod order;
pub mod progress;
pub mod serial;

/// What can be observed. A history is a slice of these, in the order in which they were seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A message was accepted. One sent again under its id is one message.
    Sent {
        /// Its identity.
        id: Id,
        /// When.
        at: Micros,
    },
    /// A message was claimed.
    Claimed {
        /// The message.
        position: Position,
        /// The how manieth claim of it.
        attempt: Attempt,
        /// By whom.
        owner: OwnerId,
        /// When.
        at: Micros,
    },
    /// The end of a lease was asked for.
    Completed {
        /// The message.
        position: Position,
        /// The attempt that ends.
        attempt: Attempt,
        /// By whom.
        owner: OwnerId,
        /// Whether it counted.
        accepted: bool,
    },
    /// A row was found in the system of record.
    Recorded {
        /// Whose result it is.
        id: Id,
        /// At which place it is delivered.
        position: Position,
    },
    /// A reign began. A renewal is none.
    Elected {
        /// The term.
        term: Term,
        /// Who leads.
        owner: OwnerId,
    },
    /// Somebody delivered.
    Emitted {
        /// Under which term.
        term: Term,
        /// The first position.
        from: Position,
        /// The position after the last one.
        to: Position,
        /// Whether it counted.
        accepted: bool,
    },
    /// A message came out of the output. These stand in the order in which they came out.
    Delivered {
        /// Its place in the order.
        position: Position,
        /// Its identity.
        id: Id,
        /// When.
        at: Micros,
        /// Whether it is a tombstone.
        dead: bool,
    },
    /// A dead letter was found.
    DeadLetter {
        /// Whose.
        id: Id,
    },
    /// When the history ends, this one is still in the line: waiting, in flight or processed.
    Left {
        /// Its identity.
        id: Id,
    },
    /// The head moved.
    Head {
        /// The lowest position not yet delivered.
        position: Position,
    },
    /// From here on claims are made with this window.
    Window {
        /// How many positions it spans.
        size: u64,
    },
    /// A fault begins: until it is over nothing has to move.
    Fault {
        /// When.
        at: Micros,
    },
    /// The fault is over.
    FaultOver {
        /// When.
        at: Micros,
    },
    /// The history ends.
    Ended {
        /// When.
        at: Micros,
    },
}

/// A property that a history does not have, and where that shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The property, by the name of its file.
    pub invariant: &'static str,
    /// The message concerned, where it has a position.
    pub position: Option<Position>,
    /// The message concerned, where its identity is known.
    pub id: Option<Id>,
    /// What is wrong with it.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.invariant)?;
        if let Some(position) = self.position {
            write!(f, ": position {position}")?;
        }
        if let Some(id) = &self.id {
            write!(f, ": id {id}")?;
        }
        write!(f, ": {}", self.what)
    }
}

/// Judges a history by all properties that have no parameter: all but [`progress`].
pub fn check_all(history: &[Event]) -> Vec<Violation> {
    [order::check, bound::check]
        .iter()
        .flat_map(|check| check(history))
        .chain(check_any_order(history))
        .collect()
}

/// Judges a history by what holds whatever order the messages keep. Then [`order::check_by`] is left, and what is claimed and
/// not delivered is more than what stands beyond the head, so that [`bound`] says nothing.
pub fn check_any_order(history: &[Event]) -> Vec<Violation> {
    [loss::check, duplicate::check, fence::check]
        .iter()
        .flat_map(|check| check(history))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Short names for the events that the properties' tests plant.
    pub(super) mod plant {
        use super::*;

        pub(in crate::invariant) fn sent(id: &str, at: u64) -> Event {
            Event::Sent {
                id: Id::given(id),
                at: Micros(at),
            }
        }

        pub(in crate::invariant) fn delivered(position: u64, id: &str, at: u64) -> Event {
            Event::Delivered {
                position: Position(position),
                id: Id::given(id),
                at: Micros(at),
                dead: false,
            }
        }

        pub(in crate::invariant) fn claimed(position: u64, attempt: u32, owner: &str) -> Event {
            Event::Claimed {
                position: Position(position),
                attempt: Attempt(attempt),
                owner: OwnerId::new(owner),
                at: Micros(0),
            }
        }

        pub(in crate::invariant) fn completed(position: u64, attempt: u32, owner: &str, accepted: bool) -> Event {
            Event::Completed {
                position: Position(position),
                attempt: Attempt(attempt),
                owner: OwnerId::new(owner),
                accepted,
            }
        }
    }

    use plant::{claimed, completed, delivered, sent};

    #[test]
    fn a_run_without_a_flaw_has_no_violation() {
        let history = [
            Event::Window { size: 2 },
            sent("a", 0),
            sent("b", 0),
            claimed(1, 1, "p"),
            claimed(2, 1, "q"),
            completed(2, 1, "q", true),
            completed(1, 1, "p", true),
            Event::Elected {
                term: Term(1),
                owner: OwnerId::new("s"),
            },
            Event::Emitted {
                term: Term(1),
                from: Position(1),
                to: Position(3),
                accepted: true,
            },
            delivered(1, "a", 1),
            delivered(2, "b", 1),
        ];
        assert_eq!(check_all(&history), []);
        assert_eq!(progress::check(&history, 1), []);
    }

    #[test]
    fn a_violation_tells_where_and_what() {
        let found = check_all(&[sent("a", 0), delivered(2, "a", 1), delivered(1, "a", 2)]);
        let found: Vec<_> = found.iter().map(Violation::to_string).collect();
        assert_eq!(
            found,
            [
                "order: position 1: id a: came out after position 2",
                "duplicate: position 1: id a: delivered again, first at position 2",
            ]
        );
    }

    #[test]
    fn a_long_history_is_judged_in_no_time() {
        let history: Vec<_> = (1..=100_000)
            .flat_map(|position| {
                let id = position.to_string();
                [
                    sent(&id, position),
                    claimed(position, 1, "p"),
                    completed(position, 1, "p", true),
                    delivered(position, &id, position),
                ]
            })
            .collect();
        assert_eq!(check_all(&history), []);
        assert_eq!(progress::check(&history, 1), []);
    }
}
