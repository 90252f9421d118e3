//! A server that forgets, is away, falls silent or wants a password; and its clock.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use conga::core::lease::OwnerId;
use conga::core::message::Position;
use conga::core::partition::{Completed, Emitted};
use conga::core::time::Micros;
use conga::line::Line;
use conga::send::Producer;
use conga::store::redis::{RedisOptions, RedisStore};
use conga::store::{Store, StoreError};
use redis::aio::MultiplexedConnection;

use crate::redis_server::RedisServer;
use crate::{SECOND, claim_of, done, emit_all, foreigner, lead, open, run};

#[tokio::test]
async fn a_server_that_forgets_the_scripts_is_told_again() {
    let server = RedisServer::start(&[]).expect("a Redis server");
    let store = open(&server).await;
    let mut foreigner = foreigner(&server).await;
    store.send(&[Bytes::from_static(b"1")], None).await.unwrap();
    run::<String>(&mut foreigner, &["SCRIPT", "FLUSH"]).await;
    let claims = store.claim(&claim_of(1)).await.unwrap();
    run::<String>(&mut foreigner, &["SCRIPT", "FLUSH"]).await;
    let answers = store.complete(&OwnerId::new("p1"), &[done(&claims[0], "x")]).await;
    assert_eq!(answers, Ok(vec![Completed::Accepted]));
    run::<String>(&mut foreigner, &["SCRIPT", "FLUSH"]).await;
    assert_eq!(emit_all(&store).await, Emitted::Advanced { head: Position(2) });
}

#[tokio::test]
async fn the_time_is_the_servers() {
    let server = RedisServer::start(&[]).expect("a Redis server");
    let store = open(&server).await;
    let mut foreigner = foreigner(&server).await;
    store.send(&[Bytes::from_static(b"1")], None).await.unwrap();
    let before: (u64, u64) = run_time(&mut foreigner).await;
    let claims = store.claim(&claim_of(1)).await.unwrap();
    let after: (u64, u64) = run_time(&mut foreigner).await;
    let micros = |(seconds, rest): (u64, u64)| Micros(seconds * SECOND + rest);
    assert!((micros(before)..=micros(after)).contains(&claims[0].claimed));

    let expiry: u64 = {
        lead(&store).await;
        run(&mut foreigner, &["PTTL", "{orders}:lock"]).await
    };
    assert!((1..=1_000).contains(&expiry), "{expiry}");
    let machine = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros();
    let status = store.status().await.unwrap();
    assert!(u128::from(status.now.0).abs_diff(machine) < 5_000_000);
    assert_eq!(status.leader, Some(OwnerId::new("s1")));
}

async fn run_time(foreigner: &mut MultiplexedConnection) -> (u64, u64) {
    run(foreigner, &["TIME"]).await
}

#[tokio::test]
async fn a_server_that_is_away_is_told_from_one_that_went_away() {
    let server = RedisServer::start(&[]).expect("a Redis server");
    let store = open(&server).await;
    store.status().await.unwrap();
    let url = server.url();
    drop(server);
    // The first may have been sent into the dying connection, the later ones were not.
    assert!(store.status().await.is_err_and(|error| error.is_passing()));
    let again = store.status().await;
    assert!(matches!(again, Err(StoreError::Unavailable(_))), "{again:?}");
    let line: Line = "orders".parse().unwrap();
    let connected = RedisStore::connect(&url, &line, RedisOptions::default()).await;
    assert!(matches!(connected, Err(StoreError::Unavailable(_))), "{connected:?}");
}

#[cfg(unix)]
fn signal(server: &RedisServer, name: &str) {
    let kill = std::process::Command::new("kill")
        .args([name, &server.pid().to_string()])
        .status();
    assert!(kill.unwrap().success());
}

#[cfg(unix)]
#[tokio::test]
async fn a_server_that_falls_silent_is_unknown_and_its_connection_is_replaced() {
    let server = RedisServer::start(&[]).expect("a Redis server");
    let line: Line = "orders".parse().unwrap();
    let options = RedisOptions {
        connection_timeout: Duration::from_secs(2),
        response_timeout: Duration::from_millis(500),
        ..RedisOptions::default()
    };
    let store = RedisStore::connect(&server.url(), &line, options).await.unwrap();
    store.status().await.unwrap();
    signal(&server, "-STOP");
    let silent = store.status().await;
    assert!(matches!(silent, Err(StoreError::Unknown(_))), "{silent:?}");
    let start = std::time::Instant::now();
    let (one, two) = tokio::join!(store.status(), store.status());
    assert!(matches!(one, Err(StoreError::Unavailable(_))), "{one:?}");
    assert_eq!(one, two, "one attempt to connect serves all who wait for it");
    assert!(start.elapsed() < Duration::from_millis(3_800), "{:?}", start.elapsed());
    signal(&server, "-CONT");
    store.status().await.unwrap();
}

/// It may be done still, when the server goes on.
#[cfg(unix)]
#[tokio::test]
async fn a_send_that_is_given_up_without_an_answer_is_in_doubt() {
    let server = RedisServer::start(&[]).expect("a Redis server");
    let options = RedisOptions {
        connection_timeout: Duration::from_millis(500),
        response_timeout: Duration::from_millis(500),
        ..RedisOptions::default()
    };
    let store = RedisStore::connect(&server.url(), &"orders".parse().unwrap(), options).await;
    let store = Arc::new(store.unwrap());
    let mut producer = Producer::named(store, "p").with_patience(Duration::from_secs(3));
    assert_eq!(producer.last().await, Ok(0));
    signal(&server, "-STOP");
    let sent = producer.send_entries(&[Bytes::from_static(b"1")]).await;
    signal(&server, "-CONT");
    assert!(matches!(sent, Err(StoreError::Unknown(_))), "{sent:?}");
}

#[tokio::test]
async fn a_missing_password_says_where_to_put_it() {
    let server = RedisServer::start(&["--requirepass", "secret"]).expect("a Redis server");
    let line: Line = "orders".parse().unwrap();
    let connect = |url: String| RedisStore::connect(Box::leak(url.into_boxed_str()), &line, RedisOptions::default());
    let Err(StoreError::Broken(text)) = connect(server.url()).await else {
        panic!("not broken");
    };
    assert!(text.contains("redis://user:password@host"), "{text}");
    let wrong = connect(format!("redis://:wrong@127.0.0.1:{}", server.port())).await;
    assert!(matches!(wrong, Err(StoreError::Broken(_))), "{wrong:?}");
    connect(format!("redis://:secret@127.0.0.1:{}", server.port()))
        .await
        .expect("the right password");
}
