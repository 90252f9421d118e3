//! What the store makes of a call: the core's own code, its answer judged, and the flaws around it.
//!
//! The store's time stands still. A deadline that has passed is one that was set for now, as long ago as a lease lasts;
//! so the states stay finite, and it is the core that finds what has expired.

use conga_core::lease::{Attempt, Held, OwnerId};
use conga_core::message::{Output, Position};
use conga_core::partition::{
    CampaignRequest, Claim, ClaimRequest, Completed, Completion, ControlRequest, Cursor, DeadRequest, EmitRequest,
    Emitted, Flow, Followed, Judged, Limits, Partition, ReceiveRequest, RenewRequest, Renewed, Verdict,
};
use conga_core::shape::Order;
use conga_core::term::{Campaign, Role};
use conga_core::time::Micros;

use crate::line::{Delivery, Flaw};
use crate::shared::Shared;
use crate::step::Step;
use crate::{DELAY_US, LEASE_US, NOW};

/// A lease ago.
const THEN: Micros = Micros(NOW.0 - LEASE_US);

impl Step<'_> {
    /// Claims; `later`, after the delays of what failed for now.
    pub(crate) fn call_claim(&mut self, owner: &OwnerId, max: usize, later: bool) -> Vec<Claim> {
        let (now, lease_us) = if later {
            (NOW + DELAY_US, LEASE_US - DELAY_US)
        } else {
            (NOW, LEASE_US)
        };
        let window = if self.line.has(Flaw::NoWindow) {
            u64::MAX
        } else {
            self.line.window
        };
        let request = ClaimRequest {
            owner: owner.clone(),
            max,
            lease_us,
            window,
            below: None,
            limits: Limits::default(),
        };
        let before = self.state.store.clone();
        if self.line.has(Flaw::NoPause) {
            self.call_control(Flow::Running);
        }
        let claims = self.state.store.edit(|store| store.claim(now, &request));
        if self.line.has(Flaw::NoPause) {
            self.call_control(before.status(NOW).control.flow);
        }
        if self.judges {
            self.judge_claims(&before, owner, &claims);
        }
        claims
    }

    /// A person says it, and where the store delivers it does so too; said again it changes nothing.
    pub(crate) fn call_dead(&mut self, position: Position, verdict: Verdict) {
        let request = DeadRequest {
            verdict,
            positions: vec![position],
        };
        let before = self.state.store.clone();
        let answers = self.state.store.edit(|store| store.dead(NOW, &request));
        if answers != [Judged::Done] {
            self.state.broken.insert("halt");
        }
        if self.judges {
            self.judge_verdict(&before, position);
        }
        let once = self.state.store.clone();
        self.state.store.edit(|store| store.dead(NOW, &request));
        self.unchanged(once);
        if self.line.delivery == Delivery::Store {
            self.deliver_with_renewal();
        }
    }

    pub(crate) fn call_control(&mut self, flow: Flow) {
        self.state
            .store
            .edit(|store| store.control(NOW, &ControlRequest::Flow(flow)));
    }

    pub(crate) fn call_complete(&mut self, owner: &OwnerId, held: Held, delivers: bool) {
        let (mut as_owner, mut completion) = (owner.clone(), self.line.completion(held));
        if self.line.has(Flaw::NoLeaseCheck)
            && let Some((holder, attempt)) = self.holder(held.position)
        {
            as_owner = holder;
            take_over(&mut completion, attempt);
        }
        let before = self.state.store.clone();
        let answers = self
            .state
            .store
            .edit(|store| store.complete(NOW, &as_owner, &[completion]));
        let answer = answers[0];
        if answer == Completed::Stale {
            self.unchanged(before);
        } else {
            if self.line.order != Order::Total {
                // It has been delivered in this step.
                self.receive();
            }
            if self.judges {
                self.judge_completed(&before, owner, held);
            }
        }
        if delivers {
            self.deliver_with_complete(held, answer);
        }
    }

    /// Who has the lease of a message, as the store sees it.
    fn holder(&self, position: Position) -> Option<(OwnerId, Attempt)> {
        self.state.names.all_processors().find_map(|owner| {
            let claims = self.state.leased_to(&owner);
            let claim = claims.into_iter().find(|claim| claim.position == position)?;
            Some((owner, claim.attempt))
        })
    }

    /// Renews; with `held`, compares too.
    pub(crate) fn call_renew(&mut self, owner: &OwnerId, held: Option<Vec<Held>>, delivers: bool) -> Renewed {
        let request = RenewRequest {
            keep: None,
            owner: owner.clone(),
            lease_us: LEASE_US,
            held,
            limits: Limits::default(),
        };
        let renewed = self.state.store.edit(|store| store.renew(NOW, &request));
        if delivers {
            self.deliver_with_renewal();
        }
        renewed
    }

    /// The last sign of life of `owner` was as long ago as a lease lasts.
    pub(crate) fn end_lease(&mut self, owner: &OwnerId) {
        let request = RenewRequest {
            keep: None,
            owner: owner.clone(),
            lease_us: LEASE_US,
            held: None,
            limits: Limits::default(),
        };
        self.state.store.edit(|store| store.renew(THEN, &request));
    }

    pub(crate) fn call_campaign(&mut self, owner: &OwnerId) -> Campaign {
        let request = CampaignRequest {
            owner: owner.clone(),
            role: Role::Leader,
            lock_us: LEASE_US,
        };
        let mut answer = self.state.store.edit(|store| store.campaign(NOW, &request));
        if self.line.has(Flaw::SameTerm) && matches!(answer, Campaign::Standby { leader: Some(_) }) {
            answer = Campaign::Leader {
                term: self.state.store.status(NOW).term,
            };
        }
        if let (Campaign::Leader { term }, true) = (&answer, self.judges) {
            self.judge_elected(*term, owner);
        }
        answer
    }

    /// The lock was taken or renewed as long ago as it lasts.
    pub(crate) fn end_lock(&mut self, owner: &OwnerId) {
        let request = CampaignRequest {
            owner: owner.clone(),
            role: Role::Leader,
            lock_us: LEASE_US,
        };
        self.state.store.edit(|store| store.campaign(THEN, &request));
    }

    pub(crate) fn call_follow(&self, cursor: Cursor) -> Followed {
        self.state.store.follow(NOW, cursor, usize::MAX)
    }

    pub(crate) fn call_emit(&mut self, emit: &EmitRequest) -> Emitted {
        let mut request = emit.clone();
        if self.line.has(Flaw::NoFence) {
            request.term = self.state.store.status(NOW).term;
        }
        let before = self.state.store.clone();
        let mut answer = self.state.store.edit(|store| store.emit(NOW, &request));
        if self.line.has(Flaw::NoHeadCheck)
            && let Emitted::Moved { head } = answer
        {
            self.appends_again(emit);
            answer = Emitted::Advanced { head };
        }
        if !matches!(answer, Emitted::Advanced { .. }) {
            self.unchanged(before);
            return answer;
        }
        if self.judges {
            self.judge_emitted(&before, emit);
        }
        self.receive();
        if self.judges {
            self.judge_records();
        }
        answer
    }

    /// A store that does not look at the head appends what it is told to.
    fn appends_again(&mut self, emit: &EmitRequest) {
        for ready in &emit.entries {
            let at = |output: &&Output| output.record.position == ready.processed.position;
            let again = self.state.outputs.iter().find(at).cloned();
            self.state.outputs.edit(|outputs| outputs.extend(again));
        }
    }

    /// The consumer takes off what there is.
    pub(crate) fn receive(&mut self) {
        let read = ReceiveRequest {
            max: usize::MAX,
            ..ReceiveRequest::default()
        };
        let lines = self.state.store.edit(|store| store.receive(&read)).outputs();
        let outputs = lines.iter().map(|line| Output::parse(line).expect("an output"));
        self.state.outputs.edit(|taken| taken.extend(outputs));
        let acknowledge = ReceiveRequest {
            acknowledge: self.state.outputs.last().map(|output| output.record.position),
            ..ReceiveRequest::default()
        };
        self.state.store.edit(|store| store.receive(&acknowledge));
    }

    /// What does not count changes nothing.
    fn unchanged(&mut self, before: Shared<Partition>) {
        if self.judges && before != self.state.store {
            self.state.broken.insert("repeatable");
        }
        self.state.store = before;
    }
}

fn take_over(completion: &mut Completion, attempt: Attempt) {
    match completion {
        Completion::Done(record) | Completion::Dead { tombstone: record, .. } => record.attempts = attempt,
        Completion::Retry { held, .. } => held.attempt = attempt,
    }
}
