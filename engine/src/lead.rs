//! Lead: who of the sequencers may deliver, and who of the consumers may receive.
//!
//! The lock expires by the store's clock; a leader also stops by its own, some time before that (law 6). Neither is
//! what keeps the output right (the term does that, law 3): they keep two leaders from getting in each other's way.

use std::time::Duration;

use conga_core::lease::OwnerId;
use conga_core::partition::CampaignRequest;
use conga_core::term::{Campaign, Role, Term};
use tokio::time::Instant;

use crate::store::{Result, SharedStore};

/// How long a lock lasts that is not renewed.
pub const LOCK: Duration = Duration::from_secs(1);
/// A leader renews its lock so often.
const RENEW: Duration = Duration::from_millis(333);
/// A standby asks for the lock so often, hint or not.
const ASK: Duration = Duration::from_millis(100);
/// A leader that could not renew stops so long before the lock can run out.
const MARGIN: Duration = Duration::from_millis(100);

/// A change in what this process may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Elected(Term),
    Deposed,
}

/// One sequencer's side of the leadership, or one consumer's of being the active one, which here is leading too.
#[derive(Debug)]
pub(crate) struct Elector {
    store: SharedStore,
    role: Role,
    owner: OwnerId,
    /// Who led when it was last asked, if somebody else did.
    other: Option<OwnerId>,
    reign: Option<Reign>,
    ask_at: Instant,
}

#[derive(Debug, Clone, Copy)]
struct Reign {
    term: Term,
    /// By this process's own clock.
    until: Instant,
}

impl Elector {
    pub(crate) fn new(store: SharedStore, role: Role, owner: OwnerId) -> Self {
        Self {
            store,
            role,
            owner,
            other: None,
            reign: None,
            ask_at: Instant::now(),
        }
    }

    pub(crate) fn owner(&self) -> &OwnerId {
        &self.owner
    }

    pub(crate) fn leads(&self) -> bool {
        self.reign.is_some()
    }

    /// Under which term it leads.
    pub(crate) fn term(&self) -> Option<Term> {
        self.reign.map(|reign| reign.term)
    }

    /// Who else leads.
    pub(crate) fn other(&self) -> Option<&OwnerId> {
        self.other.as_ref()
    }

    /// Ask at once: somebody said that the lock is free.
    pub(crate) fn hurry(&mut self) {
        if !self.leads() {
            self.ask_at = Instant::now();
        }
    }

    /// When to ask.
    pub(crate) fn ask_at(&self) -> Instant {
        self.ask_at
    }

    /// Returns when a reign can't be proved any more, by this process's own clock; never, if there is none.
    pub(crate) async fn outlived(&self) {
        match self.reign {
            Some(reign) => tokio::time::sleep_until(reign.until).await,
            None => std::future::pending().await,
        }
    }

    /// A call for the leadership, to be answered to [`Elector::heard`].
    pub(crate) fn ask(&self) -> impl Future<Output = (Instant, Result<Campaign>)> + use<> {
        let store = self.store.clone();
        let request = CampaignRequest {
            owner: self.owner.clone(),
            role: self.role,
            lock_us: u64::try_from(LOCK.as_micros()).unwrap_or(u64::MAX),
        };
        async move {
            // The lock runs from some time after this, so this is the safe moment to count from.
            let asked = Instant::now();
            (asked, store.campaign(&request).await)
        }
    }

    /// Takes the answer to a call.
    pub(crate) fn heard(&mut self, asked: Instant, answer: Result<Campaign>) -> Result<Option<Change>> {
        let led = self.reign.map(|reign| reign.term);
        match answer {
            // An answer that was so long on its way proves nothing any more.
            Ok(Campaign::Leader { .. }) if Instant::now() >= asked + LOCK - MARGIN => {
                self.ask_at = Instant::now();
                Ok(self.depose("the answer came too late"))
            }
            Ok(Campaign::Leader { term }) => {
                self.ask_at = asked + RENEW;
                self.other = None;
                self.reign = Some(Reign {
                    term,
                    until: asked + LOCK - MARGIN,
                });
                if led == Some(term) {
                    return Ok(None);
                }
                match self.role {
                    Role::Leader => tracing::info!(owner = %self.owner, %term, "leads"),
                    Role::Consumer => tracing::info!(owner = %self.owner, %term, "is the active consumer"),
                }
                Ok(Some(Change::Elected(term)))
            }
            Ok(Campaign::Standby { leader }) => {
                self.ask_at = asked + ASK;
                self.other = leader;
                Ok(self.depose("another has the lock"))
            }
            Err(error) if error.is_passing() => {
                // A leader goes on until its time is up: it may still get through.
                self.ask_at = Instant::now() + ASK;
                tracing::debug!(%error, "no answer about the leadership");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Gives up a reign whose time is up by this process's own clock, or that the store has called outdated.
    pub(crate) fn depose(&mut self, why: &str) -> Option<Change> {
        let reign = self.reign.take()?;
        match self.role {
            Role::Leader => tracing::info!(owner = %self.owner, term = %reign.term, why, "leads no more"),
            Role::Consumer => {
                tracing::info!(owner = %self.owner, term = %reign.term, why, "is the active consumer no more");
            }
        }
        Some(Change::Deposed)
    }

    /// Gives the lock up, if it is this process's, so that a standby has it at once.
    pub(crate) async fn resign(&self) -> Result<()> {
        let request = CampaignRequest {
            owner: self.owner.clone(),
            role: self.role,
            lock_us: 0,
        };
        self.store.campaign(&request).await.map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::Clock;
    use crate::store::StoreError;
    use crate::store::memory::MemoryStore;

    #[tokio::test(start_paused = true)]
    async fn a_leader_that_gets_no_answer_stops_before_its_lock_can_run_out() {
        let mut elector = Elector::new(
            Arc::new(MemoryStore::new(Clock::Store)),
            Role::Leader,
            OwnerId::new("a"),
        );
        let (asked, answer) = elector.ask().await;
        assert_eq!(elector.heard(asked, answer), Ok(Some(Change::Elected(Term(1)))));
        let lost = || Err(StoreError::Unknown("lost".to_owned()));
        loop {
            tokio::select! {
                biased;
                () = elector.outlived() => break,
                () = tokio::time::sleep_until(elector.ask_at()) => {}
            }
            assert_eq!(elector.heard(Instant::now(), lost()), Ok(None));
            assert!(elector.leads());
        }
        assert!(asked.elapsed() < LOCK);
        assert_eq!(elector.depose("time is up"), Some(Change::Deposed));
        assert_eq!(elector.depose("time is up"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_comes_too_late_elects_nobody() {
        let mut elector = Elector::new(
            Arc::new(MemoryStore::new(Clock::Store)),
            Role::Leader,
            OwnerId::new("a"),
        );
        let (asked, answer) = elector.ask().await;
        tokio::time::sleep(LOCK).await;
        assert_eq!(elector.heard(asked, answer), Ok(None));
        assert!(!elector.leads());
        assert_eq!(elector.ask_at(), Instant::now());
    }
}
