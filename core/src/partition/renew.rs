//! Renew: an owner says that it is alive, asks what it holds, or leaves.

use std::collections::HashSet;

use super::strikes::Fate;
use super::{Claim, Flight, Keep, Limits, Partition};
use crate::lease::{Held, OwnerId};
use crate::message::Position;
use crate::time::Micros;

/// Keeps an owner alive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenewRequest {
    /// Who.
    pub owner: OwnerId,
    /// How long it is taken to be alive from now, in microseconds. 0: it leaves, and all that it holds is free at once.
    pub lease_us: u64,
    /// What the owner believes to hold, where it wants that compared: after a reply was lost, or it was away.
    pub held: Option<Vec<Held>>,
    /// How large the answer may be.
    pub limits: Limits,
    /// How much stays of what is delivered and of what is dead. What is over goes with this, as much of it as one short
    /// step can do. Nothing: nothing is said about it, and nothing goes. Who leaves says nothing about it.
    pub keep: Option<Keep>,
}

/// What the store says to that.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Renewed {
    /// Whether the owner was taken to be alive until now. If not, what it held is no longer its own.
    pub known: bool,
    /// Of what the owner believed to hold, what it does not.
    pub lost: Vec<Position>,
    /// What the owner holds and did not know of: the reply to its claim was lost.
    pub found: Vec<Claim>,
    /// The head of the line, where the owner holds it; or the first that it holds, where a message waits for somebody who
    /// holds nothing. An owner that does not know of it has to compare, or the line
    /// waits for ever: a claim may come late, after its caller has given it up and compared; and a store that lost its
    /// last steps in a crash may have forgotten that a lease had ended.
    pub blocking: Option<Held>,
    /// More is over than goes into one step: renew again soon.
    pub is_overfull: bool,
}

impl Partition {
    /// Renews all leases of an owner in one step, or ends them. What is over is for [`Partition::trim`], after what is ready
    /// is delivered.
    pub fn renew(&mut self, now: Micros, request: &RenewRequest) -> Renewed {
        if request.lease_us == 0 {
            let known = self.owners.remove(&request.owner).is_some();
            self.free_leases_of(&request.owner, Fate::Left);
            return Renewed {
                known,
                ..Renewed::default()
            };
        }
        self.tell_time(now);
        let known = self
            .owners
            .insert(request.owner.clone(), now + request.lease_us)
            .is_some();
        let blocking = self
            .blocking(&request.owner)
            .or_else(|| self.in_the_way(&request.owner));
        let Some(held) = &request.held else {
            return Renewed {
                known,
                blocking,
                ..Renewed::default()
            };
        };
        let believed: HashSet<Held> = held.iter().copied().collect();
        let mut really: HashSet<Held> = HashSet::new();
        let mut found = Vec::new();
        let mut bytes = 0;
        for (position, lease) in self.leases_of(&request.owner) {
            let held = Held {
                position,
                attempt: lease.attempt,
            };
            really.insert(held);
            if believed.contains(&held) || bytes >= request.limits.total_bytes {
                continue;
            }
            if let Some(entry) = self.entry(position, request.limits.entry_bytes) {
                bytes += entry.handed_out();
                found.push(Claim {
                    position,
                    attempt: lease.attempt,
                    tries: self.strikes_of(position).tries(lease.attempt),
                    crashes: self.strikes_of(position).crashes,
                    claimed: lease.claimed,
                    entry,
                });
            }
        }
        let lost = held
            .iter()
            .filter(|held| !really.contains(held))
            .map(|held| held.position)
            .collect();
        Renewed {
            known,
            lost,
            found,
            blocking,
            is_overfull: false,
        }
    }

    /// The head, if `owner` holds it.
    fn blocking(&self, owner: &OwnerId) -> Option<Held> {
        match self.flights.get(&self.head) {
            Some(Flight::Leased(lease)) if lease.owner == *owner => Some(Held {
                position: self.head,
                attempt: lease.attempt,
            }),
            _ => None,
        }
    }
}
