//! What a message takes in Redis: waiting, and in flight.

use std::time::Duration;

use anyhow::{Context as _, bail};
use conga::send::Producer;
use conga::store::SharedStore;
use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::super::setup::row;
use crate::args::Services;
use crate::bench::fleet::Fleet;
use crate::bench::ground::{Ground, Site};
use crate::bench::load::{Load, Until};
use crate::bench::plot::{Line, Plot};
use crate::bench::sheet::Section;

/// So many messages are looked at, fewer where they are large.
pub(super) const MESSAGES: u64 = 10_000;
/// How long a processor may take to claim all.
const PATIENCE: Duration = Duration::from_mins(1);

/// What was found for one size.
#[derive(Debug, Serialize)]
pub(super) struct Memory {
    payload_bytes: usize,
    messages: u64,
    /// What the entry of a message has, envelope and all.
    entry_bytes: u64,
    /// What it takes while it waits.
    waiting_bytes: f64,
    /// What it takes beyond that while it is in flight.
    in_flight_more_bytes: f64,
}

pub(super) async fn measure(ground: &Ground, size: usize, messages: u64) -> anyhow::Result<Memory> {
    let site = ground.site().await?;
    let store = site.place.open().await?;
    let load = Load::new(Until::Count(messages), None, size);
    let empty = used(&site).await?;
    load.run(&Producer::new(store.clone()), |_| ()).await?;
    let waiting = used(&site).await?;
    let all = usize::try_from(messages)?;
    let services = Services {
        processors: 1,
        concurrency: all,
        sequencers: 1,
        window: messages,
    };
    // Nothing is done while this looks, and then the processor is killed.
    let work = services.work("sleep:3600s", &site.place.options);
    let fleet = Fleet::start(&site.place, &work, services.processors, services.sequencers).await?;
    claimed(&store, messages).await?;
    let in_flight = used(&site).await?;
    drop(fleet);
    drop(store);
    site.clear().await?;
    let entry = load.message(messages, conga::clock::Clock::Store.now()).to_entry();
    #[allow(clippy::cast_precision_loss, reason = "an average")]
    let each = |more: u64, less: u64| more.saturating_sub(less) as f64 / messages as f64;
    Ok(Memory {
        payload_bytes: size,
        messages,
        entry_bytes: entry.len() as u64,
        waiting_bytes: each(waiting, empty),
        in_flight_more_bytes: each(in_flight, waiting),
    })
}

async fn used(site: &Site) -> anyhow::Result<u64> {
    let used = site.used_memory().await?;
    used.context("only a single Redis server says what it uses: give --serve redis, or --store redis://…")
}

async fn claimed(store: &SharedStore, messages: u64) -> anyhow::Result<()> {
    let start = Instant::now();
    loop {
        let in_flight = store.status().await?.in_flight;
        if in_flight >= messages {
            return Ok(());
        }
        if start.elapsed() > PATIENCE {
            bail!("only {in_flight} of {messages} messages were claimed in {PATIENCE:?}");
        }
        sleep(Duration::from_millis(20)).await;
    }
}

#[allow(clippy::cast_precision_loss, reason = "a place in a picture")]
pub(super) fn section(points: &[Memory]) -> Section {
    let mut table = vec![row([
        "payload bytes",
        "messages",
        "entry bytes",
        "bytes waiting",
        "bytes more in flight",
    ])];
    for point in points {
        table.push(vec![
            point.payload_bytes.to_string(),
            point.messages.to_string(),
            point.entry_bytes.to_string(),
            format!("{:.0}", point.waiting_bytes),
            format!("{:.0}", point.in_flight_more_bytes),
        ]);
    }
    let line = |name: &str, which: fn(&Memory) -> f64| Line {
        name: name.to_owned(),
        points: points
            .iter()
            .map(|point| (point.payload_bytes as f64, which(point)))
            .collect(),
    };
    Section {
        title: "memory: what a message takes in Redis".to_owned(),
        plots: vec![Plot {
            x: "payload bytes",
            y: "bytes",
            log_x: true,
            log_y: true,
            series: vec![
                line("waiting", |point| point.waiting_bytes),
                line("more in flight", |point| point.in_flight_more_bytes),
            ],
        }],
        table,
    }
}
