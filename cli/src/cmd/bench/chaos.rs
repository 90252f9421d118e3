//! `conga bench chaos`: kills under load. A process that is killed is followed by another.

use std::time::Duration;

use anyhow::bail;
use conga::send::Producer;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::verdict_text;
use crate::args::{Chaos, Fault};
use crate::bench::collect::collect;
use crate::bench::fleet::{Fleet, Role, Work};
use crate::bench::judge::{Verdict, judge_run};
use crate::bench::load::{Load, Until};
use crate::bench::place::Place;
use crate::settings::Settings;
use crate::text;

/// How often a processor is hit, and how often the leader.
const PROCESSOR_EVERY: Duration = Duration::from_millis(300);
const LEADER_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, Serialize)]
struct Report {
    bench: &'static str,
    store: String,
    seed: u64,
    messages: u64,
    elapsed_ms: f64,
    longest_gap_ms: f64,
    /// What was really done.
    injected: Injected,
    /// Terms at the end: one more than changes of leader.
    terms: u64,
    /// Messages that were delivered after more than one attempt.
    processed_again: usize,
    verdict: Verdict,
    passed: bool,
}

#[derive(Debug, Default, Serialize)]
struct Injected {
    kill_processor: u64,
    kill_leader: u64,
}

pub(crate) async fn chaos(settings: &Settings, chaos: &Chaos) -> anyhow::Result<bool> {
    let place = Place::new(settings, "chaos")?;
    let store = place.open().await?;
    let work = Work {
        handler: chaos.handler.clone(),
        concurrency: chaos.concurrency,
        window: chaos.window,
    };
    let mut fleet = Fleet::start(&place, &work, chaos.processors, chaos.sequencers).await?;
    let bar = text::progress("delivered", Some(chaos.messages), settings.json);
    let started = Instant::now();
    let mut ids = Vec::new();
    let load = Load::new(Until::Count(chaos.messages), None, 200);
    load.run(&Producer::new(store.clone()), |batch| ids.extend_from_slice(batch))
        .await?;

    let (_known, expected) = watch::channel(Some(chaos.messages));
    let counted = bar.clone();
    let mut injected = Injected::default();
    let collected = tokio::select! {
        collected = collect(store.clone(), expected, Duration::from_secs(20), |more| counted.inc(more)) => collected?,
        error = inject(chaos, &place, &work, &store, &mut fleet, &mut injected) => bail!(error),
    };
    bar.finish_and_clear();
    let elapsed = collected.last.map_or_else(|| started.elapsed(), |last| last - started);
    let terms = store.status().await?.term.0;
    // What was started while the end came is not waited for to be ready.
    fleet.stop().await?;
    let verdict = judge_run(&store, &ids, &collected.lines, &collected.outputs).await?;
    let asked_for = |fault| chaos.faults.contains(&fault);
    let nothing_done = (asked_for(Fault::KillProcessor) && injected.kill_processor == 0)
        || (asked_for(Fault::KillLeader) && injected.kill_leader == 0);
    let report = Report {
        bench: "chaos",
        store: place.url.to_string(),
        seed: chaos.seed,
        messages: chaos.messages,
        elapsed_ms: text::millis(elapsed),
        longest_gap_ms: text::millis(collected.longest_gap),
        injected,
        terms,
        processed_again: collected
            .outputs
            .iter()
            .filter(|output| output.record.attempts.0 > 1)
            .count(),
        // A run that was over before it was disturbed has shown nothing.
        passed: verdict.passed() && !nothing_done,
        verdict,
    };
    if settings.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print!("{}", report.to_text());
    }
    drop(store);
    place.clear().await?;
    Ok(report.passed)
}

/// Hits until it is dropped; returns only what went wrong.
async fn inject(
    chaos: &Chaos,
    place: &Place,
    work: &Work,
    store: &conga::store::SharedStore,
    fleet: &mut Fleet,
    injected: &mut Injected,
) -> anyhow::Error {
    let every = |period| {
        let mut ticks = interval_at(Instant::now() + period, period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks
    };
    let (mut processors, mut leaders) = (every(PROCESSOR_EVERY), every(LEADER_EVERY));
    let mut random = chaos.seed;
    loop {
        let done = tokio::select! {
            _ = processors.tick(), if chaos.faults.contains(&Fault::KillProcessor) => {
                random = next(random);
                kill_processor(random, place, work, fleet, injected).await
            }
            _ = leaders.tick(), if chaos.faults.contains(&Fault::KillLeader) => {
                kill_leader(place, work, store, fleet, injected).await
            }
        };
        if let Err(error) = done {
            return error;
        }
    }
}

async fn kill_processor(
    random: u64,
    place: &Place,
    work: &Work,
    fleet: &mut Fleet,
    injected: &mut Injected,
) -> anyhow::Result<()> {
    let owners: Vec<String> = fleet
        .members
        .iter()
        .filter(|member| member.role == Role::Processor)
        .map(|member| member.owner.clone())
        .collect();
    let Some(victim) = usize::try_from(random >> 33)
        .ok()
        .and_then(|at| owners.get(at % owners.len().max(1)))
    else {
        return Ok(());
    };
    if fleet.kill(|member| member.owner == *victim).await?.is_some() {
        injected.kill_processor += 1;
        fleet.add(place, work, Role::Processor).await?;
    }
    Ok(())
}

async fn kill_leader(
    place: &Place,
    work: &Work,
    store: &conga::store::SharedStore,
    fleet: &mut Fleet,
    injected: &mut Injected,
) -> anyhow::Result<()> {
    let Some(leader) = store.status().await?.leader else {
        return Ok(());
    };
    if fleet.kill(|member| member.owner == leader.as_str()).await?.is_some() {
        injected.kill_leader += 1;
        fleet.add(place, work, Role::Sequencer).await?;
    }
    Ok(())
}

/// The next of a sequence of numbers. Source: D. Knuth, MMIX, linear congruential generator.
fn next(random: u64) -> u64 {
    random
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407)
}

impl Report {
    fn to_text(&self) -> String {
        format!(
            "  store       {}\n  seed        {}\n  injected    {} kills of a processor, {} of the leader\n  \
             elapsed     {:.1} ms, at most {:.1} ms without a delivery\n  terms       {}\n  again       {} processed more than once\n{}",
            self.store,
            self.seed,
            self.injected.kill_processor,
            self.injected.kill_leader,
            self.elapsed_ms,
            self.longest_gap_ms,
            self.terms,
            self.processed_again,
            verdict_text(&self.verdict),
        )
    }
}
