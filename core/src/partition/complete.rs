//! Complete (law 2): the end of a lease, only for the one who still has it.

use std::collections::btree_map;

use super::{Cursor, DeadLetter, Flight, Partition, Stored, Turn};
use crate::lease::{Held, OwnerId};
use crate::message::{Body, Position, Record, write_open};
use crate::time::Micros;

/// What stands in the place of a message that has failed for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum OnDead {
    /// Its tombstone, which is delivered.
    #[default]
    Mark,
    /// Nothing: its tombstone is kept out of the output.
    Skip,
    /// The message itself: what keeps its order with it waits until a person has said what becomes of it.
    Halt,
}

/// How a lease ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Completion {
    /// With a result, to be recorded and delivered.
    Done(Record),
    /// In failure for good. The record's body is the reason. If its id has a result already, by another position, then
    /// that stands and this is a duplicate like any other.
    Dead {
        /// The tombstone.
        tombstone: Record,
        /// What stands in its place.
        on_dead: OnDead,
    },
    /// In failure for now: to be claimed again after a delay. Or given back: without one, and then the attempt does not count.
    Retry {
        /// The lease.
        held: Held,
        /// The least time until the next claim, in microseconds.
        delay_us: u64,
    },
}

impl Completion {
    /// The lease that ends.
    pub fn held(&self) -> Held {
        match self {
            Self::Done(record) | Self::Dead { tombstone: record, .. } => Held {
                position: record.position,
                attempt: record.attempts,
            },
            Self::Retry { held, .. } => *held,
        }
    }
}

/// What became of a completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Completed {
    /// It counts.
    Accepted,
    /// The lease is not this owner's and this attempt's: it expired and another has it, or this is the repetition
    /// of a call that counted. Nothing was changed.
    Stale,
}

impl Partition {
    /// Ends leases of `owner`; the answers stand in the order of the completions.
    pub fn complete(&mut self, now: Micros, owner: &OwnerId, completions: &[Completion]) -> Vec<Completed> {
        completions
            .iter()
            .map(|completion| self.complete_one(now, owner, completion))
            .collect()
    }

    fn complete_one(&mut self, now: Micros, owner: &OwnerId, completion: &Completion) -> Completed {
        let held = completion.held();
        match self.flights.get(&held.position) {
            Some(Flight::Leased(lease)) if lease.is_held_by(owner, held.attempt) => {}
            _ => return Completed::Stale,
        }
        if !matches!(completion, Completion::Retry { .. }) {
            self.strikes.remove(&held.position);
        }
        match completion {
            Completion::Done(record) => self.record(now, record),
            // Its id has a result, by another position: that stands, whatever became of this one.
            Completion::Dead { tombstone, .. } if self.records.contains_key(&tombstone.id) => {
                self.record(now, tombstone);
            }
            Completion::Dead { tombstone, on_dead } => {
                let open = write_open(tombstone);
                if *on_dead == OnDead::Halt {
                    self.bury(now, tombstone, Some(open));
                    self.put(held.position, Flight::Halted(held.attempt));
                } else {
                    self.bury(now, tombstone, None);
                    self.pass_by(now, held.position, (*on_dead == OnDead::Mark).then_some((open, now)));
                }
            }
            Completion::Retry { delay_us: 0, .. } => {
                self.strike(held.position, true);
                self.put(held.position, Flight::Free(held.attempt));
            }
            Completion::Retry { delay_us, .. } => {
                self.strike(held.position, false);
                self.tell_time(now);
                self.put(
                    held.position,
                    Flight::Delayed {
                        due: now + *delay_us,
                        attempt: held.attempt,
                    },
                );
            }
        }
        Completed::Accepted
    }

    /// Takes a result for processed, and records it unless its id has one. What the record holds is what gets delivered, at the lowest position
    /// that asks for it: an id that came in twice keeps the place in which it came first, whichever was done first.
    /// Where not all messages keep their order, that is so only among those of the same key; else the first one that is done
    /// counts, and the others are its duplicates.
    fn record(&mut self, now: Micros, record: &Record) {
        let position = record.position;
        self.put(position, Flight::Processed);
        let asks = match self.records.get(&record.id) {
            None => true,
            // It asks for nothing that retention may let go of meanwhile.
            Some(stored) if stored.delivered.is_some() => false,
            Some(stored) => self.may_take_over(position, stored.record.position),
        };
        let turn = if asks {
            Turn::Record(record.id.clone())
        } else {
            Turn::Nothing
        };
        match self.records.entry(record.id.clone()) {
            btree_map::Entry::Vacant(slot) => {
                slot.insert(Stored {
                    record: record.clone(),
                    processed: now,
                    delivered: None,
                });
            }
            btree_map::Entry::Occupied(mut slot) if asks => {
                let kept = &mut slot.get_mut().record.position;
                *kept = position.min(*kept);
            }
            btree_map::Entry::Occupied(_) => {}
        }
        self.append(now, position, turn);
    }

    /// Has a message that failed for good wait for its turn: with its tombstone and when it died, or with nothing.
    pub(super) fn pass_by(&mut self, now: Micros, position: Position, tombstone: Option<(String, Micros)>) {
        self.put(position, Flight::Dead);
        let turn = tombstone.map_or(Turn::Nothing, |(open, died)| Turn::Tombstone { open, died });
        self.append(now, position, turn);
    }

    fn bury(&mut self, now: Micros, tombstone: &Record, open: Option<String>) {
        let reason = match &tombstone.body {
            Body::Dead { reason } => reason.clone(),
            Body::Result(_) => String::new(),
        };
        self.dead.push_back(DeadLetter {
            position: tombstone.position,
            id: tombstone.id.clone(),
            reason,
            attempts: tombstone.attempts,
            died: now,
            entry: self.raw(tombstone.position).cloned().unwrap_or_default(),
            open,
        });
    }

    fn append(&mut self, now: Micros, position: Position, turn: Turn) {
        self.last_cursor += 1;
        self.processed.insert(Cursor(0, self.last_cursor), (position, turn));
        self.deliver_in_place(now, position);
    }
}
