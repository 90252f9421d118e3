//! What is special about the Redis store. That it keeps the laws like every other is for the contract suite.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../../../cli/src/bench/redis_server.rs"]
mod redis_server;

mod acknowledgement;
mod batch;
mod foreign;
mod hints;
mod memory;
mod replicas;
mod server;
mod strikes;

use conga::core::lease::OwnerId;
use conga::core::message::{Body, Payload};
use conga::core::partition::{
    CampaignRequest, Claim, ClaimRequest, Completion, Cursor, EmitRequest, Emitted, Limits, Ready,
};
use conga::core::term::{Campaign, Role, Term};
use conga::line::Line;
use conga::store::redis::{RedisOptions, RedisStore};
use conga::store::{Delivery, Store};
use redis::aio::MultiplexedConnection;
use redis_server::RedisServer;

pub(crate) const SECOND: u64 = 1_000_000;

pub(crate) async fn open(server: &RedisServer) -> RedisStore {
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
pub(crate) async fn foreigner(server: &RedisServer) -> MultiplexedConnection {
    let client = redis::Client::open(server.url()).expect("a client");
    client.get_multiplexed_async_connection().await.expect("a connection")
}

pub(crate) async fn run<T: redis::FromRedisValue>(foreigner: &mut MultiplexedConnection, command: &[&str]) -> T {
    let mut cmd = redis::cmd(command[0]);
    cmd.arg(&command[1..]);
    cmd.query_async(foreigner).await.expect("a reply")
}

pub(crate) fn claim_of(max: usize) -> ClaimRequest {
    ClaimRequest {
        owner: OwnerId::new("p1"),
        max,
        lease_us: 10 * SECOND,
        window: 1_000,
        below: None,
        limits: Limits::default(),
    }
}

pub(crate) fn done(claim: &Claim, result: &str) -> Completion {
    Completion::Done(claim.record(Body::Result(Payload::string(result))))
}

pub(crate) async fn lead(store: &RedisStore) -> Term {
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
pub(crate) async fn emit_all(store: &RedisStore) -> Emitted {
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
