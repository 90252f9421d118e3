//! Process: the processing service. Any number of them run side by side.
//!
//! One task holds all state and waits for what comes first: a handler's end, the store's answer, a hint, the time to
//! renew. While one complete is on its way, results gather for the next: batches form under load and vanish without.

use std::time::Duration;

use conga_core::lease::{Held, OwnerId};
use conga_core::message::{Body, Format, Input, Record, Reject, identify, parse};
use conga_core::partition::{Claim, Completed, Completion};
use conga_core::retry::Backoff;
use futures_util::future::BoxFuture;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::claim::{ClaimOptions, Claimer, Claims, Holdings};
use crate::pace::Pace;
use crate::persist::{answer, persist};
use crate::store::{Result, SharedStore};
use crate::wake::Topic;

mod handler;

pub use handler::{Handler, HandlerError, Message, sleep};

/// At most so many messages in one claim, and so many results in one complete.
const BATCH: usize = 1_000;
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
    /// What an entry of the input may be.
    pub format: Format,
    /// When what failed is tried again.
    pub backoff: Backoff,
    /// Whether the tombstone of a dead letter is delivered in its place.
    pub mark_dead: bool,
    /// How long a processor that is told to end waits for its handlers; then it gives back what they had.
    pub drain: Duration,
}

impl Default for ProcessorOptions {
    fn default() -> Self {
        Self {
            concurrency: 256,
            claim: ClaimOptions::default(),
            format: Format::default(),
            backoff: Backoff::default(),
            mark_dead: true,
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

/// A processing service.
#[derive(Debug)]
pub struct Processor<H> {
    claimer: Claimer,
    handler: H,
    options: ProcessorOptions,
}

impl<H: Handler> Processor<H> {
    /// A service that processes the messages of `store` by `handler`, under a name of its own.
    pub fn new(store: SharedStore, handler: H, options: ProcessorOptions) -> Self {
        let claimer = Claimer {
            store,
            owner: OwnerId::new(format!("processor-{}", Uuid::now_v7().simple())),
            options: options.claim,
        };
        Self {
            claimer,
            handler,
            options,
        }
    }

    /// Its name towards the store.
    pub fn owner(&self) -> &OwnerId {
        &self.claimer.owner
    }

    /// Works until `shutdown`, then drains: claims nothing more, ends what it has begun, and leaves.
    ///
    /// # Errors
    /// Only what no repetition can help; while the store is away it goes on trying.
    ///
    /// # Cancellation
    /// Dropped, it is as if the process had died: what it held expires and is claimed by another.
    pub async fn run(self, shutdown: CancellationToken) -> Result<Processing> {
        let drain = self.options.drain;
        let claimer = self.claimer.clone();
        let mut work = Work {
            concurrency: self.options.concurrency.max(1),
            claimer: self.claimer,
            handler: self.handler,
            options: self.options,
            holdings: Holdings::default(),
            running: JoinSet::new(),
            results: Vec::new(),
            compare: false,
            draining: false,
            processing: Processing::default(),
        };
        let outcome = tokio::select! {
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

/// What the store was told, and what it said to each.
type Told = (Vec<Completion>, Vec<Completed>);

struct Work<H> {
    concurrency: usize,
    claimer: Claimer,
    handler: H,
    options: ProcessorOptions,
    holdings: Holdings,
    running: JoinSet<Completion>,
    /// Ends of leases that wait to be told to the store.
    results: Vec<Completion>,
    /// What both sides hold has to be compared: a reply was lost, or this process was away.
    compare: bool,
    draining: bool,
    processing: Processing,
}

impl<H: Handler> Work<H> {
    async fn run(&mut self, shutdown: &CancellationToken) -> Result<()> {
        let mut hints = self.claimer.store.wakes().listen(&[Topic::Input, Topic::Output]);
        let mut renewal =
            interval(Duration::from_micros(self.claimer.options.lease_us / 3).max(Duration::from_millis(1)));
        renewal.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut claiming: Option<BoxFuture<'static, Result<Claims>>> = None;
        let mut completing: Option<BoxFuture<'static, Result<Told>>> = None;
        let mut renewing: Option<BoxFuture<'static, Result<_>>> = None;
        // When a claim that has no answer is not waited for any longer.
        let mut give_up = Instant::now();
        // Whether there may be something to claim.
        let mut hungry = true;
        let mut pace = Pace::new();
        loop {
            let free = self.free();
            let wants = claiming.is_none() && hungry && free > 0 && !self.draining && !self.compare;
            if wants && pace.is_due() {
                pace.asked();
                claiming = Some(Box::pin(self.claimer.clone().claim(free)));
            }
            if completing.is_none() && !self.results.is_empty() {
                completing = Some(Box::pin(self.complete()));
            }
            if renewing.is_none() && self.compare && claiming.is_none() {
                self.compare = false;
                renewing = Some(Box::pin(self.claimer.clone().renew(Some(self.holdings.list()))));
            }
            if self.draining && claiming.is_none() && completing.is_none() && self.running.is_empty() {
                return Ok(());
            }
            tokio::select! {
                biased;
                () = shutdown.cancelled(), if !self.draining => {
                    self.draining = true;
                    give_up = Instant::now() + GOODBYE;
                }
                // What it may have claimed is free when this process leaves.
                () = sleep_until(give_up), if self.draining && claiming.is_some() => claiming = None,
                _ = renewal.tick(), if renewing.is_none() => {
                    renewing = Some(Box::pin(self.claimer.clone().renew(None)));
                }
                renewed = answer(&mut renewing) => {
                    let renewed = renewed?;
                    // What was found may have been cut at its limit: there may be more.
                    self.compare |= (!renewed.known && self.holdings.len() > 0) || !renewed.found.is_empty();
                    self.start(renewed.found);
                }
                told = answer(&mut completing) => {
                    let (completions, answers) = told?;
                    self.count(&completions, &answers);
                }
                claims = answer(&mut claiming) => {
                    let claims = claims?;
                    hungry = claims.may_be_more;
                    pace.answered(!claims.taken.is_empty());
                    if hungry {
                        pace.hurry();
                    }
                    self.compare |= claims.lost_reply;
                    self.start(claims.taken);
                }
                Some(ended) = self.running.join_next() => self.end(ended),
                () = sleep_until(pace.due()), if wants && !pace.is_due() => {}
                () = hints.heard(), if !hungry && !self.draining && free > 0 => hungry = true,
            }
            // Whatever else has ended goes into the same batch.
            while let Some(ended) = self.running.try_join_next() {
                self.end(ended);
            }
        }
    }

    /// How many messages to ask for. Results that the store has not taken yet count too, so that a store that is slow
    /// to take them slows down the claims.
    fn free(&self) -> usize {
        let running = self.concurrency.saturating_sub(self.running.len());
        let held = (2 * self.concurrency).saturating_sub(self.holdings.len());
        running.min(held).min(BATCH)
    }

    fn start(&mut self, claims: Vec<Claim>) {
        for claim in claims {
            if !self.holdings.take(&claim) {
                continue;
            }
            if self.draining {
                self.results.push(Completion::Retry {
                    held: held(&claim),
                    delay_us: 0,
                });
                continue;
            }
            let input = parse(
                &claim.entry,
                claim.position,
                self.options.format,
                self.options.claim.limits.entry_bytes,
            );
            match input {
                Ok(input) => {
                    let handler = self.handler.clone();
                    let policy = (self.options.backoff, self.options.mark_dead);
                    self.running.spawn(handle(handler, claim, input, policy));
                }
                Err(reject) => {
                    self.processing.dead += 1;
                    self.results.push(Completion::Dead {
                        tombstone: unreadable(&claim, &reject),
                        deliver: self.options.mark_dead,
                    });
                }
            }
        }
    }

    /// Takes what a handler came to.
    fn end(&mut self, ended: std::result::Result<Completion, tokio::task::JoinError>) {
        // A handler's panic is caught inside of its task; here only a cancelled one is left, which nobody waits for.
        let Ok(completion) = ended else { return };
        match completion {
            Completion::Dead { .. } => self.processing.dead += 1,
            Completion::Retry { .. } => self.processing.retried += 1,
            Completion::Done(_) => {}
        }
        self.results.push(completion);
    }

    /// Tells the store what has ended. Repeated until it answers: what counted already is stale then.
    fn complete(&mut self) -> impl Future<Output = Result<Told>> + use<H> {
        let rest = self.results.split_off(batch_of(&self.results));
        let batch = std::mem::replace(&mut self.results, rest);
        let claimer = self.claimer.clone();
        async move {
            let answers = persist("complete", || claimer.store.complete(&claimer.owner, &batch), |_| ()).await?;
            Ok((batch, answers))
        }
    }

    fn count(&mut self, completions: &[Completion], answers: &[Completed]) {
        for (completion, answer) in completions.iter().zip(answers) {
            self.holdings.drop(completion.held());
            match (answer, completion) {
                (Completed::Stale, _) => self.processing.stale += 1,
                (Completed::Accepted, Completion::Done(_)) => self.processing.done += 1,
                (Completed::Accepted, _) => {}
            }
        }
    }
}

/// How many results go together.
fn batch_of(results: &[Completion]) -> usize {
    let mut bytes = 0;
    let fit = results.iter().take(BATCH).take_while(|result| {
        let fits = bytes < BATCH_BYTES;
        bytes += match result {
            Completion::Done(record) => size_of_result(record),
            Completion::Dead { .. } | Completion::Retry { .. } => 0,
        };
        fits
    });
    fit.count()
}

fn size_of_result(record: &Record) -> usize {
    match &record.body {
        Body::Result(payload) => payload.text().len(),
        Body::Dead { .. } => 0,
    }
}

fn held(claim: &Claim) -> Held {
    Held {
        position: claim.position,
        attempt: claim.attempt,
    }
}

/// Runs the handler and says how the lease ends. A panic in it is a failure like any other.
async fn handle<H: Handler>(handler: H, claim: Claim, input: Input, (backoff, deliver): (Backoff, bool)) -> Completion {
    let created = input.created.unwrap_or(claim.claimed);
    let mut record = Record {
        position: claim.position,
        id: input.id,
        sequence: input.sequence,
        key: input.key,
        body: Body::Dead { reason: String::new() },
        attempts: claim.attempt,
        created,
        processing: claim.claimed,
    };
    let message = Message {
        position: claim.position,
        id: record.id.clone(),
        sequence: record.sequence,
        key: record.key.clone(),
        payload: input.payload,
        attempt: claim.attempt,
        created,
    };
    // The call itself is inside too: it may panic before there is a future.
    let handled = std::panic::AssertUnwindSafe(async move { handler.handle(message).await });
    let error = match futures_util::FutureExt::catch_unwind(handled).await {
        Ok(Ok(payload)) if payload.text().len() > BATCH_BYTES => HandlerError::permanent(format!(
            "the result has {} bytes, the limit is {BATCH_BYTES}",
            payload.text().len()
        )),
        Ok(Ok(payload)) => {
            record.body = Body::Result(payload);
            return Completion::Done(record);
        }
        Ok(Err(error)) => error,
        Err(_) => HandlerError::passing("the handler panicked"),
    };
    let random = Uuid::new_v4().as_u64_pair().0;
    let delay = (!error.permanent)
        .then(|| backoff.delay_us(claim.attempt, random))
        .flatten();
    if let Some(delay_us) = delay {
        tracing::debug!(position = %claim.position, attempt = %claim.attempt, delay_us, %error, "failed, will be tried again");
        return Completion::Retry {
            held: held(&claim),
            delay_us,
        };
    }
    tracing::warn!(position = %claim.position, attempts = %claim.attempt, %error, "failed for good");
    record.body = Body::Dead { reason: error.reason };
    Completion::Dead {
        tombstone: record,
        deliver,
    }
}

/// The tombstone of an entry that is no message, under the id that it has all the same.
fn unreadable(claim: &Claim, reject: &Reject) -> Record {
    tracing::warn!(position = %claim.position, reason = %reject, "not a message; kept as a dead letter");
    Record {
        position: claim.position,
        id: identify(&claim.entry, claim.position),
        sequence: None,
        key: None,
        body: Body::Dead {
            reason: reject.to_string(),
        },
        attempts: claim.attempt,
        created: claim.claimed,
        processing: claim.claimed,
    }
}
