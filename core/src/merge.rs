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

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::message::Position;
use crate::partition::GIVE_UP_MOST;
use crate::term::Term;

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
    /// Whatever the caller needs to merge it.
    pub ticket: T,
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
        /// So many of them may be kept. Of the others only the place is known, until they are read again; but what is missing is
        /// kept in any case.
        room: usize,
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
        /// So many of [`Merge::late`] may have come too late.
        late: usize,
        /// Whether something is in hand that comes after a head that is not.
        is_missing: bool,
        /// So many numbers, from the head on, are given up.
        give_up: usize,
    },
}

/// What is in hand of a partition, in the order in which it came out.
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

/// The base's head, and what is in hand of each partition.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Merge<T> {
    head: Position,
    /// Nothing was heard of the base yet under this term.
    is_lost: bool,
    hands: Vec<VecDeque<Held>>,
    /// By their places: tombstones and results that wait for their turn.
    early: BTreeMap<Position, Ticket<T>>,
    /// The places of those that were read and not kept.
    skimmed: BTreeSet<Position>,
    /// By place and by where it came from.
    late: BTreeMap<(Position, Position), T>,
    /// Which of them the merge on its way tells of.
    telling: Vec<(Position, Position)>,
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

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Ticket<T> {
    position: Position,
    is_dead: bool,
    ticket: T,
}

impl<T> Merge<T> {
    /// One that knows nothing, of so many partitions; it asks to merge at most `batch` at once. Both are at least 1.
    pub fn new(partitions: usize, batch: usize) -> Self {
        Self {
            head: Position::FIRST,
            is_lost: true,
            hands: vec![VecDeque::new(); partitions.max(1)],
            early: BTreeMap::new(),
            skimmed: BTreeSet::new(),
            late: BTreeMap::new(),
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
            } => self.read(partition, outputs, room),
            Event::Acknowledged { partition, position } => {
                let hand = &mut self.hands[partition];
                let count = hand.partition_point(|held| held.position <= position);
                hand.drain(..count);
            }
            Event::Lost { partition } => self.lose(partition),
            Event::Proved { partition, head } => self.proved[partition] |= head == self.head && self.told == Some(head),
            Event::Merged { head } => {
                self.is_merging = false;
                self.is_lost = false;
                for told in std::mem::take(&mut self.telling) {
                    self.late.remove(&told);
                    self.tell(told);
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
                let ticket = self.early.get(&place)?;
                Some((place, ticket.is_dead, &ticket.ticket))
            })
            .take(count)
    }

    /// What has come when its place was passed, by its place.
    pub fn late(&self, count: usize) -> impl Iterator<Item = (Position, &T)> {
        let tellable = self.late.iter().filter(|((place, _), _)| *place < self.head);
        tellable.map(|((place, _), ticket)| (*place, ticket)).take(count)
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

    /// The partition that has to be read anew from what is not acknowledged on, for what has its turn was not kept.
    pub fn again(&self) -> Option<usize> {
        self.skimmed.contains(&self.head).then(|| self.home(self.head))
    }

    /// Whether a partition may have the number that is missing behind what is in hand of it.
    pub fn is_sought_in(&self, partition: usize) -> bool {
        self.is_missing(0) && self.home(self.head) == partition
    }

    /// The last output in hand of a partition.
    pub fn last(&self, partition: usize) -> Option<Position> {
        self.hands[partition].back().map(|held| held.position)
    }

    /// Up to where a partition may acknowledge, and how many of those in hand that are. What was read together goes together.
    pub fn acknowledge(&self, partition: usize) -> Option<(Position, usize)> {
        let hand = &self.hands[partition];
        let done = |held: &&Held| match held.state {
            State::Waits(place) => place < self.head,
            State::Late => false,
            State::Done => true,
        };
        let count = hand.iter().take_while(done).count();
        let last = hand.iter().take(count).rposition(|held| held.is_last)?;
        Some((hand[last].position, last + 1))
    }

    fn next_action(&mut self) -> Action {
        let (Some(term), false) = (self.term, self.is_merging) else {
            return Action::Wait;
        };
        // Where it is lost the answer tells where it is.
        let (count, late) = if self.is_lost {
            (0, 0)
        } else {
            let late = self.late(TOLD_MOST.min(self.batch));
            (self.ready(self.batch).count(), late.count())
        };
        let is_missing = !self.is_lost && self.is_missing(count);
        let give_up = match count {
            0 if is_missing => self.gap().take_while(|place| self.proved[self.home(*place)]).count(),
            _ => 0,
        };
        let next = self.head.plus(count as u64);
        let is_news = is_missing && self.told != Some(next);
        if !self.is_lost && count == 0 && late == 0 && give_up == 0 && !is_news {
            return Action::Wait;
        }
        self.is_merging = true;
        self.gives_up = give_up > 0;
        if is_missing {
            self.told = Some(next);
        }
        let telling = self.late.keys().filter(|(place, _)| *place < self.head).take(late);
        self.telling = telling.copied().collect();
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
        let early = self.early.range(from..).next().map(|(place, _)| *place);
        let skimmed = self.skimmed.range(from..).next().copied();
        early.into_iter().chain(skimmed).min()
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

    fn read(&mut self, partition: usize, outputs: Vec<Found<T>>, mut room: usize) {
        let count = outputs.len();
        for (found, nth) in outputs.into_iter().zip(1..) {
            let Found {
                position,
                place,
                is_dead,
                ticket,
            } = found;
            let state = match place {
                None => State::Done,
                Some(place) if is_dead && (place < self.head || self.is_known(place)) => State::Done,
                Some(place) if place < self.head || self.is_known(place) => {
                    self.late.insert((place, position), ticket);
                    State::Late
                }
                Some(place) if room == 0 && self.first(self.head).is_some_and(|first| first < place) => {
                    self.skimmed.insert(place);
                    State::Waits(place)
                }
                Some(place) => {
                    room = room.saturating_sub(1);
                    let ticket = Ticket {
                        position,
                        is_dead,
                        ticket,
                    };
                    self.early.insert(place, ticket);
                    State::Waits(place)
                }
            };
            let is_last = nth == count;
            self.hands[partition].push_back(Held {
                position,
                state,
                is_last,
            });
        }
    }

    fn is_known(&self, place: Position) -> bool {
        self.early.contains_key(&place) || self.skimmed.contains(&place)
    }

    fn lose(&mut self, partition: usize) {
        let count = self.hands.len() as u64;
        let is_other = |place: Position| place.0 % count != partition as u64;
        self.hands[partition].clear();
        self.early.retain(|place, _| is_other(*place));
        self.skimmed.retain(|place| is_other(*place));
        self.late.retain(|(place, _), _| is_other(*place));
        self.telling.retain(|(place, _)| is_other(*place));
        self.proved[partition] = false;
    }

    /// What is late was told of.
    fn tell(&mut self, (place, position): (Position, Position)) {
        let home = self.home(place);
        let hand = &mut self.hands[home];
        if let Ok(index) = hand.binary_search_by_key(&position, |held| held.position) {
            hand[index].state = State::Done;
        }
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
        self.early = self.early.split_off(&self.head);
        self.skimmed = self.skimmed.split_off(&self.head);
        if by > 0 {
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
        let unkept: Vec<usize> = self.skimmed.range(..self.head).map(|place| self.home(*place)).collect();
        unkept.into_iter().for_each(|partition| self.lose(partition));
        let later = self.early.split_off(&self.head);
        for (place, passed) in std::mem::replace(&mut self.early, later) {
            let home = self.home(place);
            let hand = &mut self.hands[home];
            let found = hand.binary_search_by_key(&passed.position, |held| held.position);
            let state = if passed.is_dead { State::Done } else { State::Late };
            if let Ok(index) = found {
                hand[index].state = state;
            }
            if state == State::Late {
                self.late.insert((place, passed.position), passed.ticket);
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
mod tests {
    use super::*;

    const TERM: Term = Term(1);

    /// Of two partitions, that leads and knows where the base is.
    fn leader() -> Merge<u64> {
        let mut merge = Merge::new(2, 10);
        assert_eq!(merge.step(Event::Elected { term: TERM }), asks(1, 0, false));
        assert_eq!(merge.step(Event::Merged { head: Position(1) }), Action::Wait);
        merge
    }

    fn asks(head: u64, count: usize, is_missing: bool) -> Action {
        Action::Merge {
            term: TERM,
            head: Position(head),
            count,
            late: 0,
            is_missing,
            give_up: 0,
        }
    }

    fn gives_up(head: u64, give_up: usize) -> Action {
        Action::Merge {
            term: TERM,
            head: Position(head),
            count: 0,
            late: 0,
            is_missing: true,
            give_up,
        }
    }

    /// A partition's next outputs, by position and sequence.
    fn read(partition: usize, outputs: &[(u64, u64)]) -> Event<u64> {
        let outputs = outputs.iter().map(|(position, place)| Found {
            position: Position(*position),
            place: Some(Position(*place)),
            is_dead: false,
            ticket: *place,
        });
        Event::Read {
            partition,
            outputs: outputs.collect(),
            room: usize::MAX,
        }
    }

    fn merged(head: u64) -> Event<u64> {
        Event::Merged { head: Position(head) }
    }

    fn proved(partition: usize, head: u64) -> Event<u64> {
        let head = Position(head);
        Event::Proved { partition, head }
    }

    #[test]
    fn what_comes_in_any_order_leaves_in_order_and_is_acknowledged_then() {
        let mut merge = leader();
        assert_eq!(merge.step(read(1, &[(1, 3), (2, 1)])), asks(1, 1, true));
        assert_eq!(merge.step(merged(2)), Action::Wait);
        assert_eq!(merge.acknowledge(1), None, "what was read together goes together");
        assert_eq!(merge.step(read(0, &[(1, 2)])), asks(2, 2, false));
        assert_eq!(merge.acknowledge(0), None, "not before it is merged");
        assert_eq!(merge.step(merged(4)), Action::Wait);
        assert_eq!(merge.acknowledge(0), Some((Position(1), 1)));
        assert_eq!(merge.acknowledge(1), Some((Position(2), 2)));
    }

    #[test]
    fn what_was_given_up_without_an_answer_and_came_then_is_told_of() {
        let mut merge = leader();
        assert_eq!(merge.step(read(1, &[(1, 3)])), asks(1, 0, true));
        assert_eq!(merge.step(merged(1)), Action::Wait);
        assert_eq!(merge.doubts(), [0, 1]);
        assert_eq!(merge.step(proved(1, 1)), gives_up(1, 1), "2 is another partition's");
        assert_eq!(merge.step(Event::Unknown), asks(1, 0, false), "where is it?");
        merge.step(read(1, &[(2, 1)]));
        let told = Action::Merge {
            term: TERM,
            head: Position(2),
            count: 0,
            late: 1,
            is_missing: true,
            give_up: 0,
        };
        assert_eq!(merge.step(Event::Moved { head: Position(2) }), told);
        assert_eq!(merge.late(9).collect::<Vec<_>>(), [(Position(1), &1)]);
    }

    #[test]
    fn a_base_that_may_not_have_heard_that_a_number_is_missing_is_told_again() {
        let mut merge = leader();
        assert_eq!(merge.step(read(1, &[(1, 3)])), asks(1, 0, true));
        assert_eq!(merge.step(Event::Unknown), asks(1, 0, false));
        assert_eq!(merge.step(merged(1)), asks(1, 0, true));
    }

    /// Its tombstone is in the output then, and nothing else says that it came.
    #[test]
    fn what_comes_while_it_is_given_up_is_told_of() {
        let mut merge = leader();
        assert_eq!(merge.step(read(1, &[(1, 3)])), asks(1, 0, true));
        assert_eq!(merge.step(merged(1)), Action::Wait);
        assert_eq!(merge.step(proved(1, 1)), gives_up(1, 1));
        assert_eq!(merge.step(read(1, &[(2, 1)])), Action::Wait);
        let Action::Merge { late, .. } = merge.step(merged(2)) else {
            panic!("it has to be told of");
        };
        assert_eq!(late, 1);
        assert_eq!(merge.late(2).map(|(place, _)| place.0).collect::<Vec<_>>(), [1]);
        assert_eq!(merge.acknowledge(1), None, "before it is told of");
    }

    /// Else the base never hears that the next is missing, and nobody ever looks for it.
    #[test]
    fn a_merge_whose_partition_was_lost_meanwhile_gives_up_nothing() {
        let mut merge = leader();
        assert_eq!(merge.step(read(1, &[(1, 1)])), asks(1, 1, false));
        assert_eq!(merge.step(Event::Lost { partition: 1 }), Action::Wait);
        assert_eq!(merge.step(merged(2)), Action::Wait);
        assert_eq!(merge.step(read(1, &[(2, 3)])), asks(2, 0, true));
    }

    #[test]
    fn a_proof_is_for_what_is_missing_then_and_not_for_what_is_missing_later() {
        let mut merge = leader();
        merge.step(read(1, &[(1, 5)]));
        merge.step(merged(1));
        assert_eq!(merge.step(proved(1, 2)), Action::Wait, "of another head");
        assert_eq!(merge.step(proved(1, 1)), gives_up(1, 1));
        assert_eq!(merge.step(merged(2)), Action::Wait);
        assert_eq!(merge.step(read(0, &[(1, 2)])), asks(2, 1, true));
        assert_eq!(merge.step(merged(3)), Action::Wait, "3 is missing since now");
    }

    #[test]
    fn a_number_far_away_gives_up_nothing() {
        let mut merge = leader();
        assert_eq!(merge.step(read(1, &[(1, 3 + FAR)])), asks(1, 0, true));
        merge.step(merged(1));
        assert!(merge.doubts().is_empty());
        assert_eq!(merge.step(proved(1, 1)), Action::Wait);
    }

    /// Else a number that comes when more than can be kept came before it would never be found.
    #[test]
    fn what_is_missing_is_found_behind_more_than_is_kept() {
        let mut merge = leader();
        assert_eq!(merge.step(read(1, &[(1, 3)])), asks(1, 0, true));
        assert_eq!(merge.step(merged(1)), Action::Wait);
        assert!(merge.is_sought_in(1) && !merge.is_sought_in(0));
        let full = |outputs: &[(u64, u64)]| match read(1, outputs) {
            Event::Read { partition, outputs, .. } => Event::Read {
                partition,
                outputs,
                room: 0,
            },
            other => other,
        };
        assert_eq!(merge.step(full(&[(2, 5), (3, 7)])), Action::Wait);
        assert_eq!((merge.held(1), merge.again()), (3, None));
        assert_eq!(merge.step(full(&[(4, 1)])), asks(1, 1, true));
        merge.step(read(0, &[(1, 2), (2, 4)]));
        assert_eq!(merge.step(merged(2)), asks(2, 3, false), "5 is not missing");
        assert_eq!(merge.step(merged(5)), Action::Wait);
        assert_eq!((merge.again(), merge.missing()), (Some(1), None));
        merge.step(Event::Lost { partition: 1 });
        let told = Action::Merge {
            term: TERM,
            head: Position(5),
            count: 1,
            late: 1,
            is_missing: true,
            give_up: 0,
        };
        assert_eq!(
            merge.step(read(1, &[(2, 5), (3, 7), (4, 1)])),
            told,
            "1 is there, which the base knows"
        );
    }

    #[test]
    fn a_base_that_comes_back_older_is_merged_anew() {
        let mut merge = leader();
        merge.step(read(1, &[(1, 1)]));
        merge.step(merged(2));
        assert_eq!(merge.step(Event::Moved { head: Position(1) }), Action::Wait);
        assert_eq!((merge.held(1), merge.acknowledge(1)), (0, None));
        assert_eq!(merge.step(read(1, &[(1, 1)])), asks(1, 1, false));
    }
}
