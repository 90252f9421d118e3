//! A server without memory.

use std::time::{Duration, Instant};

use bytes::Bytes;
use conga::core::lease::{Attempt, OwnerId};
use conga::core::message::Position;
use conga::core::partition::{ClaimRequest, Completed, Emitted, Limits, ReceiveRequest, RenewRequest};
use conga::store::{Store, StoreError};

use crate::redis_server::RedisServer;
use crate::{SECOND, claim_of, done, emit_all, foreigner, open, run};

#[tokio::test]
async fn without_memory_nothing_new_begins_and_what_was_begun_ends() {
    let server = RedisServer::start(&[]).expect("a Redis server");
    let store = open(&server).await;
    let mut foreigner = foreigner(&server).await;
    store
        .send(&[Bytes::from_static(b"1"), Bytes::from_static(b"2")], None)
        .await
        .unwrap();
    let claims = store.claim(&claim_of(1)).await.unwrap();
    run::<String>(&mut foreigner, &["CONFIG", "SET", "maxmemory", "1"]).await;

    let sent = store.send(&[Bytes::from_static(b"3")], None).await;
    assert!(matches!(sent, Err(StoreError::Unavailable(_))), "{sent:?}");
    let claimed = store.claim(&claim_of(1)).await;
    assert!(matches!(claimed, Err(StoreError::Unavailable(_))), "{claimed:?}");
    let renewed = store
        .renew(&RenewRequest {
            keep: None,
            owner: OwnerId::new("p1"),
            lease_us: SECOND,
            held: None,
            limits: Limits::default(),
        })
        .await
        .unwrap();
    assert!(renewed.known);
    let answers = store.complete(&OwnerId::new("p1"), &[done(&claims[0], "x")]).await;
    assert_eq!(answers, Ok(vec![Completed::Accepted]));
    assert_eq!(emit_all(&store).await, Emitted::Advanced { head: Position(2) });

    run::<String>(&mut foreigner, &["CONFIG", "SET", "maxmemory", "0"]).await;
    let claims = store.claim(&claim_of(1)).await.unwrap();
    assert_eq!(claims[0].position, Position(2));
}

/// Else the line stood still at it, and nothing would ever leave the memory.
#[tokio::test]
async fn without_memory_what_a_dead_processor_held_is_claimed_by_another() {
    let server = RedisServer::start(&[]).expect("a Redis server");
    let store = open(&server).await;
    let mut foreigner = foreigner(&server).await;
    // Above this is the server as long as it has the large one, whatever buffers come and go besides.
    let info: String = run(&mut foreigner, &["INFO", "memory"]).await;
    let used = info.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap();
    let limit = used.parse::<u64>().unwrap() + (6 << 20);
    let large = Bytes::from(vec![b'x'; 8 << 20]);
    store.send(&[large, Bytes::from_static(b"2")], None).await.unwrap();
    let died = ClaimRequest {
        owner: OwnerId::new("died"),
        lease_us: 1,
        ..claim_of(1)
    };
    assert_eq!(store.claim(&died).await.unwrap()[0].position, Position(1));
    run::<String>(&mut foreigner, &["CONFIG", "SET", "maxmemory", &limit.to_string()]).await;

    let claims = store.claim(&claim_of(2)).await.unwrap();
    let taken: Vec<_> = claims.iter().map(|claim| (claim.position, claim.attempt)).collect();
    assert_eq!(taken, [(Position(1), Attempt(2))], "and nothing new");
    let again = store.claim(&claim_of(1)).await;
    assert!(matches!(again, Err(StoreError::Unavailable(_))), "{again:?}");
    let answers = store.complete(&OwnerId::new("p1"), &[done(&claims[0], "x")]).await;
    assert_eq!(answers, Ok(vec![Completed::Accepted]));
    assert_eq!(emit_all(&store).await, Emitted::Advanced { head: Position(2) });
    let outputs = store
        .receive(&ReceiveRequest {
            acknowledge: None,
            max: 10,
            ..ReceiveRequest::default()
        })
        .await
        .unwrap()
        .outputs();
    assert_eq!(outputs.len(), 1);

    // Buffers and what the scripts have left behind are swept up in time.
    let limit = Instant::now() + Duration::from_secs(20);
    let claims = loop {
        match store.claim(&claim_of(1)).await {
            Ok(claims) => break claims,
            Err(error) => assert!(Instant::now() < limit, "there is no memory again: {error}"),
        }
    };
    assert_eq!(claims[0].position, Position(2));
}
