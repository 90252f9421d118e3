//! Hints in a cluster: they come, they go to no other node, and where sharded channels are refused by plain ones.

use std::time::{Duration, Instant};

use bytes::Bytes;
use conga::core::lease::OwnerId;
use conga::core::message::{Body, Payload};
use conga::core::partition::{Claim, ClaimRequest, Completed, Completion, Limits, RenewRequest};
use conga::store::SharedStore;
use conga::wake::{Listener, Topic};
use futures_util::StreamExt as _;
use redis::Client;
use redis::aio::PubSub;
use tokio::task::block_in_place;
use tokio::time::timeout;

use crate::flow::{Flow, store};
use crate::redis_ask::ask;
use crate::redis_cluster::RedisCluster;

const NODES: usize = 3;
const PATIENCE: Duration = Duration::from_secs(5);

fn start(arguments: &[&str]) -> RedisCluster {
    block_in_place(|| RedisCluster::alone(NODES, Duration::from_secs(5), arguments)).unwrap()
}

fn tell(cluster: &RedisCluster, node: usize, words: &[&str]) -> String {
    block_in_place(|| ask(cluster.port(node), words)).unwrap().text()
}

/// Takes a right from everybody at all nodes.
fn forbid(cluster: &RedisCluster, what: &str) {
    for node in 0..NODES {
        tell(cluster, node, &["ACL", "SETUSER", "default", what]);
    }
}

/// Somebody at a node that has nothing to do with the line, who hears all that is passed on to it.
struct Elsewhere {
    heard: PubSub,
    /// The node of the line.
    port: u16,
}

impl Elsewhere {
    async fn of(cluster: &RedisCluster) -> Self {
        let serving = block_in_place(|| cluster.primary_of("orders")).unwrap();
        let port = cluster.port((serving + 1) % NODES);
        let client = Client::open(format!("redis://127.0.0.1:{port}")).unwrap();
        let mut heard = client.get_async_pubsub().await.unwrap();
        heard.psubscribe("*").await.unwrap();
        let port = cluster.port(serving);
        Self { heard, port }
    }

    /// How much was passed on since it was last asked.
    async fn overheard(&mut self) -> usize {
        block_in_place(|| ask(self.port, &["PUBLISH", "so much", ""])).unwrap();
        let mut heard = self.heard.on_message();
        let mut count = 0;
        loop {
            let next = timeout(PATIENCE, heard.next()).await.expect("what is passed on");
            if next.expect("a connection").get_channel_name() == "so much" {
                return count;
            }
            count += 1;
        }
    }
}

/// A listener to whom nothing is said any more but what is given from now on.
async fn listener(store: &SharedStore, topics: &[Topic]) -> Listener {
    let mut listener = store.wakes().listen(topics);
    while timeout(Duration::from_millis(200), listener.hinted()).await.is_ok() {}
    listener
}

async fn hears(listener: &mut Listener, what: &str) {
    let heard = timeout(PATIENCE, listener.hinted()).await;
    heard.unwrap_or_else(|_| panic!("no hint: {what}"));
}

async fn send(store: &SharedStore) {
    store.send(&[Bytes::from_static(b"1")], None).await.unwrap();
}

async fn claim(store: &SharedStore) -> Claim {
    let request = ClaimRequest {
        below: None,
        owner: OwnerId::new("p"),
        max: 1,
        lease_us: 60_000_000,
        window: 100,
        limits: Limits::default(),
    };
    store.claim(&request).await.unwrap().remove(0)
}

async fn complete(store: &SharedStore, claim: &Claim) {
    let done = Completion::Done(claim.record(Body::Result(Payload::string("done"))));
    let answer = store.complete(&OwnerId::new("p"), &[done]).await.unwrap();
    assert_eq!(answer, [Completed::Accepted]);
}

/// By which channel an owner is seen to be alive that renews here.
async fn life(cluster: &RedisCluster, store: &SharedStore) -> String {
    let renewal = RenewRequest {
        keep: None,
        owner: OwnerId::new("p"),
        lease_us: 60_000_000,
        held: None,
        limits: Limits::default(),
    };
    store.renew(&renewal).await.unwrap();
    let node = block_in_place(|| cluster.primary_of("orders")).unwrap();
    tell(cluster, node, &["HGET", "{orders}:alive", "p"])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_hint_comes_and_goes_to_no_other_node() {
    let cluster = start(&[]);
    let url = cluster.url(&[0]);
    let (here, there) = (store(&url, 0).await, store(&url, 0).await);
    let mut input = listener(&there, &[Topic::Input]).await;
    let mut output = listener(&there, &[Topic::Output]).await;
    let mut elsewhere = Elsewhere::of(&cluster).await;
    for _ in 0..100 {
        send(&here).await;
        hears(&mut input, "of a plain send").await;
        complete(&here, &claim(&here).await).await;
        hears(&mut output, "of a script").await;
    }
    assert_eq!(elsewhere.overheard().await, 0);
    // A foreign producer's are heard either way: the one at its node, the other wherever it is said.
    let serving = block_in_place(|| cluster.primary_of("orders")).unwrap();
    tell(&cluster, serving, &["SPUBLISH", "{orders}:wake:in", ""]);
    hears(&mut input, "of a foreign producer, sharded").await;
    assert_eq!(elsewhere.overheard().await, 0);
    tell(&cluster, (serving + 1) % NODES, &["PUBLISH", "{orders}:wake:in", ""]);
    hears(&mut input, "of a foreign producer, plain").await;
    // Which is what is not done otherwise.
    tell(&cluster, serving, &["PUBLISH", "{orders}:wake:in", ""]);
    hears(&mut input, "of a foreign producer at the node, plain").await;
    assert!(elsewhere.overheard().await >= 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_line_in_full_flow_says_nothing_to_other_nodes() {
    let cluster = start(&[]);
    let mut elsewhere = Elsewhere::of(&cluster).await;
    let flow = Flow::start("cluster, sharded hints", &cluster.url(&[0]), 0).await;
    flow.finish(1_000).await;
    assert_eq!(elsewhere.overheard().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn where_sharded_channels_are_refused_plain_ones_do() {
    let cluster = start(&[]);
    for refused in ["ssubscribe", "spublish"] {
        forbid(&cluster, &format!("-{refused}"));
        goes_by_plain_channels(&cluster, refused).await;
        forbid(&cluster, &format!("+{refused}"));
    }
    forbid(&cluster, "-ssubscribe");
    forbid(&cluster, "-spublish");
    let start = block_in_place(|| cluster.primary_of("orders")).unwrap();
    tell(&cluster, start, &["FLUSHALL"]);
    let mut flow = Flow::start("cluster, no sharded channels", &cluster.url(&[0]), 0).await;
    let target = (start + 1) % NODES;
    block_in_place(|| cluster.move_slot("orders", start, target, Duration::ZERO)).unwrap();
    flow.over("the slot moved", Instant::now()).await;
    flow.finish(500).await;
}

/// As behind some proxies.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn where_there_is_no_resp3_plain_ones_do() {
    goes_by_plain_channels(&start(&["--rename-command", "HELLO", ""]), "no HELLO").await;
}

async fn goes_by_plain_channels(cluster: &RedisCluster, why: &str) {
    let mut elsewhere = Elsewhere::of(cluster).await;
    let url = cluster.url(&[0]);
    let (here, there) = (store(&url, 0).await, store(&url, 0).await);
    let mut input = listener(&there, &[Topic::Input]).await;
    let mut output = listener(&there, &[Topic::Output]).await;
    send(&here).await;
    hears(&mut input, why).await;
    complete(&here, &claim(&here).await).await;
    hears(&mut output, why).await;
    let life = life(cluster, &here).await;
    assert!(!life.is_empty() && !life.contains(":sharded/"), "{why}: {life}");
    assert!(elsewhere.overheard().await >= 2, "{why}");
}

/// A script that is refused it in its midst has written already, and must not stop there.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_script_that_is_refused_a_sharded_channel_takes_the_plain_one() {
    let cluster = start(&[]);
    let url = cluster.url(&[0]);
    let (here, there) = (store(&url, 0).await, store(&url, 0).await);
    let mut output = listener(&there, &[Topic::Output]).await;
    send(&here).await;
    let claim = claim(&here).await;
    assert!(life(&cluster, &here).await.contains(":sharded/"));
    forbid(&cluster, "-spublish");
    complete(&here, &claim).await;
    hears(&mut output, "by a plain channel").await;
}

/// As when a slot goes away and comes back before anybody noticed: the connections stand, and only the channels are gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_the_server_gave_up_is_subscribed_to_again() {
    let cluster = start(&[]);
    let store = store(&cluster.url(&[0]), 0).await;
    let mut input = listener(&store, &[Topic::Input]).await;
    let serving = block_in_place(|| cluster.primary_of("orders")).unwrap();
    let slot = tell(&cluster, serving, &["CLUSTER", "KEYSLOT", "orders"]);
    let alive = ["PUBSUB", "SHARDCHANNELS", "{orders}:alive:*"];
    let alive = || block_in_place(|| ask(cluster.port(serving), &alive)).unwrap();
    let before = alive();
    assert_eq!(before.items().len(), 1);
    for change in ["DELSLOTS", "ADDSLOTS"] {
        tell(&cluster, serving, &["CLUSTER", change, &slot]);
    }
    // That they are there again is a hint about everything.
    hears(&mut input, "that it has subscribed again").await;
    assert_eq!(alive(), before);
    tell(&cluster, serving, &["SPUBLISH", "{orders}:wake:in", ""]);
    hears(&mut input, "after it has").await;
}
