//! A way to a store on which things go wrong.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use conga::core::lease::OwnerId;
use conga::core::partition::{
    CampaignRequest, Claim, ClaimRequest, Completed, Completion, Control, ControlRequest, Cursor, DeadRequest,
    EmitRequest, Emitted, Followed, Judged, MergeRequest, Merged, Numbered, Page, Piece, ReceiveRequest, Received,
    RenewRequest, Renewed, Sent, Shelf, Status,
};
use conga::core::shape::Shape;
use conga::core::term::Campaign;
use conga::store::{Result, SharedStore, Store, StoreError};
use conga::wake::Wakes;
use tokio::sync::Semaphore;

/// One way, with what comes through.
#[derive(Debug)]
pub(crate) struct Way {
    store: SharedStore,
    /// What has more bytes does not come through together.
    pub(crate) width: AtomicUsize,
    /// So many did not.
    pub(crate) lost: AtomicUsize,
    /// So many outputs came through.
    pub(crate) read: AtomicUsize,
    /// Nothing comes through.
    pub(crate) is_away: AtomicBool,
    /// So many merges in which something has its turn are done, and nobody hears of them.
    pub(crate) unheard_merges: AtomicUsize,
    /// An answer with outputs that come after others takes one of these.
    pub(crate) gate: Semaphore,
    /// How many wait at the gate.
    pub(crate) waiting: AtomicUsize,
    /// So many merges were asked for.
    pub(crate) merges: AtomicUsize,
    /// So many merges have given up numbers, or would have.
    pub(crate) giving_up: AtomicUsize,
    /// The answer to one of them takes one of these.
    pub(crate) give_up_gate: Semaphore,
    /// So many more seem to wait there.
    pub(crate) phantoms: AtomicUsize,
    /// Until it is said again that a number is missing, nobody is told: it was lost with the last that was written.
    pub(crate) forgets_missing: AtomicBool,
    /// So often they were told of.
    pub(crate) haunted: AtomicUsize,
    /// A merge finds the base as it was once.
    pub(crate) older: std::sync::Mutex<Option<Merged>>,
}

impl Way {
    pub(crate) fn to(store: SharedStore) -> Self {
        Self {
            store,
            width: AtomicUsize::new(usize::MAX),
            lost: AtomicUsize::new(0),
            read: AtomicUsize::new(0),
            is_away: AtomicBool::new(false),
            unheard_merges: AtomicUsize::new(0),
            gate: Semaphore::new(Semaphore::MAX_PERMITS),
            waiting: AtomicUsize::new(0),
            merges: AtomicUsize::new(0),
            giving_up: AtomicUsize::new(0),
            give_up_gate: Semaphore::new(Semaphore::MAX_PERMITS),
            phantoms: AtomicUsize::new(0),
            forgets_missing: AtomicBool::new(false),
            haunted: AtomicUsize::new(0),
            older: std::sync::Mutex::new(None),
        }
    }

    fn pass(&self, bytes: usize) -> Result<()> {
        if bytes > self.width.load(Ordering::SeqCst) {
            self.lost.fetch_add(1, Ordering::SeqCst);
            return Err(StoreError::Unknown("it is not through in time".to_owned()));
        }
        self.is_there()
    }

    fn is_there(&self) -> Result<()> {
        if self.is_away.load(Ordering::SeqCst) {
            return Err(StoreError::Unavailable("it is away".to_owned()));
        }
        Ok(())
    }
}

#[async_trait]
impl Store for Way {
    async fn send(&self, entries: &[Bytes], numbered: Option<&Numbered>) -> Result<Sent> {
        self.store.send(entries, numbered).await
    }

    async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Claim>> {
        self.is_there()?;
        self.store.claim(request).await
    }

    async fn complete(&self, owner: &OwnerId, completions: &[Completion]) -> Result<Vec<Completed>> {
        self.store.complete(owner, completions).await
    }

    async fn renew(&self, request: &RenewRequest) -> Result<Renewed> {
        self.store.renew(request).await
    }

    async fn campaign(&self, request: &CampaignRequest) -> Result<Campaign> {
        self.is_there()?;
        self.store.campaign(request).await
    }

    async fn follow(&self, cursor: Cursor, max: usize) -> Result<Followed> {
        self.store.follow(cursor, max).await
    }

    async fn emit(&self, request: &EmitRequest) -> Result<Emitted> {
        self.store.emit(request).await
    }

    async fn merge(&self, request: &MergeRequest) -> Result<Merged> {
        self.merges.fetch_add(1, Ordering::SeqCst);
        if let Some(older) = self.older.lock().expect("no panic").take() {
            return Ok(older);
        }
        let pieces = request.pieces.iter().map(|piece| match piece {
            Piece::Result(open) | Piece::Tombstone(open) => open.len(),
            Piece::Nothing => 0,
        });
        let late = request.late.iter().map(|late| late.output.len());
        let given_up = request.give_up.iter().flat_map(|give_up| &give_up.tombstones);
        self.forgets_missing.fetch_and(!request.is_missing, Ordering::SeqCst);
        self.pass(pieces.chain(late).chain(given_up.map(String::len)).sum())?;
        let merged = self.store.merge(request).await;
        if request.give_up.is_some() {
            self.giving_up.fetch_add(1, Ordering::SeqCst);
            self.give_up_gate.acquire().await.expect("never closed").forget();
        }
        let one_less = |left: usize| left.checked_sub(1);
        let unheard = &self.unheard_merges;
        if !request.pieces.is_empty()
            && unheard
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less)
                .is_ok()
        {
            return Err(StoreError::Unknown("the answer was lost".to_owned()));
        }
        merged
    }

    async fn receive(&self, request: &ReceiveRequest) -> Result<Received> {
        self.is_there()?;
        let received = self.store.receive(request).await?;
        if let Received::Outputs(outputs) = &received {
            if request.skip > 0 && !outputs.is_empty() {
                self.waiting.fetch_add(1, Ordering::SeqCst);
                self.gate.acquire().await.expect("never closed").forget();
                self.waiting.fetch_sub(1, Ordering::SeqCst);
            }
            self.pass(outputs.iter().map(Bytes::len).sum())?;
            self.read.fetch_add(outputs.len(), Ordering::SeqCst);
        }
        Ok(received)
    }

    async fn control(&self, request: &ControlRequest) -> Result<Control> {
        self.store.control(request).await
    }

    async fn status(&self) -> Result<Status> {
        self.is_there()?;
        let mut status = self.store.status().await?;
        let phantoms = self.phantoms.load(Ordering::SeqCst);
        self.haunted.fetch_add(usize::from(phantoms > 0), Ordering::SeqCst);
        status.waiting += phantoms as u64;
        status.missing = (status.missing).filter(|_| !self.forgets_missing.load(Ordering::SeqCst));
        Ok(status)
    }

    async fn browse(&self, shelf: Shelf, from: Option<&str>) -> Result<Page> {
        self.store.browse(shelf, from).await
    }

    async fn shape(&self, wanted: Option<Shape>) -> Result<Option<Shape>> {
        self.store.shape(wanted).await
    }

    async fn dead(&self, request: &DeadRequest) -> Result<Vec<Judged>> {
        self.store.dead(request).await
    }

    fn wakes(&self) -> &Wakes {
        self.store.wakes()
    }
}
