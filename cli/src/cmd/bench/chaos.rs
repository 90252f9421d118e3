//! `conga bench chaos`: faults under load, by name and seed, until all is delivered; then nothing may be lost, doubled,
//! out of place, altered or left over, and nothing stale may have counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use conga::core::shape::{Order, Shape};
use conga::ledger::{LedgerUrl, SharedLedger};
use conga::shards::{Producers, Shards};
use conga::store::{OpenOptions, StoreUrl};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::fault::Nature;
use self::injector::{Cast, Injector};
use self::report::{Findings, Report};
use self::schedule::Schedule;
use self::server::Served;
use crate::args::{Chaos, Fault, Serve};
use crate::bench::broken::{Break, Broken};
use crate::bench::collect::Collector;
use crate::bench::fleet::{Fleet, Work};
use crate::bench::judge::judge_came;
use crate::bench::load::{Load, Until};
use crate::bench::network::Network;
use crate::bench::place::Place;
use crate::bench::recorder::Recorder;
use crate::bench::trail::Trail;
use crate::settings::{Settings, wrong};
use crate::text;

mod database;
mod fault;
mod group;
mod injector;
mod log;
mod postgres;
mod report;
mod schedule;
mod self_test;
mod server;
mod zombie;

/// So many messages, where nothing else was said.
const MESSAGES: u64 = 2_000;
/// Messages per second, where messages are sent for a while. Half of the processors carry that.
const RATE: f64 = 250.0;
/// Nothing for so long is not slow but stuck: longer than any fault.
const PATIENCE: Duration = Duration::from_secs(20);
/// How many altered outputs are told in words.
const TOLD: usize = 20;

pub(super) async fn chaos(settings: &Settings, chaos: &Chaos) -> anyhow::Result<bool> {
    if chaos.self_test {
        return self_test::run(settings, chaos).await;
    }
    let report = Campaign::of(settings, chaos)?.run(settings).await?;
    if settings.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print!("{}", report.to_text());
    }
    Ok(report.passed)
}

/// What is to be done, as it is meant.
#[derive(Debug)]
struct Campaign {
    chaos: Chaos,
    faults: Vec<Fault>,
    /// How a served store is opened.
    options: OpenOptions,
    until: Until,
    rate: Option<f64>,
    /// Each fault has come.
    each: CancellationToken,
    patience: Duration,
    broken: Option<Break>,
}

impl Campaign {
    fn of(settings: &Settings, chaos: &Chaos) -> anyhow::Result<Self> {
        let url = match (settings.given_store(), chaos.serve) {
            (Some(_), Some(_)) => {
                return Err(wrong(
                    "--serve starts a store of its own: leave out --store, CONGA_STORE and `store` in the settings file",
                ));
            }
            (None, Some(serve)) => StoreUrl::Redis(serve.scheme().to_owned()),
            (Some(url), None) => url.clone(),
            (None, None) => StoreUrl::Sqlite("".into()),
        };
        let shape = shape(chaos)?;
        let mut faults = fault::chosen(&chaos.faults, &url, chaos.serve, settings.serves_record())?;
        if is_several(shape) {
            faults.retain(|fault| !fault.hits_the_leader());
        }
        let each = CancellationToken::new();
        let (until, rate) = match (chaos.messages, chaos.duration) {
            (Some(count), _) => (Until::Count(count), chaos.rate),
            (None, Some(time)) => (Until::Elapsed(time), Some(chaos.rate.unwrap_or(RATE))),
            (None, None) if faults.iter().all(|fault| fault.nature() == Nature::Processes) => {
                (Until::Count(MESSAGES), chaos.rate)
            }
            (None, None) => {
                let limit = 2 * Schedule::once(&faults) + PATIENCE;
                (Until::Told(each.clone(), limit), Some(chaos.rate.unwrap_or(RATE)))
            }
        };
        Ok(Self {
            chaos: chaos.clone(),
            faults,
            options: OpenOptions {
                shape,
                ..options(settings, chaos.serve)?
            },
            until,
            rate,
            each,
            patience: PATIENCE,
            broken: None,
        })
    }

    async fn run(self, settings: &Settings) -> anyhow::Result<Report> {
        let served = match self.chaos.serve {
            Some(serve) => Some(Served::start(serve, self.chaos.fsync).await?),
            None => None,
        };
        let recorder = Recorder::of(settings).await?;
        let place = match &served {
            Some(served) => Place::on(served.url().parse()?, self.options.clone(), "chaos")?,
            None => Place::new(settings, "chaos")?,
        };
        let mut place = place.recorded(&recorder.url);
        place.options.shape = self.options.shape;
        let network = if self.faults.iter().any(|fault| fault.nature() == Nature::Network) {
            Network::to(&place.url).await?.map(Arc::new)
        } else {
            None
        };
        let mut store = place.open().await?;
        let work = Work {
            handler: self.chaos.handler.clone(),
            handling: Vec::new(),
            concurrency: self.chaos.concurrency,
            window: self.chaos.window,
            options: place.options.clone(),
            record: place.record.clone(),
            network: network.clone(),
        };
        let sequencers = if is_several(self.options.shape) {
            0
        } else {
            self.chaos.sequencers
        };
        let fleet = Fleet::start(&place, &work, self.chaos.processors, sequencers).await?;
        // The producer's way, for as long as it sends.
        let way = match &network {
            Some(network) => Some(network.join().await?),
            None => None,
        };
        if let Some(broken) = self.broken {
            store = Arc::new(Broken::new(store, broken));
        }
        let shards = Shards::beside(store, &place.url, &place.line, &place.options).await?;
        let sender = match &way {
            Some((_, url)) => Shards::open(url, &place.line, &place.options).await?,
            None => shards.clone(),
        };
        let cast = Cast {
            url: place.url.clone(),
            line: place.line.clone(),
            work,
            processors: self.chaos.processors,
            sequencers,
        };
        let stage = Stage {
            url: place.url.to_string(),
            record: recorder.name(),
            ledger: place.open_record(shards.base()).await?,
            shards: shards.clone(),
            sender,
            json: settings.json,
        };
        let injector = Injector::new(cast, &shards, fleet, served, recorder);
        let report = self.play(&stage, injector).await;
        drop((stage, shards));
        // What is served goes away as a whole.
        if settings.serves_record() {
            place.record = LedgerUrl::Store;
        }
        if self.chaos.serve.is_none() {
            place.clear().await?;
        }
        report
    }

    /// Sends, injects and collects until all is out and healed; then judges.
    async fn play(&self, stage: &Stage, mut injector: Injector) -> anyhow::Result<Report> {
        let total = match self.until {
            Until::Count(count) => Some(count),
            Until::Elapsed(_) | Until::Told(..) => None,
        };
        let bar = text::progress("delivered", total, stage.json);
        let arrived = Arc::new(AtomicU64::new(0));
        let load = Load::new(self.until.clone(), self.rate, 200)
            .keyed(self.chaos.orders.keys())
            .bounded(self.chaos.window, arrived.clone());
        let producer = Producers::new(&stage.sender);
        let (mut ids, mut trail) = (Vec::new(), Trail::default());
        let mut collector = Collector::new(&stage.shards);
        let mut take = |partition: usize, lines: Vec<Bytes>| {
            arrived.fetch_add(lines.len() as u64, Ordering::SeqCst);
            bar.inc(lines.len() as u64);
            trail.take(partition, &lines);
        };
        let (tell, expected) = watch::channel(None);
        // No more faults; no more of anything.
        let (calm, stuck) = (CancellationToken::new(), CancellationToken::new());
        let started = Instant::now();
        let sending = async {
            let sent = load.run(&producer, |batch| ids.extend_from_slice(batch));
            if let Some(sent) = stuck.run_until_cancelled(sent).await {
                tell.send_replace(Some(sent?));
            }
            if total.is_none() {
                calm.cancel();
            }
            anyhow::Ok(())
        };
        let collecting = async {
            let all = collector.collect(expected.clone(), self.patience, &mut take).await?;
            if !all {
                stuck.cancel();
            }
            calm.cancel();
            anyhow::Ok(())
        };
        let schedule = Schedule::new(&self.faults, self.chaos.seed);
        let injecting = async {
            injector.run(schedule, &self.faults, &self.each, &calm).await?;
            anyhow::Ok(Instant::now())
        };
        let ((), (), healed) = tokio::try_join!(sending, collecting, injecting)?;
        tell.send_if_modified(|sent| sent.is_none() && sent.replace(ids.len() as u64).is_none());
        // Whatever was stuck has to move now.
        let mut findings = Findings::default();
        if !collector.collect(expected, self.patience, &mut take).await? {
            findings.no_progress(
                (ids.len() as u64).saturating_sub(arrived.load(Ordering::SeqCst)),
                self.patience,
            );
        }
        findings.repeated(collector.repeated);
        collector.finish().await?;
        bar.finish_and_clear();
        self.judge(stage, injector, (started, healed), (&load, &ids), trail, findings)
            .await
    }

    async fn judge(
        &self,
        stage: &Stage,
        mut injector: Injector,
        (started, healed): (Instant, Instant),
        (load, ids): (&Load, &[String]),
        trail: Trail,
        mut findings: Findings,
    ) -> anyhow::Result<Report> {
        let (emits, completes) = injector.tries();
        let seen = injector.strange();
        let done = injector.log.clone();
        if let Err(error) = injector.end().await {
            findings.add(format!("a service did not end cleanly: {error:#}"));
        }
        for strange in seen {
            findings.add(strange);
        }
        let each = stage.shards.status().await?;
        for status in &each {
            findings.left_over(status);
        }
        let partitions = stage.shards.partitions();
        let verdict = judge_came(partitions, &stage.ledger, ids, &trail.came, &trail.digest).await?;
        findings.records(&verdict, ids);
        altered(&trail, load, &mut findings);
        for what in &trail.strange {
            findings.add(what.clone());
        }
        findings.tries("stale emits", emits);
        findings.tries("stale completes", completes);
        let faults = log::kinds(&self.faults, &done, &trail.arrivals);
        findings.never(&faults);
        let violations = findings.list();
        let last = trail.arrivals.last().copied();
        Ok(Report {
            bench: "chaos",
            store: stage.url.clone(),
            record: stage.record.clone(),
            order: self.options.shape.unwrap_or_default().to_string(),
            seed: self.chaos.seed,
            messages: ids.len() as u64,
            elapsed_ms: text::millis(last.map_or_else(|| started.elapsed(), |last| last - started)),
            longest_gap_ms: text::millis(trail.longest_gap()),
            healed_ms: text::millis(last.map_or(Duration::ZERO, |last| last.saturating_duration_since(healed))),
            terms: each.iter().map(|status| status.term.0).max().unwrap_or(0),
            processed_again: trail.came.iter().filter(|came| came.attempts > 1).count(),
            stale_emits: emits,
            stale_completes: completes,
            passed: verdict.passed() && violations.is_empty(),
            faults,
            verdict,
            violations,
            log: log::lines(&done, &trail.arrivals, started),
        })
    }
}

/// What the line has to be.
fn shape(chaos: &Chaos) -> anyhow::Result<Option<Shape>> {
    let shape = chaos.orders.shape().map_err(wrong)?;
    if chaos.partitions.get() == 1 {
        return Ok(shape);
    }
    let shape = Shape {
        partitions: chaos.partitions,
        ..shape.unwrap_or_default()
    };
    if shape.order == Order::Total {
        return Err(wrong(
            "chaos has no sequences for total order over several partitions: --partitions goes with --order key or none",
        ));
    }
    Ok(Some(shape))
}

fn is_several(shape: Option<Shape>) -> bool {
    shape.is_some_and(|shape| shape.partitions.get() > 1)
}

/// What is served is there to be killed: what is acknowledged waits for a replica, unless told otherwise.
fn options(settings: &Settings, serve: Option<Serve>) -> anyhow::Result<OpenOptions> {
    let Some(serve) = serve else {
        return Ok(settings.options().clone());
    };
    let most = serve.replicas();
    let replicas = settings.given_replicas().unwrap_or(most.min(1));
    if replicas > most {
        let name = serve.name();
        return Err(wrong(format!(
            "--replicas {replicas} is too many: with --serve {name} a primary has {most}"
        )));
    }
    Ok(OpenOptions {
        replicas,
        ..settings.options().clone()
    })
}

/// What a campaign works on.
struct Stage {
    url: String,
    record: String,
    ledger: SharedLedger,
    /// Straight to the store: for those who measure and judge.
    shards: Shards,
    /// The producer's, through the network where there is one.
    sender: Shards,
    json: bool,
}

/// The handlers here answer what they were given.
fn altered(trail: &Trail, load: &Load, findings: &mut Findings) {
    for came in trail.altered(load).take(TOLD) {
        findings.add(format!(
            "position {}: id {}: the output is not what was sent",
            came.position, came.id
        ));
    }
}
