//! Delivery in place: where not all messages keep their order, what is done goes out wherever it stands.
//!
//! With order by key a result waits only for earlier messages of its key; without order for nothing. Then there are
//! positions beyond the head that are delivered, and the head moves over them when it gets there. The window counts what
//! is claimed and not delivered, and how far claims may run ahead of a head that is stuck is bounded by [`REACH`] windows.

use std::collections::{BTreeMap, BTreeSet};

use super::{Flight, Partition, Processed, Ready};
use crate::lease::Attempt;
use crate::message::{Position, key_of};
use crate::shape::Order;
use crate::time::Micros;

/// So many windows ahead of the head a claim may be: it bounds what is kept of what is delivered beyond the head.
pub const REACH: u64 = 100;

/// So many messages one claim passes over at most, so that no step takes long.
pub const PASS_MOST: usize = 1_000;

/// The keys of what is claimed and not yet delivered.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Queues {
    /// Of each key its positions. The first of them is never done: it would be delivered.
    places: BTreeMap<Vec<u8>, BTreeSet<Position>>,
    keys: BTreeMap<Position, Vec<u8>>,
    /// What is delivered beyond the head.
    in_place: BTreeSet<Position>,
}

impl Partition {
    fn order(&self) -> Order {
        self.shape.unwrap_or_default().order
    }

    /// Whether all messages keep their order, so that only what stands at the head is delivered.
    pub fn is_total(&self) -> bool {
        self.order() == Order::Total
    }

    /// Whether it was delivered before the head has come to it.
    pub(super) fn is_in_place(&self, position: Position) -> bool {
        self.queues.in_place.contains(&position)
    }

    /// Whether one more may be claimed.
    pub(super) fn has_room(&self, window: u64) -> bool {
        (self.flights.len() as u64) < window && self.next.past(self.head) < window.saturating_mul(REACH)
    }

    /// Puts a message that is about to be handed out behind the others of its key. Whether it must not be handed out yet.
    pub(super) fn queue(&mut self, position: Position) -> bool {
        let Order::Key { serial } = self.order() else {
            return false;
        };
        let Some(key) = self.raw(position).and_then(|entry| key_of(entry)) else {
            return false;
        };
        let places = self.queues.places.entry(key.clone()).or_default();
        let is_behind = !places.is_empty();
        places.insert(position);
        self.queues.keys.insert(position, key);
        serial && is_behind
    }

    /// Whether a message asks for the record of its id, which another position has: of the two the lower one has it, but
    /// only if the other is not delivered before.
    pub(super) fn may_take_over(&self, position: Position, other: Position) -> bool {
        let keys = &self.queues.keys;
        self.is_total() || (position < other && keys.contains_key(&position) && keys.get(&position) == keys.get(&other))
    }

    /// Delivers what was just done, if it waits for nothing, and what waited for it.
    pub(super) fn deliver_in_place(&mut self, now: Micros, position: Position) {
        if self.is_total() {
            return;
        }
        if let Some(key) = self.queues.keys.get(&position).cloned() {
            self.deliver_queue(now, &key);
        } else {
            self.deliver_one(now, position);
        }
        while self.queues.in_place.remove(&self.head) {
            self.entries.pop_front();
            self.head = self.head.next();
        }
    }

    /// Delivers what is done at the beginning of a queue, and hands out what comes next, if it was held back.
    fn deliver_queue(&mut self, now: Micros, key: &[u8]) {
        while let Some(first) = self.queues.places.get(key).and_then(BTreeSet::first).copied() {
            match self.flights.get(&first) {
                Some(Flight::Processed | Flight::Dead) => self.deliver_one(now, first),
                Some(Flight::Parked) => return self.put(first, Flight::Free(Attempt::default())),
                _ => return,
            }
            self.queues.keys.remove(&first);
            if let Some(places) = self.queues.places.get_mut(key) {
                places.remove(&first);
            }
        }
        self.queues.places.remove(key);
    }

    fn deliver_one(&mut self, now: Micros, position: Position) {
        let waiting = self.processed.iter().rev().find(|(_, (at, _))| *at == position);
        let Some((cursor, (_, turn))) = waiting.map(|(cursor, waiting)| (*cursor, waiting.clone())) else {
            return;
        };
        let processed = Processed { cursor, position, turn };
        let sequencing = now;
        self.put_out(now, &Ready { processed, sequencing });
        self.flights.remove(&position);
        self.queues.in_place.insert(position);
    }
}
