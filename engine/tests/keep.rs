//! What stays, with real stores and the services under load: the memory of Redis stays what it is, a full one gets free, and
//! nobody waits while a long past goes.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../../cli/src/bench/redis_server.rs"]
mod redis_server;

use std::sync::Arc;
use std::time::Duration;

use conga::core::lease::OwnerId;
use conga::core::message::Payload;
use conga::core::partition::{Keep, Limit, Limits, RenewRequest};
use conga::deliver::Consumer;
use conga::line::Line;
use conga::process::{Processor, ProcessorOptions, sleep};
use conga::send::{Outgoing, Producer};
use conga::store::redis::{RedisOptions, RedisStore};
use conga::store::sqlite::{SqliteOptions, SqliteStore};
use conga::store::{SharedStore, StoreError};
use redis::aio::MultiplexedConnection;
use redis_server::RedisServer;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Generous: the machine may be busy.
const LONGEST_WAIT: Duration = Duration::from_millis(800);

fn line() -> Line {
    "orders".parse().unwrap()
}

async fn redis(server: &RedisServer) -> SharedStore {
    let store = RedisStore::connect(&server.url(), &line(), RedisOptions::default()).await;
    Arc::new(store.unwrap())
}

async fn foreigner(server: &RedisServer) -> MultiplexedConnection {
    let client = redis::Client::open(server.url()).unwrap();
    client.get_multiplexed_async_connection().await.unwrap()
}

async fn run<T: redis::FromRedisValue>(foreigner: &mut MultiplexedConnection, command: &[&str]) -> T {
    let mut cmd = redis::cmd(command[0]);
    cmd.arg(&command[1..]);
    cmd.query_async(foreigner).await.unwrap()
}

async fn used_memory(foreigner: &mut MultiplexedConnection) -> u64 {
    let info: String = run(foreigner, &["INFO", "memory"]).await;
    let line = info.lines().find_map(|line| line.strip_prefix("used_memory:"));
    line.unwrap().trim().parse().unwrap()
}

/// A processor with these limits, until the token ends it.
fn processor(store: &SharedStore, keep: Keep, shutdown: &CancellationToken) -> tokio::task::JoinHandle<()> {
    let options = ProcessorOptions {
        keep: Some(keep),
        ..ProcessorOptions::default()
    };
    let processor = Processor::new(store.clone(), sleep(Duration::ZERO, Duration::ZERO), options);
    let shutdown = shutdown.clone();
    tokio::spawn(async move {
        processor.run(shutdown).await.unwrap();
    })
}

/// Sends messages and takes their outputs.
struct Traffic {
    producer: Producer,
    consumer: Consumer,
    sent: u64,
}

impl Traffic {
    fn new(store: &SharedStore) -> Self {
        Self {
            producer: Producer::new(store.clone()),
            consumer: Consumer::new(store.clone()),
            sent: 0,
        }
    }

    /// How long it took.
    async fn pass(&mut self, count: u64) -> Duration {
        let began = Instant::now();
        let numbers = self.sent..self.sent + count;
        let batch: Vec<_> = numbers
            .map(|number| Outgoing {
                id: Some(format!("message-{number}")),
                ..Outgoing::new(Payload::string(&"x".repeat(200)))
            })
            .collect();
        self.producer.send(&batch).await.unwrap();
        self.sent += count;
        let mut received = 0;
        while received < count {
            let batch = self.consumer.next(1_000).await.unwrap();
            received += batch.outputs.len() as u64;
            self.consumer.acknowledge(&batch);
        }
        began.elapsed()
    }
}

fn last_records(count: u64) -> Keep {
    Keep {
        records: Limit::last(count),
        ..Keep::ALL
    }
}

async fn trim(store: &SharedStore, keep: Keep) -> conga::store::Result<bool> {
    let request = RenewRequest {
        owner: OwnerId::new("trimmer"),
        lease_us: 1_000_000,
        held: None,
        limits: Limits::default(),
        keep: Some(keep),
    };
    store.renew(&request).await.map(|renewed| renewed.is_overfull)
}

/// Waits, by renewing as a processor does, until so many records are left.
async fn until_recorded(store: &SharedStore, most: u64) {
    while store.status().await.unwrap().recorded > most {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_memory_of_redis_stays_what_it_is() {
    let server = RedisServer::start(&[]).unwrap();
    let mut foreigner = foreigner(&server).await;
    let store = redis(&server).await;
    let shutdown = CancellationToken::new();
    let processor = processor(&store, last_records(1_000), &shutdown);
    let mut traffic = Traffic::new(&store);
    let mut used = Vec::new();
    for _ in 0..10 {
        traffic.pass(3_000).await;
        until_recorded(&store, 1_000).await;
        used.push(used_memory(&mut foreigner).await);
    }
    shutdown.cancel();
    processor.await.unwrap();
    let of = async |foreigner: &mut MultiplexedConnection, key: &str| -> u64 {
        run(foreigner, &["MEMORY", "USAGE", key, "SAMPLES", "0"]).await
    };
    let (records, notes) = (
        of(&mut foreigner, "{orders}:record").await,
        of(&mut foreigner, "{orders}:kept").await,
    );
    println!("after each 3,000 messages, in bytes: {used:?}; 1,000 records {records}, their notes {notes}");
    assert!(used[9] < used[1] + used[1] / 10, "{used:?}");
    assert!(notes * 10 < records, "{notes} bytes of notes for {records} of records");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_memory_gets_free() {
    let server = RedisServer::start(&[]).unwrap();
    let mut foreigner = foreigner(&server).await;
    let store = redis(&server).await;
    let shutdown = CancellationToken::new();
    let processor = processor(&store, Keep::ALL, &shutdown);
    let mut traffic = Traffic::new(&store);
    traffic.pass(20_000).await;
    shutdown.cancel();
    processor.await.unwrap();
    let full = used_memory(&mut foreigner).await;
    run::<String>(
        &mut foreigner,
        &["CONFIG", "SET", "maxmemory", &(full - (1 << 20)).to_string()],
    )
    .await;
    let refused = store.send(&["a".into()], None).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    let until = Instant::now() + Duration::from_mins(1);
    while trim(&store, last_records(100)).await.unwrap() || store.status().await.unwrap().recorded > 100 {
        assert!(Instant::now() < until, "{:?}", store.status().await);
        tokio::time::sleep(Duration::from_millis(4)).await;
    }
    let free = used_memory(&mut foreigner).await;
    println!("full {full}, trimmed {free} bytes");
    store.send(&["a".into()], None).await.unwrap();
    assert!(free < full / 2, "{free} of {full} bytes");
}

/// Passes ten messages at a time until no more records are left than that. How long the slowest ten took, and all.
async fn pass_while_trimming(store: &SharedStore, most: u64) -> (Duration, Duration) {
    let shutdown = CancellationToken::new();
    let processors = [(); 2].map(|()| processor(store, last_records(most), &shutdown));
    let mut traffic = Traffic::new(store);
    let (began, mut longest) = (Instant::now(), Duration::ZERO);
    while store.status().await.unwrap().recorded > most + 1_000 {
        longest = longest.max(traffic.pass(10).await);
    }
    let took = began.elapsed();
    shutdown.cancel();
    for processor in processors {
        processor.await.unwrap();
    }
    (longest, took)
}

/// A line that has been kept whole for a million messages gets a limit.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_while_a_million_records_of_redis_go() {
    const PAST: u64 = 1_000_000;
    let server = RedisServer::start(&[]).unwrap();
    let mut foreigner = foreigner(&server).await;
    let past = "local ids, fields = {}, {}
        for position = ARGV[1] + 1, ARGV[1] + 1000 do
          local id = 'past-' .. string.format('%.0f', position)
          ids[#ids + 1] = id
          fields[#fields + 1] = id
          fields[#fields + 1] = string.rep('x', 400)
        end
        redis.call('HSET', KEYS[1], unpack(fields))
        redis.call('RPUSH', KEYS[2], cmsgpack.pack({ 1, ARGV[1] + 1000, ids }))
        redis.call('HSET', KEYS[3], 'head', ARGV[1] + 1001, 'next', ARGV[1] + 1001, 'noted', ARGV[1] + 1000)";
    let keys = ["{orders}:record", "{orders}:kept", "{orders}:meta"];
    for first in (0..PAST).step_by(1_000) {
        let first = first.to_string();
        let command = [&["EVAL", past, "3"][..], &keys, &[first.as_str()]].concat();
        run::<()>(&mut foreigner, &command).await;
    }
    let before = used_memory(&mut foreigner).await;
    run::<String>(&mut foreigner, &["CONFIG", "SET", "slowlog-log-slower-than", "300"]).await;
    run::<String>(&mut foreigner, &["CONFIG", "SET", "slowlog-max-len", "10000"]).await;
    run::<String>(&mut foreigner, &["SLOWLOG", "RESET"]).await;
    let store = redis(&server).await;
    let (longest, took) = pass_while_trimming(&store, 1_000).await;
    let slow: Vec<redis::Value> = run(&mut foreigner, &["SLOWLOG", "GET", "-1"]).await;
    let slowest = slow.iter().map(|entry| match entry {
        redis::Value::Array(fields) => match fields[2] {
            redis::Value::Int(us) => us,
            _ => 0,
        },
        _ => 0,
    });
    println!(
        "{PAST} records gone in {took:?}, {before} bytes before and {} after; ten messages took {longest:?} at most, the \
         longest step of the server {} µs",
        used_memory(&mut foreigner).await,
        slowest.max().unwrap_or(0)
    );
    assert!(longest < LONGEST_WAIT, "{longest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_while_the_past_of_an_sqlite_file_goes() {
    const PAST: u64 = 200_000;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("conga.db");
    let store: SharedStore = Arc::new(
        SqliteStore::open(&path, &line(), SqliteOptions::default())
            .await
            .unwrap(),
    );
    let past = format!(
        "WITH RECURSIVE past (position) AS (SELECT 1 UNION ALL SELECT position + 1 FROM past WHERE position < {PAST})
         INSERT INTO record (line, id, position, attempts, created, processing, processed, sequencing, sequenced, payload)
         SELECT 1, 'past-' || position, position, 1, 1, 1, 1, 1, 1, printf('\"%0200d\"', position) FROM past;
         UPDATE line SET head = {PAST} + 1, next = {PAST} + 1, last = {PAST}, recorded = {PAST};"
    );
    rusqlite::Connection::open(&path).unwrap().execute_batch(&past).unwrap();
    let (longest, took) = pass_while_trimming(&store, 1_000).await;
    println!("{PAST} records gone in {took:?}; ten messages took {longest:?} at most");
    assert!(longest < LONGEST_WAIT, "{longest:?}");
}
