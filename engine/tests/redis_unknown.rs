//! Connections that break in the middle of a step: nobody knows whether it was done. Each step is then asked again, and
//! whatever had become of it, the line ends up the same.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../../cli/src/bench/proxy.rs"]
mod proxy;
#[path = "../../cli/src/bench/redis_server.rs"]
mod redis_server;

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use conga::core::lease::OwnerId;
use conga::core::message::{Body, Payload, Position};
use conga::core::partition::{
    CampaignRequest, Claim, ClaimRequest, Completed, Completion, Cursor, EmitRequest, Emitted, Limits, Ready,
    ReceiveRequest, RenewRequest, Shelf,
};
use conga::core::term::{Campaign, Role, Term};
use conga::deliver::{Consumer, position_of};
use conga::process::{Processor, ProcessorOptions, sleep};
use conga::record::Rows;
use conga::send::{Outgoing, Producer};
use conga::sequence::{Sequencer, SequencerOptions};
use conga::store::redis::{RedisOptions, RedisStore};
use conga::store::{Delivery, Result, SharedStore, Store, StoreError};
use proxy::{Proxy, Weather};
use redis_server::RedisServer;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const MINUTE: u64 = 60_000_000;
/// How long anything here may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// What becomes of one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It is done, and the reply is lost with the connection.
    ReplyLost,
    /// It is done, and the connection breaks in the middle of the reply.
    ReplyCut,
    /// It is not done: it was on its way when the connection broke.
    NeverDone,
    /// It is done, after its caller has given it up.
    DoneLate,
}

const FATES: [Fate; 4] = [Fate::ReplyLost, Fate::ReplyCut, Fate::NeverDone, Fate::DoneLate];

async fn connect(port: u16) -> RedisStore {
    let options = RedisOptions {
        response_timeout: Duration::from_millis(300),
        delivery: Delivery::Leader,
        ..RedisOptions::default()
    };
    RedisStore::connect(
        &format!("redis://127.0.0.1:{port}"),
        &"orders".parse().unwrap(),
        options,
    )
    .await
    .unwrap()
}

fn proxy(server: &RedisServer) -> Proxy {
    Proxy::start(SocketAddr::from((Ipv4Addr::LOCALHOST, server.port()))).unwrap()
}

/// Has `step` meet its fate, and asks again. By which command it does what: others share the way, such as those of the
/// subscription. The answer to the repetition.
async fn again<T: std::fmt::Debug, F: Future<Output = Result<T>>>(
    proxy: &Proxy,
    fate: Fate,
    (what, by): (&str, &str),
    step: impl Fn() -> F,
) -> T {
    let to_server = Weather::BlackHole {
        to_server: true,
        to_client: false,
        door: proxy::Door::Open,
    };
    match fate {
        Fate::ReplyLost => proxy.drop_reply_to(by),
        Fate::ReplyCut => proxy.cut_reply_to(by),
        Fate::NeverDone | Fate::DoneLate => proxy.set(to_server).await.unwrap(),
    }
    let first = step().await;
    // A send's reply is followed by that to its hint, so the first half may be all of it.
    let is_known = fate == Fate::ReplyCut && what == "send" && first.is_ok();
    assert!(
        is_known || matches!(first, Err(StoreError::Unknown(_))),
        "{fate:?} {what}: {first:?}"
    );
    if fate == Fate::NeverDone {
        proxy.reset();
    }
    proxy.heal().await.unwrap();
    let limit = Instant::now() + PATIENCE;
    loop {
        match step().await {
            Ok(answer) => return answer,
            Err(error) => assert!(
                error.is_passing() && Instant::now() < limit,
                "{fate:?} {what}, again: {error}"
            ),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn done(claims: &[Claim]) -> Vec<Completion> {
    let done = |claim: &Claim| Completion::Done(claim.record(Body::Result(Payload::string("done"))));
    claims.iter().map(done).collect()
}

fn claim_of(max: usize) -> ClaimRequest {
    ClaimRequest {
        owner: OwnerId::new("p"),
        max,
        lease_us: MINUTE,
        window: 100,
        below: None,
        limits: Limits::default(),
    }
}

async fn wait_for(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let limit = Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(Instant::now() < limit, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Each step of one message's way, and each way in which it can break.
#[tokio::test]
async fn each_step_can_be_asked_again_whatever_became_of_it() {
    for fate in FATES {
        let server = RedisServer::start(&[]).expect("a Redis server");
        let proxy = proxy(&server);
        let (store, direct) = (connect(proxy.port()).await, connect(server.port()).await);
        let was_done = fate != Fate::NeverDone;

        again(&proxy, fate, ("send", "LPUSH"), || async {
            store.send(&[Bytes::from_static(b"x")], None).await
        })
        .await;
        let sent = if was_done { 2 } else { 1 };
        wait_for(&format!("{fate:?}: what was sent"), async || {
            direct.status().await.unwrap().waiting == sent
        })
        .await;

        // The claim: the second one gets what the first one left, and the comparison finds the rest.
        let claims = again(&proxy, fate, ("claim", "EVALSHA"), || async {
            store.claim(&claim_of(1)).await
        })
        .await;
        wait_for(&format!("{fate:?}: what was claimed"), async || {
            direct.status().await.unwrap().in_flight == sent
        })
        .await;
        let held = RenewRequest {
            keep: None,
            owner: OwnerId::new("p"),
            lease_us: MINUTE,
            held: Some(Vec::new()),
            limits: Limits::default(),
        };
        let renewed = again(&proxy, fate, ("renew", "EVALSHA"), || store.renew(&held)).await;
        assert_eq!(renewed.found.len() as u64, sent, "{fate:?}: {claims:?}");
        assert!(renewed.known);

        let completions = done(&renewed.found);
        let answers = again(&proxy, fate, ("complete", "EVALSHA"), || {
            store.complete(&held.owner, &completions)
        })
        .await;
        // What comes late may come before or after the repetition; each counts once.
        let is_possible = |answer: &Completed| match fate {
            Fate::NeverDone => *answer == Completed::Accepted,
            Fate::DoneLate => true,
            Fate::ReplyLost | Fate::ReplyCut => *answer == Completed::Stale,
        };
        assert!(answers.iter().all(is_possible), "{fate:?}: {answers:?}");
        let status = direct.status().await.unwrap();
        assert_eq!((status.recorded, status.processed), (sent, sent), "{fate:?}");

        let campaign = CampaignRequest {
            owner: OwnerId::new("s"),
            role: Role::Leader,
            lock_us: MINUTE,
        };
        let elected = again(&proxy, fate, ("campaign", "EVALSHA"), || store.campaign(&campaign)).await;
        assert_eq!(elected, Campaign::Leader { term: Term(1) }, "{fate:?}: one reign");

        let followed = again(&proxy, fate, ("follow", "XRANGE"), || {
            store.follow(Cursor::default(), 10)
        })
        .await;
        let emit = EmitRequest {
            term: Term(1),
            head: followed.head,
            entries: followed
                .entries
                .into_iter()
                .map(|processed| Ready {
                    processed,
                    sequencing: followed.now,
                })
                .collect(),
        };
        let head = Position(sent + 1);
        let emitted = again(&proxy, fate, ("emit", "EVALSHA"), || store.emit(&emit)).await;
        let is_possible = match fate {
            Fate::NeverDone => emitted == Emitted::Advanced { head },
            Fate::DoneLate => matches!(emitted, Emitted::Advanced { .. } | Emitted::Moved { .. }),
            Fate::ReplyLost | Fate::ReplyCut => emitted == Emitted::Moved { head },
        };
        assert!(is_possible, "{fate:?}: {emitted:?}");
        let status = direct.status().await.unwrap();
        assert_eq!((status.head, status.output), (head, sent), "{fate:?}");

        let receive = |acknowledge| ReceiveRequest {
            acknowledge,
            max: 10,
            ..ReceiveRequest::default()
        };
        let outputs = again(&proxy, fate, ("receive", "LRANGE"), || async {
            store.receive(&receive(None)).await
        })
        .await
        .outputs();
        assert_eq!(outputs.len() as u64, sent, "{fate:?}");
        let first = Some(Position(1));
        let outputs = again(&proxy, fate, ("acknowledge", "EVALSHA"), || async {
            store.receive(&receive(first)).await
        })
        .await
        .outputs();
        assert_eq!(outputs.len() as u64, sent - 1, "{fate:?}");
    }
}

/// Breaks one connection after the other in one way after the other until it is `over`, then heals all. How often that
/// hit something.
async fn break_until(proxies: &[Proxy], over: impl Fn() -> bool) -> usize {
    let mut broken = 0;
    let mut turn = 0_usize;
    while !over() {
        let proxy = &proxies[turn % proxies.len()];
        match turn % 7 {
            0 | 3 => proxy.drop_next_reply(),
            1 | 4 => proxy.cut_next_reply(),
            2 => broken += usize::from(proxy.reset() > 0),
            5 => {
                proxy.set(Weather::BLACK_HOLE).await.unwrap();
                tokio::time::sleep(Duration::from_millis(400)).await;
                proxy.heal().await.unwrap();
                broken += 1;
            }
            _ => {
                proxy.set(Weather::Refuse).await.unwrap();
                proxy.reset();
                tokio::time::sleep(Duration::from_millis(100)).await;
                proxy.heal().await.unwrap();
                broken += 1;
            }
        }
        turn += 1;
        tokio::time::sleep(Duration::from_millis(30)).await;
        broken += usize::from(matches!(turn % 7, 1 | 2 | 4 | 5) && !proxy.is_armed());
    }
    for proxy in proxies {
        proxy.heal().await.unwrap();
    }
    broken
}

/// The services of both kinds, a producer and a consumer, all through proxies that break one reply after the other, cut
/// all connections, hold back what is sent, and refuse to connect.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_doubled_while_connections_break() {
    const MESSAGES: u64 = 2_000;
    let server = RedisServer::start(&[]).expect("a Redis server");
    let proxies: Vec<Proxy> = (0..5).map(|_| proxy(&server)).collect();
    let mut stores: Vec<SharedStore> = Vec::new();
    for proxy in &proxies {
        stores.push(Arc::new(connect(proxy.port()).await));
    }
    let direct: SharedStore = Arc::new(connect(server.port()).await);
    let stop = CancellationToken::new();
    let services = TaskTracker::new();
    for store in &stores[..2] {
        let handler = sleep(Duration::from_millis(1), Duration::from_millis(20));
        let options = ProcessorOptions {
            concurrency: 8,
            ..ProcessorOptions::default()
        };
        services.spawn(Processor::new(store.clone(), handler, options).run(stop.clone()));
    }
    for store in &stores[2..4] {
        services.spawn(Sequencer::new(store.clone(), SequencerOptions::default()).run(stop.clone()));
    }
    let producer = Producer::new(stores[4].clone());
    let sending = services.spawn(async move {
        for batch in 0..MESSAGES / 20 {
            let batch: Vec<Outgoing> = (1..=20)
                .map(|number| Outgoing {
                    id: Some(format!("m{}", batch * 20 + number)),
                    ..Outgoing::new(Payload::string("x"))
                })
                .collect();
            producer.insist(&batch).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let consuming = tokio::spawn({
        let direct = direct.clone();
        async move {
            let mut consumer = Consumer::new(direct);
            let mut outputs = Vec::new();
            while (outputs.len() as u64) < MESSAGES {
                let batch = tokio::time::timeout(PATIENCE, consumer.next(100))
                    .await
                    .expect("the line moves");
                let batch = batch.unwrap();
                consumer.acknowledge(&batch);
                outputs.extend(batch.outputs);
            }
            consumer.finish().await.unwrap();
            outputs
        }
    });
    let broken = break_until(&proxies, || consuming.is_finished()).await;
    let outputs = consuming.await.unwrap();
    sending.await.unwrap();
    assert!(broken > 20, "only {broken} breaks");
    // All positions, in order. What was sent twice has left a gap where its second copy stood.
    let positions: Vec<Position> = outputs.iter().map(|output| position_of(output).unwrap()).collect();
    assert!(positions.is_sorted_by(|a, b| a < b), "in order");
    let ids: HashSet<String> = outputs
        .iter()
        .map(|output| serde_json::from_slice::<serde_json::Value>(output).unwrap()["id"].to_string())
        .collect();
    assert_eq!(ids.len() as u64, MESSAGES, "each once");
    let mut rows = Rows::new(direct.clone(), Shelf::Record);
    let mut records = 0;
    while let Some(page) = rows.next().await.unwrap() {
        records += page.len() as u64;
    }
    assert_eq!(records, MESSAGES);
    wait_for("the copies that were sent twice pass by", async || {
        let status = direct.status().await.unwrap();
        (status.waiting, status.in_flight, status.processed, status.output) == (0, 0, 0, 0)
    })
    .await;
    println!("{broken} breaks, {} messages sent twice", {
        let head = direct.status().await.unwrap().head;
        head.0 - 1 - MESSAGES
    });
    stop.cancel();
    services.close();
    tokio::time::timeout(PATIENCE, services.wait())
        .await
        .expect("all services end");
}
