//! `conga pipe`: standard input through a handler to standard output, in parallel and in order.
//!
//! A named job can be killed at any time and run again with the same input: a line's identity is its number and its
//! content, so lines that are in the line already count once, and what was written and acknowledged is not written
//! again. Between writing and acknowledging a kill can still make standard output repeat a batch; a file named by
//! `--output` can be looked at, so there it can't.

use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom, Write};
use std::path::Path;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use conga::clock::Clock;
use conga::core::message::{Body, Output, Payload};
use conga::core::partition::{Keep, OnDead};
use conga::core::shape::Shape;
use conga::deliver::Consumer;
use conga::ledger::LedgerUrl;
use conga::send::{Outgoing, Producer};
use conga::store::SharedStore;
use conga::wake::Topic;
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::send::{open, read_lines};
use super::service;
use crate::args::Pipe;
use crate::bench::place::Place;
use crate::hands::Hands;
use crate::settings::{Settings, wrong};
use crate::{signal, text};

/// At most so many lines in one step.
const BATCH: usize = 1_000;

pub(crate) async fn run(settings: &Settings, pipe: Pipe) -> anyhow::Result<bool> {
    let given = &pipe.service;
    if given.keep_records.or(given.keep_dead).or(given.keep_output).is_some() {
        return Err(wrong(
            "`conga pipe` keeps all of a job, to know what of it is done: leave --keep-… out",
        ));
    }
    let (url, line, place) = if let Some(job) = &pipe.job {
        let line = match settings.given_line() {
            Some(line) => line.clone(),
            None => format!("pipe-{job}").parse().map_err(wrong)?,
        };
        (settings.store(), line, None)
    } else {
        let place = Place::new(settings, "pipe")?;
        (place.url.clone(), place.line.clone(), Some(place))
    };
    let store = conga::store::open_with(&url, &line, settings.options()).await?;
    if let Some(shape) = store.shape(None).await?.filter(|shape| *shape != Shape::TOTAL) {
        return Err(wrong(format!(
            "`conga pipe` keeps the order of its lines, and the line {line} is `{shape}`: give another --line, or none"
        )));
    }
    // A job without a name leaves nothing behind, so nothing is recorded of it elsewhere.
    let record = pipe.job.as_ref().map_or(Ok(LedgerUrl::Store), |_| settings.record())?;
    let mut sink = Sink::open(pipe.output.as_deref())?;
    let mut service = settings.service(&pipe.service)?;
    if service.order.is_some() {
        return Err(wrong("`conga pipe` keeps the order of its lines: leave --order out"));
    }
    let hands = Hands::open(&service, &record, &line, &store).await?;
    // Each line of the input has its line in the output, whatever becomes of it.
    service.processor.on_dead = OnDead::Mark;
    // A job that is run again sends all of its lines again, and knows what is done by its records.
    service.processor.keep = Some(Keep::ALL);
    let limit = service.processor.claim.limits.entry_bytes;
    let told = signal::shutdown()?;
    let input = open(None).await?;

    let bar = text::progress("lines", None, settings.json);
    let (tell, sent) = watch::channel(None);
    let stop = CancellationToken::new();
    let services = service::both(&store, &hands, &service, stop.clone());
    let sending = async {
        let count = send(input, &store, limit).await?;
        tell.send_replace(Some(count));
        anyhow::Ok(())
    };
    let writing = async {
        let written = write(&store, &mut sink, &sent, |count| bar.inc(count)).await?;
        stop.cancel();
        anyhow::Ok(written)
    };
    let done = tokio::select! {
        all = async { tokio::try_join!(services, sending, writing) } => Some(all?.2),
        () = told.cancelled() => None,
    };
    bar.finish_and_clear();
    drop(store);
    if let Some(place) = place {
        place.clear().await?;
    }
    let Some(written) = done else {
        eprintln!(
            "conga: stopped before the end{}",
            match pipe.job {
                Some(_) => "; run the same command again to go on",
                None => "; with --job NAME it could be run again to go on",
            }
        );
        return Ok(false);
    };
    let lines = sent.borrow().unwrap_or(0);
    if settings.json {
        eprintln!(
            "{}",
            json!({ "lines": lines, "written": written.lines, "dead": written.dead })
        );
    } else if written.lines < lines {
        eprintln!(
            "{} of {} had been written by an earlier run",
            lines - written.lines,
            text::count(lines, "line")
        );
    }
    if written.dead > 0 {
        eprintln!(
            "conga: {} could not be processed and left an empty line each",
            text::count(written.dead, "line")
        );
    }
    Ok(written.dead == 0)
}

/// Sends each line under its number and content.
async fn send(
    input: Box<dyn tokio::io::AsyncBufRead + Unpin + Send>,
    store: &SharedStore,
    limit: u64,
) -> anyhow::Result<u64> {
    let producer = Producer::new(store.clone());
    let mut lines = read_lines(input);
    let mut batch = Vec::with_capacity(BATCH);
    let mut sent = 0;
    while lines.recv_many(&mut batch, BATCH).await > 0 {
        let mut messages = Vec::with_capacity(batch.len());
        for line in batch.drain(..) {
            let line = line.context("can't read standard input")?;
            sent += 1;
            let message = Outgoing {
                id: Some(format!("{sent}-{:016x}", fnv1a(&line))),
                created: Some(Clock::Store.now()),
                ..Outgoing::new(Payload::bytes(&line))
            };
            let size = message.to_entry().len() as u64;
            if size > limit {
                bail!("line {sent} makes a message of {size} bytes, the limit is {limit}: raise it by --max-size");
            }
            messages.push(message);
        }
        // Under its id, a line that is sent twice counts once.
        producer.insist(&messages).await?;
    }
    Ok(sent)
}

/// Tells contents apart. Source: G. Fowler, L. Noll, K. Vo, FNV-1a, 64 bits.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The number of the line that an output stands for.
fn line_number(output: &Output) -> Option<u64> {
    output.record.id.as_str().split_once('-')?.0.parse().ok()
}

/// Whether everything in the line has come to its end; not known to be, while the store is away.
async fn is_at_rest(store: &SharedStore) -> anyhow::Result<bool> {
    match store.status().await {
        Ok(status) => Ok(status.waiting + status.in_flight + status.processed == 0),
        Err(error) if error.is_passing() => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[derive(Debug, Default)]
struct Written {
    lines: u64,
    dead: u64,
}

/// Writes what comes out until all that was sent has.
async fn write(
    store: &SharedStore,
    sink: &mut Sink,
    sent: &watch::Receiver<Option<u64>>,
    mut progress: impl FnMut(u64),
) -> anyhow::Result<Written> {
    let mut consumer = Consumer::new(store.clone());
    let mut hints = store.wakes().listen(&[Topic::Output]);
    let mut written = Written::default();
    loop {
        // Looked at before the output is: what comes in between is then seen in the output.
        let at_rest = sent.borrow().is_some() && is_at_rest(store).await?;
        let batch = consumer.try_next(BATCH).await?;
        if batch.outputs.is_empty() {
            if at_rest {
                consumer.finish().await?;
                return Ok(written);
            }
            // Lines that an earlier run has delivered come to rest without an output, so this is no wait for one.
            hints.heard().await;
            continue;
        }
        for line in &batch.outputs {
            let output = Output::parse(line)?;
            written.dead += u64::from(matches!(output.record.body, Body::Dead { .. }));
            written.lines += u64::from(sink.put(&output)?);
        }
        sink.flush()?;
        consumer.acknowledge(&batch);
        progress(batch.outputs.len() as u64);
    }
}

/// Where the lines go.
struct Sink {
    to: Box<dyn Write + Send>,
    /// The same file, to be synced: what is acknowledged must survive a power cut.
    file: Option<std::fs::File>,
    /// So many lines were there already, from an earlier run.
    there: u64,
}

impl Sink {
    /// Standard output, or a file that an earlier run may have begun: its last line is taken off if it is not whole.
    fn open(path: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = path else {
            return Ok(Self {
                to: Box::new(std::io::BufWriter::with_capacity(1 << 16, std::io::stdout())),
                file: None,
                there: 0,
            });
        };
        let cant = || format!("can't write {}", path.display());
        let mut file = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .with_context(cant)?;
        let (mut there, mut whole) = (0, 0);
        let mut reader = BufReader::new(&file);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line)? > 0 {
            if line.last() == Some(&b'\n') {
                there += 1;
                whole += line.len() as u64;
            }
            line.clear();
        }
        file.set_len(whole).with_context(cant)?;
        file.seek(SeekFrom::End(0))?;
        Ok(Self {
            file: Some(file.try_clone().with_context(cant)?),
            to: Box::new(std::io::BufWriter::with_capacity(1 << 16, file)),
            there,
        })
    }

    /// Writes one line, unless it is there already. A tombstone leaves an empty one.
    fn put(&mut self, output: &Output) -> std::io::Result<bool> {
        if line_number(output).is_some_and(|number| number <= self.there) {
            return Ok(false);
        }
        let bytes = match &output.record.body {
            Body::Result(payload) => one_line(payload),
            Body::Dead { .. } => Bytes::new(),
        };
        self.to.write_all(&bytes)?;
        self.to.write_all(b"\n")?;
        Ok(true)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.to.flush()?;
        match &self.file {
            Some(file) => file.sync_data(),
            None => Ok(()),
        }
    }
}

/// A payload on one line: its text, or, where that has several lines, its JSON.
fn one_line(payload: &Payload) -> Bytes {
    let bytes = payload.to_bytes();
    if bytes.contains(&b'\n') {
        Bytes::from(payload.text().to_owned())
    } else {
        bytes
    }
}
