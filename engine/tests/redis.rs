//! What is special about the Redis store. That it keeps the laws like every other is for the contract suite.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../../cli/src/bench/redis_server.rs"]
mod redis_server;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use conga::core::lease::{Attempt, Held, OwnerId};
use conga::core::message::{Body, Entry, Payload, Position};
use conga::core::partition::{
    CampaignRequest, Claim, ClaimRequest, Completed, Completion, Cursor, EmitRequest, Emitted, Limits, MergeRequest,
    Merged, Piece, Processed, Ready, ReceiveRequest, RenewRequest, Shelf, Turn,
};
use conga::core::term::{Campaign, Reign, Role, Term};
use conga::core::time::Micros;
use conga::line::Line;
use conga::store::redis::{RedisOptions, RedisStore};
use conga::store::{Delivery, Store, StoreError};
use conga::wake::Topic;
use redis::Value;
use redis::aio::MultiplexedConnection;
use redis_server::RedisServer;

const SECOND: u64 = 1_000_000;

async fn open(server: &RedisServer) -> RedisStore {
    let line: Line = "orders".parse().expect("a name");
    let options = RedisOptions {
        delivery: Delivery::Leader,
        ..RedisOptions::default()
    };
    RedisStore::connect(&server.url(), &line, options)
        .await
        .expect("a store")
}

/// A client that knows nothing of Conga.
async fn foreigner(server: &RedisServer) -> MultiplexedConnection {
    let client = redis::Client::open(server.url()).expect("a client");
    client.get_multiplexed_async_connection().await.expect("a connection")
}

async fn run<T: redis::FromRedisValue>(foreigner: &mut MultiplexedConnection, command: &[&str]) -> T {
    let mut cmd = redis::cmd(command[0]);
    cmd.arg(&command[1..]);
    cmd.query_async(foreigner).await.expect("a reply")
}

fn claim_of(max: usize) -> ClaimRequest {
    ClaimRequest {
        owner: OwnerId::new("p1"),
        max,
        lease_us: 10 * SECOND,
        window: 1_000,
        below: None,
        limits: Limits::default(),
    }
}

fn done(claim: &Claim, result: &str) -> Completion {
    Completion::Done(claim.record(Body::Result(Payload::string(result))))
}

async fn lead(store: &RedisStore) -> Term {
    let request = CampaignRequest {
        owner: OwnerId::new("s1"),
        role: Role::Leader,
        lock_us: SECOND,
    };
    match store.campaign(&request).await {
        Ok(Campaign::Leader { term }) => term,
        other => panic!("{other:?}"),
    }
}

/// Delivers all that is processed, as it stands.
async fn emit_all(store: &RedisStore) -> Emitted {
    let term = lead(store).await;
    let followed = store.follow(Cursor::default(), 1_000).await.unwrap();
    let mut entries: Vec<Ready> = followed
        .entries
        .into_iter()
        .map(|processed| Ready {
            processed,
            sequencing: followed.now,
        })
        .collect();
    entries.sort_by_key(|ready| ready.processed.position);
    let request = EmitRequest {
        term,
        head: followed.head,
        entries,
    };
    store.emit(&request).await.unwrap()
}

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
    let large = Bytes::from(vec![b'x'; 8 << 20]);
    store.send(&[large, Bytes::from_static(b"2")], None).await.unwrap();
    let died = ClaimRequest {
        owner: OwnerId::new("died"),
        lease_us: 1,
        ..claim_of(1)
    };
    assert_eq!(store.claim(&died).await.unwrap()[0].position, Position(1));
    // What the scripts have left behind counts too, until it is swept up at any time.
    run::<String>(&mut foreigner, &["SCRIPT", "FLUSH", "SYNC"]).await;
    let info: String = run(&mut foreigner, &["INFO", "memory"]).await;
    let used = info.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap();
    let limit = used.parse::<u64>().unwrap() - (2 << 20);
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

    let claims = store.claim(&claim_of(1)).await.unwrap();
    assert_eq!(claims[0].position, Position(2), "there is memory again");
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
#[tokio::test]
async fn a_server_that_falls_silent_is_unknown_and_its_connection_is_replaced() {
    let server = RedisServer::start(&[]).expect("a Redis server");
    let line: Line = "orders".parse().unwrap();
    let options = RedisOptions {
        connection_timeout: Duration::from_millis(400),
        response_timeout: Duration::from_millis(100),
        ..RedisOptions::default()
    };
    let store = RedisStore::connect(&server.url(), &line, options).await.unwrap();
    store.status().await.unwrap();
    let signal = |name: &str| {
        let kill = std::process::Command::new("kill")
            .args([name, &server.pid().to_string()])
            .status();
        assert!(kill.unwrap().success());
    };
    signal("-STOP");
    let silent = store.status().await;
    assert!(matches!(silent, Err(StoreError::Unknown(_))), "{silent:?}");
    let start = std::time::Instant::now();
    let (one, two) = tokio::join!(store.status(), store.status());
    assert!(matches!(one, Err(StoreError::Unavailable(_))), "{one:?}");
    assert_eq!(one, two, "one attempt to connect serves all who wait for it");
    assert!(start.elapsed() < Duration::from_millis(750), "{:?}", start.elapsed());
    signal("-CONT");
    store.status().await.unwrap();
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

#[tokio::test]
async fn a_large_batch_goes_through_in_pieces() {
    const COUNT: u64 = 5_000;
    const LAST: usize = 4_999;
    let server = RedisServer::start(&[]).expect("a Redis server");
    let store = open(&server).await;
    let entries: Vec<Bytes> = (1..=COUNT).map(|n| Bytes::from(n.to_string())).collect();
    store.send(&entries, None).await.unwrap();
    let mut request = claim_of(usize::MAX);
    request.window = u64::MAX;
    let claims = store.claim(&request).await.unwrap();
    assert_eq!(claims.len() as u64, COUNT);
    // Given back, and claimed again with some neighbours missing.
    let back: Vec<_> = claims
        .iter()
        .filter(|claim| claim.position.0 % 3 != 0)
        .map(|claim| Completion::Retry {
            held: Held {
                position: claim.position,
                attempt: claim.attempt,
            },
            delay_us: 0,
        })
        .collect();
    store.complete(&OwnerId::new("p1"), &back).await.unwrap();
    let again = store.claim(&request).await.unwrap();
    assert_eq!(again.len(), back.len());
    for claim in &again {
        assert_eq!(claim.attempt, Attempt(2));
        assert_eq!(claim.entry, Entry::Whole(claim.position.to_string().into()));
    }
    let all = claims.iter().filter(|claim| claim.position.0 % 3 == 0).chain(&again);
    let completions: Vec<_> = all.map(|claim| done(claim, "x")).collect();
    store.complete(&OwnerId::new("p1"), &completions).await.unwrap();
    let term = lead(&store).await;
    let followed = store.follow(Cursor::default(), usize::MAX).await.unwrap();
    let mut entries: Vec<Ready> = followed
        .entries
        .iter()
        .map(|processed| Ready {
            processed: processed.clone(),
            sequencing: followed.now,
        })
        .collect();
    entries.sort_by_key(|ready| ready.processed.position);
    let mut request = EmitRequest {
        term,
        head: Position(1),
        entries,
    };
    let right = request.entries[LAST].clone();
    request.entries[LAST].processed = Processed {
        turn: Turn::Nothing,
        ..right.processed.clone()
    };
    assert_eq!(store.emit(&request).await, Ok(Emitted::Moved { head: Position(1) }));
    request.entries[LAST] = right;
    let head = Position(COUNT + 1);
    assert_eq!(store.emit(&request).await, Ok(Emitted::Advanced { head }));
    assert_eq!(store.emit(&request).await, Ok(Emitted::Moved { head }), "law 4");
    for last in [0, 1, 700, 701, 4_999, 5_000] {
        let outputs = store
            .receive(&ReceiveRequest {
                acknowledge: Some(Position(last)),
                max: 2,
                ..ReceiveRequest::default()
            })
            .await
            .unwrap()
            .outputs();
        assert_eq!(outputs.len() as u64, (COUNT - last).min(2));
        if let Some(first) = outputs.first() {
            assert!(first.starts_with(format!("{{\"position\":{},", last + 1).as_bytes()));
        }
    }
}

/// A server that takes over may lack the last outputs, and have others at their positions by the time at which the first
/// ones are acknowledged. Nobody has seen those.
#[tokio::test]
async fn an_acknowledgement_means_what_was_handed_out_and_not_what_stands_there_now() {
    let server = RedisServer::start(&[]).expect("a Redis server");
    let store = open(&server).await;
    let mut foreigner = foreigner(&server).await;
    let output = |payload: &str| format!("{{\"position\":1,\"id\":\"@1\",\"payload\":\"{payload}\"}}");
    let receive = async |acknowledge| {
        let request = ReceiveRequest {
            acknowledge,
            max: 10,
            ..ReceiveRequest::default()
        };
        store.receive(&request).await.unwrap().outputs()
    };
    run::<u64>(&mut foreigner, &["LPUSH", "{orders}:out", &output("old")]).await;
    assert_eq!(receive(None).await, [output("old")]);
    run::<u64>(&mut foreigner, &["DEL", "{orders}:out"]).await;
    run::<u64>(&mut foreigner, &["LPUSH", "{orders}:out", &output("new")]).await;
    let first = Some(Position(1));
    assert_eq!(receive(first).await, [output("new")], "not taken off");
    assert!(receive(first).await.is_empty(), "now it was seen");
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
    let server = RedisServer::start(&[]).expect("a Redis server");
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
    let merged = store.merge(&request).await;
    assert_eq!(merged, Ok(Merged::Moved { head: Position(2) }), "it was done");
}

/// Two consumers of one store are handed out different outputs at the same position, by servers that differ.
#[tokio::test]
async fn an_acknowledgement_means_what_was_handed_out_to_its_consumer() {
    let server = RedisServer::start(&[]).expect("a Redis server");
    let store = open(&server).await;
    let mut foreigner = foreigner(&server).await;
    let output = |payload: &str| format!("{{\"position\":1,\"id\":\"@1\",\"payload\":\"{payload}\"}}");
    let stand = async |owner: &str, lock_us| {
        let request = CampaignRequest {
            owner: OwnerId::new(owner),
            role: Role::Consumer,
            lock_us,
        };
        store.campaign(&request).await.unwrap()
    };
    let receive = async |owner: &str, term, acknowledge| {
        let request = ReceiveRequest {
            reign: Some(Reign {
                owner: OwnerId::new(owner),
                term: Term(term),
            }),
            acknowledge,
            skip: 0,
            max: 10,
        };
        store.receive(&request).await.unwrap().outputs()
    };
    run::<u64>(&mut foreigner, &["LPUSH", "{orders}:out", &output("old")]).await;
    stand("a", SECOND).await;
    assert_eq!(receive("a", 1, None).await, [output("old")]);
    stand("a", 0).await;
    run::<u64>(&mut foreigner, &["DEL", "{orders}:out"]).await;
    run::<u64>(&mut foreigner, &["LPUSH", "{orders}:out", &output("new")]).await;
    stand("b", SECOND).await;
    assert_eq!(receive("b", 2, None).await, [output("new")]);
    stand("b", 0).await;
    stand("a", SECOND).await;
    assert_eq!(
        receive("a", 3, Some(Position(1))).await,
        [output("new")],
        "not taken off"
    );
}
