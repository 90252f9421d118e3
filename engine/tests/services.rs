//! The services over the memory store, on one thread and in paused time.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use conga::clock::Clock;
use conga::core::message::Payload;
use conga::core::partition::Shelf;
use conga::core::retry::Backoff;
use conga::deliver::{Consumer, position_of};
use conga::process::{HandlerError, Message, Processor, ProcessorOptions, sleep};
use conga::send::{Outgoing, Producer};
use conga::sequence::{Sequencer, SequencerOptions};
use conga::store::memory::MemoryStore;
use conga::store::{Delivery, SharedStore};
use conga::wake::Topic;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::service_fn;

/// One in which the leader delivers, so that all services have something to do.
fn store() -> SharedStore {
    Arc::new(MemoryStore::new(Clock::Store).delivering(Delivery::Leader))
}

fn numbered(sequence: u64) -> Outgoing {
    Outgoing {
        sequence: Some(sequence),
        ..Outgoing::new(Payload::string(&format!("message {sequence}")))
    }
}

async fn send(store: &SharedStore, count: u64) {
    let batch: Vec<Outgoing> = (1..=count).map(numbered).collect();
    Producer::new(store.clone()).send(&batch).await.unwrap();
}

async fn receive(store: &SharedStore, count: usize) -> Vec<serde_json::Value> {
    let mut consumer = Consumer::new(store.clone());
    let mut outputs = Vec::new();
    while outputs.len() < count {
        let batch = consumer.next(100).await.unwrap();
        consumer.acknowledge(&batch);
        for output in &batch.outputs {
            let value: serde_json::Value = serde_json::from_slice(output).unwrap();
            assert_eq!(
                Some(value["position"].as_u64().unwrap()),
                position_of(output).map(|at| at.0)
            );
            outputs.push(value);
        }
    }
    consumer.finish().await.unwrap();
    outputs
}

fn echo() -> impl conga::process::Handler {
    sleep(Duration::ZERO, Duration::ZERO)
}

fn options(concurrency: usize) -> ProcessorOptions {
    ProcessorOptions {
        concurrency,
        ..ProcessorOptions::default()
    }
}

/// 4 processors and 2 sequencers; what takes random times comes out in order.
#[tokio::test(start_paused = true)]
async fn a_line_keeps_its_order() {
    let store = store();
    let stop = CancellationToken::new();
    let services = TaskTracker::new();
    for _ in 0..2 {
        services.spawn(Sequencer::new(store.clone(), SequencerOptions::default()).run(stop.clone()));
    }
    for _ in 0..4 {
        let handler = sleep(Duration::ZERO, Duration::from_millis(50));
        services.spawn(Processor::new(store.clone(), handler, options(10)).run(stop.clone()));
    }
    send(&store, 1_000).await;
    let outputs = receive(&store, 1_000).await;
    for (index, output) in outputs.iter().enumerate() {
        assert_eq!(output["position"], index + 1);
        assert_eq!(output["payload"], format!("message {}", index + 1));
        assert_eq!(output["attempts"], 1);
    }
    stop.cancel();
    services.close();
    services.wait().await;
    let status = store.status().await.unwrap();
    assert_eq!(
        (status.waiting, status.in_flight, status.processed, status.output),
        (0, 0, 0, 0)
    );
    assert_eq!(status.recorded, 1_000);
    assert_eq!(status.leader, None, "handed over");
    assert!(status.processors.is_empty(), "left");
}

#[tokio::test(start_paused = true)]
async fn what_fails_is_tried_again_and_then_is_dead() {
    let store = store();
    let stop = CancellationToken::new();
    let calls = Arc::new(AtomicU32::new(0));
    let counted = calls.clone();
    let handler = service_fn(move |message: Message| {
        let calls = counted.clone();
        async move {
            match message.position.0 {
                1 => Err(HandlerError::permanent("never")),
                2 => {
                    calls.fetch_add(1, Ordering::SeqCst);
                    Err(HandlerError::passing("not yet"))
                }
                3 if message.attempt.0 == 1 => panic!("a bug in a handler"),
                _ => Ok(message.payload),
            }
        }
    });
    let work = ProcessorOptions {
        backoff: Backoff {
            base_us: 1,
            max_us: 1,
            max_attempts: 3,
        },
        ..options(2)
    };
    let processor = tokio::spawn(Processor::new(store.clone(), handler, work).run(stop.clone()));
    let sequencer = tokio::spawn(Sequencer::new(store.clone(), SequencerOptions::default()).run(stop.clone()));
    send(&store, 4).await;
    let outputs = receive(&store, 4).await;
    assert_eq!(outputs[0]["dead"]["reason"], "never");
    assert_eq!(outputs[0]["dead"]["attempts"], 1);
    assert_eq!(outputs[1]["dead"]["reason"], "not yet");
    assert_eq!(outputs[1]["dead"]["attempts"], 3);
    assert_eq!(calls.load(Ordering::SeqCst), 3);
    assert_eq!(outputs[2]["payload"], "message 3");
    assert_eq!(outputs[2]["attempts"], 2);
    assert_eq!(outputs[3]["payload"], "message 4");
    assert_eq!(store.browse(Shelf::Dead, None).await.unwrap().rows.len(), 2);
    stop.cancel();
    let processing = processor.await.unwrap().unwrap();
    assert_eq!((processing.done, processing.dead, processing.retried), (2, 2, 3));
    assert_eq!(sequencer.await.unwrap().unwrap().emitted, 4);
}

/// What a processor has begun it ends; what it has not begun another has at once.
#[tokio::test(start_paused = true)]
async fn a_processor_that_is_told_to_end_drains() {
    let store = store();
    let (first, second) = (CancellationToken::new(), CancellationToken::new());
    let processor = Processor::new(
        store.clone(),
        sleep(Duration::from_millis(500), Duration::from_millis(500)),
        options(3),
    );
    let draining = tokio::spawn(processor.run(first.clone()));
    send(&store, 6).await;
    while store.status().await.unwrap().in_flight < 3 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    first.cancel();
    let processor = Processor::new(store.clone(), echo(), options(3));
    tokio::spawn(processor.run(second.clone()));
    tokio::spawn(Sequencer::new(store.clone(), SequencerOptions::default()).run(second.clone()));
    let outputs = receive(&store, 6).await;
    assert!(outputs.iter().all(|output| output["attempts"] == 1), "{outputs:?}");
    assert_eq!(draining.await.unwrap().unwrap().done, 3);
    second.cancel();
}

/// Handlers that never end are not waited for longer than said, and their messages are free at once.
#[tokio::test(start_paused = true)]
async fn a_drain_has_its_limit() {
    let store = store();
    let stop = CancellationToken::new();
    let work = ProcessorOptions {
        drain: Duration::from_secs(2),
        ..options(1)
    };
    let hanging = service_fn(|_: Message| std::future::pending::<Result<Payload, Infallible>>());
    let processor = tokio::spawn(Processor::new(store.clone(), hanging, work).run(stop.clone()));
    send(&store, 1).await;
    while store.status().await.unwrap().in_flight < 1 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let told = tokio::time::Instant::now();
    stop.cancel();
    processor.await.unwrap().unwrap();
    assert_eq!(told.elapsed(), Duration::from_secs(2));
    let claimed = tokio::spawn(Processor::new(store.clone(), echo(), options(1)).run(CancellationToken::new()));
    let sequencer =
        tokio::spawn(Sequencer::new(store.clone(), SequencerOptions::default()).run(CancellationToken::new()));
    assert_eq!(receive(&store, 1).await[0]["attempts"], 2);
    claimed.abort();
    sequencer.abort();
}

/// With the head stuck, claims stop at the window; when it is freed, all goes on.
#[tokio::test(start_paused = true)]
async fn a_stuck_head_stops_the_claims_at_the_window() {
    let store = store();
    let stop = CancellationToken::new();
    let free = CancellationToken::new();
    let gate = free.clone();
    let handler = service_fn(move |message: Message| {
        let gate = gate.clone();
        async move {
            if message.position.0 == 1 {
                gate.cancelled().await;
            }
            Ok::<_, Infallible>(message.payload)
        }
    });
    let mut work = options(10);
    work.claim.window = 50;
    tokio::spawn(Processor::new(store.clone(), handler, work).run(stop.clone()));
    tokio::spawn(Sequencer::new(store.clone(), SequencerOptions::default()).run(stop.clone()));
    send(&store, 200).await;
    tokio::time::sleep(Duration::from_mins(1)).await;
    let status = store.status().await.unwrap();
    assert_eq!((status.in_flight, status.processed, status.waiting), (1, 49, 150));
    free.cancel();
    assert_eq!(receive(&store, 200).await.len(), 200);
    stop.cancel();
}

/// A leader that dies without a word is followed by a standby, under a new term, when its lock is over.
#[tokio::test]
async fn a_standby_takes_over() {
    let store = store();
    let stop = CancellationToken::new();
    let leader = tokio::spawn(Sequencer::new(store.clone(), SequencerOptions::default()).run(stop.clone()));
    while store.status().await.unwrap().leader.is_none() {
        tokio::task::yield_now().await;
    }
    tokio::spawn(Sequencer::new(store.clone(), SequencerOptions::default()).run(stop.clone()));
    tokio::spawn(Processor::new(store.clone(), echo(), options(4)).run(stop.clone()));
    send(&store, 10).await;
    receive(&store, 10).await;
    leader.abort();
    let term = store.status().await.unwrap().term;
    send(&store, 20).await;
    // The first ten are there already and count once.
    let outputs = receive(&store, 10).await;
    assert_eq!(outputs[0]["sequence"], 11);
    assert!(store.status().await.unwrap().term > term);
    stop.cancel();
}

/// Found by a review: one that computes for long kept its processor from renewing, message after message.
#[tokio::test]
async fn a_handler_that_works_long_before_it_waits_gets_a_task_of_its_own() {
    let store = store();
    let sent: Vec<_> = (1..=3).map(numbered).collect();
    Producer::new(store.clone()).send(&sent).await.unwrap();
    let tasks = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = tasks.clone();
    let handler = service_fn(move |message: Message| {
        seen.lock().unwrap().push(tokio::task::try_id());
        std::thread::sleep(Duration::from_millis(if message.position.0 == 1 { 120 } else { 0 }));
        async move { Ok::<_, HandlerError>(message.payload) }
    });
    let options = ProcessorOptions {
        concurrency: 1,
        ..ProcessorOptions::default()
    };
    let shutdown = CancellationToken::new();
    let mut processed = store.wakes().listen(&[Topic::Processed]);
    let working = tokio::spawn(Processor::new(store.clone(), handler, options).run(shutdown.clone()));
    while store.status().await.unwrap().processed < 3 {
        processed.heard().await;
    }
    shutdown.cancel();
    working.await.unwrap().unwrap();
    let tasks = tasks.lock().unwrap();
    assert!(
        tasks[0] != tasks[1] && tasks[1] != tasks[2] && tasks[0] != tasks[2],
        "{tasks:?}"
    );
}
