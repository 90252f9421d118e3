//! The active consumer's seat: one of a line's consumers has it, the others stand by.
//!
//! Whoever has it writes down what it was handed out, however long that takes, so its lock is renewed by a task of its own.
//! That runs as long as the process does: one that hangs, or is stopped, loses the seat after a second.

use std::time::Duration;

use conga_core::lease::OwnerId;
use conga_core::partition::CampaignRequest;
use conga_core::term::{Reign, Role, Term};
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::lead::{Elector, LOCK};
use crate::persist::answer;
use crate::store::{Result, SharedStore, StoreError};
use crate::wake::Topic;

/// How long a consumer that ends waits for the store.
const GOODBYE: Duration = Duration::from_secs(1);

/// A consumer's side of the seat. Dropped, it is as if the process had died: the lock expires.
#[derive(Debug)]
pub(crate) struct Seat {
    owner: OwnerId,
    standing: watch::Receiver<Standing>,
    /// The terms under which this consumer was fenced off.
    fenced: mpsc::Sender<Term>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// How this consumer stands.
#[derive(Debug, Clone, Default)]
struct Standing {
    /// It has the seat, under this term.
    term: Option<Term>,
    /// Who else has it.
    other: Option<OwnerId>,
    /// How often it was told that it was fenced off.
    fenced: u64,
    /// Nobody can have it: what no repetition can help.
    failed: Option<StoreError>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Seat {
    /// Asks for the seat from now on. Needs a tokio runtime, on which it starts a task that ends with this.
    pub(crate) fn ask(store: SharedStore, owner: OwnerId) -> Self {
        Self::begin(store, owner, false)
    }

    /// The same, but whoever has the seat when it is first asked for loses it, at once. For who has the right to it from
    /// elsewhere, as the leader of a merged line has, and where to take it from one that is alive does no harm.
    pub(crate) fn take(store: SharedStore, owner: OwnerId) -> Self {
        Self::begin(store, owner, true)
    }

    fn begin(store: SharedStore, owner: OwnerId, takes: bool) -> Self {
        let (tell, standing) = watch::channel(Standing::default());
        // One is enough: of what is not taken yet there is nothing more to be said.
        let (fenced, heard) = mpsc::channel(1);
        let stop = CancellationToken::new();
        let elector = Elector::new(store.clone(), Role::Consumer, owner.clone());
        let task = tokio::spawn(keep(store, elector, takes, tell, heard, stop.clone()));
        Self {
            owner,
            standing,
            fenced,
            stop,
            task,
        }
    }

    /// The reign under which this consumer may receive, as soon as it has the seat. Cancel-safe.
    pub(crate) async fn reign(&mut self) -> Result<Reign> {
        let has_news = |standing: &Standing| standing.term.is_some() || standing.failed.is_some();
        let standing = match self.standing.wait_for(has_news).await {
            Ok(standing) => standing.clone(),
            Err(_) => return Err(StoreError::Closed),
        };
        match standing.term {
            Some(term) => Ok(Reign {
                owner: self.owner.clone(),
                term,
            }),
            None => Err(standing.failed.unwrap_or(StoreError::Closed)),
        }
    }

    /// As [`Seat::reign`], but nothing if somebody else keeps the seat longer than one that is gone could.
    pub(crate) async fn reign_soon(&mut self) -> Result<Option<Reign>> {
        match timeout(LOCK * 5 / 4, self.reign()).await {
            Ok(reign) => reign.map(Some),
            Err(_) if self.other().is_none() => self.reign().await.map(Some),
            Err(_) => Ok(None),
        }
    }

    /// Who else has the seat.
    pub(crate) fn other(&self) -> Option<OwnerId> {
        self.standing.borrow().other.clone()
    }

    /// The store has called this reign outdated. Returns when the task knows: not when there is another term, for after a
    /// failover the same one may be given again.
    pub(crate) async fn lost(&mut self, reign: &Reign) {
        let before = self.standing.borrow().fenced;
        // The task has ended where it has failed, and then the next question tells.
        if self.fenced.send(reign.term).await.is_ok() {
            drop(self.standing.wait_for(|standing| standing.fenced != before).await);
        }
    }

    /// Gives the seat up, so that another has it at once.
    pub(crate) async fn leave(mut self) {
        self.stop.cancel();
        // A panic there has been reported where it happened.
        drop((&mut self.task).await);
    }
}

/// Asks, and renews, until told to stop.
async fn keep(
    store: SharedStore,
    mut elector: Elector,
    mut takes: bool,
    tell: watch::Sender<Standing>,
    mut fenced: mpsc::Receiver<Term>,
    stop: CancellationToken,
) {
    let mut lock = store.wakes().listen(&[Topic::Lock]);
    let mut asking: Option<BoxFuture<'static, _>> = None;
    let mut times = 0;
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            () = elector.outlived() => drop(elector.depose("could not renew the lock in time")),
            Some(term) = fenced.recv() => {
                times += 1;
                if elector.term() == Some(term) {
                    elector.depose("another term has begun");
                }
                elector.hurry();
                // What was asked for before says nothing about what has come since.
                asking = None;
            }
            () = sleep_until(elector.ask_at()), if asking.is_none() => asking = Some(Box::pin(elector.ask())),
            (asked, campaign) = answer(&mut asking) => {
                if let Err(error) = elector.heard(asked, campaign) {
                    tell.send_modify(|standing| *standing = Standing { failed: Some(error), ..Standing::default() });
                    return;
                }
                // Once, so that two that both think they have the right do not take it from each other for ever.
                if takes && (elector.leads() || elector.other().is_some()) {
                    takes = false;
                    if let Some(other) = elector.other() {
                        asking = Some(Box::pin(displace(store.clone(), other.clone(), elector.ask())));
                    }
                }
            }
            () = lock.hinted(), if !elector.leads() => elector.hurry(),
        }
        tell.send_if_modified(|standing| {
            let (term, other) = (elector.term(), elector.other());
            let is_news = standing.term != term || standing.other.as_ref() != other || standing.fenced != times;
            standing.term = term;
            standing.other = other.cloned();
            standing.fenced = times;
            is_news
        });
    }
    // Not only with the seat: a call for it that is on its way may still win it.
    match timeout(GOODBYE, elector.resign()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "could not give up the seat; its lock expires"),
        Err(_) => tracing::debug!("could not give up the seat in time; its lock expires"),
    }
}

/// Gives the seat up in the name of `other`, and then asks.
async fn displace<T>(store: SharedStore, other: OwnerId, ask: impl Future<Output = T>) -> T {
    let request = CampaignRequest {
        owner: other,
        role: Role::Consumer,
        lock_us: 0,
    };
    if let Err(error) = store.campaign(&request).await {
        tracing::debug!(%error, "could not take the seat; its lock expires");
    }
    ask.await
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::Arc;

    use futures_util::poll;
    use tokio::time::sleep;

    use super::*;
    use crate::clock::Clock;
    use crate::store::memory::MemoryStore;

    /// As after a failover: a store that has come back older gives the same term again.
    #[tokio::test(start_paused = true)]
    async fn the_same_term_again_is_a_reign_that_is_not_lost() {
        let mut seat = Seat::ask(Arc::new(MemoryStore::new(Clock::Store)), OwnerId::new("a"));
        let reign = seat.reign().await.unwrap();
        {
            let mut lost = pin!(seat.lost(&reign));
            assert!(poll!(&mut lost).is_pending());
            // Nobody looks while it loses the seat and has it again.
            sleep(LOCK).await;
            timeout(LOCK, lost).await.unwrap();
        }
        assert_eq!(seat.reign().await.unwrap(), reign);
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_the_seat_has_it_at_once_and_does_not_take_it_again() {
        let store: SharedStore = Arc::new(MemoryStore::new(Clock::Store));
        let seat = |take: fn(_, _) -> Seat, name: &str| take(store.clone(), OwnerId::new(name));
        let mut first = seat(Seat::take, "first");
        let before = first.reign().await.unwrap();
        let began = tokio::time::Instant::now();
        let mut second = seat(Seat::take, "second");
        let reign = timeout(LOCK, second.reign()).await.expect("the seat").unwrap();
        assert_eq!((reign.term, began.elapsed()), (Term(before.term.0 + 1), Duration::ZERO));
        // The first one is alive, and hears of it.
        first.lost(&before).await;
        sleep(3 * LOCK).await;
        assert_eq!((second.other(), second.reign().await.unwrap()), (None, reign));
        assert_eq!(first.other(), Some(OwnerId::new("second")));
        // Who only asks waits.
        let mut third = seat(Seat::ask, "third");
        assert_eq!(third.reign_soon().await.unwrap(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_fenced_asks_at_once() {
        let mut seat = Seat::ask(Arc::new(MemoryStore::new(Clock::Store)), OwnerId::new("a"));
        let reign = seat.reign().await.unwrap();
        let began = tokio::time::Instant::now();
        seat.lost(&reign).await;
        assert_eq!(seat.reign().await.unwrap(), reign);
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}
