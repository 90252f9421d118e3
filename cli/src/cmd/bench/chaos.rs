//! `conga bench chaos`: faults under load, by name and seed, until all is delivered; then nothing may be lost, doubled,
//! out of place, altered or left over, and nothing stale may have counted.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use conga::ledger::{LedgerUrl, SharedLedger};
use conga::shards::{Producers, Shards};
use conga::store::OpenOptions;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::fault::Nature;
use self::injector::{Cast, Injector};
use self::report::{Findings, Report};
use self::schedule::Schedule;
use self::server::Served;
use crate::args::{Chaos, Fault};
use crate::bench::broken::{Break, Broken};
use crate::bench::collect::Collector;
use crate::bench::fleet::{Fleet, Work};
use crate::bench::load::{Load, POISON, Until};
use crate::bench::network::Network;
use crate::bench::place::Place;
use crate::bench::recorder::Recorder;
use crate::bench::trail::Trail;
use crate::settings::Settings;
use crate::text;

mod blame;
mod database;
mod fault;
mod group;
mod injector;
mod judgement;
mod log;
mod plan;
mod poison;
mod postgres;
mod report;
mod schedule;
mod self_test;
mod server;
mod zombie;

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
    sequencers: usize,
    until: Until,
    rate: Option<f64>,
    /// Which messages kill their processor.
    poison: BTreeSet<u64>,
    /// Each fault has come.
    each: CancellationToken,
    /// Nothing for so long is not slow but stuck.
    patience: Duration,
    broken: Option<Break>,
}

impl Campaign {
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
        let store = place.open().await?;
        let work = Work {
            handler: self.chaos.handler.clone(),
            handling: self.handling(),
            concurrency: self.chaos.concurrency,
            window: self.chaos.window,
            options: place.options.clone(),
            record: place.record.clone(),
            network: network.clone(),
        };
        let fleet = Fleet::start(&place, &work, self.chaos.processors, self.sequencers).await?;
        // The producer's way, for as long as it sends.
        let way = match &network {
            Some(network) => Some(network.join().await?),
            None => None,
        };
        let mut shards = Shards::beside(store, &place.url, &place.line, &place.options).await?;
        if let Some(broken) = self.broken {
            shards = Broken::line(&shards, broken);
        }
        let sender = match &way {
            Some((_, url)) => Shards::open(url, &place.line, &place.options).await?,
            None => shards.clone(),
        };
        let cast = Cast {
            url: place.url.clone(),
            line: place.line.clone(),
            work,
            processors: self.chaos.processors,
            sequencers: self.sequencers,
            poisoned: !self.poison.is_empty(),
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

    /// What processors are told besides.
    fn handling(&self) -> Vec<String> {
        if self.poison.is_empty() {
            return Vec::new();
        }
        vec!["--abort-at".to_owned(), POISON.to_owned()]
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
            .numbered(stage.shards.are_merged().then_some(1))
            .poisoned(self.poison.clone())
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
        // No more faults; no more of anything; nothing is waited for any more.
        let [calm, stuck, over] = [(); 3].map(|()| CancellationToken::new());
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
            over.cancel();
            anyhow::Ok(())
        };
        let schedule = Schedule::new(&self.faults, self.chaos.seed);
        let injecting = async {
            injector.run(schedule, &self.faults, &self.each, &calm).await?;
            let healed = Instant::now();
            injector.attend(&over).await?;
            anyhow::Ok(healed)
        };
        let ((), (), healed) = tokio::try_join!(sending, collecting, injecting)?;
        tell.send_if_modified(|sent| sent.is_none() && sent.replace(ids.len() as u64).is_none());
        // Whatever was stuck has to move now.
        let mut findings = Findings::default();
        let over = CancellationToken::new();
        let collecting = async {
            let all = collector.collect(expected, self.patience, &mut take).await?;
            over.cancel();
            anyhow::Ok(all)
        };
        let (all, ()) = tokio::try_join!(collecting, injector.attend(&over))?;
        if !all {
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
