//! A processor that is told to end while PostgreSQL is away.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use conga::core::message::Output;
use conga::deliver::Consumer;
use conga::ledger::SharedLedger;
use conga::process::{Handler, HandlerError, Message, Processor, ProcessorOptions};
use conga::store::memory::MemoryStore;
use conga::store::{Delivery, SharedStore};
use tokio::task::{JoinHandle, block_in_place};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::desk::{Desk as _, PostgresDesk};

/// Longer than this test may take: it must not wait for it.
const DRAIN: Duration = Duration::from_mins(10);
const MESSAGES: usize = 40;

fn start(
    store: &SharedStore,
    ledger: &SharedLedger,
    handler: impl Handler + Sync,
) -> (CancellationToken, JoinHandle<()>) {
    let options = ProcessorOptions {
        concurrency: 4,
        drain: DRAIN,
        ..ProcessorOptions::default()
    };
    let stop = CancellationToken::new();
    let processor = Processor::new(store.clone(), handler, options).with_ledger(ledger.clone());
    let run = processor.run(stop.clone());
    (stop, tokio::spawn(async move { run.await.map(drop).unwrap() }))
}

/// It leaves soon, whether results wait to be recorded or attempts to look whether they have one; and another does it all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_told_to_end_while_it_is_away_gives_back_what_is_not_recorded() {
    let mut desk = PostgresDesk::new().await;
    let store: SharedStore = Arc::new(MemoryStore::default().delivering(Delivery::Store));
    let ledger = desk.ledger(&"orders".parse().unwrap(), &store).await;
    let handled = Arc::new(AtomicU64::new(0));
    let counted = handled.clone();
    let handler = tower::service_fn(move |message: Message| {
        counted.fetch_add(1, Ordering::SeqCst);
        async move { Ok::<_, HandlerError>(message.payload) }
    });
    block_in_place(|| desk.0.stop()).unwrap();
    let entries: Vec<_> = (1..=MESSAGES).map(|number| Bytes::from(number.to_string())).collect();
    store.send(&entries, None).await.unwrap();
    let mut before = 0;
    for round in 1..=2 {
        let (stop, running) = start(&store, &ledger, handler.clone());
        // In the second round those that were handed out before wait for an answer, and no handler begins with them.
        timeout(Duration::from_mins(1), async {
            while store.status().await.unwrap().in_flight == 0 || store.status().await.unwrap().processors.is_empty() {
                sleep(Duration::from_millis(10)).await;
            }
            while round == 1 && handled.load(Ordering::SeqCst) == before {
                sleep(Duration::from_millis(10)).await;
            }
        })
        .await
        .unwrap();
        before = handled.load(Ordering::SeqCst);
        let told = Instant::now();
        stop.cancel();
        timeout(Duration::from_mins(1), running).await.unwrap().unwrap();
        println!("round {round}: it ended after {:?}", told.elapsed());
        let status = store.status().await.unwrap();
        assert!(status.processors.is_empty() && status.recorded == 0, "{status:?}");
    }
    block_in_place(|| desk.0.start_again()).unwrap();
    let (stop, running) = start(&store, &ledger, handler);
    let mut consumer = Consumer::new(store.clone());
    let mut payloads = Vec::new();
    while payloads.len() < MESSAGES {
        let batch = consumer.next(10).await.unwrap();
        consumer.acknowledge(&batch);
        payloads.extend(batch.outputs.iter().map(|output| {
            let record = Output::parse(output).unwrap().record;
            (record.position.0, record.body)
        }));
    }
    let positions: Vec<_> = payloads.iter().map(|(position, _)| *position).collect();
    assert_eq!(positions, (1..=MESSAGES as u64).collect::<Vec<_>>());
    stop.cancel();
    running.await.unwrap();
}
