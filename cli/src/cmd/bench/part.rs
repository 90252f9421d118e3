//! A process of a measurement: it gets ready, says so, and begins at the word on standard input. What it has to check it
//! checks after the clock has stopped.

use std::io::{BufRead as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use conga::core::message::Output;
use conga::deliver::Consumer;
use conga::send::Producer;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use crate::args::{Part, PartRole};
use crate::bench::load::{Load, Until};
use crate::bench::part::{Said, Word};
use crate::bench::stages::Stages;
use crate::bench::usage::Moment;
use crate::bench::witness::Witness;
use crate::bench::yardstick::{Received, Yardstick, entries};
use crate::settings::Settings;

/// Up to so many messages are made before the word, and so many outputs are kept and checked after the last; of more,
/// each is made and checked on the way, so that memory stays bounded.
const KEPT: u64 = 1_500_000;
/// At most so many outputs tell of the times, evenly spread over all.
const SAMPLE: u64 = 100_000;

pub(crate) async fn part(settings: &Settings, part: &Part) -> anyhow::Result<bool> {
    let mut words = Words::listen()?;
    let load = self::load(part);
    match part.role {
        PartRole::Produce => produce(settings, part, load, &mut words).await?,
        PartRole::Consume => consume(settings, part, load, &mut words).await?,
        PartRole::LimitProduce | PartRole::LimitWork | PartRole::LimitConsume => {
            yardstick(settings, part, &mut words).await?;
        }
    }
    Ok(true)
}

fn load(part: &Part) -> Load {
    Load::new(Until::Count(part.messages), part.rate, part.size)
        .of_run(&part.run)
        .keyed((part.keys, part.hot))
}

async fn produce(settings: &Settings, part: &Part, load: Load, words: &mut Words) -> anyhow::Result<()> {
    let load = load.prepared(if part.messages <= KEPT { part.messages } else { 0 });
    let load = match part.bound {
        Some(bound) => load.bounded(bound, words.delivered.clone()),
        None => load,
    };
    let producer = Producer::new(settings.open().await?);
    say(&Said::Ready)?;
    words.wait_for(Word::Go).await?;
    load.run(&producer, |_| ()).await?;
    say(&Said::Done { at: Moment::now() })?;
    words.wait_for(Word::End).await
}

async fn consume(settings: &Settings, part: &Part, load: Load, words: &mut Words) -> anyhow::Result<()> {
    let store = settings.open().await?;
    let order = store.shape(None).await?.unwrap_or_default().order;
    let mut consumer = Consumer::new(store);
    let mut witness = Witness::new(load, part.messages).by(order);
    let mut kept: Vec<Bytes> = Vec::new();
    let mut sample: Vec<Bytes> = Vec::new();
    let keeps = part.messages <= KEPT;
    let step = part.messages.div_ceil(SAMPLE);
    let mut count = 0;
    say(&Said::Ready)?;
    words.wait_for(Word::Go).await?;
    while count < part.messages {
        let batch = consumer.next(1_000).await?;
        let at = Moment::now();
        consumer.acknowledge(&batch);
        let before = count;
        count += batch.outputs.len() as u64;
        if count >= part.messages {
            say(&Said::Done { at })?;
        }
        if keeps {
            kept.extend(batch.outputs);
        } else {
            for (line, number) in batch.outputs.iter().zip(before..) {
                witness.output(line);
                if number % step == 0 {
                    // A copy, for the line may share the memory of all that came with it.
                    sample.push(Bytes::copy_from_slice(line));
                }
            }
        }
    }
    words.wait_for(Word::End).await?;
    // Whatever comes besides is a duplicate.
    let more = consumer.try_next(1_000).await?;
    consumer.acknowledge(&more);
    consumer.finish().await?;
    let checked = spawn_blocking(move || {
        kept.iter().for_each(|line| witness.output(line));
        more.outputs.iter().for_each(|line| witness.output(line));
        let kept = kept.into_iter().step_by(usize::try_from(step).unwrap_or(1));
        sample.extend(kept);
        // What is no output has been found already.
        let outputs: Vec<Output> = sample.iter().filter_map(|line| Output::parse(line).ok()).collect();
        let stages = Box::new(Stages::of(&outputs, Some(Duration::ZERO))?);
        anyhow::Ok(Said::Checked {
            testimony: witness.end(),
            stages,
        })
    });
    say(&checked.await??)
}

async fn yardstick(settings: &Settings, part: &Part, words: &mut Words) -> anyhow::Result<()> {
    let yardstick = Yardstick::at(&settings.store(), &settings.line()?);
    let (role, messages, batch) = (part.role, part.messages, part.batch);
    let (made, mut witness) = (load(part), Witness::new(load(part), messages));
    let (mut hand, entries) = spawn_blocking(move || {
        let entries = match role {
            PartRole::LimitProduce => entries(&made, messages),
            _ => Vec::new(),
        };
        anyhow::Ok((yardstick.hand(batch)?, entries))
    })
    .await??;
    say(&Said::Ready)?;
    words.wait_for(Word::Go).await?;
    let received = spawn_blocking(move || {
        let mut received = Received::default();
        match role {
            PartRole::LimitConsume => received = hand.consume(messages)?,
            PartRole::LimitWork => hand.work(messages)?,
            _ => hand.produce(&entries)?,
        }
        say(&Said::Done {
            at: received.at.unwrap_or_else(Moment::now),
        })?;
        anyhow::Ok(received)
    })
    .await??;
    words.wait_for(Word::End).await?;
    if role == PartRole::LimitConsume {
        received.lines.iter().for_each(|line| witness.entry(line));
        say(&Said::Checked {
            testimony: witness.end(),
            stages: Box::default(),
        })?;
    }
    Ok(())
}

/// Tells the one who started this process.
fn say(what: &Said) -> anyhow::Result<()> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    let mut to = std::io::stdout().lock();
    to.write_all(&line)
        .and_then(|()| to.flush())
        .context("nobody listens any more")
}

/// What is said on standard input.
struct Words {
    said: mpsc::UnboundedReceiver<Word>,
    /// How many messages are delivered, as far as this was told.
    delivered: Arc<AtomicU64>,
}

impl Words {
    /// Listens in a thread of its own: the work may block the others. It ends with the process.
    fn listen() -> anyhow::Result<Self> {
        let (to, said) = mpsc::unbounded_channel();
        let delivered = Arc::new(AtomicU64::new(0));
        let heard = delivered.clone();
        std::thread::Builder::new().name("words".to_owned()).spawn(move || {
            for line in std::io::stdin().lock().lines() {
                match line.ok().and_then(|line| line.parse().ok()) {
                    Some(Word::Delivered(count)) => heard.store(count, Ordering::SeqCst),
                    Some(word) => drop(to.send(word)),
                    None => break,
                }
            }
            // Whoever started this process is gone, or done with it.
            if to.is_closed() {
                return;
            }
            std::process::exit(1);
        })?;
        Ok(Self { said, delivered })
    }

    async fn wait_for(&mut self, word: Word) -> anyhow::Result<()> {
        let said = self.said.recv().await.context("nobody says anything any more")?;
        anyhow::ensure!(said == word, "`{said}` was said where `{word}` was expected");
        Ok(())
    }
}
