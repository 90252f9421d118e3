//! A measured run of the yardstick.

use anyhow::bail;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::Yardstick;
use crate::args::PartRole;
use crate::bench::account::{accounts, used};
use crate::bench::fleet::Fleet;
use crate::bench::ground::Ground;
use crate::bench::load::Load;
use crate::bench::part::{Part, Word};
use crate::bench::trial::{Ran, arguments, patience};
use crate::bench::usage::Moment;

/// What is to be run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit {
    pub(crate) messages: u64,
    pub(crate) size: usize,
    pub(crate) batch: Option<u16>,
    /// The worker by itself, with all messages there before and received after.
    pub(crate) alone: bool,
}

impl Limit {
    pub(crate) async fn run(&self, ground: &Ground) -> anyhow::Result<Ran> {
        let Self { messages, alone, .. } = *self;
        let site = ground.site_of_yardstick().await?;
        let place = &site.place;
        let yardstick = Yardstick::at(&place.url, &place.line);
        let blocking = yardstick.clone();
        spawn_blocking(move || blocking.set_up()).await??;
        let run = Load::name();
        let start = |role| {
            let mut arguments = arguments(role, &run, messages, self.size);
            arguments.batch = self.batch;
            async move { Part::start(&place.url, 0, &place.line, &arguments).await }
        };
        let mut producer = start(PartRole::LimitProduce).await?;
        let mut worker = start(PartRole::LimitWork).await?;
        let mut consumer = start(PartRole::LimitConsume).await?;
        let none = Fleet::default();
        let running = async {
            if alone {
                producer.tell(Word::Go).await?;
                producer.done().await?;
            }
            let before = used(&site, &[&producer, &worker, &consumer], &none).await?;
            if !alone {
                consumer.tell(Word::Go).await?;
                worker.tell(Word::Go).await?;
            }
            let began = Moment::now();
            let ended = if alone {
                worker.tell(Word::Go).await?;
                worker.done().await?
            } else {
                producer.tell(Word::Go).await?;
                consumer.done().await?
            };
            let after = used(&site, &[&producer, &worker, &consumer], &none).await?;
            if alone {
                consumer.tell(Word::Go).await?;
                consumer.done().await?;
            } else {
                producer.done().await?;
                worker.done().await?;
            }
            anyhow::Ok((ended.since(began), accounts(&before, &after, messages)))
        };
        let limit = patience(messages);
        let Ok(ran) = timeout(limit, running).await else {
            bail!("the yardstick was not through after {} s", limit.as_secs());
        };
        let (elapsed, accounts) = ran?;
        producer.end().await?;
        worker.end().await?;
        let Some((testimony, _)) = consumer.end().await? else {
            bail!("the yardstick's consumer said nothing about what it received");
        };
        let records = spawn_blocking(move || {
            let records = yardstick.records()?;
            yardstick.clear()?;
            anyhow::Ok(records)
        });
        let verdict = testimony.against_count(records.await??);
        site.clear().await?;
        Ok(Ran::new(messages, elapsed, accounts, verdict))
    }
}
