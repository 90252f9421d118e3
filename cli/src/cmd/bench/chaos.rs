//! `conga bench chaos`: faults under load, by name, until all is delivered; then nothing may be lost, doubled or out of
//! place. A process that is killed is followed by another.

use std::time::Duration;

use anyhow::bail;
use conga::send::Producer;
use conga::store::SharedStore;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::verdict_text;
use crate::args::{Chaos, Fault};
use crate::bench::collect::{Collected, collect};
use crate::bench::fleet::{Fleet, Role, Work};
use crate::bench::judge::{Verdict, judge_run};
use crate::bench::load::{Load, Until};
use crate::bench::place::Place;
use crate::settings::Settings;
use crate::text;

/// How long a paused process stands still.
const PAUSE: Duration = Duration::from_millis(1_500);
/// How long after a kill another process is started: later than those who are left must have noticed.
const REPLACE: Duration = Duration::from_millis(250);

impl Fault {
    /// Its name, as on the command line.
    fn name(self) -> &'static str {
        match self {
            Self::KillProcessor => "kill-processor",
            Self::KillLeader => "kill-leader",
            Self::StopProcessor => "stop-processor",
            Self::StopLeader => "stop-leader",
            Self::PauseProcessor => "pause-processor",
            Self::PauseLeader => "pause-leader",
            Self::KillAll => "kill-all",
        }
    }

    /// How often it is injected.
    fn period(self) -> Duration {
        Duration::from_millis(match self {
            Self::KillProcessor => 300,
            Self::StopProcessor => 500,
            Self::KillLeader | Self::StopLeader => 1_000,
            Self::PauseProcessor => 2_000,
            Self::PauseLeader => 3_000,
            Self::KillAll => 5_000,
        })
    }
}

#[derive(Debug, Serialize)]
struct Report {
    bench: &'static str,
    store: String,
    seed: u64,
    messages: u64,
    elapsed_ms: f64,
    longest_gap_ms: f64,
    /// What was really done, and the stalls that followed.
    faults: Vec<Injected>,
    /// Terms at the end: one more than changes of leader.
    terms: u64,
    /// Messages that were delivered after more than one attempt.
    processed_again: usize,
    verdict: Verdict,
    passed: bool,
}

/// One kind of fault. A stall is the longest time without a delivery from one injection to the next of any kind, or for
/// five seconds; the time that the handlers take is in it.
#[derive(Debug, Serialize)]
struct Injected {
    fault: &'static str,
    injected: usize,
    stall_p50_ms: f64,
    stall_max_ms: f64,
}

pub(crate) async fn chaos(settings: &Settings, chaos: &Chaos) -> anyhow::Result<bool> {
    let place = Place::new(settings, "chaos")?;
    let store = place.open().await?;
    let work = Work {
        handler: chaos.handler.clone(),
        concurrency: chaos.concurrency,
        window: chaos.window,
    };
    let fleet = Fleet::start(&place, &work, chaos.processors, chaos.sequencers).await?;
    let bar = text::progress("delivered", Some(chaos.messages), settings.json);
    let started = Instant::now();
    let mut ids = Vec::new();
    let load = Load::new(Until::Count(chaos.messages), None, 200);
    load.run(&Producer::new(store.clone()), |batch| ids.extend_from_slice(batch))
        .await?;

    let (_known, expected) = watch::channel(Some(chaos.messages));
    let counted = bar.clone();
    let mut injector = Injector {
        chaos,
        place: &place,
        work: &work,
        store: &store,
        fleet,
        random: chaos.seed,
        later: Vec::new(),
        done: Vec::new(),
    };
    let collected = tokio::select! {
        collected = collect(store.clone(), expected, Duration::from_secs(20), |more| counted.inc(more)) => collected?,
        error = injector.run() => bail!(error),
    };
    bar.finish_and_clear();
    let done = injector.heal().await?;
    let verdict = judge_run(&store, &ids, &collected.lines, &collected.outputs).await?;
    let faults = count(chaos, &done, &collected);
    let report = Report {
        bench: "chaos",
        store: place.url.to_string(),
        seed: chaos.seed,
        messages: chaos.messages,
        elapsed_ms: text::millis(
            collected
                .last()
                .map_or_else(|| started.elapsed(), |last| last - started),
        ),
        longest_gap_ms: text::millis(collected.longest_gap()),
        terms: store.status().await?.term.0,
        processed_again: collected
            .outputs
            .iter()
            .filter(|output| output.record.attempts.0 > 1)
            .count(),
        // A fault that was asked for and never came has shown nothing.
        passed: verdict.passed() && faults.iter().all(|fault| fault.injected > 0),
        faults,
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

/// What follows a fault.
#[derive(Debug)]
enum Later {
    Start(Role),
    Resume(String),
}

/// Injects faults into a fleet at work.
struct Injector<'a> {
    chaos: &'a Chaos,
    place: &'a Place,
    work: &'a Work,
    store: &'a SharedStore,
    fleet: Fleet,
    random: u64,
    /// What has to be done later.
    later: Vec<(Instant, Later)>,
    done: Vec<(Fault, Instant)>,
}

impl Injector<'_> {
    /// Injects until it is dropped; returns only what went wrong.
    async fn run(&mut self) -> anyhow::Error {
        let start = Instant::now();
        let faults = self.chaos.faults.clone();
        let mut due: Vec<(Instant, Fault)> = faults
            .into_iter()
            .map(|fault| (start + fault.period() + self.jitter(), fault))
            .collect();
        loop {
            due.sort_by_key(|(at, _)| *at);
            let Some(&(at, fault)) = due.first() else {
                return std::future::pending().await;
            };
            self.later.sort_by_key(|(at, _)| *at);
            let step = if self.later.first().is_some_and(|(later, _)| *later <= at) {
                let (at, what) = self.later.remove(0);
                sleep_until(at).await;
                self.follow_up(what).await
            } else {
                sleep_until(at).await;
                due[0].0 = Instant::now() + fault.period() + self.jitter();
                self.inject(fault).await
            };
            if let Err(error) = step {
                return error;
            }
        }
    }

    async fn inject(&mut self, fault: Fault) -> anyhow::Result<()> {
        // One that stands still can't end by itself.
        if matches!(fault, Fault::StopProcessor | Fault::StopLeader) && self.is_one_paused() {
            return Ok(());
        }
        let victim = match fault {
            Fault::KillProcessor | Fault::StopProcessor | Fault::PauseProcessor => self.any_processor(),
            Fault::KillLeader | Fault::StopLeader | Fault::PauseLeader => {
                self.store.status().await?.leader.map(|leader| leader.to_string())
            }
            Fault::KillAll => Some(String::new()),
        };
        let Some(victim) = victim else { return Ok(()) };
        let at = Instant::now();
        let happened = match fault {
            Fault::KillProcessor => self.replace(&victim, Role::Processor).await?,
            Fault::KillLeader => self.replace(&victim, Role::Sequencer).await?,
            Fault::StopProcessor => self.relieve(&victim, Role::Processor).await?,
            Fault::StopLeader => self.relieve(&victim, Role::Sequencer).await?,
            Fault::PauseProcessor | Fault::PauseLeader => self.pause(victim)?,
            Fault::KillAll => self.replace_all().await?,
        };
        if happened {
            self.done.push((fault, at));
        }
        Ok(())
    }

    /// Up to 100 ms: everything here runs in steps of that, and would otherwise be hit at the same point of its step
    /// again and again.
    fn jitter(&mut self) -> Duration {
        self.random = next(self.random);
        Duration::from_millis((self.random >> 33) % 100)
    }

    fn any_processor(&mut self) -> Option<String> {
        self.random = next(self.random);
        let owners: Vec<&String> = self
            .fleet
            .members
            .iter()
            .filter(|member| member.role == Role::Processor)
            .map(|member| &member.owner)
            .collect();
        let at = usize::try_from(self.random >> 33).unwrap_or(0) % owners.len().max(1);
        owners.get(at).map(|owner| (*owner).clone())
    }

    async fn replace(&mut self, owner: &str, role: Role) -> anyhow::Result<bool> {
        let killed = self.fleet.kill(|member| member.owner == owner).await?.is_some();
        if killed {
            self.later.push((Instant::now() + REPLACE, Later::Start(role)));
        }
        Ok(killed)
    }

    /// Starts another, then tells this one to end.
    async fn relieve(&mut self, owner: &str, role: Role) -> anyhow::Result<bool> {
        self.fleet.add(self.place, self.work, role).await?;
        self.fleet.end(owner).await
    }

    async fn replace_all(&mut self) -> anyhow::Result<bool> {
        while self.fleet.kill(|_| true).await?.is_some() {}
        self.later.clear();
        self.fleet = Fleet::start(self.place, self.work, self.chaos.processors, self.chaos.sequencers).await?;
        Ok(true)
    }

    fn is_one_paused(&self) -> bool {
        self.later.iter().any(|(_, what)| matches!(what, Later::Resume(_)))
    }

    /// Stops one process; one at a time.
    fn pause(&mut self, owner: String) -> anyhow::Result<bool> {
        if self.is_one_paused() || !self.fleet.pause(&owner, true)? {
            return Ok(false);
        }
        self.later.push((Instant::now() + PAUSE, Later::Resume(owner)));
        Ok(true)
    }

    async fn follow_up(&mut self, what: Later) -> anyhow::Result<()> {
        match what {
            Later::Start(role) => self.fleet.add(self.place, self.work, role).await,
            // It may have been killed meanwhile.
            Later::Resume(owner) => self.fleet.pause(&owner, false).map(drop),
        }
    }

    /// Ends all faults, then the fleet, which must end cleanly. What was injected.
    async fn heal(mut self) -> anyhow::Result<Vec<(Fault, Instant)>> {
        for (_, what) in std::mem::take(&mut self.later) {
            if matches!(what, Later::Resume(_)) {
                self.follow_up(what).await?;
            }
        }
        self.fleet.stop().await?;
        Ok(self.done)
    }
}

/// What each fault came to.
fn count(chaos: &Chaos, done: &[(Fault, Instant)], collected: &Collected) -> Vec<Injected> {
    let stall_after = |index: usize| {
        let (_, at) = done[index];
        let end = at + Duration::from_secs(5);
        collected.stall(at, done.get(index + 1).map_or(end, |(_, next)| end.min(*next)))
    };
    let of = |fault: &Fault| {
        let mut stalls: Vec<Duration> = (0..done.len())
            .filter(|index| done[*index].0 == *fault)
            .map(stall_after)
            .collect();
        stalls.sort_unstable();
        let at = |index: usize| stalls.get(index).map_or(0.0, |stall| text::millis(*stall));
        Injected {
            fault: fault.name(),
            injected: stalls.len(),
            stall_p50_ms: at(stalls.len() / 2),
            stall_max_ms: at(stalls.len().saturating_sub(1)),
        }
    };
    chaos.faults.iter().map(of).collect()
}

/// The next of a sequence of numbers. Source: D. Knuth, MMIX, linear congruential generator.
fn next(random: u64) -> u64 {
    random
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407)
}

impl Report {
    fn to_text(&self) -> String {
        let mut text = format!(
            "  store       {}\n  seed        {}\n  elapsed     {:.1} ms, at most {:.1} ms without a delivery\n  \
             terms       {}\n  again       {} processed more than once\n  {:<18}{:>9}{:>15}{:>15}\n",
            self.store,
            self.seed,
            self.elapsed_ms,
            self.longest_gap_ms,
            self.terms,
            self.processed_again,
            "fault",
            "injected",
            "stall p50, ms",
            "stall max, ms",
        );
        for fault in &self.faults {
            text.push_str(&format!(
                "  {:<18}{:>9}{:>15.1}{:>15.1}\n",
                fault.fault, fault.injected, fault.stall_p50_ms, fault.stall_max_ms
            ));
        }
        text.push_str(&verdict_text(&self.verdict));
        text
    }
}
