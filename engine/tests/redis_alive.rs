//! Law 7 on Redis: death is noticed, not only timed out; and a wrong guess is harmless.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../../cli/src/bench/redis_ask.rs"]
mod redis_ask;
#[path = "../../cli/src/bench/redis_cluster.rs"]
mod redis_cluster;
#[path = "../../cli/src/bench/redis_server.rs"]
mod redis_server;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use conga::core::lease::OwnerId;
use conga::core::message::{Body, Payload};
use conga::core::partition::{
    CampaignRequest, Claim, ClaimRequest, Completed, Completion, Cursor, EmitRequest, Emitted, Limits, Ready,
    ReceiveRequest, RenewRequest,
};
use conga::core::term::{Campaign, Role, Term};
use conga::process::{Processor, ProcessorOptions, sleep};
use conga::store::redis::{RedisOptions, RedisStore};
use conga::store::{SharedStore, Store};
use redis_ask::ask;
use redis_cluster::RedisCluster;
use redis_server::RedisServer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;

/// Long enough that nothing here is an expiry.
const MINUTE: u64 = 60_000_000;
/// A server that was just started is not asked who is gone, so the first answers take some seconds.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where the line is: at a server, or in a cluster of two primaries.
struct Place {
    url: String,
    /// Of the server that has the line.
    port: u16,
    _server: Option<RedisServer>,
    cluster: Option<RedisCluster>,
}

impl Place {
    fn server() -> Self {
        let server = RedisServer::start(&[]).expect("a Redis server");
        Self {
            url: server.url(),
            port: server.port(),
            _server: Some(server),
            cluster: None,
        }
    }

    fn cluster() -> Self {
        let cluster = RedisCluster::alone(2, Duration::from_secs(5), &[]).expect("a cluster");
        Self {
            url: cluster.url(&[0, 1]),
            port: cluster.port(cluster.primary_of("orders").unwrap()),
            _server: None,
            cluster: Some(cluster),
        }
    }

    async fn foreigner(&self) -> redis::aio::MultiplexedConnection {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.port)).unwrap();
        client.get_multiplexed_async_connection().await.unwrap()
    }

    /// The channels by which owners are seen to be alive.
    fn channels(&self) -> Vec<String> {
        let channels = ask(self.port, &["HVALS", "{orders}:alive"]).unwrap();
        channels.items().iter().map(redis_ask::Answer::text).collect()
    }
}

async fn open(place: &Place) -> RedisStore {
    open_at(&place.url).await
}

async fn open_at(url: &str) -> RedisStore {
    let line = "orders".parse().unwrap();
    RedisStore::connect(url, &line, RedisOptions::default()).await.unwrap()
}

fn renewal(owner: &str) -> RenewRequest {
    RenewRequest {
        keep: None,
        owner: OwnerId::new(owner),
        lease_us: MINUTE,
        held: None,
        limits: Limits::default(),
    }
}

async fn show(store: &RedisStore, owner: &str) {
    store.renew(&renewal(owner)).await.unwrap();
}

async fn claim(store: &RedisStore, owner: &str) -> Vec<Claim> {
    let request = ClaimRequest {
        owner: OwnerId::new(owner),
        max: 10,
        lease_us: MINUTE,
        window: 100,
        below: None,
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
    let done = |claim: &Claim| Completion::Done(claim.record(Body::Result(Payload::string(by))));
    claims.iter().map(done).collect()
}

async fn send(store: &RedisStore, count: usize) {
    store.send(&vec![Bytes::from_static(b"x"); count], None).await.unwrap();
}

#[tokio::test]
async fn what_the_dead_held_is_free_long_before_it_expires() {
    the_dead_are_noticed(&Place::server()).await;
}

#[tokio::test]
async fn what_the_dead_held_is_free_long_before_it_expires_in_a_cluster() {
    let place = Place::cluster();
    the_dead_are_noticed(&place).await;
    assert!(
        place.channels().iter().all(|channel| channel.contains(":sharded/")),
        "{:?}",
        place.channels()
    );
}

async fn the_dead_are_noticed(place: &Place) {
    let (there, here) = (open(place).await, open(place).await);
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
    the_living_are_not_taken_for_dead(&Place::server()).await;
}

#[tokio::test]
async fn the_living_are_left_alone_in_a_cluster() {
    let place = Place::cluster();
    the_living_are_not_taken_for_dead(&place).await;
    assert!(
        place.channels().iter().all(|channel| channel.contains(":sharded/")),
        "{:?}",
        place.channels()
    );
}

async fn the_living_are_not_taken_for_dead(place: &Place) {
    let (there, here, third) = (open(place).await, open(place).await, open(place).await);
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

#[tokio::test]
async fn a_wrong_guess_is_harmless() {
    a_wrong_guess_changes_nothing(&Place::server()).await;
}

#[tokio::test]
async fn a_wrong_guess_is_harmless_in_a_cluster() {
    let place = Place::cluster();
    a_wrong_guess_changes_nothing(&place).await;
    assert!(
        place.channels().iter().all(|channel| channel.contains(":sharded/")),
        "{:?}",
        place.channels()
    );
}

/// A process that has lost its subscription is taken for dead although it lives and goes on.
async fn a_wrong_guess_changes_nothing(place: &Place) {
    let (wronged, other) = (open(place).await, open(place).await);
    let mut foreigner = place.foreigner().await;
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
    let place = Place::server();
    let (there, here) = (open(&place).await, open(&place).await);
    let standby = Campaign::Standby {
        leader: Some(OwnerId::new("there")),
    };
    assert_eq!(stand(&there, "there", MINUTE).await, Campaign::Leader { term: Term(1) });
    // Its connections are closed, so that nobody listens to its channel.
    drop(there);
    let mut foreigner = place.foreigner().await;
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

/// Renews until the server that has the line now knows by which channel these are alive, and each is.
async fn show_anew(place: &Place, stores: &[(&RedisStore, &str)]) {
    let limit = Instant::now() + PATIENCE;
    loop {
        for (store, owner) in stores {
            while store.renew(&renewal(owner)).await.is_err() {
                assert!(Instant::now() < limit, "no renewal");
            }
        }
        let info = ask(place.port, &["INFO", "server"]).unwrap().text();
        let run = info.lines().find_map(|line| line.strip_prefix("run_id:")).unwrap();
        let channels = place.channels();
        if channels.len() == stores.len() && channels.iter().all(|channel| channel.contains(run)) {
            return;
        }
        assert!(Instant::now() < limit, "{channels:?} are not all of {run}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The server ends the subscriptions of a slot that is another node's now. They come again where it went.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_a_slot_went_the_dead_are_noticed_and_the_living_left_alone() {
    let mut place = Place::cluster();
    let (there, here) = (open(&place).await, open(&place).await);
    send(&here, 2).await;
    show(&there, "there").await;
    show(&here, "here").await;
    let cluster = place.cluster.take().unwrap();
    let mut from = cluster.primary_of("orders").unwrap();
    // There, and back to where their channels once were.
    for _ in 0..2 {
        let to = 1 - from;
        cluster.move_slot("orders", from, to, Duration::ZERO).unwrap();
        place.port = cluster.port(to);
        show_anew(&place, &[(&there, "there"), (&here, "here")]).await;
        from = to;
    }
    assert_eq!(claim(&there, "there").await.len(), 2);
    for _ in 0..5 {
        assert_eq!(claim(&here, "here").await, [], "it was taken from the living");
        // Longer than the pause between two looks.
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    drop(there);
    let limit = Instant::now() + PATIENCE;
    while claim(&here, "here").await.is_empty() {
        assert!(Instant::now() < limit, "nobody noticed");
    }
}

/// A user that is refused sharded channels is alive by a plain one, as is a version that knows no others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_listens_to_a_plain_channel_and_who_to_a_sharded_one_see_each_other() {
    let place = Place::cluster();
    let cluster = place.cluster.as_ref().unwrap();
    let rule = "ACL SETUSER plain on nopass ~* &* +@all -ssubscribe";
    let rule: Vec<&str> = rule.split(' ').collect();
    for node in [0, 1] {
        ask(cluster.port(node), &rule).unwrap();
    }
    let plain = place.url.replace("//", "//plain:any@");
    for (url, other_url) in [(&place.url, &plain), (&plain, &place.url)] {
        let (there, here, other) = (open_at(url).await, open_at(other_url).await, open_at(url).await);
        show(&there, "there").await;
        show(&here, "here").await;
        let channels = place.channels();
        let sharded = channels.iter().filter(|channel| channel.contains(":sharded/"));
        assert_eq!((channels.len(), sharded.count()), (2, 1), "{channels:?}");
        send(&here, 1).await;
        assert_eq!(claim(&there, "there").await.len(), 1);
        for _ in 0..5 {
            assert_eq!(claim(&here, "here").await, [], "it was taken from the living");
            assert_eq!(claim(&other, "other").await, [], "it was taken from the living");
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        drop(there);
        let limit = Instant::now() + PATIENCE;
        let mut freed = Vec::new();
        while freed.is_empty() {
            assert!(Instant::now() < limit, "nobody noticed");
            freed = claim(&here, "here").await;
        }
        here.complete(&OwnerId::new("here"), &done(&freed, "here"))
            .await
            .unwrap();
        for (store, owner) in [(&here, "here"), (&other, "other")] {
            let leaving = RenewRequest {
                lease_us: 0,
                ..renewal(owner)
            };
            store.renew(&leaving).await.unwrap();
        }
    }
}

/// Of who has listened at another server this one can't tell, however it was done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_of_another_server_proves_no_death() {
    let place = Place::cluster();
    let here = open(&place).await;
    let info = ask(place.port, &["INFO", "server"]).unwrap().text();
    let run = info.lines().find_map(|line| line.strip_prefix("run_id:")).unwrap();
    send(&here, 1).await;
    show(&here, "there").await;
    assert_eq!(claim(&here, "there").await.len(), 1);
    let says = |channel: &str| ask(place.port, &["HSET", "{orders}:alive", "there", channel]).unwrap();
    for elsewhere in ["{orders}:alive:abc:there", "{orders}:alive:sharded/abc/there"] {
        says(elsewhere);
        for _ in 0..3 {
            assert_eq!(claim(&here, "here").await, [], "{elsewhere}");
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }
    says(&format!("{{orders}}:alive:sharded/{run}/there"));
    let limit = Instant::now() + PATIENCE;
    while claim(&here, "here").await.is_empty() {
        assert!(Instant::now() < limit, "nobody noticed");
    }
}

/// Whether it still stands, which is all that a subscription on which nobody says anything can be asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quiet_subscription_is_asked_now_and_then() {
    for place in [Place::server(), Place::cluster()] {
        let store = open(&place).await;
        let limit = Instant::now() + PATIENCE;
        loop {
            let clients = ask(place.port, &["CLIENT", "LIST", "TYPE", "pubsub"]).unwrap().text();
            if clients.contains("cmd=ping") {
                break;
            }
            assert!(Instant::now() < limit, "{clients}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        drop(store);
    }
}

/// Hands on bytes both ways. When it is told to, it closes the subscriptions' side to the server, and keeps the other open and
/// silent: as one whose end was lost on the way.
async fn half_open_subscriptions(server: u16, mut cut: tokio::sync::watch::Receiver<bool>) -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let is_cut = *cut.borrow_and_update();
            let mut cut = cut.clone();
            tokio::spawn(async move {
                let server = tokio::net::TcpStream::connect(("127.0.0.1", server)).await.unwrap();
                let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
                    (client.into_split(), server.into_split());
                let mut subscribes = false;
                let (mut asked, mut told) = ([0; 4_096], [0; 4_096]);
                loop {
                    tokio::select! {
                        read = from_client.read(&mut asked) => match read {
                            Ok(count) if count > 0 => {
                                subscribes |= asked[..count].windows(9).any(|part| part == b"SUBSCRIBE");
                                to_server.write_all(&asked[..count]).await.unwrap();
                            }
                            _ => return,
                        },
                        read = from_server.read(&mut told) => match read {
                            Ok(count) if count > 0 => to_client.write_all(&told[..count]).await.unwrap(),
                            _ => return,
                        },
                        Ok(()) = cut.changed(), if subscribes && !is_cut => {
                            drop((from_server, to_server));
                            let _ = from_client.read_to_end(&mut Vec::new()).await;
                            return;
                        }
                    }
                }
            });
        }
    });
    port
}

/// Else it would be taken for dead from then on, again and again, and what it holds would be blamed for that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_whose_end_nobody_was_told_of_comes_again() {
    let place = Place::server();
    let (cut, is_cut) = tokio::sync::watch::channel(false);
    let port = half_open_subscriptions(place.port, is_cut).await;
    let there = open_at(&format!("redis://127.0.0.1:{port}")).await;
    show(&there, "there").await;
    let [channel] = <[String; 1]>::try_from(place.channels()).unwrap();
    let listeners = || ask(place.port, &["PUBSUB", "NUMSUB", &channel]).unwrap().items()[1].text();
    assert_eq!(listeners(), "1");
    cut.send(true).unwrap();
    let limit = Instant::now() + PATIENCE;
    for wanted in ["0", "1"] {
        while listeners() != wanted {
            assert!(Instant::now() < limit, "{wanted} expected");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Each is taken for dead by the other as long as it does not know.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_those_hold_who_have_lost_their_subscriptions_is_not_given_up_for_that() {
    let place = Place::server();
    let (cut, is_cut) = tokio::sync::watch::channel(false);
    let port = half_open_subscriptions(place.port, is_cut).await;
    let stop = CancellationToken::new();
    let second = Duration::from_secs(1);
    let mut running = Vec::new();
    for _ in 0..2 {
        let store: SharedStore = Arc::new(open_at(&format!("redis://127.0.0.1:{port}")).await);
        let processor = Processor::new(store, sleep(second, second), ProcessorOptions::default());
        running.push(tokio::spawn(processor.run(stop.clone())));
    }
    let here = open(&place).await;
    let limit = Instant::now() + PATIENCE;
    while place.channels().len() < 2 {
        assert!(Instant::now() < limit, "they are not there");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    send(&here, 8).await;
    while here.status().await.unwrap().in_flight < 8 {
        assert!(Instant::now() < limit, "they take nothing");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    cut.send(true).unwrap();
    let mut most = 0;
    loop {
        let strikes = ask(place.port, &["HVALS", "{orders}:strikes"]).unwrap();
        let crashes = |strikes: &redis_ask::Answer| strikes.text().split_once(' ').unwrap().1.parse().unwrap();
        most = most.max(strikes.items().iter().map(crashes).max().unwrap_or(0));
        let status = here.status().await.unwrap();
        if status.head.0 > 8 {
            assert_eq!(status.dead, 0);
            break;
        }
        assert!(Instant::now() < limit, "they are not done: {status:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    println!("blamed {most} times at most");
    assert!(most <= 4, "{most}");
    stop.cancel();
    for running in running {
        running.await.unwrap().unwrap();
    }
}
