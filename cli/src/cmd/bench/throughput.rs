//! `conga bench throughput`: as many messages as go through.

use serde::Serialize;

use super::setup::{Setup, costs, failed, median, publish, row};
use crate::args::Throughput;
use crate::bench::account::cpu_us;
use crate::bench::ground::Ground;
use crate::bench::plot::{Line, Plot};
use crate::bench::recorder::Recorder;
use crate::bench::sheet::{Section, Sheet};
use crate::bench::trial::{Ran, Trial};
use crate::settings::{Settings, wrong};
use crate::text;

/// What was found.
#[derive(Debug, Serialize)]
struct Report {
    bench: &'static str,
    #[serde(flatten)]
    setup: Setup,
    messages: u64,
    /// Messages per second, the median.
    throughput: f64,
    /// Processor time per message of the server and the services, the median.
    cpu_us: f64,
    runs: Vec<Ran>,
    passed: bool,
}

pub(super) async fn throughput(settings: &Settings, throughput: &Throughput) -> anyhow::Result<bool> {
    let ground = Ground::of(settings, &throughput.ground)?;
    let recorder = Recorder::of(settings).await?;
    let volume = &throughput.volume;
    let trial = Trial::new(volume.messages, volume.size, &throughput.services)
        .recorded(&recorder.url)
        .ordered(throughput.orders.shape().map_err(wrong)?, throughput.orders.keys());
    let runs = runs(settings, &ground, &trial, volume.runs).await?;
    let report = Report {
        bench: "throughput",
        setup: Setup::of(&ground, &recorder, &throughput.services, volume.size),
        messages: volume.messages,
        throughput: median(runs.iter().map(|ran| ran.rate).collect()),
        cpu_us: median(runs.iter().map(|ran| cpu_us(&ran.accounts)).collect()),
        passed: failed(&runs).is_empty(),
        runs,
    };
    let failed = failed(&report.runs);
    publish(
        settings,
        &report,
        &report.sheet(),
        &failed,
        throughput.report.as_deref(),
    )
}

/// The same, again and again.
pub(super) async fn runs(
    settings: &Settings,
    ground: &Ground,
    trial: &Trial,
    count: usize,
) -> anyhow::Result<Vec<Ran>> {
    let bar = text::progress("runs", Some(count as u64), settings.json);
    let mut runs = Vec::new();
    for _ in 0..count {
        runs.push(trial.run(ground).await?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(runs)
}

impl Report {
    fn sheet(&self) -> Sheet {
        let mut table = vec![row(["run", "messages/s", "CPU µs a message"])];
        for (number, ran) in (1..).zip(&self.runs) {
            let cost = format!("{:.1}", cpu_us(&ran.accounts));
            table.push(vec![number.to_string(), format!("{:.0}", ran.rate), cost]);
        }
        let points = (1_u32..)
            .zip(&self.runs)
            .map(|(number, ran)| (f64::from(number), ran.rate));
        let plot = Plot {
            x: "run",
            y: "messages/s",
            log_x: false,
            log_y: false,
            series: vec![Line {
                name: "Conga".to_owned(),
                points: points.collect(),
            }],
        };
        let last = self.runs.last();
        Sheet {
            title: "conga bench throughput".to_owned(),
            story: format!("{} messages a run. {}", self.messages, self.setup.story()),
            passed: self.passed,
            sections: vec![
                Section {
                    title: format!("{:.0} messages/s, the median", self.throughput),
                    plots: vec![plot],
                    table,
                },
                costs(
                    "what each process took, in the last run",
                    last.map(|ran| ("last", ran.accounts.as_slice())),
                ),
            ],
        }
    }
}
