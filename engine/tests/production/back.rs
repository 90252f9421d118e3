//! A server that comes back older than it was, as a replica does that takes over: it lacks the last steps. Here it is a
//! server that starts again from what it saved.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use conga::core::lease::OwnerId;
use conga::core::message::{Body, Id, Payload, Record};
use conga::core::partition::{Claim, ClaimRequest, Completed, Completion, Limits, RenewRequest};
use conga::deliver::Consumer;
use conga::process::{Message, Processor, ProcessorOptions};
use conga::send::{Outgoing, Producer};
use conga::sequence::{Sequencer, SequencerOptions};
use conga::store::{SharedStore, StoreError};
use tokio::sync::Semaphore;
use tokio::task::block_in_place;
use tokio_util::sync::CancellationToken;
use tower::service_fn;

use crate::flow::store;
use crate::redis_ask::ask;
use crate::redis_server::RedisServer;

const MINUTE: u64 = 60_000_000;
const PATIENCE: Duration = Duration::from_secs(20);

fn start() -> RedisServer {
    block_in_place(|| RedisServer::start(&[])).unwrap()
}

fn save(server: &RedisServer) {
    block_in_place(|| ask(server.port(), &["SAVE"])).unwrap();
}

fn go_back(server: &mut RedisServer) {
    block_in_place(|| server.start_again()).unwrap();
}

async fn send(store: &SharedStore, id: &str) {
    let message = Outgoing {
        id: Some(id.to_owned()),
        ..Outgoing::new(Payload::string(id))
    };
    Producer::new(store.clone()).insist(&[message]).await.unwrap();
}

/// Repeats what fails because the connection is gone.
async fn insist<T, F: Future<Output = conga::store::Result<T>>>(step: impl Fn() -> F) -> T {
    let limit = Instant::now() + PATIENCE;
    loop {
        match step().await {
            Ok(answer) => return answer,
            Err(StoreError::Unavailable(_) | StoreError::Unknown(_)) => assert!(Instant::now() < limit),
            Err(error) => panic!("{error}"),
        }
    }
}

async fn claim(store: &SharedStore) -> Claim {
    let request = ClaimRequest {
        owner: OwnerId::new("p"),
        max: 1,
        lease_us: MINUTE,
        window: 100,
        below: None,
        limits: Limits::default(),
    };
    insist(|| store.claim(&request)).await.remove(0)
}

fn done(claim: &Claim, id: &str) -> Completion {
    Completion::Done(Record {
        position: claim.position,
        id: Id::given(id),
        sequence: None,
        key: None,
        body: Body::Result(Payload::string(id)),
        attempts: claim.attempt,
        created: claim.claimed,
        processing: claim.claimed,
    })
}

/// The same owner, position and attempt, and yet another lease.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_does_not_count_for_what_came_to_stand_in_its_place() {
    let mut server = start();
    let store = store(&server.url(), 0).await;
    save(&server);
    send(&store, "lost").await;
    let lost = claim(&store).await;
    go_back(&mut server);
    send(&store, "other").await;
    let other = claim(&store).await;
    assert_eq!((other.position, other.attempt), (lost.position, lost.attempt));
    let owner = OwnerId::new("p");
    let late = [done(&lost, "lost")];
    assert_eq!(insist(|| store.complete(&owner, &late)).await, [Completed::Stale]);
    let right = [done(&other, "other")];
    assert_eq!(insist(|| store.complete(&owner, &right)).await, [Completed::Accepted]);
}

/// An owner is told that the server may hold leases for it of which it does not know.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_is_told_to_compare() {
    let mut server = start();
    let store = store(&server.url(), 0).await;
    send(&store, "a").await;
    let renew = |held| RenewRequest {
        keep: None,
        owner: OwnerId::new("p"),
        lease_us: MINUTE,
        held,
        limits: Limits::default(),
    };
    store.renew(&renew(None)).await.unwrap();
    let held = claim(&store).await;
    save(&server);
    assert!(store.renew(&renew(None)).await.unwrap().known);
    store.complete(&OwnerId::new("p"), &[done(&held, "a")]).await.unwrap();
    go_back(&mut server);
    let alive = renew(None);
    assert!(!insist(|| store.renew(&alive)).await.known);
    let compared = store.renew(&renew(Some(Vec::new()))).await.unwrap();
    assert_eq!(compared.found, [held], "the lease that had ended is there again");
    assert!(store.renew(&renew(None)).await.unwrap().known, "it is told once");
}

/// After a restart, a failover or a move nobody listens yet, and that says nothing about who is alive.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_heard_of_by_another_server_is_not_taken_for_dead() {
    let mut server = start();
    let (owner, other) = (store(&server.url(), 0).await, OwnerId::new("q"));
    let renewal = RenewRequest {
        keep: None,
        owner: OwnerId::new("p"),
        lease_us: MINUTE,
        held: None,
        limits: Limits::default(),
    };
    send(&owner, "a").await;
    owner.renew(&renewal).await.unwrap();
    claim(&owner).await;
    save(&server);
    // Not dead, as far as this server can know: it may only not have come back yet.
    drop(owner);
    go_back(&mut server);
    let here = store(&server.url(), 0).await;
    let request = ClaimRequest {
        owner: other,
        max: 1,
        lease_us: MINUTE,
        window: 100,
        below: None,
        limits: Limits::default(),
    };
    for _ in 0..5 {
        assert_eq!(here.claim(&request).await.unwrap(), []);
        // Longer than the pause between two looks.
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    // Once it is heard of here, its death is noticed again.
    let owner = store(&server.url(), 0).await;
    let limit = Instant::now() + PATIENCE;
    owner.renew(&renewal).await.unwrap();
    while !ask_blocking(&server, &["HGET", "{orders}:alive", "p"]).contains(&run_of(&server)) {
        assert!(Instant::now() < limit, "it does not come back");
        owner.renew(&renewal).await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    drop(owner);
    while here.claim(&request).await.unwrap().is_empty() {
        assert!(Instant::now() < limit, "nobody noticed");
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}

fn ask_blocking(server: &RedisServer, words: &[&str]) -> String {
    block_in_place(|| ask(server.port(), words)).unwrap().text()
}

fn run_of(server: &RedisServer) -> String {
    let info = ask_blocking(server, &["INFO", "server"]);
    let run = info.lines().find_map(|line| line.strip_prefix("run_id:"));
    run.unwrap().trim().to_owned()
}

/// The services: what had been processed, delivered and acknowledged is processed again, as its owner lives on, and
/// comes out once.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_was_done_is_done_again_and_comes_out_once() {
    let mut server = start();
    let url = server.url();
    let stop = CancellationToken::new();
    let (gate, runs) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicU32::new(0)));
    let (opened, counted) = (gate.clone(), runs.clone());
    let handler = service_fn(move |message: Message| {
        let (gate, runs) = (opened.clone(), counted.clone());
        async move {
            runs.fetch_add(1, Ordering::SeqCst);
            gate.acquire().await.unwrap().forget();
            Ok::<_, std::convert::Infallible>(message.payload)
        }
    });
    let processor = Processor::new(store(&url, 0).await, handler, ProcessorOptions::default());
    let sequencer = Sequencer::new(store(&url, 0).await, SequencerOptions::default());
    let services = [
        tokio::spawn(async { processor.run(CancellationToken::new()).await.map(drop) }),
        tokio::spawn(async { sequencer.run(CancellationToken::new()).await.map(drop) }),
    ];
    let producer = store(&url, 0).await;
    send(&producer, "a").await;
    send(&producer, "b").await;
    until("both are claimed", || runs.load(Ordering::SeqCst) == 2).await;
    save(&server);
    gate.add_permits(2);
    let mut consumer = Consumer::new(store(&url, 0).await);
    let mut outputs = receive(&mut consumer, 2).await;
    // Known to the store by then: it does not have to be told again.
    assert!(consumer.try_next(10).await.unwrap().outputs.is_empty());

    go_back(&mut server);
    until("both are processed again", || runs.load(Ordering::SeqCst) == 4).await;
    gate.add_permits(10);
    send(&producer, "c").await;
    outputs.extend(receive(&mut consumer, 1).await);
    assert_eq!(outputs, ["a", "b", "c"]);
    stop.cancel();
    for service in services {
        service.abort();
    }
}

/// Acknowledged positions that other messages stand at by now are handed out.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_came_to_stand_where_something_was_acknowledged_comes_out() {
    let mut server = start();
    let url = server.url();
    let echo = conga::process::sleep(Duration::ZERO, Duration::ZERO);
    let processor = Processor::new(store(&url, 0).await, echo, ProcessorOptions::default());
    let sequencer = Sequencer::new(store(&url, 0).await, SequencerOptions::default());
    let services = [
        tokio::spawn(async { processor.run(CancellationToken::new()).await.map(drop) }),
        tokio::spawn(async { sequencer.run(CancellationToken::new()).await.map(drop) }),
    ];
    let producer = store(&url, 0).await;
    let mut consumer = Consumer::new(store(&url, 0).await);
    send(&producer, "a").await;
    assert_eq!(receive(&mut consumer, 1).await, ["a"]);
    assert!(consumer.try_next(10).await.unwrap().outputs.is_empty());
    save(&server);
    send(&producer, "lost").await;
    assert_eq!(receive(&mut consumer, 1).await, ["lost"]);
    assert!(consumer.try_next(10).await.unwrap().outputs.is_empty());
    go_back(&mut server);
    send(&producer, "other").await;
    assert_eq!(receive(&mut consumer, 1).await, ["other"]);
    for service in services {
        service.abort();
    }
}

async fn until(what: &str, is: impl Fn() -> bool) {
    let limit = Instant::now() + PATIENCE;
    while !is() {
        assert!(Instant::now() < limit, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The payloads of the next outputs, which are acknowledged.
async fn receive(consumer: &mut Consumer, count: usize) -> Vec<String> {
    let mut payloads = Vec::new();
    while payloads.len() < count {
        let batch = tokio::time::timeout(PATIENCE, consumer.next(10)).await;
        let batch = batch.expect("something comes out").unwrap();
        consumer.acknowledge(&batch);
        payloads.extend(batch.outputs.iter().map(payload_of));
    }
    payloads
}

fn payload_of(output: &Bytes) -> String {
    let output: serde_json::Value = serde_json::from_slice(output).unwrap();
    output["payload"].as_str().unwrap().to_owned()
}
