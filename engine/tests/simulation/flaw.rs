//! Stores that break a law: the simulation has to find each of them, else it finds nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use conga::core::lease::{Attempt, OwnerId};
use conga::core::message::Position;
use conga::core::partition::{
    CampaignRequest, Claim, ClaimRequest, Completed, Completion, Control, ControlRequest, Cursor, DeadRequest,
    EmitRequest, Emitted, Followed, Judged, Limits, MergeRequest, Merged, Numbered, Page, ReceiveRequest, Received,
    RenewRequest, Renewed, Row, Sent, Session, Shelf, Status,
};
use conga::core::shape::Shape;
use conga::core::term::{Campaign, Reign, Role};
use conga::deliver::position_of;
use conga::store::memory::MemoryStore;
use conga::store::{Result, Store};
use conga::wake::Wakes;

mod delivery;
mod kind;
mod merge;
mod person;
mod strikes;

pub(crate) use kind::{Flaw, Ground};
use strikes::Belief;

/// A memory store with one flaw.
#[derive(Debug)]
pub(crate) struct Flawed {
    inner: MemoryStore,
    /// Whether it delivers by itself.
    delivers: bool,
    flaw: Flaw,
    /// Who claimed each message last.
    leases: Arc<Mutex<BTreeMap<Position, (OwnerId, Claim)>>>,
    /// Delivered, though it was not the turn.
    again: Arc<Mutex<Vec<Bytes>>>,
    /// What it has delivered by itself.
    out: Arc<Mutex<BTreeMap<Position, Bytes>>>,
    completes: Arc<AtomicU64>,
    /// Who is the active consumer.
    latest: Arc<Mutex<Option<Reign>>>,
    /// Whose records have gone before their turn.
    trimmed: Arc<Mutex<BTreeSet<Position>>>,
    beliefs: Arc<Mutex<BTreeMap<Position, Belief>>>,
    /// What was handed out beside something that is to be alone.
    beside: Arc<Mutex<BTreeSet<Position>>>,
    /// The last output that was handed out.
    handed_out: Arc<Mutex<Option<Position>>>,
}

impl Flawed {
    pub(crate) fn new(inner: MemoryStore, flaw: Flaw) -> Self {
        Self {
            inner,
            delivers: false,
            flaw,
            leases: Arc::default(),
            again: Arc::default(),
            out: Arc::default(),
            latest: Arc::default(),
            completes: Arc::default(),
            trimmed: Arc::default(),
            beliefs: Arc::default(),
            beside: Arc::default(),
            handed_out: Arc::default(),
        }
    }

    fn has(&self, flaw: Flaw) -> bool {
        self.flaw == flaw
    }

    fn owners(&self) -> Vec<OwnerId> {
        let mut owners: Vec<_> = self
            .leases
            .lock()
            .unwrap()
            .values()
            .map(|(owner, _)| owner.clone())
            .collect();
        owners.sort_unstable();
        owners.dedup();
        owners
    }

    /// All that is in the output.
    async fn outputs(&self) -> Result<Vec<Bytes>> {
        let all = ReceiveRequest {
            reign: self.latest.lock().unwrap().clone(),
            acknowledge: None,
            skip: 0,
            max: usize::MAX,
        };
        Ok(self.inner.receive(&all).await?.outputs())
    }

    /// The same completion for the lease that is held now, and who holds it.
    fn made_current(&self, completion: &Completion) -> Option<(OwnerId, Completion)> {
        let leases = self.leases.lock().unwrap();
        let (owner, claim) = leases.get(&completion.held().position)?;
        let mut completion = completion.clone();
        match &mut completion {
            Completion::Done(record) | Completion::Dead { tombstone: record, .. } => record.attempts = claim.attempt,
            Completion::Retry { held, .. } => held.attempt = claim.attempt,
        }
        Some((owner.clone(), completion))
    }
}

#[async_trait]
impl Store for Flawed {
    async fn send(&self, entries: &[Bytes], numbered: Option<&Numbered>) -> Result<Sent> {
        if self.has(Flaw::AppendsAgain) && numbered.is_some() {
            let before = self.inner.status().await?.waiting;
            let sent = self.inner.send(entries, numbered).await?;
            if self.inner.status().await?.waiting == before {
                self.inner.send(entries, None).await?;
            }
            return Ok(sent);
        }
        if let Some(numbered) = numbered.filter(|_| self.has(Flaw::AcceptsAnOlderSession)) {
            let session = Session { number: 1, process: 1 };
            let numbered = Numbered {
                session,
                ..numbered.clone()
            };
            return self.inner.send(entries, Some(&numbered)).await;
        }
        if let Some(numbered) = numbered.filter(|_| self.has(Flaw::IgnoresTheRoom)) {
            let mut numbered = numbered.clone();
            numbered.max_waiting = None;
            return self.inner.send(entries, Some(&numbered)).await;
        }
        if self.has(Flaw::AppendsWhatItRefuses) {
            let sent = self.inner.send(entries, numbered).await?;
            if matches!(sent, Sent::Full { .. }) {
                self.inner.send(entries, None).await?;
            }
            return Ok(sent);
        }
        match entries {
            [rest @ .., _] if self.has(Flaw::LosesAnEntry) && !rest.is_empty() => self.inner.send(rest, numbered).await,
            _ => self.inner.send(entries, numbered).await,
        }
    }

    async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Claim>> {
        let mut request = request.clone();
        if self.has(Flaw::IgnoresTheWindow) {
            request.window = u64::MAX;
        }
        if self.has(Flaw::FreesEarly) {
            request.lease_us /= 50;
        }
        if self.has(Flaw::NeverFrees) {
            for owner in self.owners() {
                let renewal = RenewRequest {
                    keep: None,
                    owner,
                    lease_us: u64::from(u32::MAX),
                    held: None,
                    limits: Limits::default(),
                };
                self.inner.renew(&renewal).await?;
            }
        }
        let mut claims = self.inner.claim(&request).await?;
        self.claim_beside(&request, &mut claims).await?;
        self.blame_wrongly(&mut claims);
        let mut leases = self.leases.lock().unwrap();
        if self.has(Flaw::LeasesTwice)
            && claims.is_empty()
            && let Some((_, claim)) = leases.values().find(|(owner, _)| *owner != request.owner)
        {
            return Ok(vec![claim.clone()]);
        }
        for claim in &claims {
            leases.insert(claim.position, (request.owner.clone(), claim.clone()));
        }
        if self.has(Flaw::LosesAClaim) && claims.last().is_some_and(|claim| claim.attempt == Attempt(1)) {
            claims.pop();
        }
        Ok(claims)
    }

    async fn complete(&self, owner: &OwnerId, completions: &[Completion]) -> Result<Vec<Completed>> {
        let mut answers = self.complete_beside(owner, &self.made_wrong(completions)).await?;
        self.deliver_wrongly(completions, &answers).await?;
        for (completion, answer) in completions.iter().zip(&mut answers) {
            if *answer == Completed::Accepted {
                self.leases.lock().unwrap().remove(&completion.held().position);
            } else if self.has(Flaw::CallsStaleAccepted) {
                *answer = Completed::Accepted;
            } else if self.has(Flaw::CountsStale)
                && let Some((holder, completion)) = self.made_current(completion)
            {
                *answer = self.inner.complete(&holder, &[completion]).await?[0];
            }
        }
        Ok(answers)
    }

    async fn renew(&self, request: &RenewRequest) -> Result<Renewed> {
        let mut request = request.clone();
        if self.has(Flaw::FreesEarly) {
            request.lease_us /= 50;
        }
        if let Some(keep) = &mut request.keep
            && keep.records.is_set()
        {
            if self.has(Flaw::TrimsOneTooMany) {
                keep.records.count = keep.records.count.map(|count| count.saturating_sub(1));
            }
            if self.has(Flaw::TrimsWhatWaits) {
                let rows = self.inner.browse(Shelf::Record, None).await?.rows;
                let waits = |row: &&Row| !row.json.windows(11).any(|part| part == b"\"sequenced\"");
                let waiting = rows.iter().find(waits).and_then(|row| position_of(&row.json));
                self.trimmed.lock().unwrap().extend(waiting);
            }
        }
        if request.lease_us == 0 {
            self.leave(&request.owner);
        }
        let beside = self.renew_beside(&mut request).await?;
        let mut renewed = self.for_renewal().renew(&request).await?;
        self.blame_wrongly(&mut renewed.found);
        renewed.lost.extend(beside.lost);
        renewed.found.extend(beside.found);
        Ok(renewed)
    }

    async fn campaign(&self, request: &CampaignRequest) -> Result<Campaign> {
        let mut request = request.clone();
        let leads = request.role == Role::Leader;
        if self.has(Flaw::NeverUnlocks) && leads {
            request.lock_us *= 1_000;
        }
        match self.inner.campaign(&request).await? {
            Campaign::Standby { .. } if self.has(Flaw::LeadsTwice) && leads && request.lock_us > 0 => {
                Ok(Campaign::Leader {
                    term: self.inner.status().await?.term,
                })
            }
            Campaign::Leader { term } if !leads => {
                let owner = request.owner;
                *self.latest.lock().unwrap() = Some(Reign { owner, term });
                Ok(Campaign::Leader { term })
            }
            campaign => Ok(campaign),
        }
    }

    async fn follow(&self, cursor: Cursor, max: usize) -> Result<Followed> {
        self.inner.follow(cursor, max).await
    }

    async fn emit(&self, request: &EmitRequest) -> Result<Emitted> {
        let mut request = request.clone();
        if self.has(Flaw::IgnoresTheTerm) || self.has(Flaw::IgnoresTermAndHead) {
            request.term = self.inner.status().await?.term;
        }
        let outputs = self.outputs().await?;
        match self.inner.emit(&request).await? {
            Emitted::Moved { .. } if self.has(Flaw::IgnoresTermAndHead) => {
                let end = request.head.plus(request.entries.len() as u64);
                let due = |output: &Bytes| position_of(output).is_some_and(|at| request.head <= at && at < end);
                self.again.lock().unwrap().extend(outputs.into_iter().filter(due));
                Ok(Emitted::Advanced { head: end })
            }
            emitted => Ok(emitted),
        }
    }

    async fn merge(&self, request: &MergeRequest) -> Result<Merged> {
        self.merge_wrongly(request).await
    }

    async fn receive(&self, request: &ReceiveRequest) -> Result<Received> {
        let mut request = request.clone();
        if self.has(Flaw::KeepsTheAcknowledged) {
            request.acknowledge = None;
        }
        if self.has(Flaw::IgnoresTheReign) {
            request.reign.clone_from(&self.latest.lock().unwrap());
        }
        self.acknowledge_wrongly(&mut request);
        let received = self.inner.receive(&request).await?;
        let Received::Outputs(mut outputs) = received else {
            return Ok(received);
        };
        self.hand_out(&outputs);
        outputs.append(&mut self.again.lock().unwrap());
        let trimmed = self.trimmed.lock().unwrap();
        outputs.retain(|output| position_of(output).is_none_or(|position| !trimmed.contains(&position)));
        if self.has(Flaw::HidesAnOutput) {
            outputs.retain(|output| position_of(output) != Some(Position(2)));
        }
        if self.has(Flaw::SwapsOutputs) && outputs.len() > 1 {
            outputs.swap(0, 1);
        }
        Ok(Received::Outputs(outputs))
    }

    async fn control(&self, request: &ControlRequest) -> Result<Control> {
        self.control_wrongly(request).await
    }

    async fn status(&self) -> Result<Status> {
        self.inner.status().await
    }

    async fn browse(&self, shelf: Shelf, from: Option<&str>) -> Result<Page> {
        let mut page = self.inner.browse(shelf, from).await?;
        page.rows.sort_by(|a, b| a.id.cmp(&b.id));
        let forgets = match shelf {
            Shelf::Record => Flaw::ForgetsARecord,
            Shelf::Dead => Flaw::ForgetsADeadLetter,
        };
        let trimmed = self.trimmed.lock().unwrap();
        page.rows.retain(|row| {
            shelf == Shelf::Dead || position_of(&row.json).is_none_or(|position| !trimmed.contains(&position))
        });
        if self.has(forgets) {
            page.rows.pop();
        }
        Ok(page)
    }

    async fn shape(&self, wanted: Option<Shape>) -> Result<Option<Shape>> {
        self.shape_wrongly(wanted).await
    }

    async fn dead(&self, request: &DeadRequest) -> Result<Vec<Judged>> {
        self.judge_wrongly(request).await
    }

    fn wakes(&self) -> &Wakes {
        self.inner.wakes()
    }
}
