//! Law 7 on Redis: death is noticed, not only timed out; and a wrong guess is harmless.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../../cli/src/bench/redis_server.rs"]
mod redis_server;

use std::time::{Duration, Instant};

use bytes::Bytes;
use conga::core::lease::OwnerId;
use conga::core::message::{Body, Id, Payload, Record};
use conga::core::partition::{
    CampaignRequest, Claim, ClaimRequest, Completed, Completion, Cursor, EmitRequest, Emitted, Limits, Ready,
    ReceiveRequest, RenewRequest,
};
use conga::core::term::{Campaign, Role, Term};
use conga::store::Store;
use conga::store::redis::{RedisOptions, RedisStore};
use redis_server::RedisServer;

/// Long enough that nothing here is an expiry.
const MINUTE: u64 = 60_000_000;
/// A server that was just started is not asked who is gone, so the first answers take some seconds.
const PATIENCE: Duration = Duration::from_secs(20);

async fn open(server: &RedisServer) -> RedisStore {
    let line = "orders".parse().unwrap();
    RedisStore::connect(&server.url(), &line, RedisOptions::default())
        .await
        .unwrap()
}

async fn show(store: &RedisStore, owner: &str) {
    let request = RenewRequest {
        keep: None,
        owner: OwnerId::new(owner),
        lease_us: MINUTE,
        held: None,
        limits: Limits::default(),
    };
    store.renew(&request).await.unwrap();
}

async fn claim(store: &RedisStore, owner: &str) -> Vec<Claim> {
    let request = ClaimRequest {
        owner: OwnerId::new(owner),
        max: 10,
        lease_us: MINUTE,
        window: 100,
        limits: Limits::default(),
    };
    store.claim(&request).await.unwrap()
}

async fn campaign(store: &RedisStore, owner: &str) -> Campaign {
    let request = CampaignRequest {
        owner: OwnerId::new(owner),
        role: Role::Leader,
        lock_us: MINUTE,
    };
    store.campaign(&request).await.unwrap()
}

fn done(claims: &[Claim], by: &str) -> Vec<Completion> {
    let done = |claim: &Claim| {
        Completion::Done(Record {
            position: claim.position,
            id: Id::of_position(claim.position),
            sequence: None,
            key: None,
            body: Body::Result(Payload::string(by)),
            attempts: claim.attempt,
            created: claim.claimed,
            processing: claim.claimed,
        })
    };
    claims.iter().map(done).collect()
}

async fn send(store: &RedisStore, count: usize) {
    store.send(&vec![Bytes::from_static(b"x"); count], None).await.unwrap();
}

#[tokio::test]
async fn what_the_dead_held_is_free_long_before_it_expires() {
    let server = RedisServer::start(&[]).expect("a Redis server");
    let (there, here) = (open(&server).await, open(&server).await);
    send(&here, 3).await;
    show(&there, "dead").await;
    show(&here, "alive").await;
    assert_eq!(claim(&there, "dead").await.len(), 3);
    assert_eq!(
        campaign(&there, "dead-leader").await,
        Campaign::Leader { term: Term(1) }
    );
    // As a process dies: its connections are closed, and it has said nothing.
    drop(there);
    let limit = Instant::now() + PATIENCE;
    let mut again = Vec::new();
    while again.is_empty() {
        assert!(Instant::now() < limit, "nobody noticed");
        again = claim(&here, "alive").await;
    }
    assert!(again.iter().all(|claim| claim.attempt.0 == 2), "{again:?}");
    assert_eq!(
        campaign(&here, "alive-leader").await,
        Campaign::Leader { term: Term(2) }
    );
}

#[tokio::test]
async fn the_living_are_left_alone() {
    let server = RedisServer::start(&[]).expect("a Redis server");
    let (there, here, third) = (open(&server).await, open(&server).await, open(&server).await);
    send(&here, 3).await;
    show(&there, "there").await;
    claim(&there, "there").await;
    campaign(&there, "leader").await;
    // A third one that dies shows when it is noticed; by then the living would have been taken for dead too.
    show(&third, "third").await;
    send(&here, 1).await;
    assert_eq!(claim(&third, "third").await.len(), 1);
    drop(third);
    let limit = Instant::now() + PATIENCE;
    let mut freed = Vec::new();
    while freed.is_empty() {
        assert!(Instant::now() < limit, "nobody noticed");
        freed = claim(&here, "here").await;
    }
    assert_eq!(freed.len(), 1, "only what the dead one held: {freed:?}");
    let standby = campaign(&here, "other").await;
    assert_eq!(
        standby,
        Campaign::Standby {
            leader: Some(OwnerId::new("leader"))
        }
    );
}

/// A process that has lost its subscription is taken for dead although it lives and goes on.
#[tokio::test]
async fn a_wrong_guess_is_harmless() {
    let server = RedisServer::start(&[]).expect("a Redis server");
    let (wronged, other) = (open(&server).await, open(&server).await);
    let client = redis::Client::open(server.url()).unwrap();
    let mut foreigner = client.get_multiplexed_async_connection().await.unwrap();
    send(&wronged, 3).await;
    show(&wronged, "wronged").await;
    let mine = claim(&wronged, "wronged").await;
    assert_eq!(campaign(&wronged, "old").await, Campaign::Leader { term: Term(1) });
    let limit = Instant::now() + PATIENCE;
    let (mut theirs, mut term) = (Vec::new(), None);
    while theirs.is_empty() || term.is_none() {
        assert!(Instant::now() < limit, "no wrong guess could be provoked");
        // All subscribers are cut off, and come back in a moment.
        let _: redis::Value = redis::cmd("CLIENT")
            .arg("KILL")
            .arg("TYPE")
            .arg("pubsub")
            .query_async(&mut foreigner)
            .await
            .unwrap();
        for _ in 0..20 {
            theirs.extend(claim(&other, "other").await);
            if let Campaign::Leader { term: won } = campaign(&other, "new").await {
                term = Some(won);
            }
        }
    }
    // Both go on, each believing that it has the messages and the leadership.
    let answers = wronged
        .complete(&OwnerId::new("wronged"), &done(&mine, "wronged"))
        .await
        .unwrap();
    assert_eq!(answers, vec![Completed::Stale; 3]);
    let answers = other
        .complete(&OwnerId::new("other"), &done(&theirs, "other"))
        .await
        .unwrap();
    assert_eq!(answers, vec![Completed::Accepted; 3]);
    let followed = other.follow(Cursor::default(), 10).await.unwrap();
    let entries: Vec<Ready> = followed
        .entries
        .into_iter()
        .map(|processed| Ready {
            processed,
            sequencing: followed.now,
        })
        .collect();
    let emit = |term| EmitRequest {
        term,
        head: followed.head,
        entries: entries.clone(),
    };
    let fenced = wronged.emit(&emit(Term(1))).await.unwrap();
    assert!(matches!(fenced, Emitted::Fenced { .. }), "{fenced:?}");
    let counted = other.emit(&emit(term.unwrap())).await.unwrap();
    assert!(matches!(counted, Emitted::Advanced { .. }), "{counted:?}");
    let outputs = other
        .receive(&ReceiveRequest {
            acknowledge: None,
            max: 10,
            ..ReceiveRequest::default()
        })
        .await
        .unwrap()
        .outputs();
    assert_eq!(outputs.len(), 3);
    assert!(
        outputs
            .iter()
            .all(|output| output.windows(7).any(|part| part == b"\"other\"")),
        "{outputs:?}"
    );
}

async fn stand(store: &RedisStore, owner: &str, lock_us: u64) -> Campaign {
    let request = CampaignRequest {
        owner: OwnerId::new(owner),
        role: Role::Consumer,
        lock_us,
    };
    store.campaign(&request).await.unwrap()
}

/// An output that two consumers write down is doubled, so of a consumer silence alone proves nothing.
#[tokio::test]
async fn a_consumer_that_renews_its_lock_is_left_alone_and_one_that_does_not_is_dead() {
    let server = RedisServer::start(&[]).expect("a Redis server");
    let (there, here) = (open(&server).await, open(&server).await);
    let standby = Campaign::Standby {
        leader: Some(OwnerId::new("there")),
    };
    assert_eq!(stand(&there, "there", MINUTE).await, Campaign::Leader { term: Term(1) });
    // Its connections are closed, so that nobody listens to its channel.
    drop(there);
    let client = redis::Client::open(server.url()).unwrap();
    let mut foreigner = client.get_multiplexed_async_connection().await.unwrap();
    let limit = Instant::now() + PATIENCE;
    loop {
        let lock: String = redis::cmd("HGET")
            .arg("{orders}:meta")
            .arg("consumer")
            .query_async(&mut foreigner)
            .await
            .unwrap();
        let channel = lock.split('|').nth(1).unwrap();
        assert!(!channel.is_empty(), "{lock}");
        let (_, listeners): (String, u64) = redis::cmd("PUBSUB")
            .arg("NUMSUB")
            .arg(channel)
            .query_async(&mut foreigner)
            .await
            .unwrap();
        if listeners == 0 {
            break;
        }
        assert!(Instant::now() < limit, "somebody listens still");
    }
    assert_eq!(stand(&here, "here", MINUTE).await, standby, "it has just renewed it");
    // Whoever gives up what it does not have changes nothing.
    stand(&here, "here", 0).await;
    assert_eq!(stand(&here, "here", MINUTE).await, standby);
    // To who has longer locks it is as one that was renewed a minute ago.
    assert_eq!(
        stand(&here, "here", 2 * MINUTE).await,
        Campaign::Leader { term: Term(2) }
    );
}
