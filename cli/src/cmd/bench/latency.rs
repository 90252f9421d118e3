//! `conga bench latency`: what Conga adds to the work, at a part of what goes through. Messages come at their rate
//! whether or not those before them are through.

use serde::Serialize;

use super::setup::{Setup, failed, median, publish, row};
use super::throughput::runs;
use crate::args::Latency;
use crate::bench::account::cpu_us;
use crate::bench::ground::Ground;
use crate::bench::plot::{Line, Plot};
use crate::bench::recorder::Recorder;
use crate::bench::sheet::{Section, Sheet};
use crate::bench::stages::Spread;
use crate::bench::trial::{Ran, Trial};
use crate::settings::Settings;
use crate::text;

/// What was found.
#[derive(Debug, Serialize)]
struct Report {
    bench: &'static str,
    #[serde(flatten)]
    setup: Setup,
    /// Messages per second, the median; or as it was given.
    throughput: f64,
    throughput_runs: Vec<Ran>,
    loads: Vec<Point>,
    passed: bool,
}

/// One rate.
#[derive(Debug, Serialize)]
struct Point {
    percent: f64,
    /// Messages per second, as asked for.
    rate: f64,
    /// Sequenced − created − work.
    added: Spread,
    /// Processor time per message of the server and the services.
    cpu_us: f64,
    ran: Ran,
}

pub(super) async fn latency(settings: &Settings, latency: &Latency) -> anyhow::Result<bool> {
    let ground = Ground::of(settings, &latency.ground)?;
    let recorder = Recorder::of(settings).await?;
    let volume = &latency.volume;
    let mut trial = Trial::new(volume.messages, volume.size, &latency.services).recorded(&recorder.url);
    let unpaced = match latency.throughput {
        Some(_) => Vec::new(),
        None => runs(settings, &ground, &trial, volume.runs).await?,
    };
    let measured = || median(unpaced.iter().map(|ran| ran.rate).collect());
    let throughput = latency.throughput.unwrap_or_else(measured);
    let bar = text::progress("loads", Some(latency.loads.len() as u64), settings.json);
    let mut loads = Vec::new();
    for percent in &latency.loads {
        let rate = throughput * percent / 100.0;
        trial.rate = Some(rate);
        trial.messages = messages(rate * latency.duration.as_secs_f64());
        let ran = trial.run(&ground).await?;
        loads.push(Point {
            percent: *percent,
            rate,
            added: ran.stages.and_then(|stages| stages.added).unwrap_or_default(),
            cpu_us: cpu_us(&ran.accounts),
            ran,
        });
        bar.inc(1);
    }
    bar.finish_and_clear();
    let mut report = Report {
        bench: "latency",
        setup: Setup::of(&ground, &recorder, &latency.services, volume.size),
        throughput,
        throughput_runs: unpaced,
        loads,
        passed: false,
    };
    report.passed = failed(report.all()).is_empty();
    let failed = failed(report.all());
    publish(settings, &report, &report.sheet(), &failed, latency.report.as_deref())
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a count that a rate and a time give"
)]
fn messages(count: f64) -> u64 {
    (count as u64).max(1)
}

impl Report {
    fn all(&self) -> impl Iterator<Item = &Ran> {
        self.throughput_runs
            .iter()
            .chain(self.loads.iter().map(|point| &point.ran))
    }

    fn sheet(&self) -> Sheet {
        let mut table = vec![row([
            "load",
            "messages/s",
            "got",
            "p50 ms",
            "p90 ms",
            "p99 ms",
            "p99.9 ms",
            "max ms",
            "CPU µs a message",
        ])];
        for point in &self.loads {
            let added = point.added;
            let times = [added.p50_ms, added.p90_ms, added.p99_ms, added.p999_ms, added.max_ms];
            let mut cells = vec![
                format!("{} %", point.percent),
                format!("{:.0}", point.rate),
                format!("{:.0}", point.ran.rate),
            ];
            cells.extend(times.map(|time| format!("{time:.2}")));
            cells.push(format!("{:.1}", point.cpu_us));
            table.push(cells);
        }
        let line = |name: &str, which: fn(&Spread) -> f64| Line {
            name: name.to_owned(),
            points: self
                .loads
                .iter()
                .map(|point| (point.percent, which(&point.added)))
                .collect(),
        };
        let plot = Plot {
            x: "load, % of the throughput",
            y: "added, ms",
            log_x: false,
            log_y: true,
            series: vec![
                line("p50", |added| added.p50_ms),
                line("p90", |added| added.p90_ms),
                line("p99", |added| added.p99_ms),
                line("p99.9", |added| added.p999_ms),
                line("max", |added| added.max_ms),
            ],
        };
        Sheet {
            title: "conga bench latency".to_owned(),
            story: format!(
                "Added latency (sequenced − created − work) at parts of a throughput of {:.0} messages/s. {}",
                self.throughput,
                self.setup.story()
            ),
            passed: self.passed,
            sections: vec![Section {
                title: "added latency".to_owned(),
                plots: vec![plot],
                table,
            }],
        }
    }
}
