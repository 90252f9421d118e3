//! The sequencer: what is processed comes in any order and leaves in the order of the positions.
//!
//! It is a state machine: [`Sequencer::step`] takes an event and answers what to do. It neither waits nor sends. A
//! standby takes the same events as a leader and so is warm: elected, it emits at once what its predecessor had
//! left. A ticket is whatever the caller needs in order to emit a message; the sequencer only keeps it.

use std::collections::VecDeque;

use crate::message::Position;
use crate::term::Term;

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<T> {
    /// The lock was won, or renewed under the same term.
    Elected {
        /// The term of this reign.
        term: Term,
    },
    /// The lock was lost, given up, or can't be proved to be held any more.
    Deposed,
    /// The store said where the head is.
    Head {
        /// The lowest position not yet delivered.
        head: Position,
    },
    /// A message was processed.
    Processed {
        /// Its place in the order.
        position: Position,
        /// What the caller needs to emit it.
        ticket: T,
    },
    /// An emit counted.
    Emitted {
        /// The new head.
        head: Position,
    },
    /// An emit did not count, or nobody knows whether it did; or what was followed may have been lost.
    /// All that is known is forgotten, to be read anew.
    Reload,
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Nothing, until the next event.
    Wait,
    /// Emit the first `count` tickets, under `term`, from `head` on. Until the answer is in no other emit is asked for.
    Emit {
        /// The term to emit under.
        term: Term,
        /// Where the first ticket belongs.
        head: Position,
        /// How many.
        count: usize,
    },
    /// Follow the processed stream from its beginning: something there was passed over.
    Follow,
}

/// The reorder buffer, and whether what is in it may be emitted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Sequencer<T> {
    head: Position,
    /// The ticket at index i belongs to the position head + i.
    buffer: VecDeque<Option<T>>,
    capacity: usize,
    batch: usize,
    term: Option<Term>,
    emitting: bool,
    /// The lowest position that went by beyond the capacity.
    missed: Option<Position>,
}

impl<T> Sequencer<T> {
    /// A standby that knows nothing. It keeps tickets up to `capacity` positions from the head on (the window), and
    /// asks to emit at most `batch` at once. Both are at least 1.
    pub fn new(capacity: usize, batch: usize) -> Self {
        Self {
            head: Position::FIRST,
            buffer: VecDeque::new(),
            capacity: capacity.max(1),
            batch: batch.max(1),
            term: None,
            emitting: false,
            missed: None,
        }
    }

    /// Takes an event, answers what to do.
    pub fn step(&mut self, event: Event<T>) -> Action {
        match event {
            Event::Elected { term } => {
                if self.term.is_some_and(|led| led != term) {
                    self.emitting = false;
                }
                self.term = Some(term);
            }
            Event::Deposed => {
                self.term = None;
                self.emitting = false;
            }
            Event::Head { head } => self.advance(head),
            Event::Emitted { head } => {
                self.emitting = false;
                self.advance(head);
            }
            Event::Processed { position, ticket } => self.keep(position, ticket),
            Event::Reload => {
                // A store that came back older than it was has an older head: what is read next tells.
                self.head = Position::FIRST;
                self.buffer.clear();
                self.emitting = false;
                self.missed = None;
            }
        }
        self.next_action()
    }

    /// The tickets from the head on that stand without a gap: the first `count` of them.
    pub fn ready(&self, count: usize) -> impl Iterator<Item = &T> {
        self.buffer.iter().map_while(Option::as_ref).take(count)
    }

    /// The lowest position not yet delivered, as far as this sequencer knows.
    pub fn head(&self) -> Position {
        self.head
    }

    /// The term under which this sequencer leads.
    pub fn term(&self) -> Option<Term> {
        self.term
    }

    /// How many positions the buffer spans.
    pub fn span(&self) -> usize {
        self.buffer.len()
    }

    fn next_action(&mut self) -> Action {
        let (Some(term), false) = (self.term, self.emitting) else {
            return Action::Wait;
        };
        let count = self.ready(self.batch).count();
        if count > 0 {
            self.emitting = true;
            return Action::Emit {
                term,
                head: self.head,
                count,
            };
        }
        if self.missed.is_some_and(|missed| self.index(missed).is_some()) {
            self.missed = None;
            return Action::Follow;
        }
        Action::Wait
    }

    /// The head goes back only by a reload: an answer that was long on its way may tell an older one.
    fn advance(&mut self, head: Position) {
        let by = usize::try_from(head.past(self.head)).unwrap_or(usize::MAX);
        self.buffer.drain(..by.min(self.buffer.len()));
        self.head = self.head.max(head);
    }

    fn keep(&mut self, position: Position, ticket: T) {
        if position < self.head {
            return;
        }
        let Some(index) = self.index(position) else {
            self.missed = Some(self.missed.map_or(position, |missed| missed.min(position)));
            return;
        };
        if self.buffer.len() <= index {
            self.buffer.resize_with(index + 1, || None);
        }
        self.buffer[index] = Some(ticket);
    }

    /// Where in the buffer a position that is not yet delivered belongs, if there is room for it.
    fn index(&self, position: Position) -> Option<usize> {
        usize::try_from(position.past(self.head))
            .ok()
            .filter(|index| *index < self.capacity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn processed(position: u64) -> Event<u64> {
        Event::Processed {
            position: Position(position),
            ticket: position,
        }
    }

    fn leader() -> Sequencer<u64> {
        let mut sequencer = Sequencer::new(8, 3);
        sequencer.step(Event::Elected { term: Term(1) });
        sequencer
    }

    fn emit(head: u64, count: usize) -> Action {
        Action::Emit {
            term: Term(1),
            head: Position(head),
            count,
        }
    }

    #[test]
    fn what_comes_in_any_order_leaves_in_order_and_in_batches() {
        let mut sequencer = leader();
        for position in [4, 2, 3] {
            assert_eq!(sequencer.step(processed(position)), Action::Wait);
        }
        assert_eq!(sequencer.step(processed(1)), emit(1, 3));
        assert_eq!(sequencer.ready(3).copied().collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(sequencer.step(processed(5)), Action::Wait, "one emit at a time");
        assert_eq!(sequencer.step(Event::Emitted { head: Position(4) }), emit(4, 2));
        assert_eq!(sequencer.step(Event::Emitted { head: Position(6) }), Action::Wait);
    }

    #[test]
    fn a_standby_is_warm() {
        let mut sequencer = Sequencer::new(8, 8);
        for position in [1, 2, 3] {
            assert_eq!(sequencer.step(processed(position)), Action::Wait);
        }
        sequencer.step(Event::Head { head: Position(2) });
        assert_eq!(sequencer.step(Event::Elected { term: Term(1) }), emit(2, 2));
    }

    #[test]
    fn a_deposed_leader_emits_nothing() {
        let mut sequencer = leader();
        assert_eq!(sequencer.step(processed(1)), emit(1, 1));
        assert_eq!(sequencer.step(Event::Deposed), Action::Wait);
        assert_eq!(sequencer.step(processed(2)), Action::Wait);
    }

    #[test]
    fn a_late_answer_does_not_turn_the_head_back() {
        let mut sequencer = leader();
        sequencer.step(Event::Head { head: Position(5) });
        sequencer.step(Event::Emitted { head: Position(2) });
        assert_eq!(sequencer.head(), Position(5));
        assert_eq!(sequencer.step(processed(4)), Action::Wait, "delivered already");
        assert_eq!(sequencer.step(processed(5)), emit(5, 1));
    }

    #[test]
    fn a_reload_believes_an_older_head() {
        let mut sequencer = leader();
        sequencer.step(Event::Head { head: Position(9) });
        assert_eq!(sequencer.step(processed(3)), Action::Wait);
        sequencer.step(Event::Reload);
        sequencer.step(Event::Head { head: Position(3) });
        assert_eq!(sequencer.step(processed(3)), emit(3, 1));
    }

    #[test]
    fn what_is_beyond_the_window_is_not_kept_and_is_read_again() {
        let mut sequencer = leader();
        assert_eq!(sequencer.step(processed(9)), Action::Wait);
        assert_eq!(sequencer.span(), 0);
        assert_eq!(sequencer.step(processed(1)), emit(1, 1));
        assert_eq!(sequencer.step(Event::Emitted { head: Position(2) }), Action::Follow);
        assert_eq!(sequencer.step(processed(9)), Action::Wait);
    }
}
