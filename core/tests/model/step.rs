//! What a step does: the processes' side of it. What the store makes of a call is in `call`.

use conga_core::lease::{Held, OwnerId};
use conga_core::partition::{Claim, Flow};

use crate::action::Action;
use crate::line::{Compare, Line};
use crate::shared::Shared;
use crate::state::{Processor, Request, Sequencer, State};

/// A step that is being taken.
pub(crate) struct Step<'a> {
    pub(crate) line: &'a Line,
    pub(crate) state: State,
    /// Whether what happens is judged. Not where the same step is judged in its own place.
    pub(crate) judges: bool,
}

impl<'a> Step<'a> {
    pub(crate) fn new(line: &'a Line, state: &State) -> Self {
        Self {
            line,
            state: state.clone(),
            judges: true,
        }
    }

    pub(crate) fn finish(mut self) -> State {
        self.state.trim();
        self.state.sort();
        self.state
    }

    pub(crate) fn take(&mut self, action: &Action) {
        match action {
            Action::Claim { by, later } => self.claim(*by, *later),
            Action::Complete { by, held } => self.complete(*by, *held),
            Action::Compare { by } => self.compare(*by),
            Action::Renew { by } => self.renew(*by),
            Action::Unanswered { by, request } => self.unanswered(*by, request),
            Action::Campaign { by } => self.campaign(*by),
            Action::Follow { by } => self.follow(*by),
            Action::HearFollowed { by } => self.hear_followed(*by),
            Action::Emit { by } => self.emit(*by),
            Action::HearEmitted { by } => self.hear_emitted(*by),
            Action::EmitUnanswered { by } => self.emit_unanswered(*by),
            Action::StepDown { by } => {
                self.state.stops += 1;
                self.depose(*by);
            }
            Action::ProcessorCrashes { by, leaves } => {
                let delivers = self.state.processors[*by].delivers;
                self.state.processors[*by] = Shared::new(Processor::new(delivers));
                self.crash(leaves.as_ref());
            }
            Action::SequencerCrashes { by, leaves } => {
                self.state.sequencers[*by] = Shared::new(Sequencer::new(self.line));
                self.crash(leaves.as_ref());
            }
            Action::Arrives { request } => self.arrives(request),
            Action::LeaseEnds { owner } => {
                self.count_pause(owner);
                self.end_lease(owner);
            }
            Action::LockEnds { owner } => {
                self.count_pause(owner);
                self.end_lock(owner);
            }
            Action::Judge { position, verdict } => self.call_dead(*position, *verdict),
            Action::Control { flow } => {
                self.state.controls += u8::from(*flow != Flow::Running);
                self.call_control(*flow);
            }
        }
    }

    fn crash(&mut self, leaves: Option<&Request>) {
        self.state.crashes += 1;
        if let Some(request) = leaves {
            self.state.leave(request.clone());
        }
    }

    fn count_pause(&mut self, owner: &OwnerId) {
        self.state.pauses += u8::from(self.state.lives(owner));
    }

    /// Nobody hears what becomes of it.
    fn arrives(&mut self, request: &Request) {
        self.state.wire.retain(|other| other != request);
        match request {
            Request::Claim { owner, max } => {
                self.call_claim(owner, *max, false);
            }
            Request::Complete { owner, held, delivers } => {
                self.call_complete(owner, *held, *delivers);
            }
            Request::Campaign { owner } => {
                self.call_campaign(owner);
            }
            Request::Emit(emit) => {
                self.call_emit(emit);
            }
        }
    }

    fn name_processor(&mut self, by: usize) -> OwnerId {
        if let Some(owner) = &self.state.processors[by].owner {
            return owner.clone();
        }
        let owner = self.state.names.processor();
        self.state.processors[by].edit(|processor| processor.owner = Some(owner.clone()));
        owner
    }

    /// An empty answer leaves no trace: it tells the store only that somebody lives. Unless it passed over something.
    fn claim(&mut self, by: usize, later: bool) {
        let before = self.state.clone();
        let owner = self.name_processor(by);
        let free = self.line.hands - self.state.processors[by].holds.len();
        let claims = self.call_claim(&owner, free, later);
        let next = |state: &State| state.store.status(crate::NOW).next;
        if claims.is_empty() && next(&before) == next(&self.state) {
            self.state = before;
            return;
        }
        self.state.processors[by].edit(|processor| take_up(processor, &claims));
    }

    fn complete(&mut self, by: usize, held: Held) {
        let owner = self.name_processor(by);
        let delivers = self.state.processors[by].delivers;
        self.call_complete(&owner, held, delivers);
        self.state.processors[by].edit(|processor| processor.holds.retain(|other| *other != held));
    }

    fn compare(&mut self, by: usize) {
        let owner = self.name_processor(by);
        let holds = self.state.processors[by].holds.clone();
        let delivers = self.state.processors[by].delivers;
        let renewed = self.call_renew(&owner, Some(holds), delivers);
        self.state.processors[by].edit(|processor| {
            take_up(processor, &renewed.found);
            processor.unsure = false;
        });
    }

    fn renew(&mut self, by: usize) {
        let owner = self.name_processor(by);
        self.call_renew(&owner, None, true);
    }

    fn unanswered(&mut self, by: usize, request: &Request) {
        self.state.losses += 1;
        self.name_processor(by);
        if matches!(request, Request::Claim { .. }) && self.line.compare == Compare::Once {
            self.state.processors[by].edit(|processor| processor.unsure = true);
        }
        self.state.leave(request.clone());
    }
}

fn take_up(processor: &mut Processor, claims: &[Claim]) {
    for claim in claims {
        let held = Held {
            position: claim.position,
            attempt: claim.attempt,
        };
        if !processor.holds.contains(&held) {
            processor.holds.push(held);
        }
    }
    processor.holds.sort_unstable();
}
