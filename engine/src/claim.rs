//! Claim: what one processor holds, and how it keeps it.
//!
//! The store decides who has a message. `Holdings` is what this process believes to hold, so that what a lost
//! reply kept from it can be taken up.

use std::collections::HashMap;

use conga_core::lease::{Attempt, Held, OwnerId};
use conga_core::message::Position;
use conga_core::partition::{Claim, ClaimRequest, Completion, Keep, Limits, RenewRequest, Renewed};
use conga_core::time::Micros;

use crate::fits::Fits;
use crate::persist::persist;
use crate::random::Random;
use crate::store::{Result, SharedStore, StoreError};

mod brake;

pub(crate) use brake::Brake;

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
    pub(crate) keep: Keep,
    pub(crate) fits: Fits,
    /// Where what comes out has to wait to be merged.
    pub(crate) brake: Option<Brake>,
    pub(crate) random: Random,
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
    /// Claims up to `max` messages. Returns with an answer, with the news that a reply was lost, or with an error that no
    /// repetition can help. A claim whose reply was lost is not repeated: one that never hears the answers would take
    /// the head of the line again and again, each time for as long as a lease lasts.
    pub(crate) async fn claim(self, max: usize) -> Result<Claims> {
        let limits = self.limits();
        let below = match &self.brake {
            Some(brake) => brake.below(&*self.store, self.options.window).await,
            None => None,
        };
        let request = ClaimRequest {
            owner: self.owner.clone(),
            max,
            lease_us: self.options.lease_us,
            window: self.options.window,
            below,
            limits,
        };
        let ask = || async {
            match self.store.claim(&request).await {
                Err(StoreError::Unknown(why)) => {
                    tracing::debug!(why, "a claim has no answer; asking what is held");
                    self.fits.smaller();
                    Ok(None)
                }
                answer => answer.map(Some),
            }
        };
        let Some(claims) = persist("claim", &self.random, ask, |_| ()).await? else {
            return Ok(Claims {
                taken: Vec::new(),
                may_be_more: true,
                lost_reply: true,
            });
        };
        let bytes = bytes_of(&claims);
        self.fits.came(bytes);
        if let Some(brake) = &self.brake {
            brake.took(&claims, max);
        }
        Ok(Claims {
            may_be_more: claims.len() >= max || bytes >= limits.total_bytes,
            taken: claims,
            lost_reply: false,
        })
    }

    /// Keeps all leases alive. With `held`, the answer tells what both sides see differently.
    pub(crate) async fn renew(self, held: Option<Vec<Held>>) -> Result<Renewed> {
        let compares = held.is_some();
        let ask = || {
            let request = RenewRequest {
                keep: Some(self.keep),
                owner: self.owner.clone(),
                lease_us: self.options.lease_us,
                held: held.clone(),
                limits: self.limits(),
            };
            let store = self.store.clone();
            async move { store.renew(&request).await }
        };
        let trouble = |error: &StoreError| {
            if compares && matches!(error, StoreError::Unknown(_)) {
                self.fits.smaller();
            }
        };
        let renewed = persist("renew", &self.random, ask, trouble).await?;
        if compares {
            self.fits.came(bytes_of(&renewed.found));
        }
        Ok(renewed)
    }

    fn limits(&self) -> Limits {
        Limits {
            total_bytes: self.fits.bytes(),
            ..self.options.limits
        }
    }

    /// Gives up all that this process holds. Not repeated: what fails here expires.
    pub(crate) async fn leave(&self) -> Result<Renewed> {
        let request = RenewRequest {
            keep: None,
            owner: self.owner.clone(),
            lease_us: 0,
            held: None,
            limits: self.options.limits,
        };
        self.store.renew(&request).await
    }
}

fn bytes_of(claims: &[Claim]) -> u64 {
    claims.iter().map(|claim| claim.entry.handed_out()).sum()
}

/// What this process believes to hold: the attempt, and when it was claimed. A store that comes back older than it was
/// may hand out a position as the same attempt again, and with another message than before.
#[derive(Debug, Default)]
pub(crate) struct Holdings(HashMap<Position, (Attempt, Micros)>);

impl Holdings {
    /// Takes up a claim. False if it is held already, or a later attempt at the same message: an answer that was long
    /// on its way may tell of a lease that has ended since.
    pub(crate) fn take(&mut self, claim: &Claim) -> bool {
        let news = (claim.attempt, claim.claimed);
        let is_news = (self.0.get(&claim.position))
            .is_none_or(|(attempt, claimed)| *attempt < claim.attempt || *claimed < claim.claimed);
        if is_news {
            self.0.insert(claim.position, news);
        }
        is_news
    }

    /// Lets go of the lease that ended; a later one on the same position stays.
    pub(crate) fn drop(&mut self, ended: &Completion) {
        let held = ended.held();
        let is_same = |(attempt, claimed): &(Attempt, Micros)| match ended {
            Completion::Done(record) | Completion::Dead { tombstone: record, .. } => {
                (*attempt, *claimed) == (held.attempt, record.processing)
            }
            Completion::Retry { .. } => *attempt == held.attempt,
        };
        if self.0.get(&held.position).is_some_and(is_same) {
            self.0.remove(&held.position);
        }
    }

    /// Lets go of a claim that somebody else has by now.
    pub(crate) fn forget(&mut self, claim: &Claim) {
        if self.0.get(&claim.position) == Some(&(claim.attempt, claim.claimed)) {
            self.0.remove(&claim.position);
        }
    }

    /// Whether a lease is believed to be held.
    pub(crate) fn has(&self, held: Held) -> bool {
        self.0
            .get(&held.position)
            .is_some_and(|(attempt, _)| *attempt == held.attempt)
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
            .map(|(position, (attempt, _))| Held {
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
    use conga_core::message::{Body, Entry, Payload};

    use super::*;

    fn claim(position: u64, attempt: u32, claimed: u64) -> Claim {
        Claim {
            position: Position(position),
            attempt: Attempt(attempt),
            tries: Attempt(attempt),
            crashes: 0,
            claimed: Micros(claimed),
            entry: Entry::Oversize { bytes: 0 },
        }
    }

    fn done(claim: &Claim) -> Completion {
        Completion::Done(claim.record(Body::Result(Payload::string(""))))
    }

    #[test]
    fn the_end_of_an_older_attempt_does_not_end_the_newer() {
        let mut holdings = Holdings::default();
        let (older, newer) = (claim(1, 1, 5), claim(1, 2, 6));
        assert!(holdings.take(&older));
        assert!(!holdings.take(&older));
        assert!(holdings.take(&newer));
        holdings.drop(&done(&older));
        assert_eq!(holdings.len(), 1);
        holdings.drop(&done(&newer));
        assert_eq!(holdings.list(), []);
    }

    /// After a failover the store may not know of the first claim, and give the same position and attempt to a message
    /// that came to stand there.
    #[test]
    fn the_same_attempt_claimed_again_is_another_lease() {
        let mut holdings = Holdings::default();
        let (lost, again) = (claim(1, 1, 5), claim(1, 1, 6));
        assert!(holdings.take(&lost));
        assert!(holdings.take(&again), "it has to be processed");
        holdings.drop(&done(&lost));
        assert_eq!(holdings.len(), 1);
        holdings.drop(&done(&again));
        assert_eq!(holdings.len(), 0);
    }

    /// Else the later one was taken up again when both sides compared, and two handlers ran for it at once. Found by
    /// the simulation (seed 1003651 of that time).
    #[test]
    fn a_late_answer_does_not_put_an_older_attempt_in_the_place_of_the_newer() {
        let mut holdings = Holdings::default();
        assert!(holdings.take(&claim(1, 2, 6)));
        assert!(!holdings.take(&claim(1, 1, 5)));
        assert!(!holdings.take(&claim(1, 2, 6)));
        assert!(holdings.take(&claim(1, 3, 7)));
    }
}
