//! `conga demo`: the story of Conga, in half a minute.

use std::time::Duration;

use anyhow::Context as _;
use conga::send::Producer;
use tokio::sync::watch;
use tokio::time::Instant;

use super::bench::verdict_text;
use crate::args::Demo;
use crate::bench::collect::collect;
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
    let say = |text: String| {
        if !settings.json {
            eprintln!("{text}");
        }
    };
    let place = Place::new(settings, "demo")?;
    let store = place.open().await?;
    say(format!(
        "1. {PROCESSORS} processors and {SEQUENCERS} sequencers start, each a process of its own, on {}",
        place.url
    ));
    let work = Work {
        handler: format!("sleep:{}ms..{}ms", WORK_MS.0, WORK_MS.1),
        concurrency: CONCURRENCY,
        window: 10_000,
    };
    let mut fleet = Fleet::start(&place, &work, PROCESSORS, SEQUENCERS).await?;

    say(format!(
        "2. {} messages go in, each takes {} to {} ms; {} are processed at once",
        demo.messages,
        WORK_MS.0,
        WORK_MS.1,
        PROCESSORS * CONCURRENCY
    ));
    let started = Instant::now();
    let mut ids = Vec::new();
    let load = Load::new(Until::Count(demo.messages), None, 100);
    load.run(&Producer::new(store.clone()), |batch| ids.extend_from_slice(batch))
        .await?;

    let (count, mut delivered) = watch::channel(0_u64);
    let bar = text::progress("delivered", Some(demo.messages), settings.json);
    let counted = bar.clone();
    let (_known, expected) = watch::channel(Some(demo.messages));
    let collecting = collect(store.clone(), expected, Duration::from_secs(20), |more| {
        counted.inc(more);
        count.send_modify(|total| *total += more);
    });
    let killing = async {
        let mut marks = Vec::new();
        delivered.wait_for(|count| *count >= demo.messages / 3).await?;
        let owner = fleet
            .kill(|member| member.role == Role::Processor)
            .await?
            .context("no processor to kill")?;
        marks.push(Mark {
            at: store.status().await?.now,
            what: "a processor is killed".to_owned(),
        });
        bar.suspend(|| {
            say(format!(
                "3. kill -9 of {owner}, with its {CONCURRENCY} messages in its hands"
            ))
        });
        delivered.wait_for(|count| *count >= demo.messages * 2 / 3).await?;
        let leader = store.status().await?.leader.context("nobody leads")?;
        let owner = fleet
            .kill(|member| member.owner == leader.as_str())
            .await?
            .context("the leader is not of this fleet")?;
        marks.push(Mark {
            at: store.status().await?.now,
            what: "the leader is killed".to_owned(),
        });
        bar.suspend(|| say(format!("4. kill -9 of {owner}, which leads")));
        anyhow::Ok(marks)
    };
    let (collected, marks) = tokio::try_join!(collecting, killing)?;
    bar.finish_and_clear();
    let elapsed = collected.last.map_or_else(|| started.elapsed(), |last| last - started);
    let status = store.status().await?;
    fleet.stop().await?;

    say("5. what came out is compared with what went in and with the record".to_owned());
    let verdict = judge_run(&store, &ids, &collected.lines, &collected.outputs).await?;
    let retried = collected
        .outputs
        .iter()
        .filter(|output| output.record.attempts.0 > 1)
        .count();
    let stages = Stages::of(&collected.outputs, None)?;
    let figures = [
        ("messages", demo.messages.to_string()),
        ("elapsed", format!("{:.2} s", elapsed.as_secs_f64())),
        (
            "longest time without a delivery",
            format!("{:.0} ms", text::millis(collected.longest_gap)),
        ),
        ("processed again after the kill", retried.to_string()),
        ("terms", status.term.to_string()),
    ];
    Page {
        title: "Conga: processed in parallel, delivered in order",
        story: "Each message is drawn twice: an orange dot where it was processed, in whatever order that was, and the \
                blue line where it was delivered. The red lines are kill -9 of a processor and of the leading sequencer.",
        figures: &figures,
        verdict: &verdict,
        stages: &stages,
        picture: &positions_over_time(&collected.outputs, &marks)?,
    }
    .write(&demo.report)?;
    if settings.json {
        println!(
            "{}",
            serde_json::json!({
                "demo": "kills",
                "store": place.url.to_string(),
                "messages": demo.messages,
                "elapsed_ms": text::millis(elapsed),
                "longest_gap_ms": text::millis(collected.longest_gap),
                "processed_again": retried,
                "terms": status.term.0,
                "verdict": verdict,
                "passed": verdict.passed(),
                "report": demo.report,
            })
        );
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
