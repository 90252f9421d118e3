//! Hints: who hears them, and who is spared.

use std::time::Duration;

use bytes::Bytes;
use conga::core::lease::OwnerId;
use conga::core::partition::ClaimRequest;
use conga::store::Store;
use conga::wake::Topic;
use redis::Value;

use crate::redis_server::RedisServer;
use crate::{claim_of, done, emit_all, foreigner, open, run};

#[tokio::test]
async fn a_hint_reaches_the_other_stores() {
    let server = RedisServer::start(&[]).expect("a Redis server");
    let sender = open(&server).await;
    let other = open(&server).await;
    let mut ready = other.wakes().listen(&Topic::ALL);
    // Connecting ends with a hint about everything; let it pass.
    while tokio::time::timeout(Duration::from_millis(200), ready.hinted())
        .await
        .is_ok()
    {}
    let mut listener = other.wakes().listen(&[Topic::Input]);
    let mut deaf = other.wakes().listen(&[Topic::Lock]);
    sender.send(&[Bytes::from_static(b"1")], None).await.unwrap();
    tokio::time::timeout(Duration::from_secs(5), listener.hinted())
        .await
        .expect("a hint about the input");
    let heard = tokio::time::timeout(Duration::from_millis(50), deaf.hinted()).await;
    assert!(heard.is_err(), "nothing was said about the lock");
}

/// Each subscriber costs the server a write, and its process a wake-up.
#[tokio::test]
async fn only_what_is_listened_for_is_subscribed_to() {
    let server = RedisServer::start(&[]).expect("a Redis server");
    let store = open(&server).await;
    let mut foreigner = foreigner(&server).await;
    let mut input = store.wakes().listen(&[Topic::Input]);
    // A hint that was given before anybody could hear it is made up for by one of the subscriber's own.
    tokio::time::timeout(Duration::from_secs(5), input.hinted())
        .await
        .expect("subscribed");
    let listeners = run::<Vec<Value>>(
        &mut foreigner,
        &[
            "PUBSUB",
            "NUMSUB",
            "{orders}:wake:in",
            "{orders}:wake:out",
            "{orders}:wake:window",
        ],
    )
    .await;
    let count = |nth: usize| listeners[2 * nth + 1].clone();
    assert_eq!([count(0), count(1), count(2)], [1, 0, 0].map(Value::Int));
}

/// A claim that finds the window full leaves word, and whoever moves the head wakes it.
#[tokio::test]
async fn who_found_the_window_full_is_woken_when_it_moves_and_nobody_else() {
    let server = RedisServer::start(&[]).expect("a Redis server");
    let store = open(&server).await;
    let mut foreigner = foreigner(&server).await;
    let mut listener = store.wakes().listen(&[Topic::Window]);
    tokio::time::timeout(Duration::from_secs(5), listener.hinted())
        .await
        .expect("subscribed");
    let entries: Vec<Bytes> = (0..3).map(|n| Bytes::from(n.to_string())).collect();
    store.send(&entries, None).await.unwrap();
    let owner = OwnerId::new("p1");
    let narrow = |max| ClaimRequest {
        max,
        window: 1,
        ..claim_of(max)
    };
    let first = store.claim(&narrow(1)).await.unwrap();
    assert_eq!(
        run::<Option<String>>(&mut foreigner, &["HGET", "{orders}:meta", "full"]).await,
        None
    );
    store.complete(&owner, &[done(&first[0], "x")]).await.unwrap();
    emit_all(&store).await;
    let second = store.claim(&narrow(2)).await.unwrap();
    assert_eq!(second.len(), 1);
    assert_eq!(
        run::<Option<String>>(&mut foreigner, &["HGET", "{orders}:meta", "full"])
            .await
            .as_deref(),
        Some("1")
    );
    store.complete(&owner, &[done(&second[0], "x")]).await.unwrap();
    emit_all(&store).await;
    tokio::time::timeout(Duration::from_secs(5), listener.hinted())
        .await
        .expect("a hint about the window");
    assert_eq!(
        run::<Option<String>>(&mut foreigner, &["HGET", "{orders}:meta", "full"]).await,
        None
    );
}

#[tokio::test]
async fn hints_come_again_after_the_subscriber_was_cut_off() {
    let server = RedisServer::start(&[]).expect("a Redis server");
    let store = open(&server).await;
    let mut foreigner = foreigner(&server).await;
    let _listener = store.wakes().listen(&[Topic::Input]);
    run::<u64>(&mut foreigner, &["CLIENT", "KILL", "TYPE", "pubsub"]).await;
    let start = std::time::Instant::now();
    while run::<u64>(&mut foreigner, &["PUBLISH", "{orders}:wake:in", ""]).await == 0 {
        assert!(start.elapsed() < Duration::from_secs(5), "no subscriber came back");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(store);
}
