//! What a store does wrong about messages that kill their processors.

use conga::core::lease::OwnerId;
use conga::core::message::Position;
use conga::core::partition::{ALONE_FROM, Claim, ClaimRequest, Completed, Completion, RenewRequest, Renewed};
use conga::store::{Result, Store as _};

use super::{Flaw, Flawed};

/// What a flawed store believes of a message's crashes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Belief {
    /// Those that it adds to what is true.
    more: u32,
    /// The most that it has said.
    most: u32,
    /// How many attempts were excused, when it was last handed out.
    excused: u32,
}

impl Flawed {
    /// Says something else than is true of how often the messages were blamed.
    pub(super) fn blame_wrongly(&self, claims: &mut [Claim]) {
        let mut beliefs = self.beliefs.lock().unwrap();
        for claim in claims {
            let belief = beliefs.entry(claim.position).or_default();
            let excused = claim.attempt.0 - claim.tries.0;
            match self.flaw {
                Flaw::ForgetsCrashes => claim.crashes = 0,
                Flaw::BlamesAll => {
                    // All that is excused and was not given back is a death, whoever else was there.
                    let deaths = excused - belief.excused;
                    belief.more += deaths;
                    claim.crashes = claim.crashes.max(belief.more);
                }
                Flaw::CallsLeavingACrash => claim.crashes += belief.more,
                Flaw::KeepsTheSuspicion => claim.crashes = claim.crashes.max(belief.most),
                _ => {}
            }
            belief.excused = excused;
            belief.most = claim.crashes;
        }
    }

    /// An owner gives back all that it holds.
    pub(super) fn leave(&self, owner: &OwnerId) {
        let leases = self.leases.lock().unwrap();
        let held = leases.iter().filter(|(_, (holder, _))| holder == owner);
        held.for_each(|(position, _)| self.believe_given_back(*position));
    }

    fn believe_given_back(&self, position: Position) {
        let mut beliefs = self.beliefs.lock().unwrap();
        let belief = beliefs.entry(position).or_default();
        belief.excused += 1;
        belief.more += u32::from(self.has(Flaw::CallsLeavingACrash));
    }

    fn believe(&self, completion: &Completion) {
        let position = completion.held().position;
        if let Completion::Retry { delay_us: 0, .. } = completion {
            self.believe_given_back(position);
        } else {
            self.beliefs.lock().unwrap().entry(position).or_default().more = 0;
        }
    }

    /// Completes each under the name under which it was handed out.
    pub(super) async fn complete_beside(&self, owner: &OwnerId, completions: &[Completion]) -> Result<Vec<Completed>> {
        let answers = if self.has(Flaw::NeverIsolates) {
            let mut answers = Vec::new();
            for completion in completions {
                let owner = self.holder_of(owner, completion.held().position);
                let one = std::slice::from_ref(completion);
                answers.extend(self.for_complete().complete(&owner, one).await?);
            }
            answers
        } else {
            self.for_complete().complete(owner, completions).await?
        };
        for (completion, answer) in completions.iter().zip(&answers) {
            if *answer == Completed::Accepted {
                self.believe(completion);
            }
        }
        Ok(answers)
    }

    /// Hands out more to who holds what is to be alone: under another name, so that the true store does not see it.
    pub(super) async fn claim_beside(&self, request: &ClaimRequest, claims: &mut Vec<Claim>) -> Result<()> {
        for claim in claims.iter() {
            self.beside.lock().unwrap().remove(&claim.position);
        }
        if !self.has(Flaw::NeverIsolates) || !claims.iter().any(|claim| claim.crashes >= ALONE_FROM) {
            return Ok(());
        }
        let beside = ClaimRequest {
            owner: beside(&request.owner),
            max: request.max - claims.len(),
            ..request.clone()
        };
        let more = self.inner.claim(&beside).await?;
        self.beside
            .lock()
            .unwrap()
            .extend(more.iter().map(|claim| claim.position));
        claims.extend(more);
        claims.sort_by_key(|claim| claim.position);
        Ok(())
    }

    /// Under which name it was handed out.
    fn holder_of(&self, owner: &OwnerId, position: Position) -> OwnerId {
        if self.beside.lock().unwrap().contains(&position) {
            beside(owner)
        } else {
            owner.clone()
        }
    }

    /// Keeps alive, or lets go of, what an owner holds under its other name.
    pub(super) async fn renew_beside(&self, request: &mut RenewRequest) -> Result<Renewed> {
        if !self.has(Flaw::NeverIsolates) {
            return Ok(Renewed::default());
        }
        let at = self.beside.lock().unwrap().clone();
        let (theirs, own): (Vec<_>, Vec<_>) =
            (request.held.iter().flatten()).partition(|held| at.contains(&held.position));
        let compares = request.held.is_some();
        request.held = compares.then_some(own);
        let other = RenewRequest {
            owner: beside(&request.owner),
            held: compares.then_some(theirs),
            keep: None,
            ..request.clone()
        };
        self.inner.renew(&other).await
    }
}

fn beside(owner: &OwnerId) -> OwnerId {
    OwnerId::new(format!("{owner} beside"))
}
