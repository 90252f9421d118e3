//! `conga bench scale`: whether the cost of a message stays the same with more services, a longer backlog, a wider
//! window, larger payloads and an older line.

use serde::Serialize;

use self::memory::Memory;
use super::setup::{Setup, failed, publish, row};
use crate::args::{Scale, Series};
use crate::bench::account::{Account, cpu_us};
use crate::bench::ground::Ground;
use crate::bench::plot::{Line, Plot};
use crate::bench::sheet::{Section, Sheet};
use crate::bench::trial::{Backlog, Chunk, Ran, Trial};
use crate::settings::Settings;
use crate::text;

mod memory;

/// So many bytes of payloads go through at each point, where that is less than what was asked for.
const BYTES: u64 = 64 << 20;
/// So many messages at least.
const LEAST: u64 = 500;
/// How many wait while a line grows old.
const WAITING: u64 = 50_000;
/// A part of an old line's messages, at most.
const PART: u64 = 100_000;

/// What was found.
#[derive(Debug, Serialize)]
struct Report {
    bench: &'static str,
    #[serde(flatten)]
    setup: Setup,
    series: Vec<Found>,
    passed: bool,
}

/// One series.
#[derive(Debug, Serialize)]
#[serde(tag = "series", rename_all = "lowercase")]
enum Found {
    Services { points: Vec<Point> },
    Backlog { points: Vec<Point> },
    Window { points: Vec<Point> },
    Payload { points: Vec<Point> },
    Memory { points: Vec<Memory> },
    Age(Box<Age>),
}

/// One run of a series.
#[derive(Debug, Serialize)]
struct Point {
    /// What is varied.
    at: u64,
    messages: u64,
    /// Messages per second.
    rate: f64,
    /// Processor time per message of the server and the services.
    cpu_us: f64,
    /// Sequenced − created − work. With a backlog it is mostly waiting.
    p99_ms: f64,
    ran: Ran,
}

/// A line that grows old.
#[derive(Debug, Serialize)]
struct Age {
    /// Messages per second in the first part, and in the last one in which messages were still sent.
    first_rate: f64,
    last_rate: f64,
    /// Last ÷ first.
    ratio: f64,
    first_cpu_us: f64,
    last_cpu_us: f64,
    ran: Ran,
}

impl Point {
    fn whole(at: u64, ran: Ran) -> Self {
        let added = ran.stages.and_then(|stages| stages.added).unwrap_or_default();
        Self {
            at,
            messages: ran.messages,
            rate: ran.rate,
            cpu_us: cpu_us(&ran.accounts),
            p99_ms: added.p99_ms,
            ran,
        }
    }

    /// Only what was measured while the backlog stood, after the first chunk, in which the services warm up.
    fn steady(at: u64, until: u64, ran: Ran) -> Self {
        let chunks: Vec<&Chunk> = ran.chunks.iter().filter(|chunk| chunk.reached <= until).collect();
        let chunks = if chunks.len() > 1 { &chunks[1..] } else { &chunks[..] };
        if chunks.is_empty() {
            return Self::whole(at, ran);
        }
        #[allow(clippy::cast_precision_loss, reason = "an average")]
        let count = chunks.len() as f64;
        // The chunks are of about the same size.
        let rate = count / chunks.iter().map(|chunk| 1.0 / chunk.rate).sum::<f64>();
        let cost = chunks.iter().map(|chunk| cpu_us(&chunk.accounts)).sum::<f64>() / count;
        Self {
            rate,
            cpu_us: cost,
            ..Self::whole(at, ran)
        }
    }
}

impl Age {
    fn of(ran: Ran) -> Self {
        let sent = ran.messages.saturating_sub(WAITING.min(ran.messages / 2));
        let last = ran.chunks.iter().rfind(|chunk| chunk.reached <= sent);
        let figures = |chunk: Option<&Chunk>| chunk.map_or((0.0, 0.0), |chunk| (chunk.rate, cpu_us(&chunk.accounts)));
        let (first_rate, first_cpu_us) = figures(ran.chunks.first());
        let (last_rate, last_cpu_us) = figures(last);
        Self {
            first_rate,
            last_rate,
            ratio: last_rate / first_rate.max(1e-9),
            first_cpu_us,
            last_cpu_us,
            ran,
        }
    }
}

pub(super) async fn scale(settings: &Settings, scale: &Scale) -> anyhow::Result<bool> {
    let ground = Ground::of(settings, &scale.ground)?;
    let bar = text::progress("series", Some(scale.series.len() as u64), settings.json);
    let mut series = Vec::new();
    for which in &scale.series {
        series.extend(measure(scale, &ground, *which).await?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    let mut report = Report {
        bench: "scale",
        setup: Setup::of(&ground, &scale.services, scale.size),
        series,
        passed: false,
    };
    report.passed = failed(report.runs()).is_empty();
    let failed = failed(report.runs());
    publish(settings, &report, &report.sheet(), &failed, scale.report.as_deref())
}

async fn measure(scale: &Scale, ground: &Ground, which: Series) -> anyhow::Result<Option<Found>> {
    let trial = |size| Trial::new(volume(scale.messages, size), size, &scale.services);
    let mut points = Vec::new();
    Ok(Some(match which {
        Series::Services => {
            for count in &scale.counts {
                let mut trial = trial(scale.size);
                trial.services.processors = *count;
                points.push(Point::whole(*count as u64, trial.run(ground).await?));
            }
            Found::Services { points }
        }
        Series::Backlog => {
            for backlog in &scale.backlogs {
                let mut trial = trial(scale.size);
                let measured = trial.messages;
                trial.messages += backlog;
                trial.backlog = Some(Backlog {
                    messages: *backlog,
                    every: (measured / 10).max(1),
                });
                points.push(Point::steady(*backlog, measured, trial.run(ground).await?));
            }
            Found::Backlog { points }
        }
        Series::Window => {
            for window in &scale.windows {
                let mut trial = trial(scale.size);
                trial.services.window = *window;
                points.push(Point::whole(*window, trial.run(ground).await?));
            }
            Found::Window { points }
        }
        Series::Payload => {
            for size in &scale.payloads {
                points.push(Point::whole(*size as u64, trial(*size).run(ground).await?));
            }
            Found::Payload { points }
        }
        Series::Memory => {
            if !ground.is_redis() {
                return Ok(None);
            }
            let mut points = Vec::new();
            for size in &scale.payloads {
                points.push(memory::measure(ground, *size, volume(memory::MESSAGES, *size)).await?);
            }
            Found::Memory { points }
        }
        Series::Age => {
            let mut trial = trial(scale.size);
            trial.messages = scale.age;
            trial.backlog = Some(Backlog {
                messages: WAITING.min(scale.age / 2),
                every: PART.min(scale.age / 10),
            });
            Found::Age(Box::new(Age::of(trial.run(ground).await?)))
        }
    }))
}

/// How many messages of a size.
fn volume(messages: u64, size: usize) -> u64 {
    messages.min((BYTES / size.max(1) as u64).max(LEAST))
}

impl Report {
    fn runs(&self) -> impl Iterator<Item = &Ran> {
        self.series.iter().flat_map(|found| match found {
            Found::Services { points }
            | Found::Backlog { points }
            | Found::Window { points }
            | Found::Payload { points } => points.iter().map(|point| &point.ran).collect(),
            Found::Memory { .. } => Vec::new(),
            Found::Age(age) => vec![&age.ran],
        })
    }

    fn sheet(&self) -> Sheet {
        let sections = self.series.iter().map(|found| match found {
            Found::Services { points } => section("services", "processors", points),
            Found::Backlog { points } => section("backlog", "messages waiting", points),
            Found::Window { points } => section("window", "window", points),
            Found::Payload { points } => section("payload", "bytes", points),
            Found::Memory { points } => memory::section(points),
            Found::Age(age) => age.section(),
        });
        Sheet {
            title: "conga bench scale".to_owned(),
            story: self.setup.story(),
            passed: self.passed,
            sections: sections.collect(),
        }
    }
}

/// The largest of these roles.
fn peak(accounts: &[Account], role: &str) -> f64 {
    let own = accounts.iter().filter(|account| account.who.starts_with(role));
    own.map(|account| account.peak_mb).fold(0.0, f64::max)
}

#[allow(clippy::cast_precision_loss, reason = "a place in a picture")]
fn section(title: &str, x: &'static str, points: &[Point]) -> Section {
    let names = [
        "messages",
        "messages/s",
        "CPU µs a message",
        "p99 ms",
        "peak MB: server",
        "processor",
        "sequencer",
    ];
    let mut table = vec![[&[x.to_owned()][..], &names.map(str::to_owned)].concat()];
    for point in points {
        let accounts = &point.ran.accounts;
        table.push(vec![
            point.at.to_string(),
            point.messages.to_string(),
            format!("{:.0}", point.rate),
            format!("{:.1}", point.cpu_us),
            format!("{:.2}", point.p99_ms),
            format!("{:.1}", peak(accounts, "server")),
            format!("{:.1}", peak(accounts, "process")),
            format!("{:.1}", peak(accounts, "sequence")),
        ]);
    }
    let plot = |y, name: &str, which: fn(&Point) -> f64| Plot {
        x,
        y,
        log_x: true,
        log_y: false,
        series: vec![Line {
            name: name.to_owned(),
            points: points.iter().map(|point| (point.at as f64, which(point))).collect(),
        }],
    };
    Section {
        title: title.to_owned(),
        plots: vec![
            plot("messages/s", "rate", |point| point.rate),
            plot("CPU µs a message", "cost", |point| point.cpu_us),
        ],
        table,
    }
}

impl Age {
    #[allow(clippy::cast_precision_loss, reason = "a place in a picture")]
    fn section(&self) -> Section {
        let mut table = vec![row(["messages so far", "messages/s", "CPU µs a message"])];
        let (mut rates, mut costs) = (Vec::new(), Vec::new());
        for chunk in &self.ran.chunks {
            let cost = cpu_us(&chunk.accounts);
            table.push(vec![
                chunk.reached.to_string(),
                format!("{:.0}", chunk.rate),
                format!("{cost:.1}"),
            ]);
            rates.push((chunk.reached as f64, chunk.rate));
            costs.push((chunk.reached as f64, cost));
        }
        let plot = |y, points| Plot {
            x: "messages so far",
            y,
            log_x: false,
            log_y: false,
            series: vec![Line {
                name: y.to_owned(),
                points,
            }],
        };
        Section {
            title: format!(
                "age: the last part goes at {:.3} of the first part's rate, at {:.1} µs a message after {:.1}",
                self.ratio, self.last_cpu_us, self.first_cpu_us
            ),
            plots: vec![plot("messages/s", rates), plot("CPU µs a message", costs)],
            table,
        }
    }
}
