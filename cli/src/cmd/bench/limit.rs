//! `conga bench limit`: what the store can carry at most, and how much of it Conga does.

use conga::ledger::LedgerUrl;
use serde::Serialize;

use super::setup::{Setup, costs, failed, median, publish, row};
use crate::args::Limit;
use crate::bench::account::cpu_us;
use crate::bench::ground::Ground;
use crate::bench::plot::{Line, Plot};
use crate::bench::recorder::Recorder;
use crate::bench::sheet::{Section, Sheet};
use crate::bench::trial::{Ran, Trial};
use crate::bench::yardstick::postgres::{AT_ONCE, BATCH, Bare};
use crate::bench::yardstick::trial::Limit as Yardstick;
use crate::settings::Settings;
use crate::text;

/// What was found.
#[derive(Debug, Serialize)]
struct Report {
    bench: &'static str,
    #[serde(flatten)]
    setup: Setup,
    messages: u64,
    /// Medians, in messages per second.
    limit: f64,
    limit_alone: f64,
    conga: f64,
    /// Conga ÷ limit.
    ratio: f64,
    /// Processor time per message of the server and the services, the median.
    cpu_us: f64,
    runs: Vec<Round>,
    passed: bool,
}

/// One of each, one after the other.
#[derive(Debug, Serialize)]
struct Round {
    alone: Ran,
    limit: Ran,
    conga: Ran,
}

impl Round {
    fn all(&self) -> [(&'static str, &Ran); 3] {
        [("alone", &self.alone), ("limit", &self.limit), ("conga", &self.conga)]
    }
}

pub(super) async fn limit(settings: &Settings, limit: &Limit) -> anyhow::Result<bool> {
    let ground = Ground::of(settings, &limit.ground)?;
    let recorder = Recorder::of(settings).await?;
    let volume = &limit.volume;
    let trial = Trial::new(volume.messages, volume.size, &limit.services).recorded(&recorder.url);
    let bar = text::progress("runs", Some(volume.runs as u64), settings.json);
    let mut runs = Vec::new();
    for _ in 0..volume.runs {
        if let LedgerUrl::Postgres(url) = &recorder.url {
            let bare = |at_once| Bare {
                url: url.clone(),
                messages: volume.messages,
                size: volume.size,
                batch: limit.batch.map_or(BATCH, usize::from),
                at_once,
            };
            recorder.fresh().await?;
            let alone = bare(AT_ONCE).run().await?;
            recorder.fresh().await?;
            let limit = bare(1).run().await?;
            recorder.fresh().await?;
            let conga = trial.run(&ground).await?;
            runs.push(Round { alone, limit, conga });
            bar.inc(1);
            continue;
        }
        let yardstick = |alone| Yardstick {
            messages: volume.messages,
            size: volume.size,
            batch: limit.batch,
            alone,
        };
        runs.push(Round {
            alone: yardstick(true).run(&ground).await?,
            limit: yardstick(false).run(&ground).await?,
            conga: trial.run(&ground).await?,
        });
        bar.inc(1);
    }
    bar.finish_and_clear();
    let of = |figure: fn(&Round) -> f64| median(runs.iter().map(figure).collect());
    let (rate, conga) = (of(|round| round.limit.rate), of(|round| round.conga.rate));
    let report = Report {
        bench: "limit",
        setup: Setup::of(&ground, &recorder, &limit.services, volume.size),
        messages: volume.messages,
        limit: rate,
        limit_alone: of(|round| round.alone.rate),
        conga,
        ratio: conga / rate,
        cpu_us: of(|round| cpu_us(&round.conga.accounts)),
        passed: failed(runs.iter().flat_map(Round::every)).is_empty(),
        runs,
    };
    let failed = failed(report.runs.iter().flat_map(Round::every));
    publish(settings, &report, &report.sheet(), &failed, limit.report.as_deref())
}

impl Round {
    fn every(&self) -> [&Ran; 3] {
        self.all().map(|(_, ran)| ran)
    }
}

impl Report {
    fn sheet(&self) -> Sheet {
        let line = |figures: [f64; 3]| {
            let [alone, limit, conga] = figures;
            [
                format!("{alone:.0}"),
                format!("{limit:.0}"),
                format!("{conga:.0}"),
                format!("{:.3}", conga / limit),
            ]
        };
        let mut table = vec![row(["messages/s", "alone", "limit", "conga", "ratio"])];
        for (number, round) in (1..).zip(&self.runs) {
            let name = [format!("run {number}")];
            table.push([&name[..], &line(round.every().map(|ran| ran.rate))].concat());
        }
        let medians = line([self.limit_alone, self.limit, self.conga]);
        table.push([&["median".to_owned()][..], &medians].concat());
        let series = |name: &str, which: fn(&Round) -> &Ran| Line {
            name: name.to_owned(),
            points: (1_u32..)
                .zip(&self.runs)
                .map(|(number, round)| (f64::from(number), which(round).rate))
                .collect(),
        };
        let plot = Plot {
            x: "run",
            y: "messages/s",
            log_x: false,
            log_y: false,
            series: vec![
                series("the yardstick's worker alone", |round| &round.alone),
                series("limit", |round| &round.limit),
                series("Conga", |round| &round.conga),
            ],
        };
        let last = self.runs.last();
        let accounts = last.iter().flat_map(|round| round.all());
        let title = format!(
            "Conga ÷ limit = {:.3}; {:.1} µs of processor time a message, server and services",
            self.ratio, self.cpu_us
        );
        Sheet {
            title: "conga bench limit".to_owned(),
            story: format!("{} messages a run. {}", self.messages, self.setup.story()),
            passed: self.passed,
            sections: vec![
                Section {
                    title,
                    plots: vec![plot],
                    table,
                },
                costs(
                    "what each process took, in the last run",
                    accounts.map(|(name, ran)| (name, ran.accounts.as_slice())),
                ),
            ],
        }
    }
}
