//! The services over a store in trouble: replies that are lost, calls that hang, steps that are refused. On one thread
//! and in paused time.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

#[path = "../../../cli/src/bench/redis_server.rs"]
mod redis_server;

mod consumer;
mod full;
mod quarantine;
mod store;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use conga::core::lease::OwnerId;
use conga::core::message::{Payload, Position};
use conga::core::partition::{ClaimRequest, Limits};
use conga::core::shape::{Order, Shape};
use conga::process::{Handler, HandlerError, Message, Processor, ProcessorOptions, sleep};
use conga::sequence::{Sequencer, SequencerOptions};
use conga::store::{SharedStore, Store as _};
use store::{LATE, Troubled};
use tokio_util::sync::CancellationToken;

/// One processor and one sequencer at work on `messages` messages.
async fn work(store: &Arc<Troubled>, messages: usize, handler: impl Handler + Sync, limits: Limits) {
    let store: SharedStore = store.clone();
    store
        .send(&vec![Bytes::from(vec![b'x'; 100]); messages], None)
        .await
        .unwrap();
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

/// Each reply of the size that is asked for takes longer than anyone waits for it.
#[tokio::test(start_paused = true)]
async fn what_is_too_large_to_get_through_comes_in_smaller_pieces() {
    let store = Troubled::new();
    store.narrow.store(250, Ordering::SeqCst);
    work(&store, 40, echo(), Limits::default()).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(head(&store).await, Position(41));
}

/// A claim arrives after its caller has given it up, asked again and compared. Its owner is alive, so what it took never
/// expires: 44 messages, while the processor has its hands full with the other 256.
#[tokio::test(start_paused = true)]
async fn what_a_late_claim_took_is_taken_up() {
    let store = Troubled::new();
    store.late_claims.store(1, Ordering::SeqCst);
    work(&store, 300, sleep(2 * LATE, 2 * LATE), Limits::default()).await;
    tokio::time::sleep(LATE + LATE / 2).await;
    assert_eq!(store.status().await.unwrap().waiting, 0, "it has arrived");
    tokio::time::sleep(4 * LATE).await;
    assert_eq!(head(&store).await, Position(301));
}

/// The same where what it took waits for nothing, while the head is with another for a long time.
#[tokio::test(start_paused = true)]
async fn what_a_late_claim_took_is_taken_up_beyond_a_head_that_is_stuck() {
    for order in [Order::None, Order::Key { serial: false }] {
        let store = Troubled::new();
        let shape = Shape {
            order,
            ..Shape::default()
        };
        store.shape(Some(shape)).await.unwrap();
        store.send(&[Bytes::from_static(b"stuck")], None).await.unwrap();
        let another = ClaimRequest {
            owner: OwnerId::new("another"),
            max: 1,
            lease_us: 1 << 50,
            window: 1_000,
            below: None,
            limits: Limits::default(),
        };
        assert_eq!(store.inner.claim(&another).await.unwrap().len(), 1);
        store.late_claims.store(1, Ordering::SeqCst);
        work(&store, 300, sleep(2 * LATE, 2 * LATE), Limits::default()).await;
        tokio::time::sleep(LATE + LATE / 2).await;
        assert_eq!(store.status().await.unwrap().waiting, 0, "it has arrived");
        tokio::time::sleep(10 * LATE).await;
        let status = store.status().await.unwrap();
        assert_eq!((status.head, status.in_flight), (Position(1), 1), "{order:?}");
        assert_eq!(status.output, 300);
    }
}

/// The store holds all for a processor that does not know of it, as after a failover, and takes no claims.
#[tokio::test(start_paused = true)]
async fn what_is_held_is_taken_up_while_claims_are_refused() {
    let store = Troubled::new();
    store.refused_claims.store(true, Ordering::SeqCst);
    store
        .send(&[Bytes::from_static(b"1"), Bytes::from_static(b"2")], None)
        .await
        .unwrap();
    let shared: SharedStore = store.clone();
    let options = ProcessorOptions::default();
    let processor = Processor::new(shared, echo(), options.clone());
    let unheard = ClaimRequest {
        owner: processor.owner().clone(),
        max: 2,
        lease_us: options.claim.lease_us,
        window: options.claim.window,
        below: None,
        limits: options.claim.limits,
    };
    store.inner.claim(&unheard).await.unwrap();
    tokio::spawn(processor.run(CancellationToken::new()));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(store.status().await.unwrap().processed, 2);
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

/// What panics again when it is dropped, which is after the first panic was caught.
struct Grenade;

impl Drop for Grenade {
    fn drop(&mut self) {
        panic!("dropped");
    }
}

#[derive(Clone)]
struct PanicsTwice;

impl Handler for PanicsTwice {
    async fn handle(self, message: Message) -> std::result::Result<Payload, HandlerError> {
        if message.position == Position(1) || message.position == Position(2) && message.attempt.0 == 1 {
            std::panic::panic_any(Grenade);
        }
        Ok(message.payload)
    }
}

/// Else it would be held for as long as the process lives.
#[tokio::test(start_paused = true)]
async fn a_handler_whose_panic_panics_has_failed() {
    let store = Troubled::new();
    work(&store, 3, PanicsTwice, Limits::default()).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let status = store.status().await.unwrap();
    assert_eq!((status.head, status.dead), (Position(4), 1));
}

/// A link that works one way only: what a processor asks for is done, and it never hears of it.
#[tokio::test(start_paused = true)]
async fn one_that_hears_no_answer_claims_only_once() {
    let store = Troubled::new();
    store.deaf.store(true, Ordering::SeqCst);
    let shared: SharedStore = store.clone();
    let entries: Vec<Bytes> = (0..10).map(|number| Bytes::from(number.to_string())).collect();
    shared.send(&entries, None).await.unwrap();
    let options = ProcessorOptions {
        concurrency: 2,
        ..ProcessorOptions::default()
    };
    let stop = CancellationToken::new();
    let running = tokio::spawn(Processor::new(shared, echo(), options).run(stop.clone()));
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(store.claims.load(Ordering::SeqCst), 1);
    store.deaf.store(false, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(store.status().await.unwrap().processed, 10);
    stop.cancel();
    running.await.unwrap().unwrap();
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
    store.send(&[Bytes::from_static(b"x")], None).await.unwrap();
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
