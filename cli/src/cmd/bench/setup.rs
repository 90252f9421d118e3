//! What measurements of speed have in common: where and with what, medians, and what is printed and written.

use std::path::Path;

use serde::Serialize;

use crate::args::Services;
use crate::bench::account::Account;
use crate::bench::ground::Ground;
use crate::bench::recorder::Recorder;
use crate::bench::sheet::{Section, Sheet};
use crate::bench::trial::Ran;
use crate::settings::Settings;

use super::verdict_text;

/// Where and with what.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Setup {
    pub(super) store: String,
    record: String,
    pub(super) payload_bytes: usize,
    processors: usize,
    concurrency: usize,
    sequencers: usize,
    window: u64,
}

impl Setup {
    pub(super) fn of(ground: &Ground, recorder: &Recorder, services: &Services, payload_bytes: usize) -> Self {
        Self {
            store: ground.name(),
            record: recorder.name(),
            payload_bytes,
            processors: services.processors,
            concurrency: services.concurrency,
            sequencers: services.sequencers,
            window: services.window,
        }
    }

    /// In a sentence for people.
    pub(super) fn story(&self) -> String {
        format!(
            "Store: {}; record: {}. Payloads of {} bytes; processors {} × {}, sequencers {}, window {}; handler echo. Each process \
             is one of its own, and so are the producer and the consumer.",
            self.store,
            self.record,
            self.payload_bytes,
            self.processors,
            self.concurrency,
            self.sequencers,
            self.window
        )
    }
}

/// The middle one, or of an even number the mean of both.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => 0.0,
        count if count % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

/// Prints a report, writes its page where one was asked for, and says whether it passed.
pub(super) fn publish(
    settings: &Settings,
    report: &impl Serialize,
    sheet: &Sheet,
    failed: &[&Ran],
    path: Option<&Path>,
) -> anyhow::Result<bool> {
    if settings.json {
        println!("{}", serde_json::to_string(report)?);
    } else {
        println!("  {}", sheet.story);
        for section in &sheet.sections {
            print!("{}", section.to_text());
        }
        for ran in failed {
            print!("{}", verdict_text(&ran.verdict));
        }
        if sheet.passed {
            println!("  verified: all that was sent came out, once, in order and as it is recorded");
        }
    }
    if let Some(path) = path {
        sheet.write(path)?;
    }
    Ok(sheet.passed)
}

/// Those that were not as they should be.
pub(super) fn failed<'a>(all: impl IntoIterator<Item = &'a Ran>) -> Vec<&'a Ran> {
    all.into_iter().filter(|ran| !ran.verdict.passed()).collect()
}

/// A table of what each process took.
pub(super) fn costs<'a>(title: &str, runs: impl IntoIterator<Item = (&'a str, &'a [Account])>) -> Section {
    let mut table = vec![row(["run", "process", "CPU s per 100,000", "peak MB"])];
    for (name, accounts) in runs {
        for account in accounts {
            table.push(vec![
                name.to_owned(),
                account.who.clone(),
                format!("{:.3}", account.cpu_s_per_100k),
                format!("{:.1}", account.peak_mb),
            ]);
        }
    }
    Section {
        title: title.to_owned(),
        plots: Vec::new(),
        table,
    }
}

/// A row of a table.
pub(super) fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn the_middle_one_counts() {
        assert!((median(vec![9.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(vec![4.0, 1.0, 2.0, 9.0]) - 3.0).abs() < 1e-9);
    }
}
