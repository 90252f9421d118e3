//! Campaign (law 6): take, renew or give up a seat: the sequencers' leadership, or the place of the active consumer.

use super::Partition;
use crate::lease::OwnerId;
use crate::term::{Campaign, Lock, Reign, Role, Term};
use crate::time::Micros;

/// Asks for a seat, or renews it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CampaignRequest {
    /// Who asks.
    pub owner: OwnerId,
    /// For which seat. Each has a lock and a term of its own.
    pub role: Role,
    /// How long the lock lasts from now, in microseconds. 0: the caller gives it up, if it has it.
    pub lock_us: u64,
}

/// What one at a time has: the lock on it, and the latest reign.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Seat {
    pub(super) term: Term,
    pub(super) lock: Option<Lock>,
    /// Whose the term is, also when the lock is free again.
    owner: Option<OwnerId>,
    /// When the reign began.
    pub(super) since: Micros,
}

impl Seat {
    /// The latest reign, whether its lock still holds or not.
    pub(super) fn reign(&self) -> Option<Reign> {
        let owner = self.owner.clone()?;
        Some(Reign { owner, term: self.term })
    }

    /// Whose the lock is at `now`.
    pub(super) fn holder(&self, now: Micros) -> Option<OwnerId> {
        let lock = self.lock.as_ref().filter(|lock| lock.holds(now))?;
        Some(lock.owner.clone())
    }
}

impl Partition {
    /// Gives the lock to whoever asks when it is free, under a new term; renews it for its owner, under the same.
    pub fn campaign(&mut self, now: Micros, request: &CampaignRequest) -> Campaign {
        self.notice_set_back(now);
        let seat = self.seat(request.role);
        let holder = seat.holder(now);
        if let Some(leader) = holder.clone().filter(|holder| *holder != request.owner) {
            return Campaign::Standby { leader: Some(leader) };
        }
        if request.lock_us == 0 {
            seat.lock = None;
            return Campaign::Standby { leader: None };
        }
        self.tell_time(now);
        let seat = self.seat(request.role);
        if holder.is_none() {
            seat.term = seat.term.next();
            seat.owner = Some(request.owner.clone());
            seat.since = now;
        }
        seat.lock = Some(Lock {
            owner: request.owner.clone(),
            deadline: now + request.lock_us,
        });
        Campaign::Leader { term: seat.term }
    }

    fn seat(&mut self, role: Role) -> &mut Seat {
        match role {
            Role::Leader => &mut self.leader,
            Role::Consumer => &mut self.consumer,
        }
    }
}
