//! Where the time went, from the five datetimes.

use std::time::Duration;

use conga::core::message::Output;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// The longest time that is told apart: an hour, in microseconds.
const LONGEST_US: u64 = 3_600_000_000;

/// A distribution of times, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spread {
    pub(crate) p50_ms: f64,
    pub(crate) p90_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) p999_ms: f64,
    pub(crate) max_ms: f64,
}

/// The stages of a message's way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Stages {
    /// From created to claimed.
    pub(crate) waiting: Spread,
    /// From claimed to recorded: the work is in here.
    pub(crate) processing: Spread,
    /// From recorded to noticed by the leader.
    pub(crate) noticing: Spread,
    /// From noticed to delivered: its turn has to come.
    pub(crate) sequencing: Spread,
    /// From created to delivered.
    pub(crate) total: Spread,
    /// From created to delivered, without the work, where all messages take the same.
    pub(crate) added: Option<Spread>,
}

impl Stages {
    /// Those that there are, with their names.
    pub(crate) fn named(&self) -> impl Iterator<Item = (&'static str, Spread)> {
        [
            ("waiting", Some(self.waiting)),
            ("processing", Some(self.processing)),
            ("noticing", Some(self.noticing)),
            ("sequencing", Some(self.sequencing)),
            ("total", Some(self.total)),
            ("added", self.added),
        ]
        .into_iter()
        .filter_map(|(name, spread)| Some((name, spread?)))
    }

    /// Measures outputs, whose handler took `work` for each where that is known.
    pub(crate) fn of(outputs: &[Output], work: Option<Duration>) -> anyhow::Result<Self> {
        let work_us = work.map_or(0, |work| u64::try_from(work.as_micros()).unwrap_or(u64::MAX));
        let mut all = Vec::new();
        for _ in 0..6 {
            all.push(Histogram::<u64>::new_with_bounds(1, LONGEST_US, 3)?);
        }
        for output in outputs {
            let (Some(sequencing), Some(sequenced)) = (output.sequencing, output.sequenced) else {
                continue;
            };
            let (created, processing) = (output.record.created, output.record.processing);
            let total = sequenced.since(created);
            let times = [
                processing.since(created),
                output.processed.since(processing),
                sequencing.since(output.processed),
                sequenced.since(sequencing),
                total,
                total.saturating_sub(work_us),
            ];
            for (histogram, time) in all.iter_mut().zip(times) {
                histogram.saturating_record(time);
            }
        }
        let spread = |index: usize| Spread::of(&all[index]);
        Ok(Self {
            waiting: spread(0),
            processing: spread(1),
            noticing: spread(2),
            sequencing: spread(3),
            total: spread(4),
            added: work.map(|_| spread(5)),
        })
    }

    /// A table for people.
    pub(crate) fn table(&self) -> String {
        use std::fmt::Write as _;
        let mut text = format!(
            "  {:<12}{:>10}{:>10}{:>10}{:>10}{:>10}\n",
            "stage, ms", "p50", "p90", "p99", "p99.9", "max"
        );
        for (name, spread) in self.named() {
            // Writing to a String never fails.
            let _ = writeln!(
                text,
                "  {name:<12}{:>10.2}{:>10.2}{:>10.2}{:>10.2}{:>10.2}",
                spread.p50_ms, spread.p90_ms, spread.p99_ms, spread.p999_ms, spread.max_ms
            );
        }
        text
    }
}

impl Spread {
    #[allow(clippy::cast_precision_loss, reason = "at most an hour")]
    fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        Self {
            p50_ms: at(0.5),
            p90_ms: at(0.9),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            max_ms: histogram.max() as f64 / 1e3,
        }
    }
}
