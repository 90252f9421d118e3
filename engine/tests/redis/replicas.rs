//! What has to be at a replica.

use std::time::{Duration, Instant};

use conga::core::message::Position;
use conga::core::partition::{MergeRequest, Merged, Piece, ReceiveRequest};
use conga::core::term::Term;
use conga::line::Line;
use conga::store::redis::{RedisOptions, RedisStore};
use conga::store::{Store, StoreError};

use crate::redis_server::RedisServer;
use crate::{foreigner, run};

/// Each send and receive would be in doubt for ever.
#[tokio::test]
async fn a_server_that_can_not_tell_what_replicas_have_is_refused() {
    let server = RedisServer::start(&[]).expect("a Redis server");
    let mut foreigner = foreigner(&server).await;
    let line: Line = "orders".parse().unwrap();
    for (user, without, named) in [("nowait", "-wait", "WAIT"), ("noinfo", "-info", "INFO")] {
        let rules = ["ACL", "SETUSER", user, "on", ">secret", "~*", "&*", "+@all", without];
        run::<()>(&mut foreigner, &rules).await;
        let url = format!("redis://{user}:secret@127.0.0.1:{}", server.port());
        let options = |replicas| RedisOptions {
            replicas,
            ..RedisOptions::default()
        };
        let Err(StoreError::Broken(text)) = RedisStore::connect(&url, &line, options(1)).await else {
            panic!("{user} is not refused");
        };
        assert!(text.contains(named) && text.contains("--replicas"), "{text}");
        RedisStore::connect(&url, &line, options(0)).await.unwrap();
    }
    let options = RedisOptions {
        replicas: 1,
        ..RedisOptions::default()
    };
    // That there are no replicas is no reason: they may come.
    RedisStore::connect(&server.url(), &line, options).await.unwrap();
}

/// A receive whose answer is in doubt is repeated with the same acknowledgement: it means what was handed out still.
#[tokio::test]
async fn an_acknowledgement_in_doubt_means_what_was_handed_out_when_it_is_repeated() {
    let server = RedisServer::start(&["--repl-diskless-sync-delay", "0"]).expect("a Redis server");
    let replica = RedisServer::start(&[]).expect("a Redis server");
    let (mut foreigner, mut there) = (foreigner(&server).await, foreigner(&replica).await);
    let port = server.port().to_string();
    run::<()>(&mut there, &["REPLICAOF", "127.0.0.1", &port]).await;
    let options = RedisOptions {
        replicas: 1,
        ..RedisOptions::default()
    };
    let store = RedisStore::connect(&server.url(), &"orders".parse().unwrap(), options).await;
    let store = store.expect("a store");
    let output = |payload: &str| format!("{{\"position\":1,\"id\":\"@1\",\"payload\":\"{payload}\"}}");
    let receive = async |acknowledge| {
        let request = ReceiveRequest {
            acknowledge,
            max: 10,
            ..ReceiveRequest::default()
        };
        store.receive(&request).await
    };
    run::<u64>(&mut foreigner, &["LPUSH", "{orders}:out", &output("old")]).await;
    let limit = Instant::now() + Duration::from_secs(20);
    loop {
        match receive(None).await {
            Ok(received) => break assert_eq!(received.outputs(), [output("old")]),
            Err(error) => assert!(Instant::now() < limit, "the replica does not come: {error}"),
        }
    }
    run::<u64>(&mut foreigner, &["DEL", "{orders}:out"]).await;
    run::<u64>(&mut foreigner, &["LPUSH", "{orders}:out", &output("new")]).await;
    run::<()>(&mut there, &["REPLICAOF", "NO", "ONE"]).await;
    for _ in 0..2 {
        let doubt = receive(Some(Position(1))).await;
        assert!(matches!(doubt, Err(StoreError::Unknown(_))), "{doubt:?}");
    }
    let left: Vec<String> = run(&mut foreigner, &["LRANGE", "{orders}:out", "0", "-1"]).await;
    assert_eq!(left, [output("new")], "nobody has seen it");
}

/// Else the partitions would let go of what a server that takes over has never had.
#[tokio::test]
async fn a_merge_that_no_replica_has_is_in_doubt() {
    let server = RedisServer::start(&["--repl-diskless-sync-delay", "0"]).expect("a Redis server");
    let options = RedisOptions {
        replicas: 1,
        ..RedisOptions::default()
    };
    let store = RedisStore::connect(&server.url(), &"orders".parse().unwrap(), options).await;
    let store = store.expect("a store");
    let shape = Some("total/3".parse().expect("a shape"));
    let _in_doubt = store.shape(shape).await;
    assert_eq!(store.shape(None).await, Ok(shape));
    let request = MergeRequest {
        term: Term(0),
        head: Position(1),
        late: Vec::new(),
        pieces: vec![Piece::Nothing],
        is_missing: false,
        give_up: None,
    };
    let merged = store.merge(&request).await;
    assert!(matches!(merged, Err(StoreError::Unknown(_))), "{merged:?}");
    // It was done, and that it was is in doubt as well.
    let merged = store.merge(&request).await;
    assert!(matches!(merged, Err(StoreError::Unknown(_))), "{merged:?}");
    let replica = RedisServer::start(&[]).expect("a Redis server");
    let port = server.port().to_string();
    run::<()>(&mut foreigner(&replica).await, &["REPLICAOF", "127.0.0.1", &port]).await;
    let limit = Instant::now() + Duration::from_secs(20);
    loop {
        match store.merge(&request).await {
            Ok(merged) => break assert_eq!(merged, Merged::Moved { head: Position(2) }),
            Err(error) => assert!(Instant::now() < limit, "the replica does not come: {error}"),
        }
    }
}
