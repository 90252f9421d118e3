//! Merge: the base of a line in total order over several partitions takes what has come out of them, by the producer's
//! sequence (law 3). The base is a partition of its own that is sent nothing: its position is the sequence, and its head the
//! next one that is expected.

use std::collections::BTreeSet;

use super::{DeadLetter, Partition};
use crate::lease::Attempt;
use crate::message::{Id, Position, finish};
use crate::term::Term;
use crate::time::Micros;

/// Of so many numbers whose place was passed without a result it is known; of more, only of the highest.
pub const PASSED_MOST: usize = 100_000;

/// So many numbers one step gives up at most.
pub const GIVE_UP_MOST: usize = 1_000;

/// What has its turn.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Piece {
    /// A result, written up to and with its `processed`.
    Result(String),
    /// A tombstone, as far.
    Tombstone(String),
    /// A dead letter whose tombstone is kept out of the output.
    Nothing,
}

/// A result that came when its place was passed, maybe: it may as well be the one that stands there.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Late {
    /// Its place in the order.
    pub position: Position,
    /// What its dead letter is to say.
    pub reason: String,
    /// It, as it came out of its partition.
    pub output: String,
}

/// What is done about numbers that are missing.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GiveUp {
    /// If the head is missing for so long at least, in microseconds.
    pub after_us: u64,
    /// What comes out in the place of the head and of those after it, written up to and with `processing`. Empty: nothing comes out.
    pub tombstones: Vec<String>,
}

/// Puts what came out of the partitions in order.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MergeRequest {
    /// The caller's term.
    pub term: Term,
    /// What the caller takes for the head.
    pub head: Position,
    /// Results that may have come too late: each of these becomes a dead letter if its place was passed without a result, once.
    pub late: Vec<Late>,
    /// What has its turn, from the head on.
    pub pieces: Vec<Piece>,
    /// Whether something is known to come after the head that is then: so the head is missing.
    pub is_missing: bool,
    /// Gives up what is missing, where no piece has its turn.
    pub give_up: Option<GiveUp>,
}

/// What became of a merge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Merged {
    /// It counts.
    Advanced {
        /// The store's time.
        now: Micros,
        /// The new head.
        head: Position,
        /// Since when it is known to be missing, if it is.
        missing: Option<Micros>,
    },
    /// The term is not the current one: somebody else leads. Nothing was changed.
    Fenced {
        /// The current term.
        term: Term,
    },
    /// The head is another one, or this is no base of a merged line. Nothing was changed; the caller reloads.
    Moved {
        /// The head as it is.
        head: Position,
    },
}

/// What the base of a merged line knows.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Merging {
    /// Since when the head is missing.
    pub(super) missing: Option<Micros>,
    /// Whose places were passed without a result.
    passed: BTreeSet<Position>,
}

impl Merging {
    fn pass(&mut self, position: Position) {
        self.passed.insert(position);
        while self.passed.len() > PASSED_MOST {
            self.passed.pop_first();
        }
    }
}

impl Partition {
    /// Appends to the output and advances the head: all of the request, or nothing of it.
    pub fn merge(&mut self, now: Micros, request: &MergeRequest) -> Merged {
        if request.term != self.leader.term {
            return Merged::Fenced { term: self.leader.term };
        }
        if request.head != self.head || !self.shape.unwrap_or_default().is_merged() {
            return Merged::Moved { head: self.head };
        }
        for late in &request.late {
            self.bury_late(now, late);
        }
        for piece in &request.pieces {
            self.put_piece(now, piece);
        }
        if !request.pieces.is_empty() {
            self.merging.missing = None;
        }
        if request.is_missing {
            // Not later than now: the clock may have been set back.
            let since = self.merging.missing.unwrap_or(now);
            self.merging.missing = Some(since.min(now));
        }
        if let Some(give_up) = request.give_up.as_ref().filter(|_| request.pieces.is_empty()) {
            self.give_up(now, give_up);
        }
        Merged::Advanced {
            now,
            head: self.head,
            missing: self.merging.missing,
        }
    }

    fn put_piece(&mut self, now: Micros, piece: &Piece) {
        let position = self.head;
        let open = match piece {
            Piece::Result(open) => Some(open),
            Piece::Tombstone(open) => {
                self.merging.pass(position);
                Some(open)
            }
            Piece::Nothing => {
                self.merging.pass(position);
                None
            }
        };
        if let Some(open) = open {
            let text = close(open, now);
            self.outputs.push_back((position, now, text.into()));
        }
        self.head = position.next();
        self.next = self.head;
    }

    /// How long it is missing stays as it is: those after it are missing as long, for one still later was there.
    fn give_up(&mut self, now: Micros, give_up: &GiveUp) {
        if self
            .merging
            .missing
            .is_none_or(|since| now.since(since) < give_up.after_us)
        {
            return;
        }
        for tombstone in give_up.tombstones.iter().take(GIVE_UP_MOST) {
            let position = self.head;
            if !tombstone.is_empty() {
                let mut text = tombstone.clone();
                finish(&mut text, now, now, now);
                self.outputs.push_back((position, now, text.into()));
            }
            self.merging.pass(position);
            self.head = position.next();
            self.next = self.head;
        }
    }

    fn bury_late(&mut self, now: Micros, late: &Late) {
        if late.position < self.head && self.merging.passed.remove(&late.position) {
            self.dead.push_back(DeadLetter {
                position: late.position,
                id: Id::given(late.position.to_string()),
                reason: late.reason.clone(),
                attempts: Attempt::default(),
                died: now,
                entry: late.output.clone().into(),
                open: None,
            });
        }
    }
}

/// What is open up to and with its `processed`, delivered now.
fn close(open: &str, now: Micros) -> String {
    let mut text = String::with_capacity(open.len() + 96);
    text.push_str(open);
    let later = now.to_string();
    for (name, end) in [(",\"sequencing\":\"", "\""), (",\"sequenced\":\"", "\"}")] {
        text.push_str(name);
        text.push_str(&later);
        text.push_str(end);
    }
    text
}
