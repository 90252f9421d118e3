//! Under sentinels: the primary dies, or is stopped and comes back as one that does not know that it was replaced.

use std::time::{Duration, Instant};

use bytes::Bytes;
use conga::core::message::Position;
use conga::core::partition::ReceiveRequest;
use conga::store::StoreError;
use tokio::task::block_in_place;

use crate::flow::{Flow, all_are_at, store};
use crate::redis_ask::ask;
use crate::redis_sentinel::RedisSentinel;
use crate::server::signal;

const DOWN_AFTER: Duration = Duration::from_secs(1);

/// One replica, and one that is waited for: of two of them the sentinels may promote the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_primary_that_dies_is_followed_by_a_replica() {
    let mut group = block_in_place(|| RedisSentinel::start(1, DOWN_AFTER, &[])).unwrap();
    let mut flow = Flow::start("sentinel, kill -9", &group.url(), 1).await;
    // What the URL names may be gone too, as long as two of the sentinels can decide.
    block_in_place(|| group.kill_sentinel(0)).unwrap();
    for round in 1..=2 {
        let (promoted, followed) = block_in_place(|| {
            let old = group.primary().unwrap();
            group.server(old).kill().unwrap();
            let (primary, promoted) = group.promoted(old).unwrap();
            group.start_again(old, primary).unwrap();
            (promoted, group.settled(1).unwrap().1)
        });
        // Before a replica follows nothing can be acknowledged.
        let late = (followed - promoted).as_millis();
        let ends = [
            (format!("promotion {round}"), promoted),
            (
                format!("a replica follows, {late} ms after promotion {round}"),
                followed,
            ),
        ];
        flow.all_over(&ends).await;
        flow.delivers(100).await;
    }
    let verdict = flow.finish(1_000).await;
    assert!(verdict.attempts <= 5, "{verdict:?}");
}

/// What the old primary accepts after it was replaced is lost with it; nobody may have been told that it was accepted.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_a_zombie_accepts_is_not_acknowledged() {
    let mut group = block_in_place(|| RedisSentinel::start(1, DOWN_AFTER, &[])).unwrap();
    let mut flow = Flow::start("sentinel, zombie", &group.url(), 1).await;
    let (promoted, woken) = block_in_place(|| {
        let old = group.primary().unwrap();
        signal(group.server(old), "-STOP");
        let (promoted, _) = group.promoted(old).unwrap();
        signal(group.server(old), "-CONT");
        (promoted, Instant::now())
    });
    // Though the old one answers, and believes that it is the primary.
    all_are_at(group.port(promoted)).await;
    // Nothing can be acknowledged before one of the two follows the other; sentinels take some ten seconds for that.
    let (_, followed) = block_in_place(|| group.settled(1)).unwrap();
    let late = (followed - woken).as_millis();
    flow.over(
        format!("one follows the other, {late} ms after the old primary came back"),
        followed,
    )
    .await;
    flow.finish(1_000).await;
}

/// A server that was a replica for a while, and is the primary again, may have lost what it had accepted before.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_wait_counts_only_in_the_history_of_what_is_waited_for() {
    let group =
        block_in_place(|| RedisSentinel::start(1, DOWN_AFTER * 20, &["--enable-debug-command", "local"])).unwrap();
    let store = store(&group.url(), 1).await;
    let send = || async { store.send(&[Bytes::from_static(b"x")], None).await };
    send().await.unwrap();
    block_in_place(|| {
        let primary = group.port(group.primary().unwrap());
        // As if it had been one in between.
        ask(primary, &["DEBUG", "CHANGE-REPL-ID"]).unwrap();
    });
    let sent = send().await;
    assert!(matches!(sent, Err(StoreError::Unknown(_))), "{sent:?}");
    // The next one asks anew which history it is. The first of all may still be refused, and not sent then.
    let again = send().await;
    assert!(matches!(again, Ok(_) | Err(StoreError::Unavailable(_))), "{again:?}");
    send().await.unwrap();
}

/// Nothing is acknowledged or handed out, what need not wait does not, and no repetition fills the input.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn while_the_replica_is_away_nothing_gets_out() {
    let mut group = block_in_place(|| RedisSentinel::start(1, DOWN_AFTER * 20, &[])).unwrap();
    let store = store(&group.url(), 1).await;
    let primary = block_in_place(|| group.primary()).unwrap();
    let port = group.port(primary);
    let length = |key: &str| block_in_place(|| ask(port, &["LLEN", key])).unwrap().text();
    let send = || async { store.send(&[Bytes::from_static(b"x")], None).await };
    send().await.unwrap();
    block_in_place(|| ask(port, &["LPUSH", "{orders}:out", "{\"position\":1,\"id\":\"a\"}"])).unwrap();

    signal(group.server(1 - primary), "-STOP");
    let sent = send().await;
    assert!(matches!(sent, Err(StoreError::Unknown(_))), "{sent:?}");
    for _ in 0..2 {
        let again = send().await;
        assert!(matches!(again, Err(StoreError::Unavailable(_))), "{again:?}");
    }
    assert_eq!(length("{orders}:in"), "2", "only the first one of those is there");
    let receive = |acknowledge, max| {
        let (store, request) = (
            store.clone(),
            ReceiveRequest {
                acknowledge,
                max,
                ..ReceiveRequest::default()
            },
        );
        async move { store.receive(&request).await }
    };
    let received = receive(None, 10).await;
    assert!(matches!(received, Err(StoreError::Unknown(_))), "{received:?}");
    let waiting = tokio::spawn(receive(None, 10));
    let start = Instant::now();
    store.status().await.unwrap();
    assert!(
        start.elapsed() < Duration::from_millis(500),
        "it waits for those who wait"
    );
    assert!(waiting.await.unwrap().is_err());

    signal(group.server(1 - primary), "-CONT");
    assert_eq!(receive(None, 10).await.unwrap().outputs().len(), 1);
    signal(group.server(1 - primary), "-STOP");
    let acknowledged = receive(Some(Position(1)), 0).await;
    assert!(matches!(acknowledged, Err(StoreError::Unknown(_))), "{acknowledged:?}");
    let repeated = receive(Some(Position(1)), 0).await;
    assert!(matches!(repeated, Err(StoreError::Unknown(_))), "{repeated:?}");
    signal(group.server(1 - primary), "-CONT");
    receive(Some(Position(1)), 0).await.unwrap();
    assert_eq!(length("{orders}:out"), "0");
}
