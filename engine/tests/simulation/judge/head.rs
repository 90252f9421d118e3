//! The head: it moves past what is done, and nothing else.

use conga::core::invariant::Event;
use conga::core::message::{Id, Position};
use conga::core::partition::Emitted;
use conga::core::term::Term;
use conga::core::time::Micros;

use super::{Judge, LEFT};
use crate::history::Moved;

impl Judge {
    pub(super) fn emitted(&mut self, at: Micros, term: Term, from: Position, answer: Emitted) {
        let (to, accepted) = match answer {
            Emitted::Advanced { head } => {
                self.pass(at, from, head);
                (head, true)
            }
            Emitted::Fenced { .. } | Emitted::Moved { .. } => (from, false),
        };
        self.events.push(Event::Emitted {
            term,
            from,
            to,
            accepted,
        });
    }

    /// Where the store delivers by itself, it delivers all that stands at the head without a gap, in the same step.
    pub(super) fn delivered(&mut self, at: Micros, moved: Option<Moved>) {
        let Some(Moved { from, to }) = moved else { return };
        self.pass(at, from, to);
        self.events.push(Event::Head { position: to });
        let head = self.head;
        let is_left = self.over.contains(&head);
        self.expect(!is_left, || {
            format!("{LEFT} at {at:?}: position {head}, though it was its turn")
        });
    }

    /// The head moves on, from where it is, past what is done and nothing else.
    pub(super) fn pass(&mut self, at: Micros, from: Position, head: Position) {
        let stands = self.head;
        self.expect(from == stands, || {
            format!("delivered from {from} on when the head was at {stands}")
        });
        while self.head < head {
            let passed = self.head;
            let is_over = self.over.contains(&passed);
            self.expect(is_over, || {
                format!("position {passed} is passed over, and it is not done")
            });
            self.moves.push(Event::Delivered {
                position: self.head,
                id: Id::of_position(self.head),
                at,
                dead: false,
            });
            self.head = self.head.next();
        }
    }
}
