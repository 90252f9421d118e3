//! What waiting for a replica costs. Not a test: run it with `--run-ignored only`.

use std::time::{Duration, Instant};

use bytes::Bytes;
use conga::core::lease::OwnerId;
use conga::core::partition::{ClaimRequest, Limits, ReceiveRequest};
use conga::store::SharedStore;
use tokio::task::block_in_place;

use crate::flow::store;
use crate::redis_sentinel::RedisSentinel;

const ROUNDS: usize = 1_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures, and asserts nothing"]
async fn of_waiting_for_a_replica() {
    let group = block_in_place(|| RedisSentinel::start(1, Duration::from_secs(5), &[])).unwrap();
    for replicas in [0, 1] {
        let store = store(&group.url(), replicas).await;
        for size in [1, 100] {
            let entries = vec![Bytes::from(vec![b'x'; 200]); size];
            let times = times(|| async {
                store.send(&entries, None).await.unwrap();
            })
            .await;
            println!("{replicas} replicas, send of {size}: {times}");
        }
        // What waits is one write for all who wait meanwhile.
        let start = Instant::now();
        let senders: Vec<_> = (0..32).map(|_| tokio::spawn(sends(store.clone(), 100))).collect();
        for sender in senders {
            sender.await.unwrap();
        }
        let each = start.elapsed() / (32 * 100);
        println!("{replicas} replicas, 32 senders side by side: {each:?} for each send");
        // Others are not held up by those who wait.
        let background = tokio::spawn(sends(store.clone(), usize::MAX));
        let request = ClaimRequest {
            owner: OwnerId::new("p"),
            max: 1,
            lease_us: 60_000_000,
            window: 1_000_000,
            below: None,
            limits: Limits::default(),
        };
        let times = times(|| async { drop(store.claim(&request).await.unwrap()) }).await;
        background.abort();
        println!("{replicas} replicas, claim of 1 while another sends: {times}");
        let request = ReceiveRequest {
            acknowledge: None,
            max: 100,
            ..ReceiveRequest::default()
        };
        let times = self::times(|| async { drop(store.receive(&request).await.unwrap()) }).await;
        println!("{replicas} replicas, receive of nothing: {times}");
    }
}

async fn sends(store: SharedStore, count: usize) {
    for _ in 0..count {
        store.send(&[Bytes::from_static(b"x")], None).await.unwrap();
    }
}

async fn times<F: Future<Output = ()>>(what: impl Fn() -> F) -> String {
    let mut times = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let start = Instant::now();
        what().await;
        times.push(start.elapsed().as_micros());
    }
    times.sort_unstable();
    format!("p50 {} us, p99 {} us", times[ROUNDS / 2], times[ROUNDS * 99 / 100])
}
