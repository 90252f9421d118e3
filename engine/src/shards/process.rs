//! Process, on all partitions: one claiming loop for each, and one concurrency, one handler and one ledger for all.

use conga_core::lease::OwnerId;
use conga_core::partition::{Keep, Limit, OnDead};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio_util::sync::CancellationToken;

use super::Shards;
use crate::ledger::SharedLedger;
use crate::process::{Handler, Place, Processing, Processor, ProcessorOptions, Quarantine, Share};
use crate::random::Random;
use crate::store::Result;

/// A processing service of a line, whatever number of partitions it has.
#[derive(Debug)]
pub struct Processors<H> {
    owner: OwnerId,
    each: Vec<Processor<H>>,
}

impl<H: Handler> Processors<H> {
    /// A service that processes the messages of all partitions by `handler`, under a name of its own.
    /// [`ProcessorOptions::concurrency`] is for all of them together; the window is each partition's.
    pub fn new(shards: &Shards, handler: H, options: ProcessorOptions) -> Self {
        let stores = shards.partitions();
        if let [store] = stores {
            let only = Processor::new(store.clone(), handler, options);
            return Self {
                owner: only.owner().clone(),
                each: vec![only],
            };
        }
        let owner = OwnerId::new(Random::default().name("processor"));
        let shares = Share::of(options.concurrency, stores.len());
        let quarantine = Quarantine::new();
        let each = (0..).zip(stores).zip(shares).map(|((partition, store), share)| {
            let place = Place {
                partition,
                router: shards.router(),
            };
            let mut options = options.clone();
            options.place = Some(place);
            if shards.are_merged() {
                // Who merges has to hear of each, and of all: what goes out of the line, and how much of it stays, is said there.
                // What halts a partition halts the line, for its number does not come.
                if options.on_dead == OnDead::Skip {
                    options.on_dead = OnDead::Mark;
                }
                options.keep = options.keep.map(|keep| Keep {
                    outputs: Limit::NONE,
                    ..keep
                });
            }
            let processor = Processor::new(store.clone(), handler.clone(), options).sharing(
                owner.clone(),
                share,
                quarantine.beside(),
            );
            if shards.are_merged() {
                processor.merged_in(shards.base().clone(), place)
            } else {
                processor
            }
        });
        Self {
            each: each.collect(),
            owner,
        }
    }

    /// The same, with its name and its jitter drawn from `random`.
    pub fn with_random(self, random: &Random) -> Self {
        let owner = OwnerId::new(random.name("processor"));
        let each = self.each.into_iter();
        Self {
            each: each
                .map(|processor| processor.named(owner.clone(), random.clone()))
                .collect(),
            owner,
        }
    }

    /// The same, with its results recorded in `ledger` before the store is told of them.
    pub fn with_ledger(self, ledger: &SharedLedger) -> Self {
        // The store's own is that of each partition.
        if !ledger.is_apart() {
            return self;
        }
        let each = self.each.into_iter();
        Self {
            each: each.map(|processor| processor.with_ledger(ledger.clone())).collect(),
            ..self
        }
    }

    /// The same, in one program with `other`, of the same or another line, as [`Processor::beside`].
    #[must_use]
    pub fn beside<O>(self, other: &Processors<O>) -> Self {
        let Some(neighbour) = other.each.first() else {
            return self;
        };
        let each = self.each.into_iter();
        Self {
            each: each.map(|processor| processor.beside(neighbour)).collect(),
            ..self
        }
    }

    /// Its name towards the store.
    pub fn owner(&self) -> &OwnerId {
        &self.owner
    }

    /// Works until `shutdown`, then drains, as [`Processor::run`]. If it can't go on at one partition it ends at all.
    ///
    /// # Errors
    /// Only what no repetition can help; while the store is away it goes on trying.
    ///
    /// # Cancellation
    /// Dropped, it is as if the process had died.
    pub async fn run(self, shutdown: CancellationToken) -> Result<Processing> {
        let stop = shutdown.child_token();
        let mut running: FuturesUnordered<_> = self
            .each
            .into_iter()
            .map(|processor| processor.run(stop.clone()))
            .collect();
        let (mut all, mut failed) = (Processing::default(), None);
        while let Some(ended) = running.next().await {
            match ended {
                Ok(did) => {
                    all.done += did.done;
                    all.dead += did.dead;
                    all.retried += did.retried;
                    all.stale += did.stale;
                }
                Err(error) => {
                    stop.cancel();
                    failed.get_or_insert(error);
                }
            }
        }
        failed.map_or(Ok(all), Err)
    }
}
