//! One merger at work: it carries out the actions of [`conga_core::merge`], and tells it what came of them.

use std::time::Duration;

use bytes::Bytes;
use conga_core::merge::{Action, Event, Merge};
use conga_core::message::Position;
use conga_core::partition::{GiveUp, Keep, Limit, Limits, MergeRequest, Merged, RenewRequest};
use conga_core::time::Micros;
use futures_util::StreamExt as _;
use futures_util::future::{BoxFuture, join_all};
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::gap::{Gap, News};
use super::hand::Hand;
use super::lane::{Heard, Lane};
use super::{Merger, MergerOptions, OnGap, text};
use crate::fits::{Fits, Load};
use crate::lead::{Change, Elector};
use crate::persist::answer;
use crate::sequence::Sequencing;
use crate::shards::Shards;
use crate::store::{Result, StoreError};
use crate::wake::Topic;

mod reading;

/// How long a sequencer that ends waits for the store.
const GOODBYE: Duration = Duration::from_secs(1);
/// A merge that has no answer is followed by the next after so long, times the number of them, up to the limit.
const PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);
/// A merge ends with the output by which its bytes reach this.
const BATCH_BYTES: u64 = 8 << 20;
/// How often what is over goes.
const TRIM: Duration = Duration::from_secs(1);

/// A call to a partition, with who asks.
type Call = BoxFuture<'static, (usize, Lane, Result<Heard>)>;

/// A merger at work.
pub(super) struct Work {
    machine: Merge<Bytes>,
    shards: Shards,
    elector: Elector,
    options: MergerOptions,
    hands: Vec<Hand>,
    /// One for each partition, while it leads.
    calls: FuturesUnordered<Call>,
    /// Ends with the reign.
    reign: CancellationToken,
    merging: Option<BoxFuture<'static, Result<Merged>>>,
    /// How many merges in a row had no answer, or changed nothing.
    refusals: u32,
    /// How large a merge may be.
    fits: Fits,
    /// How large the one on its way is.
    size: u64,
    gap: Gap,
    trim_at: Instant,
    trimming: Option<BoxFuture<'static, Result<bool>>>,
    pub(super) sequencing: Sequencing,
}

impl Work {
    pub(super) fn of(merger: Merger) -> Self {
        let count = merger.shards.partitions().len();
        let mut options = merger.options;
        options.window = options.window.max(1);
        Self {
            machine: Merge::new(count, options.batch),
            hands: Vec::new(),
            calls: FuturesUnordered::new(),
            reign: CancellationToken::new(),
            merging: None,
            refusals: 0,
            fits: Fits::new(BATCH_BYTES),
            size: 0,
            gap: Gap::new(count, options.gap_timeout),
            trim_at: Instant::now(),
            trimming: None,
            sequencing: Sequencing::default(),
            elector: merger.elector,
            shards: merger.shards,
            options,
        }
    }

    /// Hands the leadership over.
    pub(super) async fn end(&mut self) {
        self.retire().await;
        self.leave().await;
        // Not only as a leader: a call for the leadership that is on its way may still win it.
        if timeout(GOODBYE, self.elector.resign()).await.is_err() {
            tracing::debug!("could not hand over in time; the lock expires");
        }
    }

    pub(super) async fn run(&mut self, shutdown: &CancellationToken) -> Result<()> {
        let mut lock = self.shards.base().wakes().listen(&[Topic::Lock]);
        let mut asking: Option<BoxFuture<'static, _>> = None;
        loop {
            let trims = self.trimming.is_none() && self.elector.leads();
            let missing = self.machine.missing();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return self.settle().await,
                () = self.elector.outlived() => {
                    let change = self.elector.depose("could not renew the lock in time");
                    self.change(change).await;
                }
                () = sleep_until(self.elector.ask_at()), if asking.is_none() => {
                    asking = Some(Box::pin(self.elector.ask()));
                }
                (asked, campaign) = answer(&mut asking) => {
                    let change = self.elector.heard(asked, campaign)?;
                    self.change(change).await;
                }
                merged = answer(&mut self.merging) => self.merged(merged).await?,
                Some((partition, lane, heard)) = self.calls.next() => self.heard(partition, lane, heard?)?,
                news = self.gap.next(missing) => match news? {
                    News::Overdue => self.prove(),
                    News::Passed(partition, end) => {
                        self.gap.passed(partition, end);
                        self.was_read(partition, None);
                    }
                },
                () = sleep_until(self.trim_at), if trims => self.trimming = Some(self.trim()),
                trimmed = answer(&mut self.trimming) => {
                    let more = trimmed.unwrap_or_else(|error| {
                        tracing::debug!(%error, "could not let go of what is over");
                        false
                    });
                    self.trim_at = Instant::now() + if more { PAUSE } else { TRIM };
                    self.remind();
                }
                () = lock.hinted(), if !self.elector.leads() => self.elector.hurry(),
            }
        }
    }

    /// Ends the merge that is on its way, so that it is not left to chance.
    async fn settle(&mut self) -> Result<()> {
        if self.merging.is_some()
            && let Ok(merged) = timeout(GOODBYE, answer(&mut self.merging)).await
        {
            self.merged(merged).await?;
        }
        Ok(())
    }

    async fn change(&mut self, change: Option<Change>) {
        match change {
            Some(Change::Elected(term)) => {
                self.retire().await;
                self.sequencing.reigns += 1;
                self.reign = CancellationToken::new();
                self.hands = self.shards.partitions().iter().map(|_| Hand::default()).collect();
                self.step(Event::Elected { term });
                for (partition, store) in self.shards.partitions().to_vec().into_iter().enumerate() {
                    let lane = Lane::new(store, self.elector.owner().clone(), self.hands[partition].nudge.clone());
                    // The seat first, and what is there.
                    self.read(partition, lane);
                }
            }
            Some(Change::Deposed) => {
                self.step(Event::Deposed);
                self.retire().await;
            }
            None => {}
        }
    }

    /// Lets others read the partitions.
    async fn retire(&mut self) {
        self.merging = None;
        self.gap.reset();
        self.reign.cancel();
        let mut leaving = Vec::new();
        while let Some((_, lane, _)) = self.calls.next().await {
            leaving.push(lane.leave());
        }
        join_all(leaving).await;
    }

    /// Takes the answer to a merge.
    async fn merged(&mut self, merged: Result<Merged>) -> Result<()> {
        match merged {
            Ok(Merged::Advanced { head, missing, .. }) => {
                // A base whose clock says that it is not time yet is not asked again at once.
                let waits = self.machine.gives_up() && head == self.machine.head();
                self.refusals = if waits { self.refusals.saturating_add(1) } else { 0 };
                self.sequencing.emitted += head.past(self.machine.head());
                self.fits.came(self.size);
                let held: Vec<_> = (0..self.hands.len()).map(|at| self.machine.held(at)).collect();
                self.step(Event::Merged { head });
                for (partition, hand) in self.hands.iter().enumerate() {
                    if self.machine.held(partition) != held[partition] {
                        // What came too late was not kept: it is read anew, and what was proved by it is not any more.
                        self.gap.lost(partition);
                    }
                    hand.nudge(&self.machine, partition, self.options.window);
                }
                self.watch(missing);
            }
            Ok(Merged::Moved { head }) => {
                tracing::debug!(%head, "the base is elsewhere");
                // Where it is right there it is no base any more: it has forgotten what it is.
                let is_here = head == self.machine.head();
                self.refusals = if is_here { self.refusals.saturating_add(1) } else { 0 };
                self.sequencing.refused += u64::from(head != Position::FIRST);
                self.step(Event::Moved { head });
                self.gap.reset();
            }
            Ok(Merged::Fenced { term }) => {
                tracing::info!(%term, "a merge was fenced off");
                self.sequencing.refused += 1;
                let change = self.elector.depose("another term has begun");
                self.change(change).await;
            }
            // Nobody knows whether it counted. What is asked next tells.
            Err(error) if error.is_passing() => {
                if self.refusals == 0 {
                    tracing::warn!(%error, "a merge has no answer; asking where the line is until there is one");
                }
                self.refusals = self.refusals.saturating_add(1);
                self.sequencing.refused += 1;
                if matches!(error, StoreError::Unknown(_)) {
                    self.fits.smaller();
                }
                self.gap.reset();
                self.step(Event::Unknown);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Sees to a number that is missing.
    fn watch(&mut self, missing: Option<Micros>) {
        let Some((head, since)) = self.machine.missing().zip(missing) else {
            // While another merge is on its way it may be missing all the same.
            if missing.is_none() {
                self.gap.reset();
            }
            return;
        };
        self.gap.open(head, since);
        self.prove();
    }

    /// Has the base asked where it is, and told again, while a number is missing: else nothing is asked until that comes. One that
    /// has come back older may not know that it is missing, and those who process hold back what stands before it then.
    fn remind(&mut self) {
        if self.merging.is_none() && self.machine.missing().is_some() {
            self.step(Event::Unknown);
        }
    }

    /// Tells the rules what is proved, and has proved what is not.
    fn prove(&mut self) {
        let Some(head) = self.gap.overdue().filter(|head| self.machine.missing() == Some(*head)) else {
            return;
        };
        if self.gap.is_alarming() {
            let what = match self.options.on_gap {
                OnGap::Hold => "the line waits for it",
                OnGap::GiveUp => "it is given up as soon as it is sure that it has not come",
            };
            tracing::warn!(sequence = head.0, timeout = ?self.options.gap_timeout, "a number is missing for too long; {what}");
        }
        if self.options.on_gap == OnGap::Hold {
            return;
        }
        for partition in self.machine.doubts() {
            if self.gap.is_proved(partition) {
                self.step(Event::Proved { partition, head });
            } else {
                self.gap.doubt(partition, &self.shards.partitions()[partition]);
            }
        }
    }

    /// Hands an event to the rules and does what they say.
    fn step(&mut self, event: Event<Bytes>) {
        if let Action::Merge {
            term,
            head,
            count,
            late,
            is_missing,
            give_up,
        } = self.machine.step(event)
        {
            debug_assert_eq!(late, self.machine.late().count());
            let request = self.request(count, give_up).map(|request| MergeRequest {
                is_missing: is_missing && request.pieces.len() == count,
                term,
                head,
                ..request
            });
            let (base, pause) = (self.shards.base().clone(), (PAUSE * self.refusals).min(LONGEST_PAUSE));
            self.merging = Some(Box::pin(async move {
                let request = request?;
                if !pause.is_zero() {
                    // To sleep for no time at all takes a millisecond: timers have steps.
                    sleep(pause).await;
                }
                base.merge(&request).await
            }));
        }
    }

    /// What is to be merged: it ends where it is too large for one step.
    fn request(&mut self, count: usize, give_up: usize) -> Result<MergeRequest> {
        let mut load = Load::new(self.fits.bytes());
        let late = self.machine.late().take_while(|(_, output)| load.takes(output.len()));
        let late: Vec<_> = late.map(|(place, output)| text::late(place, output)).collect();
        self.machine.tell_only(late.len());
        let ready = self.machine.ready(count);
        let pieces = ready
            .take_while(|(.., output)| load.takes(output.len()))
            .map(|(place, is_dead, output)| text::piece(place, is_dead, self.options.mark_dead, output))
            .collect::<Result<_>>()?;
        let head = self.machine.head();
        let since = self.gap.since().unwrap_or_default();
        let reason = format!("did not come within {:?}", self.options.gap_timeout);
        let tombstones = (0..give_up as u64).map(|nth| {
            if self.options.mark_dead {
                text::given_up(head.plus(nth), since, &reason)
            } else {
                String::new()
            }
        });
        let tombstones: Vec<_> = tombstones.take_while(|tombstone| load.takes(tombstone.len())).collect();
        self.size = load.bytes;
        Ok(MergeRequest {
            term: conga_core::term::Term::default(),
            head,
            late,
            pieces,
            is_missing: false,
            give_up: (!tombstones.is_empty()).then(|| GiveUp {
                after_us: u64::try_from(self.options.gap_timeout.as_micros()).unwrap_or(u64::MAX),
                tombstones,
            }),
        })
    }

    /// Lets go of outputs that are over, and of what came too late. Whether there is more.
    fn trim(&self) -> BoxFuture<'static, Result<bool>> {
        let base = self.shards.base().clone();
        let keep = self.options.keep.unwrap_or_else(|| base.keeps());
        let request = RenewRequest {
            owner: self.elector.owner().clone(),
            lease_us: 3_000_000,
            held: None,
            limits: Limits::default(),
            keep: Some(Keep {
                records: Limit::NONE,
                ..keep
            }),
        };
        Box::pin(async move { Ok(base.renew(&request).await?.is_overfull) })
    }

    /// Says good-bye to the base.
    async fn leave(&mut self) {
        self.trimming = None;
        let request = RenewRequest {
            owner: self.elector.owner().clone(),
            lease_us: 0,
            held: None,
            limits: Limits::default(),
            keep: None,
        };
        let left = timeout(GOODBYE, self.shards.base().renew(&request)).await;
        if !matches!(left, Ok(Ok(_))) {
            tracing::debug!("could not say good-bye to the base");
        }
    }
}
