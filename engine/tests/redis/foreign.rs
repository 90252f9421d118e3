//! Clients that know nothing of Conga, and what they may have put where the line is.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use conga::core::lease::OwnerId;
use conga::core::message::{Entry, Position};
use conga::core::partition::{Completed, Emitted, ReceiveRequest, Shelf};
use conga::core::time::Micros;
use conga::deliver::Consumer;
use conga::store::{Store, StoreError};

use crate::redis_server::RedisServer;
use crate::{claim_of, done, emit_all, foreigner, open, run};

#[tokio::test]
async fn a_foreign_client_is_a_full_producer_and_consumer() {
    let server = RedisServer::start(&[]).expect("a Redis server");
    let store = open(&server).await;
    let mut foreigner = foreigner(&server).await;
    for payload in ["one", "two", "three"] {
        let envelope = format!("{{\"payload\":\"{payload}\"}}");
        run::<u64>(&mut foreigner, &["LPUSH", "{orders}:in", &envelope]).await;
    }

    let claims = store.claim(&claim_of(10)).await.unwrap();
    let positions: Vec<u64> = claims.iter().map(|claim| claim.position.0).collect();
    assert_eq!(positions, [1, 2, 3]);
    assert_eq!(
        claims[0].entry,
        Entry::Whole(Bytes::from_static(b"{\"payload\":\"one\"}"))
    );
    let waiting: u64 = run(&mut foreigner, &["LLEN", "{orders}:in"]).await;
    assert_eq!(waiting, 3, "an entry stays in the input until it is delivered");

    let completions: Vec<_> = claims.iter().rev().map(|claim| done(claim, "x")).collect();
    let answers = store.complete(&OwnerId::new("p1"), &completions).await.unwrap();
    assert_eq!(answers, [Completed::Accepted; 3]);
    assert_eq!(emit_all(&store).await, Emitted::Advanced { head: Position(4) });

    let first: String = run(&mut foreigner, &["RPOP", "{orders}:out"]).await;
    let first: serde_json::Value = serde_json::from_str(&first).unwrap();
    assert_eq!(first["position"], 1);
    assert_eq!(first["payload"], "x");
    for datetime in ["created", "processing", "processed", "sequencing", "sequenced"] {
        let text = first[datetime].as_str().unwrap();
        assert_eq!(Micros::parse(text).unwrap().to_string(), text, "{datetime}");
    }
    let rest = store
        .receive(&ReceiveRequest {
            acknowledge: Some(Position(2)),
            max: 10,
            ..ReceiveRequest::default()
        })
        .await
        .unwrap()
        .outputs();
    assert_eq!(rest.len(), 1);
    assert!(rest[0].starts_with(b"{\"position\":3,"));
    let left: u64 = run(&mut foreigner, &["LLEN", "{orders}:in"]).await;
    assert_eq!(left, 0);
}

#[tokio::test]
async fn a_consumer_is_told_which_key_is_of_a_wrong_type() {
    let server = RedisServer::start(&[]).expect("a Redis server");
    let store = open(&server).await;
    run::<String>(&mut foreigner(&server).await, &["SET", "{orders}:meta", "mine"]).await;
    let mut consumer = Consumer::new(Arc::new(store));
    let told = tokio::time::timeout(Duration::from_secs(20), consumer.next(1)).await;
    let Ok(Err(StoreError::Broken(text))) = told else {
        panic!("not broken: {told:?}");
    };
    assert!(text.contains("`{orders}:meta` is a string"), "{text}");
}

#[tokio::test]
async fn a_key_of_a_wrong_type_is_named_and_nothing_is_changed() {
    let server = RedisServer::start(&[]).expect("a Redis server");
    let store = open(&server).await;
    let mut foreigner = foreigner(&server).await;
    for (key, kind) in [("{orders}:in", "list"), ("{orders}:delayed", "zset")] {
        run::<String>(&mut foreigner, &["FLUSHALL"]).await;
        run::<String>(&mut foreigner, &["SET", key, "mine"]).await;
        let Err(StoreError::Broken(text)) = store.claim(&claim_of(1)).await else {
            panic!("{key}: not broken");
        };
        assert!(text.contains(&format!("`{key}` is a string, not a {kind}")), "{text}");
        let keys: u64 = run(&mut foreigner, &["DBSIZE"]).await;
        assert_eq!(keys, 1, "{key}");
    }
    run::<String>(&mut foreigner, &["FLUSHALL"]).await;
    run::<String>(&mut foreigner, &["SET", "{orders}:in", "mine"]).await;
    let sent = store.send(&[Bytes::from_static(b"1")], None).await;
    assert!(matches!(sent, Err(StoreError::Broken(_))), "{sent:?}");
    let status = store.status().await;
    assert!(matches!(status, Err(StoreError::Broken(_))), "{status:?}");
    let page = store.browse(Shelf::Record, Some("nowhere")).await;
    assert!(matches!(page, Err(StoreError::Broken(_))), "{page:?}");
}
