//! A store that can be told to misbehave.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use conga::clock::Clock;
use conga::core::lease::OwnerId;
use conga::core::partition::{
    CampaignRequest, Claim, ClaimRequest, Completed, Completion, Control, ControlRequest, Cursor, DeadRequest,
    EmitRequest, Emitted, Followed, Judged, MergeRequest, Merged, Numbered, Page, ReceiveRequest, Received,
    RenewRequest, Renewed, Sent, Shelf, Status,
};
use conga::core::shape::Shape;
use conga::core::term::Campaign;
use conga::store::memory::MemoryStore;
use conga::store::{Delivery, Result, SharedStore, Store, StoreError};
use conga::wake::Wakes;

use crate::full::Producers;

/// How late a call arrives.
pub(crate) const LATE: Duration = Duration::from_secs(3);

/// A store, of which calls meet trouble.
#[derive(Debug)]
pub(crate) struct Troubled {
    pub(crate) inner: SharedStore,
    /// What becomes of the sends of producers that number.
    pub(crate) producers: Producers,
    /// So many claims are done, and their replies lost.
    pub(crate) lost_claims: AtomicU32,
    /// So many claims get no answer, and are done [`LATE`].
    pub(crate) late_claims: AtomicU32,
    /// Claims and renewals are done, and their replies lost.
    pub(crate) deaf: AtomicBool,
    /// Claims are refused, and nothing is done.
    pub(crate) refused_claims: AtomicBool,
    /// Claims have no answer as long as this is so, and then they are done.
    pub(crate) silent_claims: AtomicBool,
    /// The same of completes,
    pub(crate) silent_completes: AtomicBool,
    /// and of renewals.
    pub(crate) silent_renewals: AtomicBool,
    /// The reply to a claim or a renewal with entries of more bytes is lost.
    pub(crate) narrow: AtomicU64,
    pub(crate) claims: AtomicU32,
    /// Calls for the leadership are not answered for a long time.
    pub(crate) silent_campaigns: AtomicBool,
    pub(crate) refused_emits: AtomicBool,
    emits: AtomicU32,
}

impl Troubled {
    pub(crate) fn new() -> Arc<Self> {
        Self::over(Arc::new(MemoryStore::new(Clock::Store).delivering(Delivery::Leader)))
    }

    pub(crate) fn over(inner: SharedStore) -> Arc<Self> {
        Arc::new(Self {
            inner,
            producers: Producers::default(),
            lost_claims: AtomicU32::new(0),
            late_claims: AtomicU32::new(0),
            deaf: AtomicBool::new(false),
            refused_claims: AtomicBool::new(false),
            silent_claims: AtomicBool::new(false),
            silent_completes: AtomicBool::new(false),
            silent_renewals: AtomicBool::new(false),
            narrow: AtomicU64::new(u64::MAX),
            claims: AtomicU32::new(0),
            silent_campaigns: AtomicBool::new(false),
            refused_emits: AtomicBool::new(false),
            emits: AtomicU32::new(0),
        })
    }

    /// The reply, if it is not too large.
    fn through<T>(&self, reply: Result<T>, claims: impl Fn(&T) -> &Vec<Claim>) -> Result<T> {
        let reply = reply?;
        let bytes: u64 = claims(&reply).iter().map(|claim| claim.entry.handed_out()).sum();
        if bytes > self.narrow.load(Ordering::SeqCst) {
            return Err(StoreError::Unknown("the reply is not through in time".to_owned()));
        }
        Ok(reply)
    }

    pub(crate) fn emits(&self) -> u32 {
        self.emits.load(Ordering::SeqCst)
    }
}

/// Whether one of so many is left; then it is one less.
fn is_next(left: &AtomicU32) -> bool {
    let one_less = |left: u32| left.checked_sub(1);
    left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok()
}

/// Returns when it is not silent any more.
async fn heard(silent: &AtomicBool) {
    while silent.load(Ordering::SeqCst) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[async_trait]
impl Store for Troubled {
    async fn send(&self, entries: &[Bytes], numbered: Option<&Numbered>) -> Result<Sent> {
        match numbered {
            Some(numbered) => self.producers.send(&self.inner, entries, numbered).await,
            None => self.inner.send(entries, None).await,
        }
    }

    async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Claim>> {
        self.claims.fetch_add(1, Ordering::SeqCst);
        if is_next(&self.late_claims) {
            let (inner, request) = (self.inner.clone(), request.clone());
            tokio::spawn(async move {
                tokio::time::sleep(LATE).await;
                inner.claim(&request).await
            });
            return Err(StoreError::Unknown("no answer in time".to_owned()));
        }
        if self.refused_claims.load(Ordering::SeqCst) {
            return Err(StoreError::Unavailable("there is no memory".to_owned()));
        }
        heard(&self.silent_claims).await;
        let claims = self.inner.claim(request).await;
        if self.deaf.load(Ordering::SeqCst) || is_next(&self.lost_claims) {
            return Err(StoreError::Unknown("the reply was lost".to_owned()));
        }
        self.through(claims, |claims| claims)
    }

    async fn complete(&self, owner: &OwnerId, completions: &[Completion]) -> Result<Vec<Completed>> {
        heard(&self.silent_completes).await;
        self.inner.complete(owner, completions).await
    }

    async fn renew(&self, request: &RenewRequest) -> Result<Renewed> {
        heard(&self.silent_renewals).await;
        let renewed = self.inner.renew(request).await;
        if self.deaf.load(Ordering::SeqCst) {
            return Err(StoreError::Unknown("the reply was lost".to_owned()));
        }
        self.through(renewed, |renewed| &renewed.found)
    }

    async fn campaign(&self, request: &CampaignRequest) -> Result<Campaign> {
        if self.silent_campaigns.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_mins(1)).await;
        }
        self.inner.campaign(request).await
    }

    async fn follow(&self, cursor: Cursor, max: usize) -> Result<Followed> {
        self.inner.follow(cursor, max).await
    }

    async fn emit(&self, request: &EmitRequest) -> Result<Emitted> {
        self.emits.fetch_add(1, Ordering::SeqCst);
        if self.refused_emits.load(Ordering::SeqCst) {
            return Err(StoreError::Unavailable("the disk is full".to_owned()));
        }
        self.inner.emit(request).await
    }

    async fn merge(&self, request: &MergeRequest) -> Result<Merged> {
        self.inner.merge(request).await
    }

    async fn receive(&self, request: &ReceiveRequest) -> Result<Received> {
        self.inner.receive(request).await
    }

    async fn control(&self, request: &ControlRequest) -> Result<Control> {
        self.inner.control(request).await
    }

    async fn status(&self) -> Result<Status> {
        self.producers.take_some(&self.inner).await?;
        self.inner.status().await
    }

    async fn browse(&self, shelf: Shelf, from: Option<&str>) -> Result<Page> {
        self.inner.browse(shelf, from).await
    }

    async fn shape(&self, wanted: Option<Shape>) -> Result<Option<Shape>> {
        self.inner.shape(wanted).await
    }

    async fn dead(&self, request: &DeadRequest) -> Result<Vec<Judged>> {
        self.inner.dead(request).await
    }

    fn wakes(&self) -> &Wakes {
        self.inner.wakes()
    }
}
