//! Status: the depths of a partition and what holds it up.

use super::{Control, Flight, Keep, Oldest, Partition};
use crate::lease::{Attempt, OwnerId};
use crate::message::{Id, Position};
use crate::term::Term;
use crate::time::Micros;

/// A partition at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The store's time.
    pub now: Micros,
    /// Accepted and not yet claimed.
    pub waiting: u64,
    /// Claimed and not yet done: leased, free again, delayed, or halted at.
    pub in_flight: u64,
    /// Done, failed for good ones included, and not yet delivered.
    pub processed: u64,
    /// Delivered and not yet received.
    pub output: u64,
    /// Rows in the system of record.
    pub recorded: u64,
    /// Dead letters.
    pub dead: u64,
    /// Those of them at which the line is halted, at the head and behind it.
    pub halted: u64,
    /// Since when the oldest of them are there.
    pub oldest: Oldest,
    /// How much stays, as a processor has last told.
    pub keep: Option<Keep>,
    /// How the processors are controlled.
    pub control: Control,
    /// The lowest position not yet delivered.
    pub head: Position,
    /// The lowest position not yet claimed.
    pub next: Position,
    /// What the message at the head waits for, if it was claimed and is not done.
    pub blocker: Option<Blocker>,
    /// The current term.
    pub term: Term,
    /// Who leads.
    pub leader: Option<OwnerId>,
    /// The processors taken to be alive.
    pub processors: Vec<OwnerId>,
    /// The active consumer.
    pub consumer: Option<OwnerId>,
    /// The term of the latest one.
    pub consumer_term: Term,
    /// Since when that is it, or was.
    pub consumer_since: Micros,
    /// How many producers that number their messages are known.
    pub producers: u64,
    /// Of the base of a merged line: since when the message at the head is missing although a later one is there.
    pub missing: Option<Micros>,
}

/// Why the head does not move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Blocker {
    /// It is being processed.
    Leased {
        /// By whom.
        owner: OwnerId,
        /// For the how manieth time.
        attempt: Attempt,
        /// Since when.
        since: Micros,
    },
    /// It waits to be claimed again.
    Free,
    /// It failed and waits for its next attempt.
    Delayed {
        /// When that is due.
        due: Micros,
    },
    /// It failed for good, and the line stops at it until a person has it tried again or skipped.
    Halted {
        /// Its id.
        id: Id,
        /// Why it failed.
        reason: String,
        /// When.
        died: Micros,
    },
}

impl Partition {
    /// How many are accepted and not yet claimed.
    pub(super) fn waiting(&self) -> u64 {
        self.entries.len() as u64 - self.next.past(self.head)
    }

    /// Counts. Changes nothing.
    pub fn status(&self, now: Micros) -> Status {
        let processed = self.processed.len() as u64;
        let undelivered = self.flights.len() as u64;
        let blocker = match self.flights.get(&self.head) {
            Some(Flight::Leased(lease)) => Some(Blocker::Leased {
                owner: lease.owner.clone(),
                attempt: lease.attempt,
                since: lease.claimed,
            }),
            Some(Flight::Free(_)) => Some(Blocker::Free),
            Some(Flight::Delayed { due, .. }) => Some(Blocker::Delayed { due: *due }),
            Some(Flight::Halted(_)) => self.letter_at(self.head).map(|letter| Blocker::Halted {
                id: letter.id.clone(),
                reason: letter.reason.clone(),
                died: letter.died,
            }),
            Some(Flight::Processed | Flight::Dead | Flight::Parked) | None => None,
        };
        Status {
            now,
            waiting: self.waiting(),
            in_flight: undelivered - processed,
            processed,
            output: self.outputs.len() as u64,
            recorded: self.records.len() as u64,
            dead: self.dead.len() as u64,
            halted: self.dead.iter().filter(|letter| letter.open.is_some()).count() as u64,
            oldest: self.oldest(),
            keep: self.keep,
            control: self.control,
            head: self.head,
            next: self.next,
            blocker,
            term: self.leader.term,
            leader: self.leader.holder(now),
            processors: self
                .owners
                .iter()
                .filter(|(_, deadline)| now < **deadline)
                .map(|(owner, _)| owner.clone())
                .collect(),
            consumer: self.consumer.holder(now),
            consumer_term: self.consumer.term,
            consumer_since: self.consumer.since,
            producers: self.producers.len() as u64,
            missing: self.merging.missing,
        }
    }
}
