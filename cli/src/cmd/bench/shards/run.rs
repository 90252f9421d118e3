//! One run: all together, at rest and under load, and what each server and the processors did for it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::ensure;
use bytes::Bytes;
use conga::core::shape::Shape;
use conga::shards::{Producers, Shards};
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::args::Spread;
use crate::bench::collect::Collector;
use crate::bench::fleet::{Fleet, Member, Work};
use crate::bench::judge::{PLACES, TOLD, Verdict, judge_came};
use crate::bench::load::{Load, Until};
use crate::bench::nodes::{Done, Nodes};
use crate::bench::trail::Trail;
use crate::bench::trial::Ran;
use crate::bench::usage::Usage;

/// How long all may take to come to rest.
const SETTLE: Duration = Duration::from_secs(1);
/// Nothing for so long under load is stuck.
const PATIENCE: Duration = Duration::from_mins(1);
/// Nothing for so long, and nothing comes besides.
const QUIET: Duration = Duration::from_millis(300);
/// How far claims may run ahead of the head of each partition.
const WINDOW: u64 = 10_000;

/// What one run cost.
#[derive(Debug, Serialize)]
pub(super) struct Run {
    /// Per message, of all servers.
    pub(super) server_us: f64,
    pub(super) processor_us: f64,
    pub(super) steps: f64,
    /// Per second with nothing to do.
    pub(super) idle_server_ms: f64,
    pub(super) idle_processor_ms: f64,
    pub(super) idle_steps: f64,
    /// Of all servers, from all processes, the one that measures included.
    pub(super) connections: u64,
    pub(super) nodes: Vec<Node>,
    pub(super) ran: Ran,
}

/// What one server did.
#[derive(Debug, Serialize)]
pub(super) struct Node {
    pub(super) messages: u64,
    /// Per message of its own.
    pub(super) cpu_us: f64,
}

/// What all have done so far.
struct Look {
    at: Instant,
    nodes: Vec<Done>,
    processors: Duration,
}

impl Look {
    fn at(nodes: &Nodes, fleet: &Fleet) -> anyhow::Result<Self> {
        let pids = fleet.members.iter().filter_map(Member::pid);
        Ok(Self {
            at: Instant::now(),
            nodes: nodes.look()?,
            processors: pids.filter_map(Usage::of).map(|usage| usage.cpu).sum(),
        })
    }

    fn cpu(&self) -> Duration {
        self.nodes.iter().map(|node| node.cpu).sum()
    }

    #[allow(clippy::cast_precision_loss, reason = "a count for an average")]
    fn steps(&self) -> f64 {
        self.nodes.iter().map(|node| node.steps).sum::<u64>() as f64
    }
}

pub(super) async fn measure(spread: &Spread, nodes: &Nodes, shape: Shape) -> anyhow::Result<Run> {
    let (place, owners) = nodes.place(shape)?;
    let work = Work {
        options: place.options.clone(),
        handler: "echo".to_owned(),
        handling: Vec::new(),
        concurrency: spread.concurrency,
        window: WINDOW,
        record: place.record.clone(),
        network: None,
    };
    let shards = Shards::open(&place.url, &place.line, &place.options).await?;
    let fleet = Fleet::start(&place, &work, spread.processors, 0).await?;
    let arrived = Arc::new(AtomicU64::new(0));
    let load = Load::new(Until::Count(spread.messages), None, spread.size)
        .keyed((spread.keys, 0))
        .prepared(spread.messages)
        .bounded(spread.bound, arrived.clone());
    let (mut ids, mut trail) = (Vec::new(), Trail::default());
    let mut collector = Collector::new(&shards);
    let mut take = |partition: usize, lines: Vec<Bytes>| {
        arrived.fetch_add(lines.len() as u64, Ordering::SeqCst);
        trail.take(partition, &lines);
    };
    let (tell, expected) = watch::channel(None);
    let producer = Producers::new(&shards);
    let sending = async {
        sleep(SETTLE).await;
        let rest = Look::at(nodes, &fleet)?;
        sleep(spread.idle).await;
        let before = Look::at(nodes, &fleet)?;
        load.run(&producer, |batch| ids.extend_from_slice(batch)).await?;
        tell.send_replace(Some(spread.messages));
        anyhow::Ok((rest, before))
    };
    let collecting = async {
        let patience = PATIENCE + SETTLE + spread.idle;
        let all = collector.collect(expected, patience, &mut take).await?;
        ensure!(all, "nothing came out for {} s", patience.as_secs());
        Look::at(nodes, &fleet)
    };
    let ((rest, before), after) = tokio::try_join!(sending, collecting)?;
    // Whatever comes besides is a duplicate.
    collector.collect(watch::channel(None).1, QUIET, &mut take).await?;
    let repeated = collector.repeated;
    collector.finish().await?;
    fleet.stop().await?;
    let ledger = place.open_record(shards.base()).await?;
    let mut verdict = judge_came(&shards, &ledger, &ids, &trail.came, &trail.digest).await?;
    verdict.duplicated += repeated as u64;
    compare(&mut verdict, &trail, &load);
    drop((producer, shards));
    place.clear().await?;
    let ran = Ran::new(spread.messages, after.at - before.at, Vec::new(), verdict);
    Ok(Run::of([&rest, &before, &after], &trail, &owners, ran))
}

/// Compares what came out with what was sent: the payloads, and the order within each key.
fn compare(verdict: &mut Verdict, trail: &Trail, load: &Load) {
    let mut tell = |what: String| {
        if verdict.violations.len() < TOLD {
            verdict.violations.push(what);
        }
    };
    for what in &trail.strange {
        verdict.differing += 1;
        tell(format!("output: {what}"));
    }
    for came in trail.altered(load) {
        verdict.differing += 1;
        tell(format!("output: {} is not what was sent", came.id));
    }
    let mut last: HashMap<String, u64> = HashMap::new();
    for number in trail.came.iter().filter_map(|came| load.number(came.id.as_str())) {
        let Some(key) = load.key(number) else { continue };
        let before = last.entry(key).or_default();
        if *before > number {
            verdict.reordered += 1;
            tell(format!("order: message {number} came after {before} of its key"));
        }
        *before = number.max(*before);
    }
}

impl Run {
    #[allow(clippy::cast_precision_loss, reason = "averages")]
    fn of([rest, before, after]: [&Look; 3], trail: &Trail, owners: &[usize], ran: Ran) -> Self {
        let messages = ran.messages.max(1) as f64;
        let idle = (before.at - rest.at).as_secs_f64().max(1e-9);
        let of_each = after.nodes.iter().zip(&before.nodes).enumerate();
        let nodes = of_each.map(|(node, (after, before))| {
            let owner = |position: u64| {
                let partition = usize::try_from(position / PLACES).ok();
                partition.and_then(|partition| owners.get(partition))
            };
            let own = trail
                .came
                .iter()
                .filter(|came| owner(came.position.0) == Some(&node))
                .count();
            Node {
                messages: own as u64,
                cpu_us: after.cpu.saturating_sub(before.cpu).as_secs_f64() * 1e6 / own.max(1) as f64,
            }
        });
        Self {
            server_us: after.cpu().saturating_sub(before.cpu()).as_secs_f64() * 1e6 / messages,
            processor_us: after.processors.saturating_sub(before.processors).as_secs_f64() * 1e6 / messages,
            steps: (after.steps() - before.steps()) / messages,
            idle_server_ms: before.cpu().saturating_sub(rest.cpu()).as_secs_f64() * 1e3 / idle,
            idle_processor_ms: before.processors.saturating_sub(rest.processors).as_secs_f64() * 1e3 / idle,
            idle_steps: (before.steps() - rest.steps()) / idle,
            connections: after.nodes.iter().map(|node| node.connections).sum(),
            nodes: nodes.collect(),
            ran,
        }
    }
}
