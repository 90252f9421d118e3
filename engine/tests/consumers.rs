//! Consumers in paused time: one is active, the others stand by, and none of them acknowledges what is not its own.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use conga::clock::{Clock, ManualClock};
use conga::core::lease::OwnerId;
use conga::core::partition::CampaignRequest;
use conga::core::term::{Campaign, Role};
use conga::core::time::Micros;
use conga::deliver::{Batch, Consumer, position_of};
use conga::process::{Message, Processor, ProcessorOptions};
use conga::store::memory::MemoryStore;
use conga::store::{SharedStore, Store as _};
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// A line with so many outputs, in time that goes as the tests' does.
async fn with_outputs(count: u64) -> SharedStore {
    let store = Arc::new(MemoryStore::new(Clock::Manual(ManualClock::going(Micros(0)))));
    let entries: Vec<Bytes> = (1..=count).map(|number| Bytes::from(format!("m{number}"))).collect();
    store.send(&entries, None).await.unwrap();
    let stop = CancellationToken::new();
    let handler = tower::service_fn(|message: Message| async move { Ok::<_, Infallible>(message.payload) });
    let shared: SharedStore = store.clone();
    let processor =
        tokio::spawn(Processor::new(shared.clone(), handler, ProcessorOptions::default()).run(stop.clone()));
    while store.status().await.unwrap().output < count {
        sleep(Duration::from_millis(1)).await;
    }
    stop.cancel();
    processor.await.unwrap().unwrap();
    shared
}

fn positions(batch: &Batch) -> Vec<u64> {
    let positions = batch.outputs.iter().map(|output| position_of(output).unwrap().0);
    positions.collect()
}

#[tokio::test(start_paused = true)]
async fn who_ends_hands_over_at_once_and_who_dies_after_a_second() {
    let store = with_outputs(6).await;
    let mut first = Consumer::new(store.clone());
    let batch = first.next(2).await.unwrap();
    assert_eq!(positions(&batch), [1, 2]);
    let mut second = Consumer::new(store.clone());
    assert!(second.try_next(9).await.unwrap().outputs.is_empty(), "it stands by");
    assert_eq!(second.stands_by_for().as_ref(), Some(first.owner()));
    first.acknowledge(&batch);
    let start = Instant::now();
    first.finish().await.unwrap();
    let batch = second.next(2).await.unwrap();
    assert_eq!(positions(&batch), [3, 4], "what was acknowledged never comes again");
    assert!(start.elapsed() < Duration::from_millis(20), "{:?}", start.elapsed());

    let start = Instant::now();
    drop(second);
    let mut third = Consumer::new(store);
    assert_eq!(positions(&third.next(9).await.unwrap()), [3, 4, 5, 6], "in order");
    let took = start.elapsed();
    assert!(
        took > Duration::from_millis(600) && took < Duration::from_millis(1_200),
        "{took:?}"
    );
}

/// However long it takes to write a batch down, its lock is renewed meanwhile.
#[tokio::test(start_paused = true)]
async fn who_takes_long_keeps_its_place() {
    let store = with_outputs(4).await;
    let (mut slow, mut other) = (Consumer::new(store.clone()), Consumer::new(store.clone()));
    let batch = slow.next(3).await.unwrap();
    for _ in 0..10 {
        sleep(Duration::from_secs(1)).await;
        assert!(other.next(9).now_or_never().is_none());
    }
    slow.acknowledge(&batch);
    assert_eq!(positions(&slow.next(9).await.unwrap()), [4]);
    assert_eq!(store.status().await.unwrap().consumer_term.0, 1);
}

#[tokio::test(start_paused = true)]
async fn a_stream_loses_nothing_when_a_wait_is_dropped() {
    let store = with_outputs(5).await;
    let mut batches = Consumer::new(store.clone()).into_stream(2);
    let first = batches.next().await.unwrap().unwrap();
    assert_eq!(positions(&first), [1, 2]);
    let again = batches.next().await.unwrap().unwrap();
    assert_eq!(again.outputs, first.outputs, "it was not acknowledged");
    // Asked for, and acknowledged only then.
    assert!(
        batches
            .next()
            .now_or_never()
            .is_none_or(|batch| batch.unwrap().unwrap().outputs == first.outputs)
    );
    batches.acknowledge(&first);
    let second = batches.next().await.unwrap().unwrap();
    assert_eq!((positions(&second), second.repeated), (vec![3, 4], 0));
    batches.acknowledge(&second);
    batches.finish().await.unwrap();
    let status = store.status().await.unwrap();
    assert_eq!((status.output, status.consumer), (1, None));
}

#[tokio::test(start_paused = true)]
async fn a_stream_waits_for_more() {
    let store = with_outputs(1).await;
    let mut batches = Consumer::new(store.clone()).into_stream(2);
    let first = batches.next().await.unwrap().unwrap();
    batches.acknowledge(&first);
    for _ in 0..50 {
        tokio::select! {
            _ = batches.next() => panic!("there is nothing"),
            () = sleep(Duration::from_millis(7)) => {}
        }
    }
    // It was told although nothing came of it.
    assert_eq!(store.status().await.unwrap().output, 0);
}

/// Takes the seat from `consumer`, which does not notice before it asks.
async fn take_from(consumer: &Consumer, store: &SharedStore, lock: Duration) {
    let ask = |owner: &OwnerId, lock: Duration| CampaignRequest {
        owner: owner.clone(),
        role: Role::Consumer,
        lock_us: u64::try_from(lock.as_micros()).unwrap(),
    };
    store.campaign(&ask(consumer.owner(), Duration::ZERO)).await.unwrap();
    let taken = store.campaign(&ask(&OwnerId::new("other"), lock)).await.unwrap();
    assert!(matches!(taken, Campaign::Leader { .. }), "{taken:?}");
}

/// It may know by then that it has lost its seat, as after some seconds without the store, or be told so.
#[tokio::test(start_paused = true)]
async fn who_ends_has_acknowledged_what_it_has_written_although_it_had_lost_its_seat() {
    for knows in [false, true] {
        let store = with_outputs(6).await;
        let mut consumer = Consumer::new(store.clone());
        let batch = consumer.next(5).await.unwrap();
        consumer.acknowledge(&batch);
        take_from(&consumer, &store, Duration::from_millis(900)).await;
        if knows {
            sleep(Duration::from_millis(500)).await;
        }
        consumer.finish().await.unwrap();
        let status = store.status().await.unwrap();
        assert_eq!((status.output, status.consumer), (1, None), "knows: {knows}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_ends_while_another_keeps_the_seat_says_that_it_could_not_acknowledge() {
    for knows in [false, true] {
        let store = with_outputs(6).await;
        let mut consumer = Consumer::new(store.clone());
        let batch = consumer.next(5).await.unwrap();
        consumer.acknowledge(&batch);
        take_from(&consumer, &store, Duration::from_mins(1)).await;
        if knows {
            sleep(Duration::from_millis(500)).await;
        }
        let failed = consumer.finish().await.unwrap_err();
        assert!(failed.to_string().contains("other receives this line"), "{failed}");
        assert_eq!(store.status().await.unwrap().output, 6, "knows: {knows}");
    }
}
