//! One measured run of Conga: its services, its producer and its consumer are processes of their own.

use std::time::Duration;

use anyhow::bail;
use conga::core::shape::Shape;
use conga::ledger::LedgerUrl;
use conga::store::{OpenOptions, SharedStore};
use serde::Serialize;
use tokio::time::{interval, sleep, timeout};

use super::account::{Account, Used, accounts, used};
use super::fleet::{Fleet, Work};
use super::ground::Ground;
use super::judge::Verdict;
use super::load::{Load, Until};
use super::part::{Part, Word};
use super::stages::Stages;
use super::usage::Moment;
use crate::args::{Part as Arguments, PartRole, Services};
use crate::text;

/// How long a run may take at least, and how many messages per second it has to manage beyond that: what takes longer is
/// stuck.
const PATIENCE: Duration = Duration::from_mins(2);
const SLOWEST: u64 = 500;
/// Whoever keeps a backlog looks so often at what is delivered.
const LOOK: Duration = Duration::from_millis(5);
/// How long the services may take until one leads.
const WARM: Duration = Duration::from_secs(10);

/// What is to be run.
#[derive(Debug, Clone)]
pub(crate) struct Trial {
    pub(crate) messages: u64,
    pub(crate) size: usize,
    pub(crate) services: Services,
    /// Messages per second; nothing: as many as go.
    pub(crate) rate: Option<f64>,
    /// How many wait all the while, until the last is sent. They are there before the services start.
    pub(crate) backlog: Option<Backlog>,
    /// Where it is recorded.
    pub(crate) record: LedgerUrl,
    /// What the line has to be.
    pub(crate) shape: Option<Shape>,
    /// Its keys, as [`Load::keyed`] has them.
    pub(crate) keys: (u64, u8),
}

/// So many are sent before they are delivered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Backlog {
    pub(crate) messages: u64,
    /// What is used is looked at whenever so many more are delivered.
    pub(crate) every: u64,
}

/// What came of a run.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Ran {
    pub(crate) messages: u64,
    pub(crate) elapsed_ms: f64,
    /// Messages per second.
    pub(crate) rate: f64,
    pub(crate) accounts: Vec<Account>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) chunks: Vec<Chunk>,
    pub(crate) stages: Option<Stages>,
    pub(crate) verdict: Verdict,
}

/// A part of a long run.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Chunk {
    /// How many were delivered at its end.
    pub(crate) reached: u64,
    pub(crate) rate: f64,
    pub(crate) accounts: Vec<Account>,
}

impl Ran {
    pub(crate) fn new(messages: u64, elapsed: Duration, accounts: Vec<Account>, verdict: Verdict) -> Self {
        Self {
            messages,
            elapsed_ms: text::millis(elapsed),
            rate: rate(messages, elapsed),
            accounts,
            chunks: Vec::new(),
            stages: None,
            verdict,
        }
    }
}

#[allow(clippy::cast_precision_loss, reason = "a rate for people")]
fn rate(messages: u64, elapsed: Duration) -> f64 {
    messages as f64 / elapsed.as_secs_f64().max(1e-9)
}

impl Services {
    /// How the processors are started. What is to be said to them besides goes here.
    pub(crate) fn work(&self, handler: &str, options: &OpenOptions) -> Work {
        Work {
            options: options.clone(),
            record: LedgerUrl::Store,
            handler: handler.to_owned(),
            handling: Vec::new(),
            concurrency: self.concurrency,
            window: self.window,
            network: None,
        }
    }
}

/// How long a run of so many messages may take.
pub(crate) fn patience(messages: u64) -> Duration {
    PATIENCE + Duration::from_secs(messages / SLOWEST)
}

/// What a part is told, for a run of this name.
pub(crate) fn arguments(role: PartRole, run: &str, messages: u64, size: usize) -> Arguments {
    Arguments {
        role,
        run: run.to_owned(),
        messages,
        size,
        rate: None,
        bound: None,
        batch: None,
        keys: 0,
        hot: 0,
    }
}

impl Trial {
    /// As many messages as go.
    pub(crate) fn new(messages: u64, size: usize, services: &Services) -> Self {
        Self {
            messages,
            size,
            services: services.clone(),
            rate: None,
            backlog: None,
            record: LedgerUrl::Store,
            shape: None,
            keys: (0, 0),
        }
    }

    /// The same on a line of this shape, whose messages have so many keys, as [`Load::keyed`] has it.
    pub(crate) fn ordered(self, shape: Option<Shape>, keys: (u64, u8)) -> Self {
        Self { shape, keys, ..self }
    }

    /// The same, recorded elsewhere.
    pub(crate) fn recorded(self, record: &LedgerUrl) -> Self {
        Self {
            record: record.clone(),
            ..self
        }
    }

    /// Runs Conga.
    pub(crate) async fn run(&self, ground: &Ground) -> anyhow::Result<Ran> {
        let mut site = ground.site().await?;
        site.place.record = self.record.clone();
        site.place.options.shape = self.shape;
        let site = site;
        let place = &site.place;
        let store = place.open().await?;
        let run = Load::name();
        let start = |role, rate, bound| {
            let arguments = Arguments {
                rate,
                bound,
                keys: self.keys.0,
                hot: self.keys.1,
                ..arguments(role, &run, self.messages, self.size)
            };
            async move { Part::start(&place.url, place.options.replicas, &place.line, &arguments).await }
        };
        let bound = self.backlog.map(|backlog| backlog.messages);
        let mut producer = start(PartRole::Produce, self.rate, bound).await?;
        let mut consumer = start(PartRole::Consume, None, None).await?;
        let patience = patience(self.messages);
        let running = async {
            if let Some(bound) = bound {
                producer.tell(Word::Go).await?;
                waits(&store, bound.min(self.messages)).await?;
            }
            let work = Work {
                record: place.record.clone(),
                ..self.services.work("echo", &place.options)
            };
            let fleet = Fleet::start(place, &work, self.services.processors, self.services.sequencers).await?;
            led(&store).await?;
            let before = used(&site, &[&producer, &consumer], &fleet).await?;
            consumer.tell(Word::Go).await?;
            let began = Moment::now();
            if self.backlog.is_none() {
                producer.tell(Word::Go).await?;
            }
            let mut watch = Watch::new(self.backlog.map(|backlog| backlog.every), began, before.clone());
            let mut looks = interval(LOOK);
            let ended = loop {
                // By what is delivered and not by what the consumer has: it may lag behind, and then less would wait.
                tokio::select! {
                    done = consumer.done() => break done?,
                    _ = looks.tick(), if self.backlog.is_some() => {
                        let delivered = store.status().await?.head.0 - 1;
                        producer.tell(Word::Delivered(delivered)).await?;
                        if watch.is_due(delivered) {
                            let used = used(&site, &[&producer, &consumer], &fleet).await?;
                            watch.look(delivered, Moment::now(), used);
                        }
                    }
                }
            };
            let after = used(&site, &[&producer, &consumer], &fleet).await?;
            producer.done().await?;
            anyhow::Ok((
                fleet,
                watch,
                ended.since(began),
                accounts(&before, &after, self.messages),
            ))
        };
        let Ok(ran) = timeout(patience, running).await else {
            let status = store.status().await?;
            bail!(
                "{} messages were not through after {} s: head {}, waiting {}, in flight {}, processed {}",
                self.messages,
                patience.as_secs(),
                status.head.0,
                status.waiting,
                status.in_flight,
                status.processed
            );
        };
        let (fleet, watch, elapsed, accounts) = ran?;
        producer.end().await?;
        let Some((testimony, stages)) = consumer.end().await? else {
            bail!("the consumer said nothing about what it received");
        };
        fleet.stop().await?;
        let load = Load::new(Until::Count(self.messages), None, self.size).of_run(&run);
        let load = load.keyed(self.keys);
        let ledger = place.open_record(&store).await?;
        let verdict = testimony.against_record(&store, &ledger, &load).await?;
        drop(store);
        site.clear().await?;
        Ok(Ran {
            chunks: watch.chunks,
            stages: Some(stages),
            ..Ran::new(self.messages, elapsed, accounts, verdict)
        })
    }
}

/// Waits until so many messages are there.
async fn waits(store: &SharedStore, messages: u64) -> anyhow::Result<()> {
    while store.status().await?.waiting < messages {
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Waits until one sequencer leads.
async fn led(store: &SharedStore) -> anyhow::Result<()> {
    let leads = async {
        while store.status().await?.leader.is_none() {
            sleep(Duration::from_millis(5)).await;
        }
        anyhow::Ok(())
    };
    match timeout(WARM, leads).await {
        Ok(led) => led,
        Err(_) => bail!("no sequencer leads after {} s", WARM.as_secs()),
    }
}

/// Looks at what is used, once for each so many messages.
struct Watch {
    every: Option<u64>,
    reached: u64,
    at: Moment,
    used: Vec<Used>,
    chunks: Vec<Chunk>,
}

impl Watch {
    fn new(every: Option<u64>, at: Moment, used: Vec<Used>) -> Self {
        Self {
            every,
            reached: 0,
            at,
            used,
            chunks: Vec::new(),
        }
    }

    fn is_due(&self, count: u64) -> bool {
        self.every.is_some_and(|every| count / every > self.reached / every)
    }

    fn look(&mut self, count: u64, at: Moment, used: Vec<Used>) {
        let messages = count - self.reached;
        self.chunks.push(Chunk {
            reached: count,
            rate: rate(messages, at.since(self.at)),
            accounts: accounts(&self.used, &used, messages),
        });
        (self.reached, self.at, self.used) = (count, at, used);
    }
}
