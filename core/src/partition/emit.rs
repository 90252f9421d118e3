//! Follow what is processed, and emit it when its turn has come (law 3).

use std::collections::HashMap;

use super::{Flight, Partition};
use crate::lifecycle::State;
use crate::message::{Id, Position, finish, write_open};
use crate::term::Term;
use crate::time::Micros;

/// A place in the stream of the processed. Only the store that gave it knows what it means; it only grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Cursor(pub u64, pub u64);

/// What comes out when a position has its turn.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Turn {
    /// What the record holds for this id. Nothing, if the record belongs to another position: this was a duplicate.
    Record(Id),
    /// A tombstone, as far as it is written.
    Tombstone {
        /// What [`write_open`] made of it.
        open: String,
        /// When it was found to be dead: its `processed`.
        died: Micros,
    },
    /// Nothing: a dead letter without a tombstone, or a duplicate of what was delivered before.
    Nothing,
}

/// A message that waits for its turn.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Processed {
    /// Where in the stream it stands.
    pub cursor: Cursor,
    /// Its place in the order.
    pub position: Position,
    /// What will come out.
    pub turn: Turn,
}

/// News for the sequencer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Followed {
    /// The store's time at which this was read.
    pub now: Micros,
    /// The lowest position not yet delivered.
    pub head: Position,
    /// What was processed after the cursor, in the stream's order.
    pub entries: Vec<Processed>,
}

/// A message whose turn has come.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Ready {
    /// The message.
    pub processed: Processed,
    /// When the leader took it up.
    pub sequencing: Micros,
}

/// Delivers messages in their order.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EmitRequest {
    /// The caller's term.
    pub term: Term,
    /// What the caller takes for the head. The entries start there and are dense.
    pub head: Position,
    /// What to deliver.
    pub entries: Vec<Ready>,
}

/// What became of an emit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Emitted {
    /// It counts; this is the head now. A store may stop short of the last entry, where the outputs are large.
    Advanced {
        /// The new head.
        head: Position,
    },
    /// The term is not the current one: somebody else leads. Nothing was changed.
    Fenced {
        /// The current term.
        term: Term,
    },
    /// The head is another one (or this is the repetition of a call that counted), or what was to be delivered is
    /// not what waits there. Nothing was changed; the caller reloads.
    Moved {
        /// The head as it is.
        head: Position,
    },
}

impl Partition {
    /// What was processed after `cursor`, at most `max` entries: nothing, where not all messages keep their order, for there
    /// is nothing to sequence. Changes nothing.
    pub fn follow(&self, now: Micros, cursor: Cursor, max: usize) -> Followed {
        let after = Cursor(cursor.0, cursor.1.saturating_add(1));
        let entries = self
            .processed
            .range(after..)
            .take(if self.is_total() { max } else { 0 })
            .map(|(cursor, (position, turn))| Processed {
                cursor: *cursor,
                position: *position,
                turn: turn.clone(),
            })
            .collect();
        Followed {
            now,
            head: self.head,
            entries,
        }
    }

    /// Appends to the output and advances the head: all of the request, or nothing of it.
    pub fn emit(&mut self, now: Micros, request: &EmitRequest) -> Emitted {
        if request.term != self.leader.term {
            return Emitted::Fenced { term: self.leader.term };
        }
        if request.head != self.head || !self.is_total() || !self.all_wait(request) {
            return Emitted::Moved { head: self.head };
        }
        for ready in &request.entries {
            self.deliver(now, ready);
        }
        Emitted::Advanced { head: self.head }
    }

    /// Delivers what stands at the head without a gap, with nobody to lead: for a store that does so itself. Whether there
    /// was anything.
    pub fn deliver_ready(&mut self, now: Micros) -> bool {
        let mut waiting: HashMap<Position, Cursor> = HashMap::new();
        if self.is_ready() {
            let places = self.processed.iter();
            waiting.extend(places.map(|(cursor, (position, _))| (*position, *cursor)));
        }
        let mut delivered = false;
        while let Some(cursor) = waiting.get(&self.head).copied()
            && let Some((position, turn)) = self.processed.get(&cursor).cloned()
        {
            let processed = Processed { cursor, position, turn };
            let sequencing = now;
            self.deliver(now, &Ready { processed, sequencing });
            delivered = true;
        }
        delivered
    }

    /// Whether the message at the head waits for nothing but its turn.
    fn is_ready(&self) -> bool {
        matches!(self.flights.get(&self.head), Some(Flight::Processed | Flight::Dead))
    }

    /// Whether the entries are dense from the head on, and each waits for its turn under the cursor given.
    fn all_wait(&self, request: &EmitRequest) -> bool {
        request.entries.iter().enumerate().all(|(index, ready)| {
            let Processed { cursor, position, turn } = &ready.processed;
            *position == request.head.plus(index as u64)
                && self
                    .processed
                    .get(cursor)
                    .is_some_and(|(at, what)| at == position && what == turn)
        })
    }

    fn deliver(&mut self, now: Micros, ready: &Ready) {
        let position = ready.processed.position;
        self.put_out(now, ready);
        self.flights.remove(&position);
        self.entries.pop_front();
        self.head = position.next();
    }

    /// Appends to the output what comes out of a message.
    pub(super) fn put_out(&mut self, now: Micros, ready: &Ready) {
        let Processed { cursor, position, turn } = &ready.processed;
        debug_assert!(self.flights.get(position).is_some_and(|flight| {
            matches!(flight, Flight::Processed | Flight::Dead) && flight.state().may_become(State::Delivered)
        }));
        let output = match turn {
            Turn::Record(id) => match self.records.get_mut(id) {
                Some(stored) if stored.record.position == *position => {
                    stored.delivered = Some((ready.sequencing, now));
                    self.delivered.push_back((*position, now, id.clone()));
                    Some((write_open(&stored.record), stored.processed))
                }
                _ => None,
            },
            Turn::Tombstone { open, died } => Some((open.clone(), *died)),
            Turn::Nothing => None,
        };
        if let Some((mut text, processed)) = output {
            finish(&mut text, processed, ready.sequencing, now);
            self.outputs.push_back((*position, now, text.into()));
        }
        self.processed.remove(cursor);
    }
}
