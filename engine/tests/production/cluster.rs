//! In a cluster: the primary of the line's slot dies, and the slot moves to another node and back.

use std::time::{Duration, Instant};

use bytes::Bytes;
use conga::line::Line;
use conga::store::StoreError;
use conga::store::redis::{RedisOptions, RedisStore};
use tokio::task::block_in_place;

use crate::flow::{Flow, PROCESSORS, all_are_at, store};
use crate::redis_ask::ask;
use crate::redis_cluster::RedisCluster;

const TIMEOUT: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_primary_of_the_slot_dies() {
    let mut cluster = block_in_place(|| RedisCluster::start(3, TIMEOUT, &[])).unwrap();
    // The only node that the URL names is the one that dies: the others are known by then.
    let first = block_in_place(|| cluster.primary_of("orders")).unwrap();
    let mut flow = Flow::start("cluster, kill -9", &cluster.url(&[first]), 1).await;
    for round in 1..=2 {
        let (killed, primary, promoted) = block_in_place(|| {
            let old = cluster.primary_of("orders").unwrap();
            cluster.server(old).kill().unwrap();
            let (new, promoted) = cluster.promoted("orders", old).unwrap();
            (old, new, promoted)
        });
        all_are_at(cluster.port(primary)).await;
        // It comes back as the replica, without which nothing can be acknowledged.
        block_in_place(|| {
            cluster.server(killed).start_again().unwrap();
            cluster.has_replica(primary).unwrap();
        });
        let followed = Instant::now();
        let late = (followed - promoted).as_millis();
        let ends = [
            (format!("promotion {round}"), promoted),
            (
                format!("the killed one follows, {late} ms after promotion {round}"),
                followed,
            ),
        ];
        flow.all_over(&ends).await;
    }
    let verdict = flow.finish(1_000).await;
    assert!(verdict.attempts <= 5, "{verdict:?}");
}

/// The keys of the line move one by one, the input and the stream of a few thousand messages among them.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_slot_moves_there_and_back() {
    let cluster = block_in_place(|| RedisCluster::start(3, TIMEOUT, &[])).unwrap();
    let mut flow = Flow::start("cluster, slot moves", &cluster.url(&[2]), 0).await;
    let start = block_in_place(|| cluster.primary_of("orders")).unwrap();
    let target = (start + 1) % 3;
    for (round, (from, to)) in [(start, target), (target, start), (start, target)]
        .into_iter()
        .enumerate()
    {
        block_in_place(|| cluster.move_slot("orders", from, to, Duration::from_millis(50))).unwrap();
        flow.over(format!("move {}", round + 1), Instant::now()).await;
        all_are_at(cluster.port(to)).await;
        // And the processors hear there what is sent.
        let hearers = ["PUBSUB", "SHARDNUMSUB", "{orders}:wake:in"];
        let hearers = block_in_place(|| ask(cluster.port(to), &hearers)).unwrap();
        assert_eq!(hearers.items()[1].text(), PROCESSORS.to_string());
    }
    let verdict = flow.finish(1_000).await;
    // Nobody was taken for dead for having listened at another node.
    assert!(verdict.attempts <= 3, "{verdict:?}");
}

/// Ask, then moved: what is answered while a slot is on its way, step by step.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn while_the_slot_moves_single_keys_are_found_and_scripts_wait() {
    let cluster = block_in_place(|| RedisCluster::start(2, TIMEOUT, &[])).unwrap();
    let from = block_in_place(|| cluster.primary_of("orders")).unwrap();
    let to = 1 - from;
    let url = cluster.url(&[from]);
    let (store, settled) = (store(&url, 0).await, store(&url, 1).await);
    store.send(&[Bytes::from_static(b"1")], None).await.unwrap();
    settled.send(&[Bytes::from_static(b"2")], None).await.unwrap();
    block_in_place(|| {
        cluster.begin_move("orders", from, to).unwrap();
        assert_eq!(cluster.move_keys("orders", from, to, Duration::ZERO).unwrap(), 2);
    });
    // The input is at the other node already, where only those find it who ask for it.
    store.send(&[Bytes::from_static(b"3")], None).await.unwrap();
    let status = store.status().await;
    assert!(matches!(status, Err(StoreError::Unavailable(_))), "{status:?}");
    // What is waited for has to be on replicas of one and the same node.
    let sent = settled.send(&[Bytes::from_static(b"4")], None).await;
    assert!(matches!(sent, Err(StoreError::Unavailable(_))), "{sent:?}");
    block_in_place(|| cluster.end_move("orders", from, to)).unwrap();
    settled.send(&[Bytes::from_static(b"5")], None).await.unwrap();
    assert_eq!(store.status().await.unwrap().waiting, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_cluster_behind_the_url_of_a_single_server_is_told_so() {
    let cluster = block_in_place(|| RedisCluster::start(2, TIMEOUT, &[])).unwrap();
    let serving = block_in_place(|| cluster.primary_of("orders")).unwrap();
    let line: Line = "orders".parse().unwrap();
    let connect = |url: String| {
        let line = line.clone();
        async move { RedisStore::connect(&url, &line, RedisOptions::default()).await }
    };
    let single = cluster.url(&[1 - serving]).replace("redis+cluster", "redis");
    let sent = connect(single).await.unwrap().send_one().await;
    let Err(StoreError::Broken(text)) = sent else {
        panic!("{sent:?}")
    };
    assert!(text.contains("redis+cluster://"), "{text}");

    let server = crate::redis_server::RedisServer::start(&[]).unwrap();
    let none = connect(server.url().replace("redis", "redis+cluster")).await;
    assert!(
        matches!(&none, Err(StoreError::Broken(text)) if text.contains("redis://")),
        "{none:?}"
    );
    let none = connect(server.url().replace("redis", "redis+sentinel") + "/conga").await;
    assert!(
        matches!(&none, Err(StoreError::Broken(text)) if text.contains("no sentinel")),
        "{none:?}"
    );
}

/// Short for the test.
trait SendOne {
    async fn send_one(&self) -> conga::store::Result<()>;
}

impl SendOne for RedisStore {
    async fn send_one(&self) -> conga::store::Result<()> {
        conga::store::Store::send(self, &[Bytes::from_static(b"1")], None)
            .await
            .map(drop)
    }
}
