//! One partition of a line: all its state, and every step that may change it.
//!
//! This is the reference. The memory store is this behind a mutex and a clock; the other stores say the same in
//! SQL and Lua and are compared with it step by step. Each verb is one atomic step, has a file of its own, and
//! takes the time from its caller.
//!
//! The input is a log: an entry stays in it until it is delivered, and two cursors run over it. `head` is the
//! lowest position not yet delivered, `next` the lowest not yet claimed. So a claim copies nothing, a claim
//! again finds the entry where it was, and position is arrival.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use crate::lease::{Attempt, Lease, OwnerId};
use crate::lifecycle::State;
use crate::message::{Entry, Id, Position, Record};
use crate::shape::Shape;
use crate::time::Micros;
use campaign::Seat;
use in_place::Queues;

mod browse;
mod campaign;
mod claim;
mod clock;
mod complete;
mod control;
mod dead;
mod emit;
mod in_place;
mod keep;
mod merge;
mod receive;
mod renew;
mod send;
mod shape;
mod status;
mod strikes;

pub use browse::{Page, Row, Shelf, finish_processed, write_dead_letter};
pub use campaign::CampaignRequest;
pub use claim::{Claim, ClaimRequest, Limits};
pub use clock::{SET_BACK_US, TELL_EVERY_US};
pub use complete::{Completed, Completion, OnDead};
pub use control::{BURST_US, Bucket, Control, ControlRequest, Flow, Rate};
pub use dead::{DeadRequest, Judged, Verdict};
pub use emit::{Cursor, EmitRequest, Emitted, Followed, Processed, Ready, Turn};
pub use in_place::{PASS_MOST, REACH};
pub use keep::{Grace, Keep, Limit, Oldest, TRIM_MOST};
pub use merge::{GIVE_UP_MOST, GiveUp, Late, MergeRequest, Merged, PASSED_MOST, Piece};
pub use receive::{ACKNOWLEDGE_WITHIN, ReceiveRequest, Received};
pub use renew::{RenewRequest, Renewed};
pub use send::{FORGOTTEN_AT_ONCE, KEPT_US, Numbered, ProducerId, Sent, Session};
pub use status::{Blocker, Status};
pub use strikes::{ALONE_FROM, FEW, FEW_FROM, Hands, Strikes};

/// All that a partition is made of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Partition {
    /// The input from the head on: the entry at index i has the position head + i.
    entries: VecDeque<Bytes>,
    head: Position,
    next: Position,
    /// Every claimed position that is not yet delivered: those from head to next, but for what is delivered in place.
    flights: BTreeMap<Position, Flight>,
    /// Those of them that are free to be claimed again.
    free: BTreeSet<Position>,
    /// Of which of them not all attempts count.
    strikes: BTreeMap<Position, Strikes>,
    /// Until when each process is taken to be alive.
    owners: BTreeMap<OwnerId, Micros>,
    leader: Seat,
    consumer: Seat,
    /// Those who number their messages.
    producers: BTreeMap<ProducerId, send::Producer>,
    records: BTreeMap<Id, Stored>,
    /// Those of them that are delivered, in their order: where, and when.
    delivered: VecDeque<(Position, Micros, Id)>,
    /// Where not all messages keep their order.
    queues: Queues,
    processed: BTreeMap<Cursor, (Position, Turn)>,
    last_cursor: u64,
    /// With the time of their delivery.
    outputs: VecDeque<(Position, Micros, Bytes)>,
    dead: VecDeque<DeadLetter>,
    /// The time when a deadline was last set.
    told: Micros,
    grace: Grace,
    /// What was last asked for.
    keep: Option<Keep>,
    /// What it is, where that was set.
    shape: Option<Shape>,
    control: Control,
    bucket: control::Bucket,
    merging: merge::Merging,
}

/// Where a claimed message is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Flight {
    Leased(Lease),
    /// Free to be claimed again: its owner is gone or gave it back.
    Free(Attempt),
    /// Failed for now.
    Delayed {
        due: Micros,
        attempt: Attempt,
    },
    Processed,
    /// Failed for good in this attempt, and the line is to stop at it.
    Halted(Attempt),
    Dead,
    /// Passed over: an earlier message of its key is not done.
    Parked,
}

impl Flight {
    fn state(&self) -> State {
        match self {
            Self::Leased(_) => State::Leased,
            Self::Free(_) => State::Waiting,
            Self::Delayed { .. } => State::Delayed,
            Self::Processed => State::Processed,
            Self::Halted(_) => State::Halted,
            Self::Dead => State::Dead,
            Self::Parked => State::Parked,
        }
    }
}

/// A record with the datetimes that the store gave it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Stored {
    record: Record,
    processed: Micros,
    /// When the leader took it up, and when it was delivered.
    delivered: Option<(Micros, Micros)>,
}

/// A message that failed for good, as it came in.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct DeadLetter {
    position: Position,
    id: Id,
    reason: String,
    attempts: Attempt,
    died: Micros,
    entry: Bytes,
    /// Its tombstone as far as it is written, while the line is halted at it.
    open: Option<String>,
}

impl Default for Partition {
    fn default() -> Self {
        Self {
            entries: VecDeque::new(),
            head: Position::FIRST,
            next: Position::FIRST,
            flights: BTreeMap::new(),
            free: BTreeSet::new(),
            strikes: BTreeMap::new(),
            owners: BTreeMap::new(),
            leader: Seat::default(),
            consumer: Seat::default(),
            producers: BTreeMap::new(),
            records: BTreeMap::new(),
            delivered: VecDeque::new(),
            queues: Queues::default(),
            processed: BTreeMap::new(),
            last_cursor: 0,
            outputs: VecDeque::new(),
            dead: VecDeque::new(),
            told: Micros::default(),
            grace: Grace::default(),
            keep: None,
            shape: None,
            control: Control::default(),
            bucket: control::Bucket::default(),
            merging: merge::Merging::default(),
        }
    }
}

impl Partition {
    /// The state of the message at `position`, or `None` if there is no such message yet.
    pub fn state(&self, position: Position) -> Option<State> {
        if position < self.head {
            return (position >= Position::FIRST).then_some(State::Delivered);
        }
        if self.is_in_place(position) {
            return Some(State::Delivered);
        }
        if let Some(flight) = self.flights.get(&position) {
            return Some(flight.state());
        }
        self.raw(position).map(|_| State::Waiting)
    }

    /// The bytes at a position that is not yet delivered.
    fn raw(&self, position: Position) -> Option<&Bytes> {
        let index = usize::try_from(position.0.checked_sub(self.head.0)?).ok()?;
        self.entries.get(index)
    }

    /// The entry at `position` as a claim hands it out.
    fn entry(&self, position: Position, limit: u64) -> Option<Entry> {
        self.raw(position).map(|bytes| match bytes.len() as u64 {
            size if size > limit => Entry::Oversize { bytes: size },
            _ => Entry::Whole(bytes.clone()),
        })
    }

    /// Moves a message to another state. Every change of a flight goes through here.
    fn put(&mut self, position: Position, flight: Flight) {
        debug_assert!(
            self.state(position)
                .is_some_and(|state| state.may_become(flight.state())),
            "position {position} can't go from {:?} to {flight:?}",
            self.state(position),
        );
        if matches!(flight, Flight::Free(_)) {
            self.free.insert(position);
        } else {
            self.free.remove(&position);
        }
        self.flights.insert(position, flight);
    }

    /// What `owner` holds, lowest position first.
    fn leases_of<'a>(&'a self, owner: &'a OwnerId) -> impl Iterator<Item = (Position, &'a Lease)> {
        self.flights.iter().filter_map(move |(position, flight)| match flight {
            Flight::Leased(lease) if lease.owner == *owner => Some((*position, lease)),
            _ => None,
        })
    }
}
