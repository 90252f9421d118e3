//! The merge of a line in total order over several partitions: what comes out of each of them leaves in the order of the
//! sequences.
//!
//! It is a state machine as [`crate::sequencer`] is: [`Merge::step`] takes an event and answers what to do. Of each partition
//! it has in hand what it has read and not acknowledged, in the order in which it came out, which need not be that of the
//! sequences. An output may be acknowledged when the base's head is past its sequence and so it is merged, or when it was told of as
//! late. So whatever is lost on the way is read again, and what was done already is not done twice.
//!
//! A number is missing when a later one is in hand. It may only be given up when it is proved that it has not come: when all that
//! had come to its partition, at a moment when it had been missing for long enough, is out and read. A partition that is away, or
//! behind with its work, proves nothing.

use self::hand::{Hand, Key};
use crate::message::Position;
use crate::partition::GIVE_UP_MOST;
use crate::term::Term;

mod hand;

/// A number so far beyond the head proves nothing about those before it: better to hold the line than to give up as many.
pub const FAR: u64 = 100_000;

/// So many that are late are told of at once, for they go along as they are.
const TOLD_MOST: usize = 64;

/// An output of a partition.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Found<T> {
    /// Its place in its partition. They ascend.
    pub position: Position,
    /// Its place in the line: its sequence; nothing, if it has none or it belongs into another partition.
    pub place: Option<Position>,
    /// Whether it is a tombstone.
    pub is_dead: bool,
    /// How many bytes it has in memory, as far as that is to be bounded.
    pub bytes: usize,
    /// Whatever the caller needs to merge it.
    pub ticket: T,
}

/// How much may be kept of a partition: those with the lowest places, and one in any case. Of the others only the place is known,
/// until they are read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// So many outputs.
    pub count: usize,
    /// So many bytes of them.
    pub bytes: usize,
}

impl Room {
    /// For all.
    pub const ALL: Self = Self {
        count: usize::MAX,
        bytes: usize::MAX,
    };
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<T> {
    /// The lock was won, or renewed under the same term.
    Elected {
        /// The term of this reign.
        term: Term,
    },
    /// The lock was lost, given up, or can't be proved to be held any more. All in hand is forgotten.
    Deposed,
    /// Outputs of a partition were read, after all that is in hand of it. They are acknowledged together.
    Read {
        /// Which.
        partition: usize,
        /// What stands there next.
        outputs: Vec<Found<T>>,
        /// How much of all that is in hand of it may be kept.
        room: Room,
    },
    /// Outputs of a partition were looked through that come after more than can be in hand of it. They are read again.
    Glimpsed {
        /// Which.
        partition: usize,
        /// Some of them.
        outputs: Vec<Found<T>>,
        /// As where they are read.
        room: Room,
    },
    /// The partition has acknowledged up to there.
    Acknowledged {
        /// Which.
        partition: usize,
        /// The last of them.
        position: Position,
    },
    /// What is in hand of a partition is not what stands there, or may not be. It is forgotten, to be read anew.
    Lost {
        /// Which.
        partition: usize,
    },
    /// The head has been missing for long enough, and all that had come to this partition by then is out and read.
    Proved {
        /// Which.
        partition: usize,
        /// The head of which that is so.
        head: Position,
    },
    /// A merge counted.
    Merged {
        /// The new head.
        head: Position,
    },
    /// A merge did not count: this is the head.
    Moved {
        /// As the base says.
        head: Position,
    },
    /// Nobody knows whether a merge counted.
    Unknown,
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Nothing, until the next event.
    Wait,
    /// Merge. Until the answer is in nothing else is asked for.
    Merge {
        /// The term to merge under.
        term: Term,
        /// The head.
        head: Position,
        /// So many of [`Merge::ready`] have their turn.
        count: usize,
        /// So many that [`Merge::late`] tells of may have come too late.
        late: usize,
        /// Whether something is in hand that comes after a head that is not.
        is_missing: bool,
        /// So many numbers, from the head on, are given up.
        give_up: usize,
    },
}

/// The base's head, and what is in hand of each partition.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Merge<T> {
    head: Position,
    /// Nothing was heard of the base yet under this term.
    is_lost: bool,
    hands: Vec<Hand<T>>,
    /// What the merge on its way tells of.
    telling: Vec<Key>,
    batch: usize,
    term: Option<Term>,
    is_merging: bool,
    /// Whether the last merge that was asked for gives up numbers.
    gives_up: bool,
    /// The head that the base was told is missing.
    told: Option<Position>,
    /// Of which partitions it is proved, since the head was last not missing.
    proved: Vec<bool>,
}

impl<T> Merge<T> {
    /// One that knows nothing, of so many partitions; it asks to merge at most `batch` at once. Both are at least 1.
    pub fn new(partitions: usize, batch: usize) -> Self {
        Self {
            head: Position::FIRST,
            is_lost: true,
            hands: (0..partitions.max(1)).map(|_| Hand::default()).collect(),
            telling: Vec::new(),
            batch: batch.max(1),
            term: None,
            is_merging: false,
            gives_up: false,
            told: None,
            proved: vec![false; partitions.max(1)],
        }
    }

    /// Takes an event, answers what to do.
    pub fn step(&mut self, event: Event<T>) -> Action {
        match event {
            Event::Elected { term } => {
                if self.term != Some(term) {
                    self.forget();
                }
                self.term = Some(term);
            }
            Event::Deposed => {
                self.forget();
                self.term = None;
            }
            Event::Read {
                partition,
                outputs,
                room,
            } => self.hands[partition].read(self.head, outputs, room),
            Event::Glimpsed {
                partition,
                outputs,
                room,
            } => self.hands[partition].glimpse(self.head, outputs, room),
            Event::Acknowledged { partition, position } => self.hands[partition].acknowledged(position),
            Event::Lost { partition } => self.lose(partition),
            Event::Proved { partition, head } => self.proved[partition] |= head == self.head && self.told == Some(head),
            Event::Merged { head } => {
                self.is_merging = false;
                self.is_lost = false;
                for told in std::mem::take(&mut self.telling) {
                    let home = self.home(told.0);
                    self.hands[home].tell(told);
                }
                self.advance(head);
            }
            Event::Moved { head } => {
                self.is_merging = false;
                self.is_lost = false;
                self.move_to(head);
            }
            Event::Unknown => {
                self.is_merging = false;
                self.is_lost = true;
                self.told = None;
            }
        }
        self.next_action()
    }

    /// The first of those that have their turn without a gap, and whether each is a tombstone.
    pub fn ready(&self, count: usize) -> impl Iterator<Item = (Position, bool, &T)> {
        (self.head.0..)
            .map(Position)
            .map_while(|place| {
                let early = self.hands[self.home(place)].early(place)?;
                Some((place, early.is_dead, &early.ticket))
            })
            .take(count)
    }

    /// What the merge that was asked for last tells of, by its place: what has come when its place was passed.
    pub fn late(&self) -> impl Iterator<Item = (Position, &T)> {
        let ticket = |key: &Key| self.hands[self.home(key.0)].late(*key).map(|ticket| (key.0, ticket));
        self.telling.iter().filter_map(ticket)
    }

    /// The merge that was asked for last tells only of the first so many: of the others the next does.
    pub fn tell_only(&mut self, count: usize) {
        self.telling.truncate(count);
    }

    /// The next number that is expected, as far as this one knows.
    pub fn head(&self) -> Position {
        self.head
    }

    /// Whether the last merge that was asked for gives up numbers.
    pub fn gives_up(&self) -> bool {
        self.gives_up
    }

    /// Of the head that is missing, if it is and the base was told.
    pub fn missing(&self) -> Option<Position> {
        self.told.filter(|told| *told == self.head && self.is_missing(0))
    }

    /// Which partitions have to prove that what is missing has not come: those of the first numbers that can be given up at once.
    pub fn doubts(&self) -> Vec<usize> {
        let mut doubted: Vec<usize> = self.gap().map(|place| self.home(place)).collect();
        doubted.sort_unstable();
        doubted.dedup();
        doubted.retain(|partition| !self.proved[*partition]);
        doubted
    }

    /// How many outputs of a partition are in hand.
    pub fn held(&self, partition: usize) -> usize {
        self.hands[partition].len()
    }

    /// How many bytes of a partition are kept.
    pub fn bytes(&self, partition: usize) -> usize {
        self.hands[partition].bytes()
    }

    /// The partition that has to be read anew from what is not acknowledged on, for what has its turn was not kept.
    pub fn again(&self) -> Option<usize> {
        let home = self.home(self.head);
        self.hands[home].is_skimmed(self.head).then_some(home)
    }

    /// Whether a partition may have the number that is missing behind what is in hand of it.
    pub fn is_sought_in(&self, partition: usize) -> bool {
        self.home(self.head) == partition && self.is_missing(0)
    }

    /// The last output in hand of a partition.
    pub fn last(&self, partition: usize) -> Option<Position> {
        self.hands[partition].last()
    }

    /// Up to where a partition may acknowledge, and how many of those in hand that are. What was read together goes together.
    pub fn acknowledge(&self, partition: usize) -> Option<(Position, usize)> {
        self.hands[partition].acknowledge(self.head)
    }

    fn next_action(&mut self) -> Action {
        let (Some(term), false) = (self.term, self.is_merging) else {
            return Action::Wait;
        };
        // Where it is lost the answer tells where it is.
        let (count, telling) = if self.is_lost {
            (0, Vec::new())
        } else {
            let late = self.hands.iter().flat_map(|hand| hand.late_before(self.head));
            (
                self.ready(self.batch).count(),
                late.take(TOLD_MOST.min(self.batch)).collect(),
            )
        };
        let is_missing = !self.is_lost && self.is_missing(count);
        let give_up = match count {
            0 if is_missing => self.gap().take_while(|place| self.proved[self.home(*place)]).count(),
            _ => 0,
        };
        let next = self.head.plus(count as u64);
        let is_news = is_missing && self.told != Some(next);
        if !self.is_lost && count == 0 && telling.is_empty() && give_up == 0 && !is_news {
            return Action::Wait;
        }
        self.is_merging = true;
        self.gives_up = give_up > 0;
        if is_missing {
            self.told = Some(next);
        }
        let late = telling.len();
        self.telling = telling;
        Action::Merge {
            term,
            head: self.head,
            count,
            late,
            is_missing,
            give_up,
        }
    }

    /// Whether a later number than the one `count` after the head is in hand, and that one is not.
    fn is_missing(&self, count: usize) -> bool {
        let next = self.head.plus(count as u64);
        self.first(next).is_some_and(|place| place > next)
    }

    /// The first place from there on of which something is known.
    fn first(&self, from: Position) -> Option<Position> {
        self.hands.iter().filter_map(|hand| hand.first(from)).min()
    }

    /// The numbers that are missing from the head on, as far as they may be given up.
    fn gap(&self) -> impl Iterator<Item = Position> + use<T> {
        let first = self.first(self.head).unwrap_or(self.head);
        let is_far = first.past(self.head) > FAR;
        let end = if is_far { self.head } else { first };
        (self.head.0..end.0).map(Position).take(GIVE_UP_MOST)
    }

    /// The partition of a number.
    fn home(&self, place: Position) -> usize {
        // Smaller than a length, so it is one.
        usize::try_from(place.0 % self.hands.len() as u64).unwrap_or(0)
    }

    fn lose(&mut self, partition: usize) {
        self.hands[partition] = Hand::default();
        self.proved[partition] = false;
        let count = self.hands.len() as u64;
        self.telling.retain(|(place, _)| place.0 % count != partition as u64);
    }

    fn advance(&mut self, head: Position) {
        let by = head.past(self.head);
        self.head = self.head.max(head);
        if by > 0 && self.gives_up {
            // What is proved of the others stays so, and the base's time goes on for them. What came meanwhile came too late.
            self.told = Some(self.head);
            self.pass();
            return;
        }
        for hand in &mut self.hands {
            hand.advance(self.head);
        }
        // Also where it is not time yet to give up: it may be missing since another time.
        if by > 0 || self.gives_up {
            self.proved.fill(false);
        }
        if self.told != Some(self.head) {
            self.told = None;
        }
    }

    /// The head is where this one did not expect it.
    fn move_to(&mut self, head: Position) {
        self.proved.fill(false);
        self.telling.clear();
        self.told = None;
        if head < self.head {
            // The base has come back older than it was: what is in hand may be merged there no more.
            for partition in 0..self.hands.len() {
                self.lose(partition);
            }
        }
        self.head = head;
        // Another has merged these, or a merge of this one without an answer has; or they were given up.
        self.pass();
    }

    /// What is in hand and below the head was not merged by this one: it has to be told of.
    fn pass(&mut self) {
        for partition in 0..self.hands.len() {
            if !self.hands[partition].pass(self.head) {
                self.lose(partition);
            }
        }
    }

    fn forget(&mut self) {
        for partition in 0..self.hands.len() {
            self.lose(partition);
        }
        self.proved.fill(false);
        self.telling.clear();
        self.told = None;
        self.is_merging = false;
        self.is_lost = true;
    }
}

#[cfg(test)]
mod tests;
