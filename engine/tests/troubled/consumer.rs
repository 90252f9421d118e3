//! A consumer over a store that does not answer who may receive.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use conga::clock::Clock;
use conga::core::partition::Limits;
use conga::deliver::Consumer;
use conga::store::memory::MemoryStore;
use tokio::time::{sleep, timeout};

use crate::store::Troubled;
use crate::{echo, head, work};

/// A line with so many outputs.
async fn with_outputs(count: usize) -> Arc<Troubled> {
    let store = Troubled::over(Arc::new(MemoryStore::new(Clock::Store)));
    work(&store, count, echo(), Limits::default()).await;
    while head(&store).await.0 <= count as u64 {
        sleep(Duration::from_millis(1)).await;
    }
    store
}

/// It does not take silence for an empty line.
#[tokio::test(start_paused = true)]
async fn who_has_no_answer_waits_for_it() {
    let store = with_outputs(3).await;
    store.silent_campaigns.store(true, SeqCst);
    let mut consumer = Consumer::new(store.clone());
    let heals = async {
        sleep(Duration::from_secs(3)).await;
        store.silent_campaigns.store(false, SeqCst);
    };
    let (batch, ()) = tokio::join!(consumer.try_next(10), heals);
    let batch = batch.unwrap();
    assert_eq!(batch.outputs.len(), 3);
}

/// By its own clock it stops before the store would give its seat to another (law 6).
#[tokio::test(start_paused = true)]
async fn who_can_not_prove_its_seat_receives_nothing() {
    let store = with_outputs(3).await;
    let mut consumer = Consumer::new(store.clone());
    let batch = consumer.try_next(1).await.unwrap();
    assert_eq!(batch.outputs.len(), 1);
    consumer.acknowledge(&batch);
    store.silent_campaigns.store(true, SeqCst);
    sleep(Duration::from_secs(2)).await;
    let batch = timeout(Duration::from_secs(1), consumer.next(1)).await;
    assert!(batch.is_err(), "{batch:?}");
    store.silent_campaigns.store(false, SeqCst);
    let batch = timeout(Duration::from_mins(2), consumer.next(10))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(batch.outputs.len(), 2, "and then it goes on");
}
