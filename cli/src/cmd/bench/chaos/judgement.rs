//! What is looked at in the end, and what must be so.

use std::collections::HashSet;
use std::time::Duration;

use conga::core::message::Output;
use conga::core::partition::{ReceiveRequest, Shelf, Status};
use conga::core::term::Reign;
use conga::record::Rows;
use conga::shards::Shards;
use conga::store::SharedStore;
use tokio::time::{Instant, sleep};

use super::injector::Injector;
use super::poison::Poison;
use super::report::{Findings, Report};
use super::{Campaign, Stage, log};
use crate::bench::judge::judge_came;
use crate::bench::load::Load;
use crate::bench::trail::Trail;
use crate::text;

/// How many outputs are told of in words, of each kind.
const TOLD: usize = 20;
/// How often the partitions are looked at.
const LOOK: Duration = Duration::from_millis(20);

impl Campaign {
    pub(super) async fn judge(
        &self,
        stage: &Stage,
        mut injector: Injector,
        (started, healed): (Instant, Instant),
        (load, ids): (&Load, &[String]),
        trail: Trail,
        mut findings: Findings,
    ) -> anyhow::Result<Report> {
        if stage.shards.are_merged() {
            acknowledged(&stage.shards, self.patience).await?;
        }
        let (tries, seen) = (injector.tries(), injector.strange());
        let mut done = injector.log.clone();
        if let Err(error) = injector.end().await {
            findings.add(format!("a service did not end cleanly: {error:#}"));
        }
        for strange in seen {
            findings.add(strange);
        }
        let each = statuses(&stage.shards).await?;
        for status in &each {
            findings.left_over(status);
        }
        let verdict = judge_came(&stage.shards, &stage.ledger, ids, &trail.came, &trail.digest).await?;
        if stage.shards.are_merged() && verdict.lost > 0 {
            findings.not_merged(&not_merged(&stage.shards, &trail).await?);
        }
        let blame = injector.blame(&stage.shards).await?;
        let poison = Poison::of(&self.poison, load, &trail, ids.len(), (injector.deaths.len(), blame));
        poison.judge(&trail, load, &mut findings);
        findings.dead(each.iter().map(|status| status.dead).sum(), poison.expected());
        findings.records(&verdict, ids, poison.expected());
        altered(&trail, load, &mut findings);
        for what in &trail.strange {
            findings.add(what.clone());
        }
        findings.tries("stale emits", tries.emits);
        findings.tries("stale completes", tries.completes);
        findings.tries("stale merges", tries.merges);
        log::overlap(&mut done, &injector.deaths);
        let faults = log::kinds(&self.faults, &done, &trail.arrivals);
        findings.never(&faults);
        let violations = findings.list();
        let last = trail.arrivals.last().copied();
        Ok(Report {
            bench: "chaos",
            store: stage.url.clone(),
            record: stage.record.clone(),
            order: self.options.shape.unwrap_or_default().to_string(),
            seed: self.chaos.seed,
            messages: ids.len() as u64,
            elapsed_ms: text::millis(last.map_or_else(|| started.elapsed(), |last| last - started)),
            longest_gap_ms: text::millis(trail.longest_gap()),
            healed_ms: text::millis(last.map_or(Duration::ZERO, |last| last.saturating_duration_since(healed))),
            terms: each.iter().map(|status| status.term.0).max().unwrap_or(0),
            processed_again: trail.came.iter().filter(|came| came.attempts > 1).count(),
            stale_emits: tries.emits,
            stale_completes: tries.completes,
            stale_merges: tries.merges,
            poison: (!self.poison.is_empty()).then_some(poison),
            passed: verdict.passed() && violations.is_empty(),
            faults,
            verdict,
            violations,
            log: log::lines(&done, &trail.arrivals, started),
        })
    }
}

/// How each partition stands; of a merged line the base too.
async fn statuses(shards: &Shards) -> anyhow::Result<Vec<Status>> {
    let mut each = shards.status().await?;
    if shards.are_merged() {
        each.push(shards.base().status().await?);
    }
    Ok(each)
}

/// Waits until the leader has acknowledged in the partitions what it has merged. What it does not is told of as left over.
async fn acknowledged(shards: &Shards, patience: Duration) -> anyhow::Result<()> {
    let began = Instant::now();
    while began.elapsed() < patience && shards.status().await?.iter().any(|status| status.output > 0) {
        sleep(LOOK).await;
    }
    Ok(())
}

/// What is recorded in a partition, and neither stands in its output nor came out of the line: acknowledged and not merged.
async fn not_merged(shards: &Shards, trail: &Trail) -> anyhow::Result<Vec<String>> {
    let came: HashSet<&str> = trail.came.iter().map(|came| came.id.as_str()).collect();
    let mut missing = Vec::new();
    for store in shards.partitions() {
        let there = outputs(store).await?;
        let mut rows = Rows::new(store.clone(), Shelf::Record);
        while let Some(page) = rows.next().await? {
            let gone = page.iter().map(|row| row.id.as_str());
            let gone = gone.filter(|id| !came.contains(id) && !there.contains(*id));
            missing.extend(gone.map(str::to_owned));
        }
    }
    Ok(missing)
}

/// The ids of the outputs of a partition that nobody reads any more.
async fn outputs(store: &SharedStore) -> anyhow::Result<HashSet<String>> {
    let status = store.status().await?;
    let mut request = ReceiveRequest {
        reign: status.consumer.map(|owner| Reign {
            owner,
            term: status.consumer_term,
        }),
        max: 1_000,
        ..ReceiveRequest::default()
    };
    let mut ids = HashSet::new();
    loop {
        let outputs = store.receive(&request).await?.outputs();
        if outputs.is_empty() {
            return Ok(ids);
        }
        request.skip += outputs.len();
        for output in &outputs {
            ids.insert(Output::parse(output)?.record.id.as_str().to_owned());
        }
    }
}

/// The handlers here answer what they were given.
fn altered(trail: &Trail, load: &Load, findings: &mut Findings) {
    for came in trail.altered(load).take(TOLD) {
        findings.add(format!(
            "position {}: id {}: the output is not what was sent",
            came.position, came.id
        ));
    }
}
