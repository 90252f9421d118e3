//! `conga bench shards`: whether the cost of a message stays the same with more primaries and more partitions, and what
//! all of them cost with nothing to do.

use std::num::NonZeroU16;

use conga::core::shape::{Order, Shape};
use serde::Serialize;

use self::run::{Run, measure};
use super::setup::{failed, median, publish, row};
use crate::args::Spread;
use crate::bench::nodes::Nodes;
use crate::bench::plot::{Line, Plot};
use crate::bench::sheet::{Section, Sheet};
use crate::settings::{Settings, wrong};
use crate::text;

mod run;

/// What was found.
#[derive(Debug, Serialize)]
struct Report {
    bench: &'static str,
    messages: u64,
    keys: u64,
    payload_bytes: usize,
    bound: u64,
    processors: usize,
    concurrency: usize,
    /// More primaries under the same partitions.
    primaries: Vec<Point>,
    /// More partitions on one primary.
    partitions: Vec<Point>,
    passed: bool,
}

/// The runs of one spread, and their medians.
#[derive(Debug, Serialize)]
struct Point {
    primaries: usize,
    partitions: NonZeroU16,
    /// Processor time of all servers per message.
    server_us: f64,
    /// The same of all processors.
    processor_us: f64,
    /// Steps of the store per message.
    steps: f64,
    /// Processor time of all servers for a second with nothing to do.
    idle_server_ms: f64,
    /// The same of all processors.
    idle_processor_ms: f64,
    /// Steps in such a second.
    idle_steps: f64,
    runs: Vec<Run>,
}

pub(super) async fn shards(settings: &Settings, spread: &Spread) -> anyhow::Result<bool> {
    if settings.given_store().is_some() {
        return Err(wrong(
            "bench shards starts clusters of its own: leave out --store, CONGA_STORE and `store` in the settings file",
        ));
    }
    let mut primaries: Vec<Point> = spread
        .primaries
        .iter()
        .map(|count| Point::at(*count, spread.partitions))
        .collect();
    let mut partitions: Vec<Point> = spread.counts.iter().map(|count| Point::at(1, *count)).collect();
    let total = spread.runs * (primaries.len() + partitions.len());
    let bar = text::progress("runs", Some(total as u64), settings.json);
    // One round after the other, so that what changes meanwhile hits all points alike.
    for _ in 0..spread.runs {
        let one = Nodes::start(1).await?;
        for point in &mut partitions {
            point.runs.push(measure(spread, &one, point.shape()).await?);
            bar.inc(1);
        }
        drop(one);
        for point in &mut primaries {
            let nodes = Nodes::start(point.primaries).await?;
            point.runs.push(measure(spread, &nodes, point.shape()).await?);
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    for point in primaries.iter_mut().chain(&mut partitions) {
        point.settle();
    }
    let mut report = Report {
        bench: "shards",
        messages: spread.messages,
        keys: spread.keys,
        payload_bytes: spread.size,
        bound: spread.bound,
        processors: spread.processors,
        concurrency: spread.concurrency,
        primaries,
        partitions,
        passed: false,
    };
    let all = || {
        report
            .primaries
            .iter()
            .chain(&report.partitions)
            .flat_map(|point| &point.runs)
    };
    report.passed = failed(all().map(|run| &run.ran)).is_empty();
    let all = report
        .primaries
        .iter()
        .chain(&report.partitions)
        .flat_map(|point| &point.runs);
    let failed = failed(all.map(|run| &run.ran));
    publish(settings, &report, &report.sheet(), &failed, spread.report.as_deref())
}

impl Point {
    fn at(primaries: usize, partitions: NonZeroU16) -> Self {
        Self {
            primaries,
            partitions,
            server_us: 0.0,
            processor_us: 0.0,
            steps: 0.0,
            idle_server_ms: 0.0,
            idle_processor_ms: 0.0,
            idle_steps: 0.0,
            runs: Vec::new(),
        }
    }

    fn shape(&self) -> Shape {
        Shape {
            partitions: self.partitions,
            ..Shape::of(Order::Key { serial: false })
        }
    }

    /// Takes the medians.
    fn settle(&mut self) {
        let median = |which: fn(&Run) -> f64| median(self.runs.iter().map(which).collect());
        self.server_us = median(|run| run.server_us);
        self.processor_us = median(|run| run.processor_us);
        self.steps = median(|run| run.steps);
        self.idle_server_ms = median(|run| run.idle_server_ms);
        self.idle_processor_ms = median(|run| run.idle_processor_ms);
        self.idle_steps = median(|run| run.idle_steps);
    }

    fn row(&self) -> Vec<String> {
        let last = self.runs.last();
        let each = |which: fn(&run::Node) -> String| -> String {
            let nodes = last.iter().flat_map(|run| &run.nodes);
            nodes.map(which).collect::<Vec<_>>().join(" ")
        };
        vec![
            self.primaries.to_string(),
            self.partitions.to_string(),
            format!("{:.1}", self.server_us),
            format!("{:.1}", self.processor_us),
            format!("{:.3}", self.steps),
            each(|node| node.messages.to_string()),
            each(|node| format!("{:.1}", node.cpu_us)),
            last.map_or(0, |run| run.connections).to_string(),
            format!("{:.2}", self.idle_server_ms),
            format!("{:.2}", self.idle_processor_ms),
            format!("{:.0}", self.idle_steps),
        ]
    }
}

impl Report {
    fn sheet(&self) -> Sheet {
        Sheet {
            title: "conga bench shards".to_owned(),
            story: format!(
                "{} messages a run with {} keys and payloads of {} bytes, at most {} on their way; --order key, processors {} × {}, \
                 handler echo; a cluster without replicas and persistence. Medians of {} runs; what each server did, in the last.",
                self.messages,
                self.keys,
                self.payload_bytes,
                self.bound,
                self.processors,
                self.concurrency,
                self.primaries
                    .iter()
                    .chain(&self.partitions)
                    .map(|point| point.runs.len())
                    .max()
                    .unwrap_or(0),
            ),
            passed: self.passed,
            sections: vec![
                section("more primaries", "primaries", &self.primaries, |point| {
                    f64::from(u32::try_from(point.primaries).unwrap_or(u32::MAX))
                }),
                section(
                    "more partitions on one primary",
                    "partitions",
                    &self.partitions,
                    |point| point.partitions.get().into(),
                ),
            ],
        }
    }
}

fn section(title: &str, x: &'static str, points: &[Point], at: fn(&Point) -> f64) -> Section {
    let mut table = vec![row([
        "primaries",
        "partitions",
        "server µs",
        "processor µs",
        "steps",
        "messages of each",
        "µs of each",
        "connections",
        "idle server ms/s",
        "idle processor ms/s",
        "idle steps/s",
    ])];
    table.extend(points.iter().map(Point::row));
    let line = |name: &str, which: fn(&Point) -> f64| Line {
        name: name.to_owned(),
        points: points.iter().map(|point| (at(point), which(point))).collect(),
    };
    let plot = |y, series| Plot {
        x,
        y,
        log_x: false,
        log_y: false,
        series,
    };
    Section {
        title: title.to_owned(),
        plots: vec![
            plot(
                "CPU µs a message",
                vec![
                    line("servers", |point| point.server_us),
                    line("processors", |point| point.processor_us),
                ],
            ),
            plot(
                "idle CPU ms a second",
                vec![
                    line("servers", |point| point.idle_server_ms),
                    line("processors", |point| point.idle_processor_ms),
                ],
            ),
        ],
        table,
    }
}
