//! The services over a store in trouble: replies that are lost, calls that hang, steps that are refused. On one thread
//! and in paused time.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use conga::clock::Clock;
use conga::core::lease::OwnerId;
use conga::core::message::{Payload, Position};
use conga::core::partition::{
    CampaignRequest, Claim, ClaimRequest, Completed, Completion, Cursor, EmitRequest, Emitted, Followed, Limits, Page,
    ReceiveRequest, RenewRequest, Renewed, Shelf, Status,
};
use conga::core::term::Campaign;
use conga::process::{Handler, HandlerError, Message, Processor, ProcessorOptions, sleep};
use conga::sequence::{Sequencer, SequencerOptions};
use conga::store::memory::MemoryStore;
use conga::store::{Result, SharedStore, Store, StoreError};
use conga::wake::Wakes;
use tokio_util::sync::CancellationToken;

/// A memory store that can be told to misbehave.
#[derive(Debug)]
struct Troubled {
    inner: MemoryStore,
    /// So many claims are done, and their replies lost.
    lost_claims: AtomicU32,
    /// Calls for the leadership are not answered for a long time.
    silent_campaigns: AtomicBool,
    refused_emits: AtomicBool,
    emits: AtomicU32,
}

impl Troubled {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            inner: MemoryStore::new(Clock::Store),
            lost_claims: AtomicU32::new(0),
            silent_campaigns: AtomicBool::new(false),
            refused_emits: AtomicBool::new(false),
            emits: AtomicU32::new(0),
        })
    }

    fn emits(&self) -> u32 {
        self.emits.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Store for Troubled {
    async fn send(&self, entries: &[Bytes]) -> Result<()> {
        self.inner.send(entries).await
    }

    async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Claim>> {
        let claims = self.inner.claim(request).await;
        let lose = |left: u32| left.checked_sub(1);
        if self
            .lost_claims
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, lose)
            .is_ok()
        {
            return Err(StoreError::Unknown("the reply was lost".to_owned()));
        }
        claims
    }

    async fn complete(&self, owner: &OwnerId, completions: &[Completion]) -> Result<Vec<Completed>> {
        self.inner.complete(owner, completions).await
    }

    async fn renew(&self, request: &RenewRequest) -> Result<Renewed> {
        self.inner.renew(request).await
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

    async fn receive(&self, request: &ReceiveRequest) -> Result<Vec<Bytes>> {
        self.inner.receive(request).await
    }

    async fn status(&self) -> Result<Status> {
        self.inner.status().await
    }

    async fn browse(&self, shelf: Shelf, from: Option<&str>) -> Result<Page> {
        self.inner.browse(shelf, from).await
    }

    fn wakes(&self) -> &Wakes {
        self.inner.wakes()
    }
}

/// One processor and one sequencer at work on `messages` messages.
async fn work(store: &Arc<Troubled>, messages: usize, handler: impl Handler + Sync, limits: Limits) {
    let store: SharedStore = store.clone();
    store.send(&vec![Bytes::from(vec![b'x'; 100]); messages]).await.unwrap();
    let mut options = ProcessorOptions::default();
    options.claim.limits = limits;
    // The store's clock does not know of paused time.
    options.backoff.base_us = 1;
    let never = CancellationToken::new;
    tokio::spawn(Sequencer::new(store.clone(), SequencerOptions::default()).run(never()));
    tokio::spawn(Processor::new(store.clone(), handler, options).run(never()));
}

fn echo() -> impl Handler + Sync {
    sleep(Duration::ZERO, Duration::ZERO)
}

async fn head(store: &Arc<Troubled>) -> Position {
    store.status().await.unwrap().head
}

/// Two replies are lost, each as large as an answer may be: so is the answer about what was lost.
#[tokio::test(start_paused = true)]
async fn all_that_lost_replies_held_is_taken_up() {
    let store = Troubled::new();
    store.lost_claims.store(2, Ordering::SeqCst);
    let limits = Limits {
        entry_bytes: 1_000,
        total_bytes: 800,
    };
    work(&store, 40, echo(), limits).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(head(&store).await, Position(41));
}

#[derive(Clone)]
struct PanicsAtOnce;

impl Handler for PanicsAtOnce {
    fn handle(self, message: Message) -> impl Future<Output = std::result::Result<Payload, HandlerError>> + Send {
        let is_second = message.position == Position(2);
        assert!(!is_second || message.attempt.0 > 1, "before there is a future");
        async move { Ok(message.payload) }
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_panics_before_it_has_begun_has_failed() {
    let store = Troubled::new();
    work(&store, 3, PanicsAtOnce, Limits::default()).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(head(&store).await, Position(4));
}

/// Law 6: a leader that can't prove its lock stops by its own clock.
#[tokio::test(start_paused = true)]
async fn a_leader_without_an_answer_stops() {
    let store = Troubled::new();
    work(&store, 1, echo(), Limits::default()).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(head(&store).await, Position(2));
    store.silent_campaigns.store(true, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let emits = store.emits();
    store.send(&[Bytes::from_static(b"x")]).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(store.status().await.unwrap().processed, 1, "it was processed");
    assert_eq!(store.emits(), emits, "and not delivered");
}

/// What is refused is tried again with pauses, and goes on at once when it is not refused any more.
#[tokio::test(start_paused = true)]
async fn a_refused_emit_is_not_hammered() {
    let store = Troubled::new();
    store.refused_emits.store(true, Ordering::SeqCst);
    work(&store, 3, echo(), Limits::default()).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let emits = store.emits();
    assert!((50..=150).contains(&emits), "{emits} in 10 s");
    store.refused_emits.store(false, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(head(&store).await, Position(4));
}
