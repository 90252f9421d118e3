//! `conga demo`: the story of Conga, in half a minute.

use std::time::Duration;

use anyhow::Context as _;
use conga::send::Producer;
use conga::store::{Delivery, SharedStore};
use tokio::sync::watch;
use tokio::time::Instant;

use super::bench::verdict_text;
use crate::args::Demo;
use crate::bench::collect::{Collected, collect};
use crate::bench::fleet::{Fleet, Role, Work};
use crate::bench::judge::judge_run;
use crate::bench::load::{Load, Until};
use crate::bench::page::Page;
use crate::bench::picture::{Mark, positions_over_time};
use crate::bench::place::Place;
use crate::bench::stages::Stages;
use crate::settings::{Settings, wrong};
use crate::text;

const PROCESSORS: usize = 3;
const CONCURRENCY: usize = 20;
const SEQUENCERS: usize = 2;
/// The least and the most time that a message takes, in milliseconds.
const WORK_MS: (u64, u64) = (100, 900);

pub(crate) async fn run(settings: &Settings, demo: Demo) -> anyhow::Result<bool> {
    if demo.messages < 100 {
        return Err(wrong(
            "--messages must be at least 100: the story needs time for two kills",
        ));
    }
    let mut place = Place::new(settings, "demo")?;
    // The story has a leader in it.
    place.options.delivery = Delivery::Leader;
    let store = place.open().await?;
    let teller = Teller { silent: settings.json };
    let work = Work {
        handler: format!("sleep:{}ms..{}ms", WORK_MS.0, WORK_MS.1),
        handling: Vec::new(),
        concurrency: CONCURRENCY,
        window: 10_000,
        options: place.options.clone(),
        record: place.record.clone(),
        network: None,
    };
    teller.say(&format!(
        "1. {PROCESSORS} processors and {SEQUENCERS} sequencers start, each a process of its own, on {}",
        place.url
    ));
    let mut fleet = Fleet::start(&place, &work, PROCESSORS, SEQUENCERS).await?;
    let told = tell(&teller, &store, &mut fleet, demo.messages).await?;
    fleet.stop().await?;
    teller.say("5. what came out is compared with what went in and with the record");
    let verdict = judge_run(
        &store,
        &place.open_record(&store).await?,
        &told.ids,
        &told.collected.lines,
        &told.collected.outputs,
    )
    .await?;
    let again = told
        .collected
        .outputs
        .iter()
        .filter(|output| output.record.attempts.0 > 1)
        .count();
    let figures = [
        ("messages", demo.messages.to_string()),
        ("elapsed", format!("{:.2} s", told.elapsed.as_secs_f64())),
        (
            "longest time without a delivery",
            format!("{:.0} ms", text::millis(told.collected.longest_gap())),
        ),
        ("processed again after the kill", again.to_string()),
        ("terms", told.terms.to_string()),
    ];
    Page {
        title: "Conga: processed in parallel, delivered in order",
        story: "Each message is drawn twice: an orange dot where it was processed, in whatever order that was, and the \
                blue line where it was delivered. The red lines are kill -9 of a processor and of the leading sequencer.",
        figures: &figures,
        verdict: &verdict,
        stages: &Stages::of(&told.collected.outputs, None)?,
        picture: &positions_over_time(&told.collected.outputs, &told.marks)?,
    }
    .write(&demo.report)?;
    if settings.json {
        let answer = serde_json::json!({
            "demo": "kills",
            "store": place.url.to_string(),
            "messages": demo.messages,
            "elapsed_ms": text::millis(told.elapsed),
            "longest_gap_ms": text::millis(told.collected.longest_gap()),
            "processed_again": again,
            "terms": told.terms,
            "verdict": verdict,
            "passed": verdict.passed(),
            "report": demo.report,
        });
        println!("{answer}");
    } else {
        for (name, value) in &figures {
            println!("  {name:<34}{value}");
        }
        print!("{}", verdict_text(&verdict));
        println!("  picture and figures: {}", demo.report.display());
    }
    drop(store);
    place.clear().await?;
    Ok(verdict.passed())
}

/// Tells the story to a person.
struct Teller {
    silent: bool,
}

impl Teller {
    fn say(&self, text: &str) {
        if !self.silent {
            eprintln!("{text}");
        }
    }
}

/// What happened.
struct Told {
    ids: Vec<String>,
    collected: Collected,
    marks: Vec<Mark>,
    elapsed: Duration,
    terms: u64,
}

/// A burst goes in; when a third is delivered a processor is killed, when two thirds are, the leader.
async fn tell(teller: &Teller, store: &SharedStore, fleet: &mut Fleet, messages: u64) -> anyhow::Result<Told> {
    teller.say(&format!(
        "2. {messages} messages go in, each takes {} to {} ms; {} are processed at once",
        WORK_MS.0,
        WORK_MS.1,
        PROCESSORS * CONCURRENCY
    ));
    let started = Instant::now();
    let mut ids = Vec::new();
    let load = Load::new(Until::Count(messages), None, 100);
    load.run(&Producer::new(store.clone()), |batch| ids.extend_from_slice(batch))
        .await?;

    let (count, mut delivered) = watch::channel(0_u64);
    let bar = text::progress("delivered", Some(messages), teller.silent);
    let counted = bar.clone();
    let (_known, expected) = watch::channel(Some(messages));
    let collecting = collect(store.clone(), expected, Duration::from_secs(20), |more| {
        counted.inc(more);
        count.send_modify(|total| *total += more);
    });
    let killing = async {
        delivered.wait_for(|count| *count >= messages / 3).await?;
        let owner = fleet
            .kill(|member| member.role == Role::Processor)
            .await?
            .context("no processor to kill")?;
        let first = mark(store, "a processor is killed").await?;
        bar.suspend(|| {
            teller.say(&format!(
                "3. kill -9 of {owner}, with its {CONCURRENCY} messages in its hands"
            ));
        });
        delivered.wait_for(|count| *count >= messages * 2 / 3).await?;
        let leader = leader(store).await?;
        let owner = fleet
            .kill(|member| member.owner == leader)
            .await?
            .context("the leader is not of this fleet")?;
        let second = mark(store, "the leader is killed").await?;
        bar.suspend(|| teller.say(&format!("4. kill -9 of {owner}, which leads")));
        anyhow::Ok(vec![first, second])
    };
    let (collected, marks) = tokio::try_join!(collecting, killing)?;
    bar.finish_and_clear();
    Ok(Told {
        ids,
        elapsed: collected
            .last()
            .map_or_else(|| started.elapsed(), |last| last - started),
        collected,
        marks,
        terms: store.status().await?.term.0,
    })
}

async fn mark(store: &SharedStore, what: &str) -> anyhow::Result<Mark> {
    Ok(Mark {
        at: store.status().await?.now,
        what: what.to_owned(),
    })
}

/// Who leads; waits for somebody to.
async fn leader(store: &SharedStore) -> anyhow::Result<String> {
    loop {
        if let Some(leader) = store.status().await?.leader {
            return Ok(leader.to_string());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
