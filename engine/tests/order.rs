//! Ten thousand keys and a hot one that is stuck, or fails again and again: nobody else waits for it. In paused time.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use conga::clock::Clock;
use conga::core::message::Payload;
use conga::core::retry::Backoff;
use conga::core::shape::{Order, Shape};
use conga::deliver::Consumer;
use conga::process::{HandlerError, Message, Processor, ProcessorOptions};
use conga::send::{Outgoing, Producer};
use conga::store::memory::MemoryStore;
use conga::store::{SharedStore, settle};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::service_fn;

const KEYS: usize = 10_000;
/// Every so manieth message has the hot key.
const HOT_EVERY: usize = 50;
const COUNT: usize = 2 * KEYS + 2 * KEYS / HOT_EVERY;

/// What becomes of a message of the hot key until it is released.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    Stuck,
    Fails,
}

/// The messages: two of each key, far apart, and the hot ones among them.
fn messages() -> Vec<Outgoing> {
    let mut cold = 0;
    let message = |number: usize| {
        let key = if number.is_multiple_of(HOT_EVERY + 1) {
            "hot".to_owned()
        } else {
            cold += 1;
            format!("k{}", cold % KEYS)
        };
        Outgoing {
            key: Some(key),
            ..Outgoing::new(Payload::string("x"))
        }
    };
    (0..COUNT).map(message).collect()
}

/// Position and key of the next outputs, until there are so many.
async fn receive(consumer: &mut Consumer, count: usize) -> Vec<(u64, String)> {
    let mut outputs = Vec::new();
    while outputs.len() < count {
        let batch = consumer.next(1_000).await.unwrap();
        consumer.acknowledge(&batch);
        outputs.extend(batch.outputs.iter().map(|output| {
            let value: serde_json::Value = serde_json::from_slice(output).unwrap();
            (
                value["position"].as_u64().unwrap(),
                value["key"].as_str().unwrap().to_owned(),
            )
        }));
    }
    outputs
}

async fn nobody_else_waits(serial: bool, trouble: Trouble) {
    let store: SharedStore = Arc::new(MemoryStore::new(Clock::Store));
    let shape = Shape::of(Order::Key { serial });
    settle(&store, &"main".parse().unwrap(), shape).await.unwrap();
    let (stop, released) = (CancellationToken::new(), CancellationToken::new());
    let (failures, at_once, most) = <(Arc<AtomicU32>, Arc<AtomicU32>, Arc<AtomicU32>)>::default();
    let services = TaskTracker::new();
    for _ in 0..2 {
        let (released, failures) = (released.clone(), failures.clone());
        let (at_once, most) = (at_once.clone(), most.clone());
        let handler = service_fn(move |message: Message| {
            let (released, failures) = (released.clone(), failures.clone());
            let (at_once, most) = (at_once.clone(), most.clone());
            async move {
                if message.key.as_deref() != Some("hot") {
                    return Ok(message.payload);
                }
                most.fetch_max(at_once.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                if trouble == Trouble::Stuck {
                    released.cancelled().await;
                }
                at_once.fetch_sub(1, Ordering::SeqCst);
                if released.is_cancelled() {
                    return Ok(message.payload);
                }
                failures.fetch_add(1, Ordering::SeqCst);
                Err(HandlerError::passing("not yet"))
            }
        });
        let mut options = ProcessorOptions {
            concurrency: 256,
            backoff: Backoff {
                base_us: 100_000,
                max_us: 1_000_000,
                max_attempts: u32::MAX,
            },
            ..ProcessorOptions::default()
        };
        options.claim.window = 1_000;
        services.spawn(Processor::new(store.clone(), handler, options).run(stop.clone()));
    }
    for batch in messages().chunks(1_000) {
        Producer::new(store.clone()).send(batch).await.unwrap();
    }
    let mut consumer = Consumer::new(store.clone());
    // All others come out, while nothing of the hot key does.
    let others = receive(&mut consumer, 2 * KEYS).await;
    assert!(others.iter().all(|(_, key)| key != "hot"));
    assert_eq!(store.status().await.unwrap().head.0, 1, "the head is stuck");
    let seen = failures.load(Ordering::SeqCst);
    assert_eq!(seen > 0, trouble == Trouble::Fails, "failed {seen} times");
    released.cancel();
    let hot = receive(&mut consumer, COUNT - 2 * KEYS).await;
    consumer.finish().await.unwrap();
    let mut last_of: HashMap<String, u64> = HashMap::new();
    for (position, key) in others.into_iter().chain(hot) {
        let before = last_of.insert(key.clone(), position);
        assert!(before < Some(position), "{position} of {key} came after {before:?}");
    }
    let most = most.load(Ordering::SeqCst);
    // Those that fail do so at once.
    let is_alone = serial || trouble == Trouble::Fails;
    assert_eq!(most == 1, is_alone, "{most} of the hot key at once");
    stop.cancel();
    services.close();
    services.wait().await;
    let status = store.status().await.unwrap();
    assert_eq!((status.recorded, status.head.0), (COUNT as u64, COUNT as u64 + 1));
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_stuck() {
    nobody_else_waits(false, Trouble::Stuck).await;
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_stuck_one_at_a_time() {
    nobody_else_waits(true, Trouble::Stuck).await;
}

#[tokio::test(start_paused = true)]
async fn a_key_that_fails() {
    nobody_else_waits(false, Trouble::Fails).await;
}

#[tokio::test(start_paused = true)]
async fn a_key_that_fails_one_at_a_time() {
    nobody_else_waits(true, Trouble::Fails).await;
}
