//! `conga receive`: the output, acknowledged once written.

use std::io::Write as _;
use std::time::Duration;

use bytes::Bytes;
use conga::core::message::{Body, Output};
use conga::deliver::Consumer;

use crate::args::Receive;
use crate::settings::Settings;
use crate::{signal, text};

mod several;

/// How long a command that is told to end waits for the store.
const GOODBYE: Duration = Duration::from_secs(1);
/// At most so many outputs in one step.
const BATCH: usize = 1_000;

pub(crate) async fn run(settings: &Settings, receive: Receive) -> anyhow::Result<bool> {
    let shutdown = signal::shutdown()?;
    let waits = receive.follow || receive.count.is_some();
    let shards = if waits {
        settings.open_shards_patiently(&shutdown).await?
    } else {
        Some(settings.open_shards().await?)
    };
    let Some(shards) = shards else { return Ok(false) };
    if shards.are_several() && !shards.are_merged() {
        return several::run(&shards, &receive, &shutdown).await;
    }
    let mut consumer = Consumer::new(shards.base().clone());
    let bar = text::progress("receiving", receive.count, settings.json || receive.count.is_none());
    let mut received = 0;
    loop {
        let max = receive.count.map_or(BATCH, |count| {
            usize::try_from(count - received).unwrap_or(BATCH).min(BATCH)
        });
        if max == 0 {
            break;
        }
        let batch = tokio::select! {
            batch = async {
                if waits { consumer.next(max).await } else { consumer.try_next(max).await }
            } => batch?,
            () = shutdown.cancelled() => break,
        };
        if batch.outputs.is_empty() {
            if let Some(other) = consumer.stands_by_for() {
                eprintln!("conga: {other} receives this line; --follow or --count stands by until it ends");
                return Ok(false);
            }
            break;
        }
        // Not on the thread that renews this consumer's lock: whoever reads may take their time.
        let outputs = batch.outputs.clone();
        match tokio::task::spawn_blocking(move || write(&outputs, receive.payload)).await? {
            Ok(()) => {}
            // Whoever read this has gone. What it did not read stays in the line.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => break,
            Err(error) => return Err(error.into()),
        }
        consumer.acknowledge(&batch);
        received += batch.outputs.len() as u64;
        bar.inc(batch.outputs.len() as u64);
    }
    // Once told to end it does not wait for a store that is away: what is not acknowledged is handed out again.
    let is_acknowledged = tokio::select! {
        finished = consumer.finish() => finished.map(|()| true)?,
        () = async { shutdown.cancelled().await; tokio::time::sleep(GOODBYE).await } => false,
    };
    bar.finish_and_clear();
    Ok(receive.count.is_none_or(|count| received == count && is_acknowledged))
}

fn write(outputs: &[Bytes], payload: bool) -> std::io::Result<()> {
    let mut to = std::io::BufWriter::with_capacity(1 << 16, std::io::stdout().lock());
    for output in outputs {
        if payload {
            to.write_all(&payload_of(output))?;
        } else {
            to.write_all(output)?;
        }
        to.write_all(b"\n")?;
    }
    to.flush()
}

/// An output's payload as a person would see it; a tombstone's place stays empty.
fn payload_of(output: &Bytes) -> Bytes {
    match Output::parse(output).map(|output| output.record.body) {
        Ok(Body::Result(payload)) => payload.to_bytes(),
        Ok(Body::Dead { .. }) => Bytes::new(),
        Err(_) => output.clone(),
    }
}
