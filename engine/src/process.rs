//! Process: the processing service. Any number of them run side by side; one of them at work is in `process/work.rs`.

use std::time::Duration;

use conga_core::lease::OwnerId;
use conga_core::message::Format;
use conga_core::partition::{Keep, OnDead};
use conga_core::retry::{Backoff, MAX_CRASHES};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use self::work::Work;
use crate::claim::{Brake, ClaimOptions, Claimer};
use crate::fits::Fits;
use crate::ledger::SharedLedger;
use crate::ledger::store::StoreLedger;
use crate::random::Random;
use crate::store::{Result, SharedStore};

mod apart;
mod attempt;
mod away;
mod effects;
pub mod exec;
mod handler;
pub mod http;
mod notice;
mod place;
mod quarantine;
mod share;
mod within;
mod work;

pub(crate) use attempt::too_large;
pub use effects::{Effects, Fail, SharedEffects};
pub use handler::{Handled, Handler, HandlerError, Message, sleep};
pub use place::Place;
pub(crate) use quarantine::Quarantine;
pub(crate) use share::Share;
pub use within::{Within, within};

/// One complete ends with the result by which its bytes reach this; a single result that is larger is a failure for
/// good.
const BATCH_BYTES: usize = 8 << 20;
/// How long a processor that ends waits for the store.
const GOODBYE: Duration = Duration::from_secs(1);

/// How a processor works.
#[derive(Debug, Clone)]
pub struct ProcessorOptions {
    /// How many messages it processes at once.
    pub concurrency: usize,
    /// How it claims.
    pub claim: ClaimOptions,
    /// How much stays of what is delivered and of what is dead. `None`: as the store has it by default, and with a ledger
    /// apart the last 100,000 records.
    pub keep: Option<Keep>,
    /// What an entry of the input may be.
    pub format: Format,
    /// Which partition of the line this is, if the line has several.
    pub place: Option<Place>,
    /// When what failed is tried again.
    pub backoff: Backoff,
    /// A message that was in flight so often when its processor died, and was blamed for it, has failed for good: at least 4, for
    /// the first three times it was not there alone; 0, if it is never to be given up for that. A program that runs several
    /// processors has to say so: [`Processor::beside`].
    pub max_crashes: u32,
    /// What stands in the place of a message that has failed for good.
    pub on_dead: OnDead,
    /// How long a processor that is told to end waits for its handlers; then it gives back what they had.
    pub drain: Duration,
}

impl Default for ProcessorOptions {
    fn default() -> Self {
        Self {
            concurrency: 256,
            claim: ClaimOptions::default(),
            keep: None,
            format: Format::default(),
            place: None,
            backoff: Backoff::default(),
            max_crashes: MAX_CRASHES,
            on_dead: OnDead::default(),
            drain: Duration::from_secs(30),
        }
    }
}

/// What a processor did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Processing {
    /// Results that count.
    pub done: u64,
    /// Messages that failed for good.
    pub dead: u64,
    /// Attempts that failed and are tried again.
    pub retried: u64,
    /// Results that came too late: another has the message, or had it.
    pub stale: u64,
}

/// A processing service. One in each process; see [`Processor::beside`] for several.
#[derive(Debug)]
pub struct Processor<H> {
    claimer: Claimer,
    ledger: SharedLedger,
    effects: Option<SharedEffects>,
    handler: H,
    options: ProcessorOptions,
    /// Its part of a concurrency that it has together with others.
    share: Option<Share>,
    /// What it knows of the others.
    quarantine: Quarantine,
}

impl<H: Handler> Processor<H> {
    /// A service that processes the messages of `store` by `handler`, under a name of its own.
    pub fn new(store: SharedStore, handler: H, options: ProcessorOptions) -> Self {
        let random = Random::default();
        let ledger = handler.ledger();
        let ledger = ledger.unwrap_or_else(|| std::sync::Arc::new(StoreLedger::new(store.clone())));
        let claimer = Claimer {
            owner: OwnerId::new(random.name("processor")),
            options: options.claim,
            keep: options.keep.unwrap_or_else(|| store.keeps()),
            fits: Fits::new(options.claim.limits.total_bytes),
            brake: None,
            random,
            store,
        };
        Self {
            claimer,
            ledger,
            effects: handler.effects(),
            handler,
            options,
            share: None,
            quarantine: Quarantine::new(),
        }
    }

    /// The same under another name, that works at no more at once than its share lets it.
    pub(crate) fn sharing(mut self, owner: OwnerId, share: Share, quarantine: Quarantine) -> Self {
        self.claimer.owner = owner;
        self.share = Some(share);
        self.quarantine = quarantine;
        self
    }

    /// The same in a partition of a merged line.
    pub(crate) fn merged_in(mut self, base: SharedStore, place: Place) -> Self {
        self.claimer.brake = Some(Brake::new(base, place));
        self
    }

    /// The same, in one program with `other`, of the same or another line. A program that runs several processors, in this
    /// process, should say so of each but the first: they die together, and so a message that is suspected to kill its
    /// processor is begun with only when none of them works at anything else. Else what one of them holds is blamed
    /// too, each time a message of another kills the program, and is given up after [`ProcessorOptions::max_crashes`] of that.
    #[must_use]
    pub fn beside<O>(mut self, other: &Processor<O>) -> Self {
        self.quarantine = other.quarantine.beside();
        self
    }

    /// The same, with its results recorded in `ledger` before the store is told of them. Every processor of a line has to
    /// use the same.
    pub fn with_ledger(mut self, ledger: SharedLedger) -> Self {
        if self.options.keep.is_none() && ledger.is_apart() {
            self.claimer.keep = self.claimer.keep.beside_a_record();
        }
        self.ledger = ledger;
        self
    }

    /// The same, under a name that it has together with others.
    pub(crate) fn named(mut self, owner: OwnerId, random: Random) -> Self {
        self.claimer.owner = owner;
        self.claimer.random = random;
        self
    }

    /// The same, with its name and its jitter drawn from `random`.
    pub fn with_random(self, random: Random) -> Self {
        self.named(OwnerId::new(random.name("processor")), random)
    }

    /// Its name towards the store.
    pub fn owner(&self) -> &OwnerId {
        &self.claimer.owner
    }

    /// Works until `shutdown`, then drains: claims nothing more, ends what it has begun, and leaves. A system of record that is
    /// away then is waited for no longer than a second, or the handlers: what it could not record is given back too, and
    /// processed again.
    ///
    /// # Errors
    /// Only what no repetition can help; while the store is away it goes on trying.
    ///
    /// # Cancellation
    /// Dropped, it is as if the process had died: what it held expires and is claimed by another.
    pub async fn run(self, shutdown: CancellationToken) -> Result<Processing> {
        if self.effects.is_some() && self.ledger.is_apart() {
            return Err(effects::two_records());
        }
        let drain = self.options.drain;
        let claimer = self.claimer.clone();
        let mut work = Work::of(self);
        let outcome = tokio::select! {
            biased;
            outcome = work.run(&shutdown) => outcome,
            () = async { shutdown.cancelled().await; tokio::time::sleep(drain).await } => {
                tracing::warn!(held = drain.as_secs(), "handlers did not end in time; giving their messages back");
                Ok(())
            }
        };
        // What this fails to give back expires.
        if let Ok(Err(error)) = timeout(GOODBYE, claimer.leave()).await {
            tracing::debug!(%error, "could not say good-bye to the store");
        }
        outcome.map(|()| work.processing)
    }
}
