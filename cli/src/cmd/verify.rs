//! `conga verify`: an output, checked.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use conga::core::invariant::Event;
use conga::core::message::{Entry, Format, Id, Output, Position, parse};
use conga::core::route::Router;
use conga::core::shape::{Order, Shape};
use conga::core::time::Micros;
use conga::ledger::postgres::PostgresLedger;
use conga::ledger::{LedgerUrl, SharedLedger};
use conga::shards::router;

use super::bench::verdict_text;
use crate::args::{Ordering, Verify};
use crate::bench::judge::{Digest, PLACES, delivered, judge_history, placed};
use crate::bench::table::{self, Places};
use crate::settings::{Settings, wrong};

pub(crate) async fn run(settings: &Settings, verify: &Verify) -> anyhow::Result<bool> {
    let ordering = Ordering {
        order: verify.order,
        per_key: verify.per_key,
    };
    let order = ordering.meant().map_err(wrong)?.unwrap_or_default();
    let several = verify.partitions.filter(|partitions| partitions.get() > 1);
    // In total order there is one output, and one position for each message.
    let is_merged = several.is_some() && order == Order::Total;
    let several = several.filter(|_| !is_merged);
    let router = several.map(|partitions| router(Shape { order, partitions }));
    let (mut outputs, mut came, digest) = (Vec::new(), Vec::new(), Digest::default());
    each_line(&verify.file, |number, line| match Output::parse(&line) {
        Ok(output) => {
            let output = place_of(output, router.as_ref());
            came.push(digest.output(&line, &output));
            outputs.push(output);
            Ok(())
        }
        Err(error) => Err(wrong(format!("{}, line {number}: {error}", verify.file.display()))),
    })?;
    let mut history = match &verify.sent {
        Some(path) => sent(path)?,
        // Whatever came out was sent; what did not, the positions tell.
        None => outputs
            .iter()
            .map(|output| sent_event(output.record.id.clone()))
            .collect(),
    };
    history.extend(delivered(&outputs));
    let mut verdict = judge_history(&history, order, &came);
    if verify.sent.is_none() {
        let missing = if verify.gaps {
            Vec::new()
        } else {
            (0..router.map_or(1, |router| router.partitions()))
                .flat_map(|partition| gaps(&outputs, placed(partition, Position(0)).0))
                .collect()
        };
        verdict.lost += missing.iter().map(|gap| gap.1 - gap.0 + 1).sum::<u64>();
        verdict
            .violations
            .extend(missing.iter().take(20).map(|(from, to)| match to - from {
                0 => format!("loss: position {from} is missing"),
                _ => format!("loss: positions {from} to {to} are missing"),
            }));
    }
    if let Some(count) = verify.count.filter(|count| *count != verdict.delivered) {
        verdict.lost += count.saturating_sub(verdict.delivered + verdict.lost);
        verdict
            .violations
            .push(format!("count: {} came out, {count} were expected", verdict.delivered));
    }
    if let LedgerUrl::Postgres(url) = settings.record()? {
        let ledger: SharedLedger = Arc::new(PostgresLedger::open(&url, &settings.line()?).await?);
        let places = if is_merged { Places::Merged } else { Places::Own };
        table::compare(&mut verdict, &ledger, &came, &digest, places, verify.gaps).await?;
    }
    let passed = verdict.passed() && verify.count.is_none_or(|count| count == verdict.delivered);
    if settings.json {
        let mut value = serde_json::to_value(&verdict)?;
        value["passed"] = passed.into();
        println!("{value}");
    } else {
        print!("{}", verdict_text(&verdict));
        if verdict.sent == 0 {
            println!("    nothing to check: the output is empty");
        }
    }
    Ok(passed)
}

/// An output at a position that no other partition has.
fn place_of(mut output: Output, router: Option<&Router>) -> Output {
    if let Some(partition) = router.and_then(|router| router.partition_of_output(&output.record)) {
        output.record.position = placed(partition, output.record.position);
    }
    output
}

/// Positions that no output has, between the first of a partition, which comes after `before`, and its highest, as ranges.
fn gaps(outputs: &[Output], before: u64) -> Vec<(u64, u64)> {
    let mut positions: Vec<u64> = outputs
        .iter()
        .map(|output| output.record.position.0)
        .filter(|position| (before + 1..before + PLACES).contains(position))
        .collect();
    positions.sort_unstable();
    let mut next = before + 1;
    let mut gaps = Vec::new();
    for position in positions {
        if position > next {
            gaps.push((next, position - 1));
        }
        next = next.max(position + 1);
    }
    gaps
}

/// What was sent: the ids in a file of inputs.
fn sent(path: &Path) -> anyhow::Result<Vec<Event>> {
    let mut events = Vec::new();
    each_line(path, |number, line| {
        let position = Position(number);
        let input = parse(&Entry::Whole(line), position, Format::Any, u64::MAX)
            .map_err(|error| wrong(format!("{}, line {number}: {error}", path.display())))?;
        events.push(sent_event(input.id));
        Ok(())
    })?;
    Ok(events)
}

fn sent_event(id: Id) -> Event {
    Event::Sent {
        id,
        at: Micros::default(),
    }
}

fn each_line(path: &Path, mut each: impl FnMut(u64, Bytes) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let reader: Box<dyn BufRead> = if path.as_os_str() == "-" {
        Box::new(std::io::stdin().lock())
    } else {
        let file =
            std::fs::File::open(path).map_err(|error| wrong(format!("can't read {}: {error}", path.display())))?;
        Box::new(BufReader::new(file))
    };
    for (index, line) in reader.split(b'\n').enumerate() {
        each(index as u64 + 1, line?.into())?;
    }
    Ok(())
}
