//! `conga send`: messages into the line.

use anyhow::Context as _;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use conga::clock::Clock;
use conga::core::message::{Entry, Format, Id, Position, parse};
use conga::send::{Outgoing, Producer};
use conga::shards::{Lines, Producers, Refused};
use conga::store::StoreError;
use serde_json::json;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, BufReader};
use tokio::sync::{Mutex, mpsc};

use crate::args::Send;
use crate::bench::load::{Load, Until};
use crate::settings::{Settings, wrong};
use crate::text;

/// At most so many lines in one step.
const BATCH: usize = 1_000;
/// A step ends with the line by which its bytes reach this.
const BATCH_BYTES: usize = 8 << 20;
/// A store that is away is waited for so long: a server that is started again, or another that takes over, is there by then.
const PATIENCE: Duration = Duration::from_secs(5);

/// What was sent.
#[derive(Debug, Default)]
struct Sent {
    lines: u64,
    /// Lines before these that an earlier run had sent.
    skipped: u64,
}

pub(crate) async fn run(settings: &Settings, send: Send) -> anyhow::Result<bool> {
    if send.rate.is_some() && send.count.is_none() {
        return Err(wrong("--rate paces generated messages: give --count too"));
    }
    let lines = match (&send.file, send.count) {
        (_, Some(_)) => None,
        (file, None) => Some(open(file.as_deref()).await?),
    };
    let shards = settings.open_shards().await?;
    if let Some(count) = send.count {
        check_sequences(send.first_sequence, count, shards.are_merged())?;
    }
    let started = Instant::now();
    let bar = text::progress("sending", send.count, settings.json);
    let own = || format!("send-{}", uuid::Uuid::new_v4().simple());
    let name = send.producer.clone().unwrap_or_else(own);
    let named = |store| {
        let producer = Producer::named(store, &name);
        match send.max_waiting {
            Some(most) => producer.with_max_waiting(most, send.if_full.meant()),
            None => producer,
        }
    };
    let sent = if let Some(lines) = lines {
        let opened = Lines::begin(&shards, |store| named(store).with_patience(PATIENCE)).await;
        let mut producer = opened.context("nothing was sent")?;
        let again = match send.producer {
            Some(_) => "; run the same command again to go on",
            None => "",
        };
        send_lines(lines, &mut producer, send.first_sequence, again, |count| bar.inc(count)).await?
    } else {
        let load = Load::new(Until::Count(send.count.unwrap_or(0)), send.rate, send.size).numbered(send.first_sequence);
        let progress = |ids: &[String]| bar.inc(ids.len() as u64);
        // Only who numbers its messages can be told that there is no room, and send again what has no answer.
        let lines = match send.max_waiting {
            Some(_) => {
                load.run(&Mutex::new(Lines::begin(&shards, named).await?), progress)
                    .await?
            }
            None => load.run(&Producers::new(&shards), progress).await?,
        };
        Sent { lines, skipped: 0 }
    };
    bar.finish_and_clear();
    if settings.json {
        println!(
            "{}",
            json!({ "sent": sent.lines, "skipped": sent.skipped, "elapsed_ms": text::millis(started.elapsed()) })
        );
    } else {
        if sent.skipped > 0 {
            eprintln!("{} had been sent by an earlier run", text::count(sent.skipped, "line"));
        }
        eprintln!(
            "sent {} in {:.3} s",
            text::count(sent.lines, "message"),
            started.elapsed().as_secs_f64()
        );
    }
    Ok(true)
}

/// Whether so many generated messages can have their sequences, if they have to have any.
fn check_sequences(first: Option<u64>, count: u64, are_needed: bool) -> anyhow::Result<()> {
    match first {
        None if are_needed => Err(wrong(
            "this line puts its messages in order by their sequences, and generated ones have none: give --first-sequence N too, \
             1 if nothing was sent before, else the number after the last one that was sent",
        )),
        Some(first) if first.checked_add(count).is_none() => {
            Err(wrong(format!("there are no {count} sequences from {first} on")))
        }
        _ => Ok(()),
    }
}

/// A file, or standard input.
pub(crate) async fn open(file: Option<&Path>) -> anyhow::Result<Box<dyn AsyncBufRead + Unpin + std::marker::Send>> {
    match file.filter(|path| path.as_os_str() != "-") {
        None => Ok(Box::new(BufReader::new(tokio::io::stdin()))),
        Some(path) => {
            let file = tokio::fs::File::open(path)
                .await
                .map_err(|error| wrong(format!("can't read {}: {error}", path.display())))?;
            Ok(Box::new(BufReader::with_capacity(1 << 16, file)))
        }
    }
}

/// Sends each line that an earlier run has not. Those that are there go together, none waits for more to come.
async fn send_lines(
    lines: impl AsyncBufRead + Unpin + std::marker::Send + 'static,
    producer: &mut Lines,
    mut number: Option<u64>,
    again: &str,
    mut progress: impl FnMut(u64),
) -> anyhow::Result<Sent> {
    let mut sent = Sent::default();
    let mut lines = read_lines(lines);
    let mut batch = Vec::with_capacity(BATCH);
    while lines.recv_many(&mut batch, BATCH).await > 0 {
        let mut bytes = 0;
        for line in batch.drain(..) {
            let mut line = line?;
            if let Some(number) = &mut number {
                line = numbered(&line, *number)?;
                *number += 1;
            }
            bytes += line.len();
            producer.give(&line, || entry(line.clone())).await.map_err(refused)?;
            if bytes >= BATCH_BYTES {
                bytes = 0;
                flush(producer, &mut sent, again, &mut progress).await?;
            }
        }
        flush(producer, &mut sent, again, &mut progress).await?;
    }
    producer.end().map_err(|another| another_input(another.there))?;
    flush(producer, &mut sent, again, &mut progress).await?;
    sent.skipped = producer.skipped();
    Ok(sent)
}

/// Sends what was read.
async fn flush(
    producer: &mut Lines,
    sent: &mut Sent,
    again: &str,
    mut progress: impl FnMut(u64),
) -> anyhow::Result<()> {
    let next = producer.waiting();
    let count = producer.flush().await.map_err(|error| {
        let Refused::Store(error) = error else {
            return refused(error);
        };
        let state = match error {
            StoreError::Unavailable(_) | StoreError::Closed => "and all after them were not sent",
            // Of several parts or partitions, those that had room.
            StoreError::Full { .. } => "were refused, or a part of them, and all after them were not sent",
            // An earlier attempt may have been done.
            StoreError::Unknown(_) | StoreError::Broken(_) => "are in doubt",
        };
        let after = format!(
            "after {} were sent, the next {next} {state}{again}",
            text::count(sent.lines, "line")
        );
        anyhow::Error::from(error).context(after)
    })?;
    sent.lines += count;
    progress(count);
    Ok(())
}

fn refused(error: Refused) -> anyhow::Error {
    match error {
        Refused::AnotherInput(another) => another_input(another.there),
        Refused::NoPlace(error) => wrong(format!(
            "{error}; or let `conga send` number the lines by --first-sequence N"
        )),
        Refused::Store(error) => error.into(),
    }
}

fn another_input(there: u64) -> anyhow::Error {
    anyhow::anyhow!(
        "under this producer's name {} were sent, and the input does not begin with the same; nothing was sent: give each \
         input a --producer NAME of its own",
        text::count(there, "line")
    )
}

/// The lines, without what ends them, as they come. The last one may lack its end.
pub(crate) fn read_lines(
    mut lines: impl AsyncBufRead + Unpin + std::marker::Send + 'static,
) -> mpsc::Receiver<std::io::Result<Bytes>> {
    let (to, from) = mpsc::channel(2 * BATCH);
    tokio::spawn(async move {
        loop {
            let mut line = Vec::new();
            let read = lines.read_until(b'\n', &mut line).await;
            if line.last() == Some(&b'\n') {
                line.pop();
            }
            let line = match read {
                Ok(0) => return,
                Ok(_) => Ok(Bytes::from(line)),
                Err(error) => Err(error),
            };
            let failed = line.is_err();
            if to.send(line).await.is_err() || failed {
                return;
            }
        }
    });
    from
}

/// The entry for a line: an envelope keeps its fields, any other line is a payload as a whole. Either gets the time
/// as `created`, if it has none. What can't be read goes as it is, so that it becomes a dead letter with its reason.
fn entry(line: Bytes) -> Bytes {
    let nowhere = Position(0);
    let Ok(input) = parse(&Entry::Whole(line.clone()), nowhere, Format::Any, u64::MAX) else {
        return line;
    };
    Outgoing {
        id: (input.id != Id::of_position(nowhere)).then(|| input.id.to_string()),
        sequence: input.sequence,
        key: input.key,
        created: input.created.or_else(|| Some(Clock::Store.now())),
        payload: input.payload,
    }
    .to_entry()
}

/// The entry for a line, with its sequence, and without the time: so that it is the same in each run.
fn numbered(line: &Bytes, number: u64) -> anyhow::Result<Bytes> {
    let nowhere = Position(0);
    let input = parse(&Entry::Whole(line.clone()), nowhere, Format::Any, u64::MAX).map_err(|error| {
        wrong(format!(
            "the line that would have the sequence {number} can't be read: {error}"
        ))
    })?;
    if let Some(other) = input.sequence.filter(|sequence| *sequence != number) {
        return Err(wrong(format!(
            "the line that would have the sequence {number} has the sequence {other}"
        )));
    }
    Ok(Outgoing {
        id: (input.id != Id::of_position(nowhere)).then(|| input.id.to_string()),
        sequence: Some(number),
        key: input.key,
        created: input.created,
        payload: input.payload,
    }
    .to_entry())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_becomes_an_envelope_with_the_time() {
        let read = |line: &'static str| {
            let value: serde_json::Value = serde_json::from_slice(&entry(Bytes::from(line))).unwrap();
            value
        };
        let plain = read("plain \"text\"");
        assert_eq!(plain["payload"], "plain \"text\"");
        assert!(plain["created"].is_string());
        assert!(plain.get("id").is_none());
        let envelope = read(r#"{"sequence":7,"created":"2026-01-02T03:04:05Z","payload":[1]}"#);
        assert_eq!(envelope["sequence"], 7);
        assert_eq!(envelope["created"], "2026-01-02T03:04:05.000000Z");
        assert_eq!(
            entry(Bytes::from_static(b"{\"sequence\":-1,\"payload\":0}")).as_ref(),
            b"{\"sequence\":-1,\"payload\":0}"
        );
    }
}
