//! A store in which one law is broken on purpose, to see whether that is found. Only the benchmark's own consumer,
//! judge and zombie look through it; no service ever does.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use conga::core::lease::{Attempt, OwnerId};
use conga::core::message::{Id, Output, Position};
use conga::core::partition::{
    CampaignRequest, Claim, ClaimRequest, Completed, Completion, Control, ControlRequest, Cursor, DeadRequest,
    EmitRequest, Emitted, Followed, Judged, MergeRequest, Merged, Numbered, Page, ReceiveRequest, Received,
    RenewRequest, Renewed, Sent, Shelf, Status,
};
use conga::core::shape::Shape;
use conga::core::term::Campaign;
use conga::deliver::position_of;
use conga::shards::Shards;
use conga::store::{Result, SharedStore, Store};
use conga::wake::Wakes;

use self::early::Early;

mod early;

/// How a law is broken, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Break {
    /// An output is taken off and handed to nobody.
    LoseOutput,
    /// An output comes twice.
    DoubleOutput,
    /// An output comes again after it was acknowledged.
    RepeatOutput,
    /// Two outputs come the wrong way round.
    SwapOutputs,
    /// An output is not what the record says.
    AlterOutput,
    /// Output and record agree on what nobody sent.
    AlterBoth,
    /// A row of the record is gone.
    ForgetRecord,
    /// What an earlier leader emits counts.
    StaleEmit,
    /// What an earlier holder of a lease completes counts.
    StaleComplete,
    /// Nothing comes out any more.
    Stall,
    /// A message stays in flight for ever.
    LeaveOver,
    /// What an earlier leader merges counts.
    StaleMerge,
    /// A merge counts wherever the head is.
    UncheckedHead,
    /// A partition's output is acknowledged before it is merged.
    AcknowledgeFirst,
}

impl Break {
    /// Those of every line.
    const ALWAYS: [Self; 10] = [
        Self::LoseOutput,
        Self::DoubleOutput,
        Self::RepeatOutput,
        Self::SwapOutputs,
        Self::AlterOutput,
        Self::AlterBoth,
        Self::ForgetRecord,
        Self::StaleComplete,
        Self::Stall,
        Self::LeaveOver,
    ];

    /// Those that a line has, merged or not.
    pub(crate) fn of(merged: bool) -> Vec<Self> {
        let more: &[Self] = if merged {
            &[Self::StaleMerge, Self::UncheckedHead, Self::AcknowledgeFirst]
        } else {
            &[Self::StaleEmit]
        };
        [&Self::ALWAYS, more].concat()
    }
}

/// From this position on the law is broken.
const FROM: u64 = 20;

#[derive(Debug)]
pub(crate) struct Broken {
    inner: SharedStore,
    how: Break,
    /// Consumers read here.
    is_outlet: bool,
    state: Arc<Mutex<State>>,
    /// Who has what, by what was claimed through here.
    latest: Mutex<HashMap<Position, (OwnerId, Attempt)>>,
    /// Which partition it is, where a producer's messages are watched.
    early: Option<(usize, Arc<Early>)>,
}

/// All stores of a line have one.
#[derive(Debug, Default)]
struct State {
    /// The law was broken, for the message of this id.
    done: Option<Id>,
    /// An output that was handed out.
    kept: Option<Bytes>,
}

impl Broken {
    /// A line as it is seen through such stores: one partition, or several that are merged.
    pub(crate) fn line(shards: &Shards, how: Break) -> Shards {
        let state = Arc::new(Mutex::default());
        let merged = shards.are_merged();
        let early = (merged && how == Break::AcknowledgeFirst).then(|| Arc::new(Early::new(shards)));
        let broken = |inner: &SharedStore, is_outlet, early| -> SharedStore {
            Arc::new(Self {
                inner: inner.clone(),
                how,
                is_outlet,
                state: Arc::clone(&state),
                latest: Mutex::default(),
                early,
            })
        };
        let base = broken(shards.base(), true, None);
        if !merged {
            return Shards::one(base);
        }
        let partitions = shards.partitions().iter().enumerate();
        let partitions = partitions
            .map(|(partition, inner)| broken(inner, false, early.clone().map(|early| (partition, early))))
            .collect();
        Shards::of(base, partitions, shards.router().by())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn latest(&self) -> MutexGuard<'_, HashMap<Position, (OwnerId, Attempt)>> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Breaks the law in what is handed out. The position of an output that is lost by that.
    fn tamper(&self, outputs: &mut Vec<Bytes>) -> Option<Position> {
        let mut state = self.state();
        if self.how == Break::RepeatOutput
            && state.done.is_none()
            && !outputs.is_empty()
            && let Some(kept) = state.kept.take()
        {
            outputs.insert(0, kept);
            state.done = Some(Id::of_position(Position(FROM)));
            return None;
        }
        let from = outputs
            .iter()
            .position(|line| position_of(line) >= Some(Position(FROM)));
        let (None, Some(at)) = (&state.done, from) else {
            return None;
        };
        let mut lost = None;
        match self.how {
            Break::LoseOutput => lost = position_of(&outputs.remove(at)),
            Break::DoubleOutput => outputs.insert(at, outputs[at].clone()),
            Break::RepeatOutput => {
                state.kept = Some(outputs[at].clone());
                return None;
            }
            Break::SwapOutputs if at + 1 < outputs.len() => outputs.swap(at, at + 1),
            Break::AlterOutput | Break::AlterBoth | Break::ForgetRecord => {
                if self.how != Break::ForgetRecord {
                    outputs[at] = altered(&outputs[at]);
                }
                state.done = Output::parse(&outputs[at]).ok().map(|output| output.record.id);
                return None;
            }
            _ => return None,
        }
        state.done = Some(Id::of_position(Position(FROM)));
        lost
    }
}

fn altered(line: &Bytes) -> Bytes {
    String::from_utf8_lossy(line)
        .replacen("\"payload\":\"m", "\"payload\":\"M", 1)
        .into()
}

#[async_trait]
impl Store for Broken {
    async fn send(&self, entries: &[Bytes], numbered: Option<&Numbered>) -> Result<Sent> {
        if let Some((partition, early)) = &self.early
            && early.keeps_back(*partition, entries).await?
        {
            return Ok(Sent::Accepted { last: 0, mark: 0 });
        }
        self.inner.send(entries, numbered).await
    }

    async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Claim>> {
        let claims = self.inner.claim(request).await?;
        let held = claims
            .iter()
            .map(|claim| (claim.position, (request.owner.clone(), claim.attempt)));
        self.latest().extend(held);
        Ok(claims)
    }

    async fn complete(&self, owner: &OwnerId, completions: &[Completion]) -> Result<Vec<Completed>> {
        if self.how != Break::StaleComplete {
            return self.inner.complete(owner, completions).await;
        }
        let (mut owner, mut completions) = (owner.clone(), completions.to_vec());
        for completion in &mut completions {
            let latest = self.latest().get(&completion.held().position).cloned();
            if let (Completion::Done(record), Some((holder, attempt))) = (completion, latest) {
                (owner, record.attempts) = (holder, attempt);
            }
        }
        self.inner.complete(&owner, &completions).await
    }

    async fn renew(&self, request: &RenewRequest) -> Result<Renewed> {
        self.inner.renew(request).await
    }

    async fn campaign(&self, request: &CampaignRequest) -> Result<Campaign> {
        self.inner.campaign(request).await
    }

    async fn follow(&self, cursor: Cursor, max: usize) -> Result<Followed> {
        self.inner.follow(cursor, max).await
    }

    async fn emit(&self, request: &EmitRequest) -> Result<Emitted> {
        let mut request = request.clone();
        if self.how == Break::StaleEmit {
            request.term = self.inner.status().await?.term;
        }
        self.inner.emit(&request).await
    }

    async fn merge(&self, request: &MergeRequest) -> Result<Merged> {
        let mut request = request.clone();
        if self.how == Break::StaleMerge {
            request.term = self.inner.status().await?.term;
        }
        loop {
            if self.how == Break::UncheckedHead {
                request.head = self.inner.status().await?.head;
            }
            let merged = self.inner.merge(&request).await?;
            // The leader was quicker.
            let again = self.how == Break::UncheckedHead && matches!(merged, Merged::Moved { .. });
            if !again {
                return Ok(merged);
            }
        }
    }

    async fn receive(&self, request: &ReceiveRequest) -> Result<Received> {
        if !self.is_outlet {
            return self.inner.receive(request).await;
        }
        if self.how == Break::Stall && request.max > 0 {
            let mut state = self.state();
            if request.acknowledge >= Some(Position(FROM)) {
                state.done = Some(Id::of_position(Position(FROM)));
            }
            if state.done.is_some() {
                return Ok(Received::Outputs(Vec::new()));
            }
        }
        let received = self.inner.receive(request).await?;
        let Received::Outputs(mut outputs) = received else {
            return Ok(received);
        };
        if let Some(acknowledge) = self.tamper(&mut outputs) {
            let acknowledge = Some(acknowledge);
            let acknowledge = ReceiveRequest {
                reign: request.reign.clone(),
                acknowledge,
                skip: 0,
                max: 0,
            };
            self.inner.receive(&acknowledge).await?;
        }
        Ok(Received::Outputs(outputs))
    }

    async fn control(&self, request: &ControlRequest) -> Result<Control> {
        self.inner.control(request).await
    }

    async fn status(&self) -> Result<Status> {
        let mut status = self.inner.status().await?;
        status.in_flight += u64::from(self.how == Break::LeaveOver);
        Ok(status)
    }

    async fn browse(&self, shelf: Shelf, from: Option<&str>) -> Result<Page> {
        let mut page = self.inner.browse(shelf, from).await?;
        let done = self.state().done.clone();
        match self.how {
            Break::ForgetRecord => page.rows.retain(|row| done.as_ref() != Some(&row.id)),
            Break::AlterBoth => {
                for row in page.rows.iter_mut().filter(|row| done.as_ref() == Some(&row.id)) {
                    row.json = altered(&row.json);
                }
            }
            _ => {}
        }
        Ok(page)
    }

    async fn shape(&self, wanted: Option<Shape>) -> Result<Option<Shape>> {
        self.inner.shape(wanted).await
    }

    async fn dead(&self, request: &DeadRequest) -> Result<Vec<Judged>> {
        self.inner.dead(request).await
    }

    fn wakes(&self) -> &Wakes {
        self.inner.wakes()
    }
}
