//! Campaign (law 6): take, renew or give up the leadership.

use super::Partition;
use crate::lease::OwnerId;
use crate::term::{Campaign, Lock};
use crate::time::Micros;

/// Asks for the leadership, or renews it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CampaignRequest {
    /// Who asks.
    pub owner: OwnerId,
    /// How long the lock lasts from now, in microseconds. 0: the caller gives it up, if it has it.
    pub lock_us: u64,
}

impl Partition {
    /// Gives the lock to whoever asks when it is free, under a new term; renews it for its owner, under the same.
    pub fn campaign(&mut self, now: Micros, request: &CampaignRequest) -> Campaign {
        self.notice_set_back(now);
        let holder = self.lock.take().filter(|lock| lock.holds(now));
        let (owner, term) = match holder {
            Some(lock) if lock.owner != request.owner => {
                let leader = Some(lock.owner.clone());
                self.lock = Some(lock);
                return Campaign::Standby { leader };
            }
            _ if request.lock_us == 0 => return Campaign::Standby { leader: None },
            Some(lock) => (lock.owner, self.term),
            None => (request.owner.clone(), self.term.next()),
        };
        self.tell_time(now);
        self.term = term;
        self.lock = Some(Lock {
            owner,
            deadline: now + request.lock_us,
        });
        Campaign::Leader { term }
    }
}
