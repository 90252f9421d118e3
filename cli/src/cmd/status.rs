//! `conga status`: how a line stands.

use std::fmt;
use std::time::Duration;

use conga::core::partition::{Control, Limit, Status};
use conga::core::shape::Shape;
use conga::core::time::Micros;
use conga::line::Line;
use conga::shards::parts;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use self::blocking::Blocking;
use super::control;
use crate::args::{self, Stays};
use crate::settings::Settings;
use crate::signal;
use crate::text::count;

pub(super) mod blocking;
mod several;

pub(crate) async fn run(settings: &Settings, given: args::Status) -> anyhow::Result<bool> {
    let shards = settings.open_shards().await?;
    let line = settings.line()?;
    let shutdown = signal::shutdown()?;
    let mut before: Option<Status> = None;
    loop {
        let each = shards.status().await?;
        let Some(mut status) = several::sum(&each) else {
            return Ok(true);
        };
        let mut blocked = several::blocked(&each);
        if shards.are_merged() {
            let base = shards.base().status().await?;
            let next = several::home(&each, base.head);
            status = several::merged(status, base, &each[next]);
            blocked = Some(next);
        }
        let blocking = blocked.and_then(|partition| {
            let which = shards.are_several().then_some(partition);
            Blocking::of(&each[partition], which)
        });
        let shape = shards.base().shape(None).await?;
        let rates = before.as_ref().map(|before| Rates::between(before, &status));
        if settings.json {
            let mut value = to_json(line.name(), &status, blocking.as_ref(), rates.as_ref());
            value["order"] = shape.map(|shape| shape.to_string()).into();
            if shards.are_several() {
                let parts = parts(&line, shape.unwrap_or_default()).zip(&each);
                let part = |(part, status): (Line, &Status)| {
                    to_json(&part.tag(), status, Blocking::of(status, None).as_ref(), None)
                };
                value["partitions"] = parts.map(part).collect();
            }
            println!("{value}");
        } else {
            print!("{}", to_text(line.name(), &status, blocking.as_ref(), rates.as_ref()));
            if let Some(shape) = shape.filter(|shape| *shape != Shape::TOTAL) {
                println!("  order       {shape}");
            }
            for (part, status) in parts(&line, shape.unwrap_or_default()).zip(&each) {
                println!(
                    "  {part}: waiting {}  in flight {}  processed {}  output {}  dead {}  halted {}  head {}",
                    status.waiting,
                    status.in_flight,
                    status.processed,
                    status.output,
                    status.dead,
                    status.halted,
                    status.head
                );
            }
        }
        if !given.watch || !pause(&shutdown).await {
            return Ok(true);
        }
        before = Some(status);
    }
}

/// Whether to go on after a second.
async fn pause(shutdown: &CancellationToken) -> bool {
    tokio::select! {
        () = shutdown.cancelled() => false,
        () = tokio::time::sleep(Duration::from_secs(1)) => true,
    }
}

/// Messages per second between two looks.
struct Rates {
    claimed: f64,
    delivered: f64,
}

impl Rates {
    fn between(before: &Status, after: &Status) -> Self {
        #[allow(clippy::cast_precision_loss, reason = "a rate for people")]
        let per_second = |count: u64| count as f64 * 1e6 / after.now.since(before.now).max(1) as f64;
        Self {
            claimed: per_second(after.next.past(before.next)),
            delivered: per_second(after.head.past(before.head)),
        }
    }
}

/// How much of one kind stays.
struct Stay {
    count: u64,
    oldest: Option<Micros>,
    /// As a processor has last told; none has.
    limit: Option<Limit>,
}

impl Stay {
    fn all(status: &Status) -> [(&'static str, Self); 3] {
        let stay = |count, oldest, limit| Self { count, oldest, limit };
        let Status { keep, oldest, .. } = status;
        [
            (
                "records",
                stay(status.recorded, oldest.record, keep.map(|keep| keep.records)),
            ),
            ("dead", stay(status.dead, oldest.dead, keep.map(|keep| keep.dead))),
            (
                "output",
                stay(status.output, oldest.output, keep.map(|keep| keep.outputs)),
            ),
        ]
    }
}

impl fmt::Display for Stay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.count)?;
        if let Some(oldest) = self.oldest {
            write!(f, " since {oldest}")?;
        }
        match self.limit {
            None => f.write_str(", no processor has told a limit"),
            Some(Limit::NONE) => f.write_str(", all stay"),
            Some(limit) => write!(f, ", limit {}", Stays(limit)),
        }
    }
}

fn to_json(line: &str, status: &Status, blocking: Option<&Blocking<'_>>, rates: Option<&Rates>) -> Value {
    let mut value = json!({
        "line": line,
        "now": status.now.to_string(),
        "waiting": status.waiting,
        "in_flight": status.in_flight,
        "processed": status.processed,
        "output": status.output,
        "recorded": status.recorded,
        "dead": status.dead,
        "halted": status.halted,
        "control": control::to_json(&status.control),
        "head": status.head.0,
        "next": status.next.0,
        "term": status.term.0,
        "leader": status.leader.as_ref().map(ToString::to_string),
        "consumer": status.consumer.as_ref().map(|consumer| json!({
            "owner": consumer.to_string(),
            "term": status.consumer_term.0,
            "since": status.consumer_since.to_string(),
            "age_ms": millis(status.now.since(status.consumer_since)),
        })),
        "producers": status.producers,
        "missing": status.missing.map(|since| json!({
            "sequence": status.head.0,
            "since": since.to_string(),
            "age_ms": millis(status.now.since(since)),
        })),
        "processors": status.processors.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "blocker": blocking.map(|blocking| blocking.to_json(status.now)),
    });
    for (kind, stays) in Stay::all(status) {
        value["keep"][kind] = json!({
            "kept": stays.count,
            "oldest": stays.oldest.map(|since| since.to_string()),
            "count": stays.limit.and_then(|limit| limit.count),
            "age_ms": stays.limit.and_then(|limit| limit.age_us).map(millis),
            "told": stays.limit.is_some(),
        });
    }
    if let Some(rates) = rates {
        value["claimed_per_second"] = rates.claimed.into();
        value["delivered_per_second"] = rates.delivered.into();
    }
    value
}

fn to_text(line: &str, status: &Status, blocking: Option<&Blocking<'_>>, rates: Option<&Rates>) -> String {
    use std::fmt::Write as _;
    let mut text = format!(
        "line {line} at {}\n  waiting {}  in flight {}  processed {}  output {}  recorded {}  dead {}\n",
        status.now, status.waiting, status.in_flight, status.processed, status.output, status.recorded, status.dead,
    );
    // Writing to a String never fails.
    if status.control != Control::default() {
        let _ = writeln!(text, "  {}", control::to_text(&status.control));
    }
    if let Some(since) = status.missing {
        let seconds = millis(status.now.since(since)) / 1e3;
        let _ = writeln!(
            text,
            "  sequence {} is missing for {seconds:.1} s: the line waits for it",
            status.head
        );
    }
    let head = match blocking {
        Some(blocking) => blocking.to_text(status.now),
        None if status.waiting + status.in_flight + status.processed == 0 => "nothing to do".to_owned(),
        None if status.processed > 0 => "waits for a leader to deliver it".to_owned(),
        None => "waits to be claimed".to_owned(),
    };
    let _ = writeln!(text, "  head {}: {head}", status.head);
    if status.halted > 0 {
        let at = count(status.halted, "dead letter");
        let _ = match blocking.and_then(Blocking::advice) {
            Some(advice) => writeln!(text, "  ALARM: halted at {at}; the first: {advice} (conga dead list)"),
            None => writeln!(text, "  ALARM: halted at {at}: conga dead list has them"),
        };
    }
    let leader = status.leader.as_ref().map_or("nobody", |leader| leader.as_str());
    let _ = writeln!(
        text,
        "  leader {leader} (term {})  processors {}",
        status.term,
        status.processors.len()
    );
    let consumer = status.consumer.as_ref().map_or_else(
        || "nobody".to_owned(),
        |consumer| {
            let seconds = millis(status.now.since(status.consumer_since)) / 1e3;
            format!("{consumer} for {seconds:.1} s (term {})", status.consumer_term)
        },
    );
    let _ = writeln!(
        text,
        "  consumer {consumer}  producers that number {}",
        status.producers
    );
    for (kind, stays) in Stay::all(status) {
        let _ = writeln!(text, "  keep {kind}: {stays}");
    }
    if let Some(rates) = rates {
        let _ = writeln!(
            text,
            "  claimed {:.1}/s  delivered {:.1}/s",
            rates.claimed, rates.delivered
        );
    }
    text
}

#[allow(clippy::cast_precision_loss, reason = "a time for people")]
fn millis(micros: u64) -> f64 {
    micros as f64 / 1e3
}
