//! A line in full flow: a producer, processors, sequencers and a consumer, each with a store of its own, in this process.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use conga::core::message::Payload;
use conga::core::partition::{Shelf, Status};
use conga::deliver::Consumer;
use conga::line::Line;
use conga::process::{Processor, ProcessorOptions, sleep};
use conga::send::{Outgoing, Producer};
use conga::sequence::{Sequencer, SequencerOptions};
use conga::store::SharedStore;
use conga::store::redis::{RedisOptions, RedisStore};
use tokio::task::{JoinHandle, block_in_place};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing_subscriber::EnvFilter;

use crate::redis_ask::ask;

/// How long anything may take that has to happen.
const PATIENCE: Duration = Duration::from_secs(30);
/// The line goes on so soon after each fault, on a machine that does much else at the same time.
const STALL: Duration = Duration::from_secs(5);
/// So long the line is looked at after it goes on.
const CALM: Duration = Duration::from_secs(1);
pub(crate) const PROCESSORS: usize = 3;
const CONCURRENCY: usize = 8;
const SEQUENCERS: usize = 2;
/// How many stores that makes, with the producer's and the consumer's.
const STORES: usize = PROCESSORS + SEQUENCERS + 2;
/// So many messages go out together, this far apart.
const BATCH: u64 = 5;
const PAUSE: Duration = Duration::from_millis(20);

/// Waits until all stores have subscribed at the server at `port`: they are where it is.
pub(crate) async fn all_are_at(port: u16) {
    let limit = Instant::now() + STALL;
    loop {
        // Each has a channel of its own there, by which it is seen to be alive: a sharded one in a cluster.
        let channels = |kind| block_in_place(|| ask(port, &["PUBSUB", kind, "{orders}:alive:*"])).unwrap();
        let there = [channels("CHANNELS"), channels("SHARDCHANNELS")];
        if there.iter().map(|channels| channels.items().len()).sum::<usize>() == STORES {
            return;
        }
        assert!(Instant::now() < limit, "{there:?} of {STORES} have come");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// What came out, and when.
type Outputs = Arc<Mutex<Vec<(Instant, Bytes)>>>;

/// The line with all that works at it.
pub(crate) struct Flow {
    name: &'static str,
    url: String,
    replicas: usize,
    outputs: Outputs,
    /// Ends the producer.
    enough: CancellationToken,
    producer: JoinHandle<u64>,
    /// Ends the consumer and the services.
    stop: CancellationToken,
    services: TaskTracker,
    faults: Vec<Fault>,
}

/// What was done to the server.
struct Fault {
    what: String,
    /// When it was over.
    end: Instant,
    /// Until when the line was looked at.
    until: Instant,
}

pub(crate) async fn store(url: &str, replicas: usize) -> SharedStore {
    let line: Line = "orders".parse().unwrap();
    let options = RedisOptions {
        replicas,
        ..RedisOptions::default()
    };
    Arc::new(RedisStore::connect(url, &line, options).await.expect("a store"))
}

impl Flow {
    /// Starts all, and waits until outputs come.
    pub(crate) async fn start(name: &'static str, url: &str, replicas: usize) -> Self {
        // What an operator would read, shown for a test that fails, or with CONGA_LOG for any.
        let filter = EnvFilter::try_from_env("CONGA_LOG").unwrap_or_else(|_| EnvFilter::new("warn,conga=info"));
        let _ = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_test_writer()
            .try_init();
        let (enough, stop) = (CancellationToken::new(), CancellationToken::new());
        let services = TaskTracker::new();
        for _ in 0..SEQUENCERS {
            let sequencer = Sequencer::new(store(url, replicas).await, SequencerOptions::default());
            services.spawn(sequencer.run(stop.clone()));
        }
        for _ in 0..PROCESSORS {
            let options = ProcessorOptions {
                concurrency: CONCURRENCY,
                ..ProcessorOptions::default()
            };
            let handler = sleep(Duration::from_millis(5), Duration::from_millis(50));
            let processor = Processor::new(store(url, replicas).await, handler, options);
            services.spawn(processor.run(stop.clone()));
        }
        let producer = tokio::spawn(produce(store(url, replicas).await, enough.clone()));
        let outputs = Outputs::default();
        services.spawn(consume(store(url, replicas).await, outputs.clone(), stop.clone()));
        let flow = Self {
            name,
            url: url.to_owned(),
            replicas,
            outputs,
            enough,
            producer,
            stop,
            services,
            faults: Vec::new(),
        };
        flow.delivers(100).await;
        flow
    }

    /// How many outputs there are.
    pub(crate) fn delivered(&self) -> usize {
        self.outputs.lock().unwrap().len()
    }

    /// Waits until `count` more outputs have come.
    pub(crate) async fn delivers(&self, count: usize) {
        let wanted = self.delivered() + count;
        let what = format!("{}: {wanted} outputs", self.name);
        self.until(&what, || self.delivered() >= wanted).await;
    }

    /// A fault was over at `end`. Waits until the line goes on as before.
    pub(crate) async fn over(&mut self, what: impl Into<String>, end: Instant) {
        self.all_over(&[(what.into(), end)]).await;
    }

    /// As [`Flow::over`] for several ends.
    pub(crate) async fn all_over(&mut self, faults: &[(String, Instant)]) {
        self.delivers(150).await;
        tokio::time::sleep(CALM).await;
        let until = Instant::now();
        self.faults.extend(faults.iter().map(|(what, end)| Fault {
            what: what.clone(),
            end: *end,
            until,
        }));
    }

    async fn until(&self, what: &str, is: impl Fn() -> bool) {
        let start = Instant::now();
        while !is() {
            assert!(
                start.elapsed() < PATIENCE,
                "{what}: not within {PATIENCE:?}; {:?}",
                self.status().await
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn status(&self) -> Option<Status> {
        let asked = async { store(&self.url, 0).await.status().await.ok() };
        tokio::time::timeout(Duration::from_secs(2), asked).await.ok().flatten()
    }

    /// Lets at least `least` messages through, ends all, and compares what was sent with what came out.
    pub(crate) async fn finish(self, least: u64) -> Verdict {
        let what = format!("{}: {least} outputs in all", self.name);
        self.until(&what, || self.delivered() as u64 >= least).await;
        self.enough.cancel();
        let name = self.name;
        let sent = tokio::time::timeout(PATIENCE, self.producer).await;
        let sent = sent.unwrap_or_else(|_| panic!("{name}: the producer ends")).unwrap();
        let start = Instant::now();
        while (self.outputs.lock().unwrap().len() as u64) < sent {
            let status = store(&self.url, 0).await.status().await;
            assert!(
                start.elapsed() < PATIENCE,
                "{name}: of {sent} came {}; {status:?}",
                self.outputs.lock().unwrap().len()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.stop.cancel();
        self.services.close();
        tokio::time::timeout(PATIENCE, self.services.wait())
            .await
            .expect("the services end");
        let outputs = self.outputs.lock().unwrap().clone();
        let verdict = Verdict::of(name, sent, &outputs, &self.faults);
        let store = store(&self.url, self.replicas).await;
        records_are_outputs(&store, &outputs).await;
        let status = store.status().await.unwrap();
        let left = (status.waiting, status.in_flight, status.processed, status.output);
        assert_eq!(left, (0, 0, 0, 0), "{name}: nothing is left");
        verdict
    }
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Verdict {
    /// How often a message was claimed at most.
    pub(crate) attempts: u64,
}

impl Verdict {
    fn of(name: &str, sent: u64, outputs: &[(Instant, Bytes)], faults: &[Fault]) -> Self {
        let (mut position, mut sequence, mut attempts, mut again) = (0, 0, 0, 0);
        for (_, output) in outputs {
            let output: serde_json::Value = serde_json::from_slice(output).unwrap();
            let number = |field: &str| {
                output[field]
                    .as_u64()
                    .unwrap_or_else(|| panic!("{name}: {field} of {output}"))
            };
            assert!(
                number("position") > position,
                "{name}: after position {position} came {output}"
            );
            assert_eq!(
                number("sequence"),
                sequence + 1,
                "{name}: after sequence {sequence} came {output}"
            );
            assert_eq!(output["payload"], format!("message {}", sequence + 1), "{name}");
            (position, sequence) = (number("position"), number("sequence"));
            attempts = attempts.max(number("attempts"));
            again += usize::from(number("attempts") > 1);
        }
        assert_eq!(sequence, sent, "{name}: all that was sent came out, and once");
        let stall = |fault: &Fault| {
            let (mut last, mut longest) = (fault.end, Duration::ZERO);
            let within = outputs.iter().map(|(at, _)| *at);
            for at in within.filter(|at| (fault.end..fault.until).contains(at)) {
                longest = longest.max(at - last);
                last = at;
            }
            longest
        };
        let stalls: Vec<(String, Duration)> = faults.iter().map(|fault| (fault.what.clone(), stall(fault))).collect();
        println!("{name}: {sent} sent and delivered, {again} claimed again, at most {attempts} attempts");
        for (what, stall) in &stalls {
            println!("{name}: {what}: stall of {} ms", stall.as_millis());
            assert!(*stall < STALL, "{name}: {what}: stall of {stall:?}");
        }
        Self { attempts }
    }
}

/// What the system of record holds is what came out, byte by byte.
async fn records_are_outputs(store: &SharedStore, outputs: &[(Instant, Bytes)]) {
    let mut records = HashMap::new();
    let mut from: Option<String> = None;
    loop {
        let page = store.browse(Shelf::Record, from.as_deref()).await.unwrap();
        records.extend(page.rows.into_iter().map(|row| (row.id.to_string(), row.json)));
        from = page.next;
        if from.is_none() {
            break;
        }
    }
    let mut seen = HashSet::new();
    for (_, output) in outputs {
        let value: serde_json::Value = serde_json::from_slice(output).unwrap();
        let id = value["id"].as_str().unwrap().to_owned();
        assert_eq!(records.get(&id), Some(output), "the record of {id}");
        assert!(seen.insert(id), "twice");
    }
    assert_eq!(records.len(), seen.len());
}

/// Sends until it is enough; answers how many.
async fn produce(store: SharedStore, enough: CancellationToken) -> u64 {
    let producer = Producer::new(store);
    let mut sent = 0;
    while !enough.is_cancelled() {
        let batch: Vec<Outgoing> = (sent + 1..=sent + BATCH)
            .map(|sequence| Outgoing {
                sequence: Some(sequence),
                ..Outgoing::new(Payload::string(&format!("message {sequence}")))
            })
            .collect();
        producer.insist(&batch).await.expect("sent");
        sent += BATCH;
        tokio::time::sleep(PAUSE).await;
    }
    sent
}

/// Receives until it is told to stop.
async fn consume(store: SharedStore, outputs: Outputs, stop: CancellationToken) {
    let mut consumer = Consumer::new(store);
    loop {
        let batch = tokio::select! {
            batch = consumer.next(1_000) => batch.expect("received"),
            () = stop.cancelled() => break,
        };
        let now = Instant::now();
        let received = batch.outputs.iter().map(|output| (now, output.clone()));
        outputs.lock().unwrap().extend(received);
        consumer.acknowledge(&batch);
    }
    consumer.finish().await.expect("acknowledged");
}
