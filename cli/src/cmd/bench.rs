//! `conga bench`: burst and soak here, the others in files of their own.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use conga::send::Producer;
use conga::store::SharedStore;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::args::{self, Bench, Burst, Soak};
use crate::bench::collect::{Collected, collect};
use crate::bench::fleet::{Fleet, Work};
use crate::bench::judge::{Verdict, judge_run};
use crate::bench::load::{Load, Until};
use crate::bench::page::Page;
use crate::bench::picture::positions_over_time;
use crate::bench::place::Place;
use crate::bench::recorder::Recorder;
use crate::bench::stages::Stages;
use crate::settings::{Settings, wrong};
use crate::text;

mod chaos;
mod latency;
mod limit;
mod part;
mod scale;
mod setup;
mod shards;
mod throughput;

pub(crate) async fn run(settings: &Settings, bench: Bench) -> anyhow::Result<bool> {
    match bench {
        Bench::Burst(arguments) => burst(settings, arguments).await,
        Bench::Soak(arguments) => soak(settings, arguments).await,
        Bench::Chaos(chaos) => chaos::chaos(settings, &chaos).await,
        Bench::Limit(limit) => limit::limit(settings, &limit).await,
        Bench::Throughput(throughput) => throughput::throughput(settings, &throughput).await,
        Bench::Latency(latency) => latency::latency(settings, &latency).await,
        Bench::Scale(scale) => scale::scale(settings, &scale).await,
        Bench::Shards(spread) => shards::shards(settings, &spread).await,
        Bench::Part(part) => part::part(settings, &part).await,
    }
}

/// What a benchmark found.
#[derive(Debug, Serialize)]
struct Report {
    bench: &'static str,
    store: String,
    record: String,
    processors: usize,
    concurrency: usize,
    sequencers: usize,
    work_ms: f64,
    payload_bytes: usize,
    /// From the start of the first process until all of them worked.
    start_ms: f64,
    /// From the first send to the last delivery.
    elapsed_ms: f64,
    throughput: f64,
    longest_gap_ms: f64,
    #[serde(flatten)]
    more: More,
    stages: Stages,
    verdict: Verdict,
    passed: bool,
}

/// What only one of them has.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum More {
    Burst {
        messages: u64,
        /// ⌈messages ÷ total concurrency⌉ × work
        ideal_ms: f64,
        /// Elapsed ÷ ideal; nothing where the ideal is zero.
        ratio: Option<f64>,
    },
    Soak {
        duration_ms: f64,
        rate: f64,
        /// Messages waiting to be claimed, each second.
        backlog: Vec<u64>,
        /// Whether more waited in the last third than in the first, by more than a tenth of a second's messages.
        growing: bool,
    },
}

async fn burst(settings: &Settings, burst: Burst) -> anyhow::Result<bool> {
    let (messages, work) = (burst.messages, burst.work);
    let handler = burst.handler.unwrap_or_else(|| waits(work));
    let run = Run::start(settings, burst.fleet, work, handler, burst.handling.typed()).await?;
    let load = Load::new(Until::Count(messages), None, run.fleet_args.size).keyed(run.fleet_args.orders.keys());
    let went = run.go(&load, Some(messages), settings.json, |_| ()).await?;
    let total = (run.fleet_args.processors * run.fleet_args.concurrency) as u64;
    let ideal = work * u32::try_from(messages.div_ceil(total)).context("--messages is too large")?;
    let more = More::Burst {
        messages,
        ideal_ms: text::millis(ideal),
        ratio: (!ideal.is_zero()).then(|| went.elapsed.as_secs_f64() / ideal.as_secs_f64()),
    };
    run.end(settings, "burst", went, more).await
}

async fn soak(settings: &Settings, soak: Soak) -> anyhow::Result<bool> {
    let work = soak.work;
    let run = Run::start(settings, soak.fleet, work, waits(work), Vec::new()).await?;
    let slots = u32::try_from(run.fleet_args.processors * run.fleet_args.concurrency).unwrap_or(u32::MAX);
    let rate = f64::from(slots) / work.as_secs_f64() * soak.load / 100.0;
    let load =
        Load::new(Until::Elapsed(soak.duration), Some(rate), run.fleet_args.size).keyed(run.fleet_args.orders.keys());
    let mut backlog = Vec::new();
    let went = run
        .go(&load, None, settings.json, |waiting| backlog.push(waiting))
        .await?;
    // The last looks fall into the time after the load.
    #[allow(clippy::cast_possible_truncation, reason = "a number of seconds")]
    backlog.truncate(soak.duration.as_secs() as usize);
    let more = More::Soak {
        duration_ms: text::millis(soak.duration),
        rate,
        growing: is_growing(&backlog, rate),
        backlog,
    };
    run.end(settings, "soak", went, more).await
}

#[allow(clippy::cast_precision_loss, reason = "averages")]
fn is_growing(backlog: &[u64], rate: f64) -> bool {
    let third = backlog.len() / 3;
    let mean = |part: &[u64]| part.iter().sum::<u64>() as f64 / part.len().max(1) as f64;
    mean(&backlog[backlog.len() - third..]) > mean(&backlog[..third]) + rate / 10.0
}

/// The handler that takes so long.
fn waits(work: Duration) -> String {
    format!("sleep:{}us", work.as_micros())
}

/// A fleet at work on a line of its own.
struct Run {
    fleet_args: args::Fleet,
    work: Duration,
    place: Place,
    recorder: Recorder,
    store: SharedStore,
    fleet: Fleet,
    start: Duration,
}

/// What a load came to.
struct Went {
    elapsed: Duration,
    ids: Vec<String>,
    collected: Collected,
}

impl Run {
    async fn start(
        settings: &Settings,
        fleet_args: args::Fleet,
        work: Duration,
        handler: String,
        handling: Vec<String>,
    ) -> anyhow::Result<Self> {
        let recorder = Recorder::of(settings).await?;
        let mut place = Place::new(settings, "bench")?.recorded(&recorder.url);
        place.options.shape = fleet_args.orders.shape().map_err(wrong)?;
        let store = place.open().await?;
        let service = Work {
            handler,
            handling,
            concurrency: fleet_args.concurrency,
            window: fleet_args.window,
            options: place.options.clone(),
            record: place.record.clone(),
            network: None,
        };
        let started = Instant::now();
        let fleet = Fleet::start(&place, &service, fleet_args.processors, fleet_args.sequencers).await?;
        Ok(Self {
            fleet_args,
            work,
            place,
            recorder,
            store,
            fleet,
            start: started.elapsed(),
        })
    }

    /// Sends the load and collects what comes of it; tells each second how many messages wait.
    async fn go(&self, load: &Load, total: Option<u64>, json: bool, mut look: impl FnMut(u64)) -> anyhow::Result<Went> {
        let bar = text::progress("delivered", total, json);
        let ids = Arc::new(Mutex::new(Vec::new()));
        let (tell, expected) = watch::channel(None);
        // Nothing for so long, with all processes alive, is not slow but lost.
        let patience = Duration::from_secs(20) + 2 * self.work;
        let counted = bar.clone();
        let collecting = collect(self.store.clone(), expected, patience, move |count| counted.inc(count));
        let accepted = ids.clone();
        let producer = Producer::new(self.store.clone());
        let started = Instant::now();
        let sending = async {
            let sent = load
                .run(&producer, |batch| {
                    accepted
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .extend_from_slice(batch);
                })
                .await?;
            tell.send_replace(Some(sent));
            anyhow::Ok(())
        };
        let looking = async {
            let mut seconds = tokio::time::interval(Duration::from_secs(1));
            seconds.tick().await;
            loop {
                seconds.tick().await;
                look(self.store.status().await?.waiting);
            }
            #[allow(unreachable_code, reason = "says what an error is")]
            anyhow::Ok(())
        };
        let collected = tokio::select! {
            both = async { tokio::try_join!(sending, collecting) } => both?.1,
            looked = looking => { looked?; unreachable!("looking ends by an error only") }
        };
        bar.finish_and_clear();
        let ids = std::mem::take(&mut *ids.lock().unwrap_or_else(PoisonError::into_inner));
        let elapsed = collected
            .last()
            .map_or_else(|| started.elapsed(), |last| last - started);
        Ok(Went {
            elapsed,
            ids,
            collected,
        })
    }

    /// Ends the fleet, judges, prints, and leaves nothing behind.
    async fn end(self, settings: &Settings, bench: &'static str, went: Went, more: More) -> anyhow::Result<bool> {
        self.fleet.stop().await?;
        let Collected { lines, outputs, .. } = &went.collected;
        let verdict = judge_run(
            &self.store,
            &self.place.open_record(&self.store).await?,
            &went.ids,
            lines,
            outputs,
        )
        .await?;
        #[allow(clippy::cast_precision_loss, reason = "a rate for people")]
        let throughput = outputs.len() as f64 / went.elapsed.as_secs_f64();
        let report = Report {
            bench,
            store: self.place.url.to_string(),
            record: self.recorder.name(),
            processors: self.fleet_args.processors,
            concurrency: self.fleet_args.concurrency,
            sequencers: self.fleet_args.sequencers,
            work_ms: text::millis(self.work),
            payload_bytes: self.fleet_args.size,
            start_ms: text::millis(self.start),
            elapsed_ms: text::millis(went.elapsed),
            throughput,
            longest_gap_ms: text::millis(went.collected.longest_gap()),
            more,
            stages: Stages::of(outputs, Some(self.work))?,
            passed: verdict.passed(),
            verdict,
        };
        if settings.json {
            println!("{}", serde_json::to_string(&report)?);
        } else {
            print!("{}", report.to_text());
        }
        if let Some(path) = &self.fleet_args.report {
            let figures = report.figures();
            Page {
                title: &format!("conga bench {bench}"),
                story: "Real processes on one line; what came out was compared with what was sent and with the record.",
                figures: &figures,
                verdict: &report.verdict,
                stages: &report.stages,
                picture: &positions_over_time(outputs, &[])?,
            }
            .write(path)?;
        }
        drop(self.store);
        self.place.clear().await?;
        Ok(report.passed)
    }
}

impl Report {
    fn figures(&self) -> Vec<(&'static str, String)> {
        let mut figures = vec![
            ("store", self.store.clone()),
            ("record", self.record.clone()),
            (
                "services",
                format!(
                    "{} processors × {}, {} sequencers; all up after {:.0} ms",
                    self.processors, self.concurrency, self.sequencers, self.start_ms
                ),
            ),
            (
                "work",
                format!("{} ms a message, payload {} bytes", self.work_ms, self.payload_bytes),
            ),
        ];
        match &self.more {
            More::Burst {
                messages,
                ideal_ms,
                ratio,
            } => {
                figures.push(("messages", messages.to_string()));
                let ratio = ratio.map_or(String::new(), |ratio| {
                    format!(", {ratio:.3} of the ideal {ideal_ms:.0} ms")
                });
                figures.push(("elapsed", format!("{:.1} ms{ratio}", self.elapsed_ms)));
            }
            More::Soak {
                rate, backlog, growing, ..
            } => {
                figures.push((
                    "rate",
                    format!("{rate:.0} messages/s for {:.1} s", self.elapsed_ms / 1e3),
                ));
                let most = backlog.iter().max().copied().unwrap_or(0);
                let grows = if *growing { "grows" } else { "does not grow" };
                figures.push(("backlog", format!("{grows}; at most {most} waiting")));
            }
        }
        figures.push(("throughput", format!("{:.0} messages/s", self.throughput)));
        figures
    }

    fn to_text(&self) -> String {
        let mut text = String::new();
        for (name, value) in self.figures() {
            text.push_str(&format!("  {name:<12}{value}\n"));
        }
        text.push_str(&self.stages.table());
        text.push_str(&verdict_text(&self.verdict));
        text
    }
}

/// The verdict for people.
pub(crate) fn verdict_text(verdict: &Verdict) -> String {
    let word = if verdict.passed() { "verified" } else { "FAILED" };
    let table = |rows| format!(", rows in the table {rows}");
    let records = verdict
        .records
        .map_or(verdict.rows.map_or(String::new(), table), |records| {
            let rows = verdict.rows.map_or(String::new(), table);
            format!(", records {records}{rows}, differing {}", verdict.differing)
        });
    let mut text = format!(
        "  {word}: sent {}, delivered {}, lost {}, duplicated {}, reordered {}{records}\n",
        verdict.sent, verdict.delivered, verdict.lost, verdict.duplicated, verdict.reordered
    );
    for violation in &verdict.violations {
        text.push_str(&format!("    {violation}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backlog_that_grows_is_seen() {
        let steady: Vec<u64> = (0..60).map(|second| second % 7).collect();
        assert!(!is_growing(&steady, 1_000.0));
        let growing: Vec<u64> = (0..60).map(|second| second * 20).collect();
        assert!(is_growing(&growing, 1_000.0));
        assert!(!is_growing(&[], 1_000.0));
    }
}
