//! The services at work while PostgreSQL is killed, stopped, and its connections are ended: nothing is lost, doubled or out
//! of place, and what came out is what the table holds.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use conga::core::message::{Output, Payload, Position, Record};
use conga::deliver::Consumer;
use conga::ledger::SharedLedger;
use conga::ledger::postgres::PostgresLedger;
use conga::line::Line;
use conga::process::{HandlerError, Message, Processor, ProcessorOptions};
use conga::record::LedgerRows;
use conga::send::{Outgoing, Producer};
use conga::store::memory::MemoryStore;
use conga::store::{Delivery, SharedStore};
use tokio::task::{JoinHandle, block_in_place};
use tokio_util::sync::CancellationToken;

use crate::desk::{Desk as _, PostgresDesk};
use crate::postgres_server::PostgresServer;

/// How long anything may take that has to happen.
const PATIENCE: Duration = Duration::from_mins(1);
/// A process has so many connections at most.
const CONNECTIONS: usize = 6;
const PROCESSORS: usize = 3;
/// What each works at, and so many times that it may hold.
const CONCURRENCY: usize = 32;
const HELD: usize = 4;
pub(crate) const WINDOW: u64 = 500;

/// A line at which a producer and processors work, until it is ended.
pub(crate) struct Flow {
    pub(crate) desk: PostgresDesk,
    line: Line,
    pub(crate) store: SharedStore,
    pub(crate) sent: Arc<AtomicU64>,
    handled: Arc<AtomicU64>,
    consumer: Consumer,
    pub(crate) outputs: Vec<Bytes>,
    services: Vec<JoinHandle<()>>,
    producing: CancellationToken,
    stop: CancellationToken,
}

fn number(message: &Message) -> u64 {
    message.id.as_str().parse().unwrap_or(0)
}

impl Flow {
    pub(crate) async fn start() -> Self {
        let desk = PostgresDesk::new().await;
        let line: Line = "orders".parse().unwrap();
        let store: SharedStore = Arc::new(MemoryStore::default().delivering(Delivery::Store));
        let (sent, handled) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (producing, stop) = (CancellationToken::new(), CancellationToken::new());
        let mut services = Vec::new();
        for process in 0..PROCESSORS {
            let ledger: SharedLedger = Arc::new(PostgresLedger::open(&desk.0.url(), &line).await.unwrap());
            let mut options = ProcessorOptions {
                concurrency: CONCURRENCY,
                ..ProcessorOptions::default()
            };
            options.claim.window = WINDOW;
            let handled = handled.clone();
            // Another answer from each, so that whose it was can be seen.
            let handler = tower::service_fn(move |message: Message| {
                let handled = handled.clone();
                async move {
                    tokio::time::sleep(Duration::from_millis(number(&message) % 7)).await;
                    handled.fetch_add(1, Ordering::SeqCst);
                    Ok::<_, HandlerError>(Payload::string(&format!(
                        "{} by {process} at {}",
                        message.id, message.attempt
                    )))
                }
            });
            let processor = Processor::new(store.clone(), handler, options).with_ledger(ledger);
            let stop = stop.clone();
            services.push(tokio::spawn(async move {
                processor.run(stop).await.unwrap();
            }));
        }
        let producer = Producer::new(store.clone());
        let (count, until) = (sent.clone(), producing.clone());
        services.push(tokio::spawn(async move {
            while !until.is_cancelled() {
                let next = count.load(Ordering::SeqCst) + 1;
                let batch: Vec<Outgoing> = (next..next + 5)
                    .map(|number| Outgoing {
                        id: Some(number.to_string()),
                        ..Outgoing::new(Payload::string("x"))
                    })
                    .collect();
                producer.insist(&batch).await.unwrap();
                count.fetch_add(5, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }));
        Self {
            consumer: Consumer::new(store.clone()),
            desk,
            line,
            store,
            sent,
            handled,
            outputs: Vec::new(),
            services,
            producing,
            stop,
        }
    }

    /// Takes in outputs until `enough`.
    pub(crate) async fn until(&mut self, what: &str, mut enough: impl FnMut(&Self) -> bool) {
        let start = Instant::now();
        while !enough(self) {
            assert!(start.elapsed() < PATIENCE, "not in {PATIENCE:?}: {what}");
            let next = tokio::time::timeout(Duration::from_millis(20), self.consumer.next(1_000)).await;
            if let Ok(batch) = next {
                let batch = batch.unwrap();
                self.consumer.acknowledge(&batch);
                self.outputs.extend(batch.outputs);
            }
        }
    }

    /// Takes in so many more.
    pub(crate) async fn more(&mut self, count: usize) {
        let wanted = self.outputs.len() + count;
        self.until("it goes on", |flow| flow.outputs.len() >= wanted).await;
    }

    /// Does something to the server, and says how long after it nothing came out.
    pub(crate) async fn healed(&mut self, name: &str, how: impl FnOnce(&mut PostgresServer)) {
        block_in_place(|| how(&mut self.desk.0));
        let (healed, before) = (Instant::now(), self.outputs.len());
        self.until("it goes on again", |flow| flow.outputs.len() > before).await;
        println!("{name}: went on {:?} after it answered", healed.elapsed());
        self.more(200).await;
    }

    /// Everything comes out, once, in order and as the table has it.
    pub(crate) async fn end(mut self) {
        self.producing.cancel();
        let sent = self.sent.clone();
        // The last batch may be just on its way.
        tokio::time::sleep(Duration::from_millis(50)).await;
        self.until("all comes out", |flow| {
            flow.outputs.len() as u64 >= sent.load(Ordering::SeqCst)
        })
        .await;
        self.stop.cancel();
        for service in self.services {
            service.await.unwrap();
        }
        let mut expected = 1;
        let mut held = HashMap::new();
        let ledger: SharedLedger = Arc::new(PostgresLedger::open(&self.desk.0.url(), &self.line).await.unwrap());
        let mut rows = LedgerRows::new(ledger);
        while let Some(page) = rows.next().await.unwrap() {
            for row in page {
                assert!(
                    held.insert(row.id.clone(), Output::parse(&row.json).unwrap().record)
                        .is_none()
                );
            }
        }
        for output in &self.outputs {
            let record = Output::parse(output).unwrap().record;
            assert_eq!(record.position, Position(expected));
            assert_eq!(record.id.as_str(), expected.to_string());
            let row = held.remove(&record.id).expect("a row");
            assert!(row.attempts <= record.attempts);
            let same = Record {
                attempts: record.attempts,
                processing: record.processing,
                ..row
            };
            assert_eq!(same, record);
            expected += 1;
        }
        assert!(held.is_empty(), "rows of what did not come out: {held:?}");
        assert_eq!(expected - 1, sent.load(Ordering::SeqCst));
        println!(
            "{} messages, handled {} times",
            expected - 1,
            self.handled.load(Ordering::SeqCst)
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn killed_and_started_again() {
    let mut flow = Flow::start().await;
    for pause in [0, 300, 1_000] {
        flow.more(100).await;
        flow.healed("kill -9", |server| {
            server.kill().unwrap();
            std::thread::sleep(Duration::from_millis(pause));
            server.start_again().unwrap();
        })
        .await;
    }
    flow.end().await;
}

/// Away for longer than any lease: those go on being renewed, no handler runs a second time, and no more piles up than the
/// processors may have.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn away_for_a_while() {
    let mut flow = Flow::start().await;
    flow.more(200).await;
    block_in_place(|| flow.desk.0.stop()).unwrap();
    let sent = flow.sent.load(Ordering::SeqCst);
    flow.until("a window is sent", |flow| {
        flow.sent.load(Ordering::SeqCst) > sent + 2 * WINDOW
    })
    .await;
    let (waited, before) = (Instant::now(), flow.outputs.len());
    flow.until("time goes by", |_| waited.elapsed() > Duration::from_secs(3))
        .await;
    assert_eq!(flow.outputs.len(), before, "delivered before it was recorded");
    let status = flow.store.status().await.unwrap();
    assert!(status.in_flight + status.processed <= WINDOW, "{status:?}");
    let handled = flow.handled.load(Ordering::SeqCst);
    assert!(
        status.in_flight <= (PROCESSORS * HELD * CONCURRENCY) as u64,
        "{status:?}"
    );
    assert!(handled <= flow.outputs.len() as u64 + WINDOW);
    flow.healed("away", |server| server.start_again().unwrap()).await;
    let (handled, sent) = (flow.handled.clone(), flow.sent.clone());
    flow.end().await;
    assert_eq!(handled.load(Ordering::SeqCst), sent.load(Ordering::SeqCst));
}

/// Again and again, under load: some in the midst of a commit, whose outcome then nobody knows.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn connections_ended_in_the_midst() {
    let mut flow = Flow::start().await;
    flow.more(50).await;
    let (client, connection) = tokio_postgres::connect(&flow.desk.0.url(), tokio_postgres::NoTls)
        .await
        .unwrap();
    let driving = tokio::spawn(connection);
    let (over, ended) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let (told, count) = (over.clone(), ended.clone());
    let ending = tokio::spawn(async move {
        let sql = "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity \
                   WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'";
        while !told.load(Ordering::SeqCst) {
            let row = client.query_one(sql, &[]).await.unwrap();
            let ended: i64 = row.get(0);
            assert!(ended.unsigned_abs() <= (PROCESSORS * CONNECTIONS) as u64);
            count.fetch_add(ended.unsigned_abs(), Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(7)).await;
        }
        drop(client);
    });
    flow.until("connections are ended", |_| ended.load(Ordering::SeqCst) >= 500)
        .await;
    over.store(true, Ordering::SeqCst);
    ending.await.unwrap();
    driving.await.unwrap().unwrap();
    println!("{} connections ended", ended.load(Ordering::SeqCst));
    flow.more(500).await;
    flow.end().await;
}
