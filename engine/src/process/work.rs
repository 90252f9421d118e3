//! One processor at work.
//!
//! One task holds all state and waits for what comes first: a handler's end, the store's answer, a hint, the time to
//! renew. While a complete is on its way, results gather for the next: batches form under load and vanish without.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use conga_core::lease::Held;
use conga_core::message::{Body, Input, Position, Record, Reject, parse};
use conga_core::partition::{ALONE_FROM, Claim, Completed, Completion};
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::oneshot;
use tokio::task::{self, JoinError, JoinSet, yield_now};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::attempt::{Ended, Policy, Tried, at_once, fail, handle, held, record_of, unreadable};
use super::away::Away;
use super::notice::Notice;
use super::quarantine::{MOMENT, Quarantine};
use super::{
    BATCH_BYTES, GOODBYE, Handler, HandlerError, Processing, Processor, ProcessorOptions, Share, SharedEffects, apart,
    effects,
};
use crate::claim::{Claimer, Claims, Holdings};
use crate::ledger::SharedLedger;
use crate::pace::Pace;
use crate::persist::{answer, persist};
use crate::store::Result;
use crate::wake::Topic;

mod among;
mod late;

/// At most so many messages in one claim, and so many results in one complete.
const BATCH: usize = 1_000;
/// So many completes may be on their way.
const COMPLETES: usize = 2;
/// With a ledger apart each waits for two answers. Fewer and larger batches cost a database less: the next one goes out
/// before the first is answered only when it has so many results.
const COMPLETES_APART: usize = 3;
const GATHERED_APART: usize = 500;
/// What is recorded sooner than what was taken before it waits so long for that: in order it goes straight out, and else the
/// store would first have to keep it for its turn.
const TURN: Duration = Duration::from_millis(100);
/// So many times what it processes at once a processor may hold, for what has ended is its own until the store has it; and with
/// a ledger apart, where that takes longer.
const HELD: usize = 2;
const HELD_APART: usize = 4;
/// So many messages are begun with one after the other, and so long their handlers are tried before each gets a task of its
/// own.
const AT_ONCE_MOST: usize = 128;
const AT_ONCE: Duration = Duration::from_millis(1);
/// Where more is over than one renewal lets go of, the next one comes so soon.
const TRIM_AGAIN: Duration = Duration::from_millis(4);

/// What the store was told, and what it said to each.
pub(super) struct Told {
    pub(super) completions: Vec<Completion>,
    pub(super) answers: Vec<Completed>,
    /// Which of them became a failure only in the store's step. Empty where none could.
    pub(super) failed: Vec<bool>,
}

/// What came of trying handlers at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trial {
    /// All that was begun with last was done at once. So more is claimed while there is still something to begin with; else
    /// what is claimed is what there is room for, and another process can have the rest.
    Swift,
    Mixed,
    /// One kept this task from renewing for a good part of a lease. None is tried any more: of several such processors each
    /// would lose its leases to the other for ever.
    GivenUp,
}

/// A processor at work.
pub(super) struct Work<H> {
    concurrency: usize,
    claimer: Claimer,
    ledger: SharedLedger,
    away: Away,
    effects: Option<SharedEffects>,
    handler: H,
    options: ProcessorOptions,
    share: Option<Share>,
    quarantine: Quarantine,
    /// A message that is alone in this process now.
    alone: Option<Held>,
    /// Since when something that the store was told, or is to be, has no answer.
    unheard: Option<Instant>,
    /// That is for long.
    is_silent: bool,
    /// How many messages the claim that is on its way asks for.
    reserved: usize,
    holdings: Holdings,
    /// Claimed and not yet begun with.
    upcoming: VecDeque<Claim>,
    trial: Trial,
    running: JoinSet<Ended>,
    /// What each of them works at.
    at: HashMap<task::Id, Claim>,
    /// Ends of leases that wait to be told to the store.
    results: Vec<Ended>,
    /// Hears when what was taken from them last has been told.
    before: Option<oneshot::Receiver<()>>,
    /// What both sides hold has to be compared: a reply was lost, or this process was away.
    compare: bool,
    late: late::Late,
    draining: bool,
    notice: Notice,
    pub(super) processing: Processing,
}

impl<H: Handler> Work<H> {
    pub(super) fn of(processor: Processor<H>) -> Self {
        Self {
            concurrency: processor.options.concurrency.max(1),
            claimer: processor.claimer,
            ledger: processor.ledger,
            away: Away::default(),
            effects: processor.effects,
            handler: processor.handler,
            options: processor.options,
            share: processor.share,
            quarantine: processor.quarantine,
            alone: None,
            unheard: None,
            is_silent: false,
            reserved: 0,
            holdings: Holdings::default(),
            upcoming: VecDeque::new(),
            trial: Trial::Mixed,
            running: JoinSet::new(),
            at: HashMap::new(),
            results: Vec::new(),
            before: None,
            compare: false,
            late: late::Late::default(),
            draining: false,
            notice: Notice::new(),
            processing: Processing::default(),
        }
    }

    pub(super) async fn run(&mut self, shutdown: &CancellationToken) -> Result<()> {
        let mut hints = self.claimer.store.wakes().listen(&[Topic::Input, Topic::Window]);
        let mut renewal =
            interval(Duration::from_micros(self.claimer.options.lease_us / 3).max(Duration::from_millis(1)));
        renewal.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut claiming: Option<BoxFuture<'static, Result<Claims>>> = None;
        let mut completing: FuturesUnordered<BoxFuture<'static, Result<Told>>> = FuturesUnordered::new();
        let mut renewing: Option<BoxFuture<'static, Result<_>>> = None;
        // When the claim that is on its way began.
        let mut asked = Instant::now();
        // When a claim that has no answer is not waited for any longer.
        let mut give_up = Instant::now();
        // Whether there may be something to claim.
        let mut hungry = true;
        let mut pace = Pace::new();
        loop {
            if claiming.is_none() {
                self.reserved = 0;
                self.compare |= self.late.is_due();
            }
            let patient_until = self.stand(claiming.is_some() || !completing.is_empty() || self.compare);
            let free = self.free();
            let wants = claiming.is_none() && hungry && free > 0 && !self.draining && !self.compare;
            let granted = self.granted(free, wants && pace.is_due());
            if granted > 0 {
                pace.asked();
                asked = Instant::now();
                claiming = Some(Box::pin(self.claimer.clone().claim(granted)));
            }
            // What has ended goes out at once, and what ends meanwhile gathers; but when that is a good part already, it need
            // not wait for the answer.
            let (most, many) = if self.ledger.is_apart() {
                (COMPLETES_APART, GATHERED_APART)
            } else {
                (COMPLETES, AT_ONCE_MOST)
            };
            let gathered = if completing.is_empty() { 1 } else { many };
            if completing.len() < most && self.results.len() >= gathered {
                completing.push(Box::pin(self.complete()));
            }
            if renewing.is_none() && self.compare && claiming.is_none() {
                self.compare = false;
                renewing = Some(Box::pin(self.claimer.clone().renew(Some(self.holdings.list()))));
            }
            if self.draining && claiming.is_none() && completing.is_empty() && self.is_idle() {
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
                // What is given back is processed again, by who looks into the system of record first (law 8).
                () = sleep_until(give_up), if claiming.is_none() && self.waits_for_ledger() => {
                    self.give_up_recording();
                    return Ok(());
                }
                _ = renewal.tick(), if renewing.is_none() => {
                    renewing = Some(Box::pin(self.claimer.clone().renew(None)));
                }
                renewed = answer(&mut renewing) => {
                    let renewed = renewed?;
                    // A store that does not know this process, or has come back older than it was, may even hold leases
                    // for it that it has ended. And what was found may have been cut at its limit: there may be more.
                    self.compare |= !renewed.known;
                    if renewed.is_overfull {
                        renewal.reset_after(TRIM_AGAIN);
                    }
                    self.compare |= renewed.blocking.is_some_and(|held| !self.holdings.has(held));
                    // Others have it, or had it. What is begun with goes on: its result is stale, and that is all.
                    self.forget(&renewed.lost);
                    // What a claim brought while both were compared is no news.
                    self.compare |= self.take(renewed.found);
                }
                Some(told) = completing.next() => {
                    let told = told?;
                    self.unheard = None;
                    self.count(&told.completions, &told.answers);
                    self.count_failed(&told);
                }
                claims = answer(&mut claiming) => {
                    let claims = claims?;
                    hungry = claims.may_be_more;
                    pace.answered(!claims.taken.is_empty());
                    if hungry {
                        pace.hurry();
                    }
                    self.claimed(claims);
                }
                // The store may refuse claims alone, as without memory, and for ever; and what is compared may be what
                // the line waits for. What this claim took is found then, as if its reply had been lost.
                () = sleep_until(asked + MOMENT), if self.compare && claiming.is_some() => {
                    claiming = None;
                    self.late.may_come();
                }
                Some(ended) = self.running.join_next_with_id() => self.end(ended),
                () = sleep_until(pace.due()), if wants && !pace.is_due() => {}
                () = hints.heard(), if !hungry && !self.draining && free > 0 && self.upcoming.is_empty() => hungry = true,
                () = told(self.share.as_ref(), &self.quarantine) => {}
                () = until(patient_until) => {}
                () = self.notice.heard() => {}
                // What was just said to the store is on its way before.
                () = yield_now(), if self.can_begin() => self.begin(),
            }
            // Whatever else has ended goes into the same batch.
            while let Some(ended) = self.running.try_join_next_with_id() {
                self.end(ended);
            }
        }
    }

    /// Whether nothing else keeps this process from its end than a system of record that is away.
    fn waits_for_ledger(&self) -> bool {
        let handlers = self.running.len() - self.away.looking().min(self.running.len());
        self.draining && self.away.is_so() && self.upcoming.is_empty() && handlers == 0
    }

    /// What is given back then is processed again, by who looks into the system of record first (law 8).
    fn give_up_recording(&self) {
        let held = self.holdings.len();
        tracing::warn!(
            held,
            "the system of record is away; giving back what is not recorded, to be processed again"
        );
    }

    /// How many messages to ask for. Results that the store has not taken yet count too, so that a store that is slow
    /// to take them slows down the claims.
    fn free(&self) -> usize {
        let running = self.concurrency.saturating_sub(self.busy());
        let most = if self.ledger.is_apart() { HELD_APART } else { HELD };
        let held = (most * self.concurrency).saturating_sub(self.holdings.len());
        running.min(held).min(BATCH)
    }

    /// How many messages count as being worked at.
    fn busy(&self) -> usize {
        let upcoming = match self.trial {
            Trial::Swift => 0,
            Trial::Mixed | Trial::GivenUp => self.upcoming.len(),
        };
        self.running.len() + upcoming
    }

    fn is_idle(&self) -> bool {
        self.upcoming.is_empty() && self.running.is_empty()
    }

    fn claimed(&mut self, claims: Claims) {
        self.unheard = None;
        if claims.lost_reply {
            self.compare = true;
            self.late.may_come();
        }
        self.notice.claimed(!claims.taken.is_empty(), &self.claimer.store);
        if !claims.lost_reply && !claims.taken.iter().any(|claim| self.is_suspect(claim)) {
            self.quarantine.forgo();
        }
        self.take(claims.taken);
    }

    /// Takes up what is news. Whether anything was.
    fn take(&mut self, claims: Vec<Claim>) -> bool {
        let is_barred = self.quarantine.is_barred();
        let mut is_news = false;
        for claim in claims {
            if !self.holdings.take(&claim) {
                continue;
            }
            is_news = true;
            if is_barred || !self.admits(&claim) {
                self.results.push(give_back(&claim).into());
            } else {
                self.upcoming.push_back(claim);
            }
        }
        is_news
    }

    fn forget(&mut self, lost: &[Position]) {
        let holdings = &mut self.holdings;
        self.upcoming.retain(|claim| {
            let stays = !lost.contains(&claim.position);
            if !stays {
                holdings.forget(claim);
            }
            stays
        });
    }

    fn can_begin(&self) -> bool {
        let may_run = || self.share.as_ref().is_none_or(Share::can_run);
        !self.upcoming.is_empty() && (self.draining || (self.running.len() < self.concurrency && may_run()))
    }

    /// Begins with some of what was claimed. A handler that has its result at once needs no task of its own; but what many
    /// of them take must not keep this task from its other work, so only the first of them are tried.
    fn begin(&mut self) {
        let began = Instant::now();
        let until = if self.trial == Trial::GivenUp {
            began
        } else {
            began + AT_ONCE
        };
        let before = self.running.len();
        for _ in 0..AT_ONCE_MOST {
            if !self.can_begin() {
                break;
            }
            let Some(claim) = self.upcoming.pop_front() else { break };
            if self.draining {
                self.results.push(give_back(&claim).into());
                continue;
            }
            if self.is_poison(&claim) {
                let dead = self.given_up(&claim);
                self.finish(dead.into());
                continue;
            }
            match self.read(&claim) {
                Ok(input) => {
                    let handler = self.handler.clone();
                    let before = (self.ledger.clone(), self.away.clone());
                    let work = Box::pin(handle(handler, claim.clone(), input, self.policy(), before));
                    match at_once(work, until) {
                        Tried::Done(ended) => self.finish(ended),
                        Tried::Panicked => self.panicked(&claim),
                        Tried::Waits(work) => {
                            let task = self.running.spawn(work);
                            self.at.insert(task.id(), claim);
                        }
                    }
                }
                Err(reject) => {
                    let dead = Completion::Dead {
                        tombstone: self.unreadable(&claim, &reject),
                        on_dead: self.options.on_dead,
                    };
                    self.finish(dead.into());
                }
            }
        }
        let long = Duration::from_micros(self.claimer.options.lease_us / 10);
        self.trial = match self.trial {
            Trial::GivenUp => Trial::GivenUp,
            _ if began.elapsed() > long => {
                tracing::debug!("a handler works long before it waits; each has a task of its own from now on");
                Trial::GivenUp
            }
            _ if self.running.len() == before => Trial::Swift,
            _ => Trial::Mixed,
        };
    }

    fn read(&self, claim: &Claim) -> std::result::Result<Input, Reject> {
        let longest = self.options.claim.limits.entry_bytes;
        let mut input = parse(&claim.entry, claim.position, self.options.format, longest)?;
        if let Some(place) = &self.options.place {
            place.settle(&mut input, claim.position)?;
        }
        if self.ledger.is_apart() {
            apart::identify(&mut input, claim);
        }
        Ok(input)
    }

    fn is_poison(&self, claim: &Claim) -> bool {
        self.options.max_crashes > 0 && claim.crashes >= self.options.max_crashes.max(ALONE_FROM + 1)
    }

    /// What kills its processors is not tried once more.
    fn given_up(&self, claim: &Claim) -> Completion {
        let mut tombstone = match self.read(claim) {
            Ok(input) => record_of(claim, &input),
            Err(reject) => self.unreadable(claim, &reject),
        };
        let reason = format!("its processor died {} times while it was in flight", claim.crashes);
        tracing::error!(position = %claim.position, attempts = %claim.attempt, reason, "given up");
        tombstone.body = Body::Dead { reason };
        Completion::Dead {
            tombstone,
            on_dead: self.options.on_dead,
        }
    }

    fn unreadable(&self, claim: &Claim, reject: &Reject) -> Record {
        let mut record = unreadable(claim, reject);
        if let Some(place) = &self.options.place {
            place.name(&mut record.id, claim.position);
            record.sequence = record.sequence.or_else(|| place.sequence_of(&claim.entry));
        }
        record
    }

    fn policy(&self) -> Policy {
        Policy {
            backoff: self.options.backoff,
            on_dead: self.options.on_dead,
            random: self.claimer.random.clone(),
        }
    }

    /// Takes what a handler came to.
    fn end(&mut self, ended: std::result::Result<(task::Id, Ended), JoinError>) {
        match ended {
            Ok((id, ended)) => {
                self.at.remove(&id);
                self.finish(ended);
            }
            Err(error) => {
                if let Some(claim) = self.at.remove(&error.id()) {
                    self.panicked(&claim);
                }
            }
        }
    }

    /// A handler's panic is caught where it runs, but what is dropped after it may panic too.
    fn panicked(&mut self, claim: &Claim) {
        let record = match self.read(claim) {
            Ok(input) => record_of(claim, &input),
            Err(reject) => self.unreadable(claim, &reject),
        };
        let error = HandlerError::passing("the handler panicked");
        self.finish(fail(held(claim), claim.tries, record, error, &self.policy()).into());
    }

    fn finish(&mut self, ended: Ended) {
        match ended.completion {
            Completion::Dead { .. } => self.processing.dead += 1,
            Completion::Retry { .. } => self.processing.retried += 1,
            Completion::Done(_) => {}
        }
        self.results.push(ended);
    }

    /// Tells the store what has ended. Repeated until it answers: what counted already is stale then.
    fn complete(&mut self) -> impl Future<Output = Result<Told>> + use<H> {
        // Neighbours side by side: what is a run costs the store less.
        self.results.sort_unstable_by_key(|ended| ended.completion.held());
        let rest = self.results.split_off(batch_of(&self.results));
        let batch = std::mem::replace(&mut self.results, rest);
        let claimer = self.claimer.clone();
        let (ledger, away) = (self.ledger.clone(), self.away.clone());
        let effects = self.effects.clone().map(|effects| (effects, self.policy()));
        let (told, hears) = oneshot::channel();
        let before = self.before.replace(hears);
        async move {
            // Dropped when all is done.
            let _told: oneshot::Sender<()> = told;
            if let Some((effects, policy)) = effects {
                return effects::complete(&effects, policy, &claimer, batch).await;
            }
            let batch = apart::record(&ledger, &away, &claimer.random, batch).await?;
            if let Some(before) = before.filter(|_| ledger.is_apart()) {
                let _ = timeout(TURN, before).await;
            }
            let tell = || claimer.store.complete(&claimer.owner, &batch);
            let answers = persist("complete", &claimer.random, tell, |_| ()).await?;
            Ok(Told {
                completions: batch,
                answers,
                failed: Vec::new(),
            })
        }
    }

    fn count(&mut self, completions: &[Completion], answers: &[Completed]) {
        for (completion, answer) in completions.iter().zip(answers) {
            self.holdings.drop(completion);
            match (answer, completion) {
                (Completed::Stale, _) => self.processing.stale += 1,
                (Completed::Accepted, Completion::Done(_)) => self.processing.done += 1,
                (Completed::Accepted, _) => {}
            }
        }
    }

    /// What failed where it ended was not counted before.
    fn count_failed(&mut self, told: &Told) {
        for (index, failed) in told.failed.iter().enumerate() {
            match told.completions[index] {
                _ if !failed || told.answers[index] == Completed::Stale => {}
                Completion::Dead { .. } => self.processing.dead += 1,
                Completion::Retry { .. } => self.processing.retried += 1,
                Completion::Done(_) => {}
            }
        }
    }
}

/// It was not tried.
fn give_back(claim: &Claim) -> Completion {
    Completion::Retry {
        held: held(claim),
        delay_us: 0,
    }
}

/// Returns when the share may have room, where there is any, or another loop of this process may have made way. Cancel-safe.
async fn told(share: Option<&Share>, quarantine: &Quarantine) {
    match share {
        Some(share) => tokio::select! {
            biased;
            () = share.told() => {}
            () = quarantine.news() => {}
        },
        None => quarantine.news().await,
    }
}

/// Returns at that time; never, where there is none.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// How many results go together.
fn batch_of(results: &[Ended]) -> usize {
    let mut bytes = 0;
    let fit = results.iter().take(BATCH).take_while(|result| {
        let fits = bytes < BATCH_BYTES;
        bytes += match &result.completion {
            Completion::Done(record) => size_of_result(record),
            Completion::Dead { .. } | Completion::Retry { .. } => 0,
        };
        fits
    });
    fit.count()
}

fn size_of_result(record: &Record) -> usize {
    match &record.body {
        Body::Result(payload) => payload.size(),
        Body::Dead { .. } => 0,
    }
}
