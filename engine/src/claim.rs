//! Claim: what one processor holds, and how it keeps it.
//!
//! The store decides who has a message. `Holdings` is what this process believes to hold, so that what a lost
//! reply kept from it can be taken up.

use std::collections::HashMap;

use conga_core::lease::{Attempt, Held, OwnerId};
use conga_core::message::Position;
use conga_core::partition::{Claim, ClaimRequest, Limits, RenewRequest, Renewed};

use crate::persist::persist;
use crate::store::{Result, SharedStore, StoreError};

/// How a processor claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClaimOptions {
    /// How long a process that says nothing keeps what it holds, in microseconds. It says so three times as often.
    pub lease_us: u64,
    /// How far claims may run ahead of the head: it bounds what is in flight or waits for its turn.
    pub window: u64,
    /// How large an answer may be.
    pub limits: Limits,
}

impl Default for ClaimOptions {
    fn default() -> Self {
        Self {
            lease_us: 1_000_000,
            window: 10_000,
            limits: Limits::default(),
        }
    }
}

/// One process's side of its claims. Clones are the same process.
#[derive(Debug, Clone)]
pub(crate) struct Claimer {
    pub(crate) store: SharedStore,
    pub(crate) owner: OwnerId,
    pub(crate) options: ClaimOptions,
}

/// The answer to a claim.
#[derive(Debug)]
pub(crate) struct Claims {
    pub(crate) taken: Vec<Claim>,
    /// Whether the answer is as large as it was allowed to be.
    pub(crate) may_be_more: bool,
    /// A reply was lost on the way: this process may hold more than it knows of.
    pub(crate) lost_reply: bool,
}

impl Claimer {
    /// Claims up to `max` messages. Returns only with an answer, or an error that no repetition can help.
    pub(crate) async fn claim(self, max: usize) -> Result<Claims> {
        let request = ClaimRequest {
            owner: self.owner.clone(),
            max,
            lease_us: self.options.lease_us,
            window: self.options.window,
            limits: self.options.limits,
        };
        let mut lost_reply = false;
        let claims = persist(
            "claim",
            || self.store.claim(&request),
            |error| lost_reply |= matches!(error, StoreError::Unknown(_)),
        )
        .await?;
        let bytes: u64 = claims.iter().map(|claim| claim.entry.handed_out()).sum();
        Ok(Claims {
            may_be_more: claims.len() >= max || bytes >= self.options.limits.total_bytes,
            taken: claims,
            lost_reply,
        })
    }

    /// Keeps all leases alive. With `held`, the answer tells what both sides see differently.
    pub(crate) async fn renew(self, held: Option<Vec<Held>>) -> Result<Renewed> {
        let request = RenewRequest {
            owner: self.owner.clone(),
            lease_us: self.options.lease_us,
            held,
            limits: self.options.limits,
        };
        persist("renew", || self.store.renew(&request), |_| ()).await
    }

    /// Gives up all that this process holds. Not repeated: what fails here expires.
    pub(crate) async fn leave(&self) -> Result<Renewed> {
        let request = RenewRequest {
            owner: self.owner.clone(),
            lease_us: 0,
            held: None,
            limits: self.options.limits,
        };
        self.store.renew(&request).await
    }
}

/// What this process believes to hold.
#[derive(Debug, Default)]
pub(crate) struct Holdings(HashMap<Position, Attempt>);

impl Holdings {
    /// Takes up a claim. False if it is held already.
    pub(crate) fn take(&mut self, claim: &Claim) -> bool {
        self.0.insert(claim.position, claim.attempt) != Some(claim.attempt)
    }

    /// Lets go of a lease; a later attempt at the same message stays.
    pub(crate) fn drop(&mut self, held: Held) {
        if self.0.get(&held.position) == Some(&held.attempt) {
            self.0.remove(&held.position);
        }
    }

    /// How many leases there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// All of them, in ascending position.
    pub(crate) fn list(&self) -> Vec<Held> {
        let mut list: Vec<Held> = self
            .0
            .iter()
            .map(|(position, attempt)| Held {
                position: *position,
                attempt: *attempt,
            })
            .collect();
        list.sort_unstable();
        list
    }
}

#[cfg(test)]
mod tests {
    use conga_core::message::Entry;
    use conga_core::time::Micros;

    use super::*;

    fn claim(position: u64, attempt: u32) -> Claim {
        Claim {
            position: Position(position),
            attempt: Attempt(attempt),
            claimed: Micros(0),
            entry: Entry::Oversize { bytes: 0 },
        }
    }

    #[test]
    fn the_end_of_an_older_attempt_does_not_end_the_newer() {
        let mut holdings = Holdings::default();
        let older = Held {
            position: Position(1),
            attempt: Attempt(1),
        };
        assert!(holdings.take(&claim(1, 1)));
        assert!(!holdings.take(&claim(1, 1)));
        assert!(holdings.take(&claim(1, 2)));
        holdings.drop(older);
        assert_eq!(holdings.len(), 1);
        holdings.drop(Held {
            attempt: Attempt(2),
            ..older
        });
        assert_eq!(holdings.list(), []);
    }
}
