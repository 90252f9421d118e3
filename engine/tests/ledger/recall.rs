//! What a processor makes of what is recorded already.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use conga::core::lease::OwnerId;
use conga::core::message::{Body, Id, Output, Payload, Record};
use conga::core::partition::{ClaimRequest, Limits, RenewRequest};
use conga::deliver::Consumer;
use conga::ledger::{LedgerError, SharedLedger};
use conga::process::{Handler, HandlerError, Message, Processor, ProcessorOptions};
use conga::store::memory::MemoryStore;
use conga::store::{Delivery, SharedStore, StoreError};
use tokio_util::sync::CancellationToken;

use crate::desk::{Desk as _, PostgresDesk, text};

fn memory() -> SharedStore {
    Arc::new(MemoryStore::default().delivering(Delivery::Store))
}

async fn ledger(desk: &PostgresDesk, store: &SharedStore) -> SharedLedger {
    desk.ledger(&"orders".parse().unwrap(), store).await
}

async fn send(store: &SharedStore, entry: &'static str) {
    store.send(&[Bytes::from_static(entry.as_bytes())], None).await.unwrap();
}

/// Somebody claims all and leaves: it is the second attempt then.
async fn come_and_go(store: &SharedStore) {
    let owner = OwnerId::new("before");
    let claim = ClaimRequest {
        owner: owner.clone(),
        max: 10,
        lease_us: 60_000_000,
        window: 100,
        below: None,
        limits: Limits::default(),
    };
    assert!(!store.claim(&claim).await.unwrap().is_empty());
    let leave = RenewRequest {
        keep: None,
        owner,
        lease_us: 0,
        held: None,
        limits: Limits::default(),
    };
    store.renew(&leave).await.unwrap();
}

/// Runs a processor until so many have come out.
async fn outputs(store: &SharedStore, ledger: &SharedLedger, handler: impl Handler, count: usize) -> Vec<Record> {
    let stop = CancellationToken::new();
    let processor = Processor::new(store.clone(), handler, ProcessorOptions::default()).with_ledger(ledger.clone());
    let running = tokio::spawn(processor.run(stop.clone()));
    let mut consumer = Consumer::new(store.clone());
    let mut outputs = Vec::new();
    while outputs.len() < count {
        let batch = consumer.next(10).await.unwrap();
        consumer.acknowledge(&batch);
        outputs.extend(batch.outputs.iter().map(|output| Output::parse(output).unwrap().record));
    }
    stop.cancel();
    running.await.unwrap().unwrap();
    outputs
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_attempt_recorded_is_delivered_without_the_handler() {
    let desk = PostgresDesk::new().await;
    let store = memory();
    let ledger = ledger(&desk, &store).await;
    send(&store, "{\"id\":\"a\",\"payload\":1}").await;
    send(&store, "{\"id\":\"b\",\"payload\":1}").await;
    come_and_go(&store).await;
    ledger.record(&[text(1, "a", "before")]).await.unwrap();
    let calls = Arc::new(AtomicU64::new(0));
    let counted = calls.clone();
    let handler = tower::service_fn(move |message: Message| {
        counted.fetch_add(1, Ordering::SeqCst);
        async move { Ok::<_, HandlerError>(Payload::string(&format!("{} after", message.id))) }
    });
    let outputs = outputs(&store, &ledger, handler, 2).await;
    assert_eq!(outputs[0].body, Body::Result(Payload::string("before")));
    assert_eq!(outputs[1].body, Body::Result(Payload::string("b after")));
    assert_eq!(outputs[0].created, text(1, "a", "").created);
    assert_eq!(outputs[0].processing, outputs[1].processing);
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

/// As after a store came back older: this is a first attempt to it, though a result is recorded.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_there_before_is_delivered_at_a_first_attempt_too() {
    let desk = PostgresDesk::new().await;
    let store = memory();
    let ledger = ledger(&desk, &store).await;
    ledger.record(&[text(9, "a", "before")]).await.unwrap();
    send(&store, "{\"id\":\"b\",\"payload\":1}").await;
    send(&store, "{\"id\":\"a\",\"payload\":1}").await;
    let echo = tower::service_fn(|message: Message| async move { Ok::<_, HandlerError>(message.payload) });
    let outputs = outputs(&store, &ledger, echo, 2).await;
    assert_eq!(outputs[0].body, Body::Result(Payload::json(&"1".into()).unwrap()));
    assert_eq!(outputs[1].body, Body::Result(Payload::string("before")));
    assert_eq!(outputs[1].position.0, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_that_was_recorded_meanwhile_stands_against_a_failure_for_good() {
    let desk = PostgresDesk::new().await;
    let store = memory();
    let ledger = ledger(&desk, &store).await;
    send(&store, "{\"id\":\"a\",\"payload\":1}").await;
    come_and_go(&store).await;
    let zombie = ledger.clone();
    let handler = tower::service_fn(move |_: Message| {
        let zombie = zombie.clone();
        async move {
            zombie.record(&[text(1, "a", "the zombie's")]).await.unwrap();
            Err::<Payload, _>(HandlerError::permanent("no"))
        }
    });
    let outputs = outputs(&store, &ledger, handler, 1).await;
    assert_eq!(outputs[0].body, Body::Result(Payload::string("the zombie's")));
}

/// The same of a message that fails for good.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_there_before_stands_against_a_failure_at_a_first_attempt_too() {
    let desk = PostgresDesk::new().await;
    let store = memory();
    let ledger = ledger(&desk, &store).await;
    ledger.record(&[text(9, "a", "before")]).await.unwrap();
    send(&store, "{\"id\":\"a\",\"payload\":1}").await;
    let refuse = tower::service_fn(|_: Message| async { Err::<Payload, _>(HandlerError::permanent("no")) });
    let outputs = outputs(&store, &ledger, refuse, 1).await;
    assert_eq!(outputs[0].body, Body::Result(Payload::string("before")));
    assert_eq!(outputs[0].position.0, 1);
}

/// The same line in a new store: another message has the position, and must not be given the first one's result.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_that_is_made_anew_is_not_given_old_results() {
    let desk = PostgresDesk::new().await;
    let echo = || tower::service_fn(|message: Message| async move { Ok::<_, HandlerError>(message.payload) });
    for (word, rows) in [("one", 1), ("two", 2)] {
        let store = memory();
        let ledger = ledger(&desk, &store).await;
        send(&store, word).await;
        let outputs = outputs(&store, &ledger, echo(), 1).await;
        assert_eq!(outputs[0].body, Body::Result(Payload::string(word)));
        let id = outputs[0].id.as_str();
        assert!(id.starts_with("@1-") && id.len() == 19, "{id}");
        let held = ledger.look(&[Id::given(id)]).await.unwrap();
        assert_eq!(held, [Some(outputs[0].clone())]);
        assert_eq!(ledger.browse(None).await.unwrap().rows.len(), rows);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_a_person_has_to_mend_ends_the_processor() {
    let desk = PostgresDesk::new().await;
    let store = memory();
    let ledger = ledger(&desk, &store).await;
    let (client, connection) = tokio_postgres::connect(&desk.0.url(), tokio_postgres::NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    client
        .batch_execute("ALTER TABLE conga_record RENAME TO taken_away")
        .await
        .unwrap();
    send(&store, "x").await;
    let error = ledger.record(&[text(1, "a", "x")]).await.unwrap_err();
    assert!(
        matches!(&error, LedgerError::Broken(text) if text.contains("42P01")),
        "{error}"
    );
    let echo = tower::service_fn(|message: Message| async move { Ok::<_, HandlerError>(message.payload) });
    let processor = Processor::new(store, echo, ProcessorOptions::default()).with_ledger(ledger);
    let ended = processor.run(CancellationToken::new()).await;
    assert!(matches!(ended, Err(StoreError::Broken(_))), "{ended:?}");
}
