//! What is in hand of one partition.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{Found, Room};
use crate::message::Position;

/// All that was read and is not acknowledged, in the order in which it came out, and what is kept of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Hand<T> {
    held: VecDeque<Held>,
    /// By their places: tombstones and results that wait for their turn. Also those that were only glimpsed.
    early: BTreeMap<Position, Ticket<T>>,
    /// The places of those in hand that wait for their turn and are not kept.
    skimmed: BTreeSet<Position>,
    /// By place and by where it came from: what has to be told of when the head is past it.
    late: BTreeMap<Key, Ticket<T>>,
    /// The bytes of all that is kept.
    bytes: usize,
}

/// A place, and where what belongs there came from.
pub(super) type Key = (Position, Position);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Held {
    position: Position,
    state: State,
    /// The last of those that were read together.
    is_last: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum State {
    /// Until the head is past it.
    Waits(Position),
    /// Until it is told of.
    Late,
    Done,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Ticket<T> {
    position: Position,
    bytes: usize,
    pub(super) is_dead: bool,
    pub(super) ticket: T,
}

impl<T> Default for Hand<T> {
    fn default() -> Self {
        Self {
            held: VecDeque::new(),
            early: BTreeMap::new(),
            skimmed: BTreeSet::new(),
            late: BTreeMap::new(),
            bytes: 0,
        }
    }
}

impl<T> Hand<T> {
    /// Takes up what was read after all that is in hand.
    pub(super) fn read(&mut self, head: Position, outputs: Vec<Found<T>>, room: Room) {
        let count = outputs.len();
        for (found, nth) in outputs.into_iter().zip(1..) {
            let position = found.position;
            let is_passed = |place| place < head || self.is_known(place, position);
            let state = match found.place {
                None => State::Done,
                Some(place) if is_passed(place) && found.is_dead => State::Done,
                Some(place) if is_passed(place) => State::Late,
                Some(place) => State::Waits(place),
            };
            self.held.push_back(Held {
                position,
                state,
                is_last: nth == count,
            });
            match (state, found.place) {
                (State::Waits(place), _) => self.keep(place, Ticket::of(found), room),
                (State::Late, Some(place)) => {
                    self.bytes += found.bytes;
                    let same = self.late.insert((place, position), Ticket::of(found));
                    self.bytes -= same.map_or(0, |same| same.bytes);
                }
                _ => {}
            }
        }
    }

    /// Keeps what it can of outputs that are not in hand, but for what it has or what was passed.
    pub(super) fn glimpse(&mut self, head: Position, outputs: Vec<Found<T>>, room: Room) {
        for found in outputs {
            if let Some(place) = found.place
                && place >= head
                && !self.early.contains_key(&place)
                && !self.skimmed.contains(&place)
            {
                self.keep(place, Ticket::of(found), room);
            }
        }
    }

    /// Where there is no room the highest go, which are read again in their turn; the lowest stays.
    fn keep(&mut self, place: Position, ticket: Ticket<T>, room: Room) {
        self.bytes += ticket.bytes;
        let same = self.early.insert(place, ticket);
        self.bytes -= same.map_or(0, |same| same.bytes);
        while self.early.len() > 1
            && (self.early.len() > room.count || self.bytes > room.bytes)
            && let Some((place, ticket)) = self.early.pop_last()
        {
            self.bytes -= ticket.bytes;
            if self.find(ticket.position).is_some() {
                self.skimmed.insert(place);
            }
        }
    }

    /// Whether another output with this place was read.
    fn is_known(&self, place: Position, position: Position) -> bool {
        let other = self.early.get(&place).is_some_and(|early| early.position != position);
        other || self.skimmed.contains(&place)
    }

    fn find(&self, position: Position) -> Option<usize> {
        self.held.binary_search_by_key(&position, |held| held.position).ok()
    }

    fn end(&mut self, position: Position, state: State) {
        if let Some(index) = self.find(position) {
            self.held[index].state = state;
        }
    }

    /// Nothing is left to do about those up to there.
    pub(super) fn acknowledged(&mut self, position: Position) {
        let count = self.held.partition_point(|held| held.position <= position);
        self.held.drain(..count);
    }

    /// Up to where it may be acknowledged, and how many of those in hand that are. What was read together goes together.
    pub(super) fn acknowledge(&self, head: Position) -> Option<(Position, usize)> {
        let done = |held: &&Held| match held.state {
            State::Waits(place) => place < head,
            State::Late => false,
            State::Done => true,
        };
        let count = self.held.iter().take_while(done).count();
        let last = self.held.iter().take(count).rposition(|held| held.is_last)?;
        Some((self.held[last].position, last + 1))
    }

    /// The first place from there on of which something is known.
    pub(super) fn first(&self, from: Position) -> Option<Position> {
        let early = self.early.range(from..).next().map(|(place, _)| *place);
        let skimmed = self.skimmed.range(from..).next().copied();
        early.into_iter().chain(skimmed).min()
    }

    /// What is to stand there, if it is kept.
    pub(super) fn early(&self, place: Position) -> Option<&Ticket<T>> {
        self.early.get(&place)
    }

    pub(super) fn is_skimmed(&self, place: Position) -> bool {
        self.skimmed.contains(&place)
    }

    /// What is to be told of.
    pub(super) fn late_before(&self, head: Position) -> impl Iterator<Item = Key> {
        self.late.range(..(head, Position(0))).map(|(key, _)| *key)
    }

    pub(super) fn late(&self, key: Key) -> Option<&T> {
        self.late.get(&key).map(|late| &late.ticket)
    }

    /// It was told of.
    pub(super) fn tell(&mut self, key: Key) {
        if let Some(told) = self.late.remove(&key) {
            self.bytes -= told.bytes;
        }
        self.end(key.1, State::Done);
    }

    /// What has a place before the head was merged.
    pub(super) fn advance(&mut self, head: Position) {
        while let Some((_, merged)) = self.early.first_key_value().filter(|(place, _)| **place < head) {
            self.bytes -= merged.bytes;
            self.early.pop_first();
        }
        while self.skimmed.first().is_some_and(|place| *place < head) {
            self.skimmed.pop_first();
        }
    }

    /// What has a place before the head was not merged by this one, or nobody knows: it has to be told of. Whether all of it is kept.
    pub(super) fn pass(&mut self, head: Position) -> bool {
        if self.skimmed.first().is_some_and(|place| *place < head) {
            return false;
        }
        let later = self.early.split_off(&head);
        for (place, passed) in std::mem::replace(&mut self.early, later) {
            if passed.is_dead {
                self.bytes -= passed.bytes;
                self.end(passed.position, State::Done);
            } else {
                self.end(passed.position, State::Late);
                self.late.insert((place, passed.position), passed);
            }
        }
        true
    }

    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn last(&self) -> Option<Position> {
        self.held.back().map(|held| held.position)
    }
}

impl<T> Ticket<T> {
    fn of(found: Found<T>) -> Self {
        Self {
            position: found.position,
            bytes: found.bytes,
            is_dead: found.is_dead,
            ticket: found.ticket,
        }
    }
}
