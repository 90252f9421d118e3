//! `conga pause`, `resume`, `drain` and `rate`: what all processors of a line are told at once.

use std::time::Duration;

use anyhow::Context as _;
use conga::core::partition::{Control, ControlRequest, Flow, Status};
use conga::store::SharedStore;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::status::blocking::Blocking;
use crate::args::{Drain, Limited};
use crate::settings::Settings;
use crate::signal;

/// How often a drain looks.
const LOOK: Duration = Duration::from_millis(100);
/// How often it says what it waits for.
const SAY: Duration = Duration::from_secs(1);

pub(crate) async fn pause(settings: &Settings) -> anyhow::Result<bool> {
    change(settings, ControlRequest::Flow(Flow::Paused)).await
}

pub(crate) async fn resume(settings: &Settings) -> anyhow::Result<bool> {
    change(settings, ControlRequest::Flow(Flow::Running)).await
}

pub(crate) async fn rate(settings: &Settings, given: Limited) -> anyhow::Result<bool> {
    change(settings, ControlRequest::Rate(given.rate.0)).await
}

async fn change(settings: &Settings, request: ControlRequest) -> anyhow::Result<bool> {
    let shards = settings.open_shards().await?;
    let line = settings.line()?;
    let parts = shards.partitions();
    let one = match request {
        // All partitions together have no more than what was asked for.
        ControlRequest::Rate(Some(rate)) => ControlRequest::Rate(Some(rate.divided(parts.len() as u64))),
        whole => whole,
    };
    let mut control = Control::default();
    for store in parts {
        control = store.control(&one).await?;
    }
    if let ControlRequest::Rate(asked) = request {
        control.rate = asked;
    }
    if settings.json {
        let mut value = to_json(&control);
        value["line"] = line.name().into();
        println!("{value}");
    } else {
        println!("line {}: {}", line.name(), to_text(&control));
    }
    Ok(true)
}

/// Waits until all that was claimed is delivered, and pauses.
pub(crate) async fn drain(settings: &Settings, given: Drain) -> anyhow::Result<bool> {
    let shards = settings.open_shards().await?;
    let line = settings.line()?;
    let shutdown = signal::shutdown()?;
    let end = given.timeout.map(|limit| Instant::now() + limit);
    for store in shards.partitions() {
        store.control(&ControlRequest::Flow(Flow::Draining)).await?;
    }
    let mut said = Instant::now();
    let how_to_go_on = format!(
        "the line stays draining: `conga drain` waits again, `conga resume --line {}` lets it go on",
        line.name()
    );
    let (status, trouble) = loop {
        let status = settle(shards.partitions()).await?;
        match status.control.flow {
            Flow::Paused => break (status, None),
            Flow::Running => break (status, Some("it was resumed meanwhile".to_owned())),
            Flow::Draining => {}
        }
        if end.is_some_and(|end| Instant::now() >= end) {
            say_halts(shards.partitions()).await?;
            let waits = waits_for(&status);
            break (status, Some(format!("not drained in time: {waits}; {how_to_go_on}")));
        }
        if said.elapsed() >= SAY {
            said = Instant::now();
            eprintln!("conga: draining: {}", waits_for(&status));
            say_halts(shards.partitions()).await?;
        }
        tokio::select! {
            () = shutdown.cancelled() => break (status, Some(how_to_go_on)),
            () = tokio::time::sleep(LOOK) => {}
        }
    };
    if settings.json {
        let mut value = to_json(&status.control);
        value["line"] = line.name().into();
        value["drained"] = trouble.is_none().into();
        value["in_flight"] = status.in_flight.into();
        value["processed"] = status.processed.into();
        value["waiting"] = status.waiting.into();
        println!("{value}");
    } else if trouble.is_none() {
        println!("line {}: drained; {}", line.name(), to_text(&status.control));
    }
    if let Some(trouble) = &trouble {
        eprintln!("conga: {trouble}");
    }
    Ok(trouble.is_none())
}

/// Pauses what has drained. Answers how the first partition stands that still drains, or was resumed; else the last.
async fn settle(partitions: &[SharedStore]) -> anyhow::Result<Status> {
    let mut standing: Option<Status> = None;
    for store in partitions {
        store.control(&ControlRequest::Settle).await?;
        if standing
            .as_ref()
            .is_none_or(|before| before.control.flow == Flow::Paused)
        {
            standing = Some(store.status().await?);
        }
    }
    standing.context("a line has at least one partition")
}

/// Says where the line is halted, and what to do: a drain does not end before somebody has decided.
async fn say_halts(partitions: &[SharedStore]) -> anyhow::Result<()> {
    for (partition, store) in partitions.iter().enumerate() {
        let status = store.status().await?;
        let of_several = (partitions.len() > 1).then_some(partition);
        if let Some(blocking) = Blocking::of(&status, of_several)
            && let Some(advice) = blocking.advice()
        {
            eprintln!(
                "conga: the line does not drain before somebody decides about position {}: {}; {advice}",
                status.head,
                blocking.to_text(status.now)
            );
        }
    }
    Ok(())
}

fn waits_for(status: &Status) -> String {
    let mut text = format!(
        "{} in flight, {} processed and not delivered, head {}",
        status.in_flight, status.processed, status.head
    );
    if status.in_flight > 0 && status.processors.is_empty() {
        text += ", and no processor is there (start one with `conga process`)";
    }
    text
}

pub(crate) fn to_json(control: &Control) -> Value {
    json!({
        "flow": control.flow.name(),
        "since": (control.since.0 > 0).then(|| control.since.to_string()),
        "rate_per_second": control.rate.map(|rate| rounded(rate.messages_per_second())),
    })
}

/// How the processors are controlled, and what to type.
pub(crate) fn to_text(control: &Control) -> String {
    let mut text = match control.flow {
        Flow::Running => "running".to_owned(),
        flow => format!("{} since {} (`conga resume` lets it go on)", flow.name(), control.since),
    };
    if let Some(rate) = control.rate {
        let rate = rounded(rate.messages_per_second());
        text += &format!(", limited to {rate}/s (`conga rate none` lets it go)");
    }
    text
}

/// The interval is of whole nanoseconds, so a rate is not quite what was typed.
fn rounded(rate: f64) -> f64 {
    (rate * 1e4).round() / 1e4
}
