//! Claim (law 1): first what is free again, lowest position first, then new messages from the input.

use super::strikes::Fate;
use super::{Flight, Flow, PASS_MOST, Partition};
use crate::lease::{Attempt, Lease, OwnerId};
use crate::message::{Body, Entry, Id, Position, Record};
use crate::time::Micros;

/// How large an answer may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// An entry of more bytes than this is handed out as [`Entry::Oversize`].
    pub entry_bytes: u64,
    /// An answer ends with the message by which the bytes of its entries reach this.
    pub total_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            entry_bytes: 1 << 20,
            total_bytes: 8 << 20,
        }
    }
}

/// Asks for messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimRequest {
    /// Who asks. Asking says that it is alive.
    pub owner: OwnerId,
    /// How many messages at most.
    pub max: usize,
    /// How long the owner is taken to be alive from now, in microseconds; 0 counts as 1.
    pub lease_us: u64,
    /// New messages are handed out as long as fewer than so many are claimed and not yet delivered: in total order below head
    /// + window.
    pub window: u64,
    /// New messages are handed out only below this position, if it is given: so the caller can hold on to a bound of its own that
    /// no other caller's claim takes it beyond.
    pub below: Option<Position>,
    /// How large the answer may be.
    pub limits: Limits,
}

/// One message, and the lease on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Its place in the order.
    pub position: Position,
    /// The how manieth claim of it this is.
    pub attempt: Attempt,
    /// The how manieth of those that count: by this it is given up. A lease is named by the other.
    pub tries: Attempt,
    /// How often its owner has died with it, as far as it was blamed for that.
    pub crashes: u32,
    /// When it was claimed.
    pub claimed: Micros,
    /// What the producer sent.
    pub entry: Entry,
}

impl Claim {
    /// What came of it, as of a message of which no more is known than where it stands: its position is its id, and when it was
    /// claimed is when it was created.
    pub fn record(&self, body: Body) -> Record {
        Record {
            position: self.position,
            id: Id::of_position(self.position),
            sequence: None,
            key: None,
            body,
            attempts: self.attempt,
            created: self.claimed,
            processing: self.claimed,
        }
    }
}

impl Partition {
    /// Hands out messages to `request.owner`, in ascending position.
    pub fn claim(&mut self, now: Micros, request: &ClaimRequest) -> Vec<Claim> {
        self.tell_time(now);
        let deadline = now + request.lease_us.max(1);
        self.owners.insert(request.owner.clone(), deadline);
        self.free_the_expired(now);
        let mut claims = Vec::new();
        let (mut bytes, mut passed) = (0, 0);
        let (allowed, mut fresh) = (self.allowance(now), 0);
        let mut hands = self.hands_of(&request.owner);
        while claims.len() < request.max && bytes < request.limits.total_bytes {
            let again = self.free_again();
            let is_first = again.is_none_or(|(_, attempt)| attempt == Attempt(1));
            let is_held_up = again.is_none() && self.control.flow != Flow::Running;
            let suspected = again.map_or(0, |(position, _)| self.strikes_of(position).crashes);
            if is_held_up || (is_first && fresh == allowed) || !hands.may_take(suspected) {
                break;
            }
            let Some((position, attempt)) = again.or_else(|| self.take_next(request, &mut passed)) else {
                break;
            };
            let Some(entry) = self.entry(position, request.limits.entry_bytes) else {
                break;
            };
            bytes += entry.handed_out();
            fresh += u64::from(is_first);
            hands.take(suspected);
            let strikes = self.strikes_of(position);
            self.put(
                position,
                Flight::Leased(Lease {
                    owner: request.owner.clone(),
                    attempt,
                    claimed: now,
                }),
            );
            claims.push(Claim {
                position,
                attempt,
                tries: strikes.tries(attempt),
                crashes: strikes.crashes,
                claimed: now,
                entry,
            });
        }
        self.spend(now, fresh);
        claims
    }

    /// Frees what owners held whose time is up, and what has waited out its delay.
    fn free_the_expired(&mut self, now: Micros) {
        let gone: Vec<_> = self
            .owners
            .iter()
            .filter(|(_, deadline)| **deadline <= now)
            .map(|(owner, _)| owner.clone())
            .collect();
        for owner in gone {
            self.owners.remove(&owner);
            self.free_leases_of(&owner, Fate::Died);
        }
        let due: Vec<_> = self
            .flights
            .iter()
            .filter_map(|(position, flight)| match flight {
                Flight::Delayed { due, attempt } if *due <= now => Some((*position, *attempt)),
                _ => None,
            })
            .collect();
        for (position, attempt) in due {
            self.put(position, Flight::Free(attempt));
        }
    }

    fn free_again(&self) -> Option<(Position, Attempt)> {
        if self.control.flow == Flow::Paused {
            return None;
        }
        let position = self.free.first()?;
        match self.flights.get(position)? {
            Flight::Free(attempt) => Some((*position, attempt.next())),
            _ => None,
        }
    }

    /// Takes the next message that nothing holds back. `passed` counts what was passed over.
    fn take_next(&mut self, request: &ClaimRequest, passed: &mut usize) -> Option<(Position, Attempt)> {
        loop {
            let position = self.next;
            let is_beyond = request.below.is_some_and(|below| position >= below);
            if *passed >= PASS_MOST || is_beyond || !self.has_room(request.window) || self.raw(position).is_none() {
                return None;
            }
            self.next = position.next();
            if !self.queue(position) {
                return Some((position, Attempt(1)));
            }
            self.put(position, Flight::Parked);
            *passed += 1;
        }
    }
}
