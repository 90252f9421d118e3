//! What may happen next.

use conga_core::lease::{Held, OwnerId};
use conga_core::lifecycle::State as Place;
use conga_core::message::Position;
use conga_core::partition::{Flow, Verdict};

use crate::line::{Compare, Line};
use crate::state::{Emitting, Processor, Request, Sequencer, State};

/// One step. A process is meant by its place in the state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// A processor claims and hears the answer; `later`, once what is delayed is due.
    Claim { by: usize, later: bool },
    /// A processor sends a result and hears the answer.
    Complete { by: usize, held: Held },
    /// A processor compares what it holds with what the store says.
    Compare { by: usize },
    /// A processor says that it lives, and has the store deliver what others have left.
    Renew { by: usize },
    /// A processor's claim or result goes unanswered: it is on the wire, and the processor will ask again.
    Unanswered { by: usize, request: Request },
    /// A sequencer asks for the lock, or renews it.
    Campaign { by: usize },
    /// A sequencer reads what is processed.
    Follow { by: usize },
    /// A sequencer hears what it has read.
    HearFollowed { by: usize },
    /// The emit of a sequencer arrives.
    Emit { by: usize },
    /// A sequencer hears what became of its emit.
    HearEmitted { by: usize },
    /// A sequencer's emit goes unanswered: it is on the wire, and the sequencer reads anew.
    EmitUnanswered { by: usize },
    /// A leader stops by its own clock.
    StepDown { by: usize },
    /// A processor dies, and another takes its place. Its last request may be on the wire.
    ProcessorCrashes { by: usize, leaves: Option<Request> },
    /// A sequencer dies, and another takes its place. Its last request may be on the wire.
    SequencerCrashes { by: usize, leaves: Option<Request> },
    /// A request that nobody waits for arrives.
    Arrives { request: Request },
    /// An owner's time is up: it has died, or has not renewed for as long as a lease lasts.
    LeaseEnds { owner: OwnerId },
    /// The lock's time is up.
    LockEnds { owner: OwnerId },
    /// A person says what becomes of the message at which the line is halted, and says it again.
    Judge { position: Position, verdict: Verdict },
    /// Somebody pauses, drains or resumes the line.
    Control { flow: Flow },
}

impl Action {
    /// Whether this happens without a fault, and without any help of the wire.
    pub(crate) fn is_healthy(&self, state: &State) -> bool {
        match self {
            Self::Claim { .. }
            | Self::Complete { .. }
            | Self::Compare { .. }
            | Self::Renew { .. }
            | Self::Campaign { .. }
            | Self::Follow { .. }
            | Self::HearFollowed { .. }
            | Self::Emit { .. }
            | Self::HearEmitted { .. }
            | Self::Judge { .. } => true,
            Self::Control { flow } => *flow == Flow::Running,
            Self::LeaseEnds { owner } | Self::LockEnds { owner } => !state.lives(owner),
            Self::Unanswered { .. }
            | Self::EmitUnanswered { .. }
            | Self::StepDown { .. }
            | Self::ProcessorCrashes { .. }
            | Self::SequencerCrashes { .. }
            | Self::Arrives { .. } => false,
        }
    }
}

impl State {
    /// All that may happen next. Some of it may turn out to change nothing.
    pub(crate) fn actions(&self, line: &Line, actions: &mut Vec<Action>) {
        for (by, sequencer) in self.sequencers.iter().enumerate() {
            if by == 0 || self.sequencers[by - 1] != *sequencer {
                self.of_sequencer(line, by, sequencer, actions);
            }
        }
        for (by, processor) in self.processors.iter().enumerate() {
            if by == 0 || self.processors[by - 1] != *processor {
                self.of_processor(line, by, processor, actions);
            }
        }
        self.of_time(line, actions);
        for position in line.positions() {
            if self.store.state(position) == Some(Place::Halted) {
                let verdicts = [Verdict::Retry, Verdict::Skip, Verdict::Mark];
                actions.extend(verdicts.map(|verdict| Action::Judge { position, verdict }));
            }
        }
        let flow = self.store.status(crate::NOW).control.flow;
        if flow != Flow::Running {
            actions.push(Action::Control { flow: Flow::Running });
        } else if self.controls < line.controls {
            actions.extend([Flow::Paused, Flow::Draining].map(|flow| Action::Control { flow }));
        }
        actions.extend(self.wire.iter().map(|request| Action::Arrives {
            request: request.clone(),
        }));
    }

    fn of_processor(&self, line: &Line, by: usize, processor: &Processor, actions: &mut Vec<Action>) {
        actions.extend(processor.holds.iter().map(|held| Action::Complete { by, held: *held }));
        let compares = match line.compare {
            Compare::Again => processor.owner.is_some(),
            Compare::Once => processor.unsure,
        };
        if compares {
            actions.push(Action::Compare { by });
        }
        // Any other renewal tells the store only that somebody lives.
        if processor.delivers && self.is_ready(line) {
            actions.push(Action::Renew { by });
        }
        let free = line.hands.saturating_sub(processor.holds.len());
        if free > 0 && !processor.unsure {
            actions.push(Action::Claim { by, later: false });
            if line
                .positions()
                .any(|position| self.store.state(position) == Some(Place::Delayed))
            {
                actions.push(Action::Claim { by, later: true });
            }
        }
        let owner = processor.owner.clone();
        let results = processor
            .holds
            .iter()
            .zip(owner.iter().cycle())
            .map(|(held, owner)| Request::Complete {
                owner: owner.clone(),
                held: *held,
                delivers: processor.delivers,
            });
        let claim = (free > 0).then(|| Request::Claim {
            owner: owner.clone().unwrap_or_else(|| self.names.clone().processor()),
            max: free,
        });
        let sent: Vec<_> = results
            .chain(claim)
            .filter(|request| !self.wire.contains(request))
            .collect();
        if owner.is_some() && self.crashes < line.crashes {
            if sent.is_empty() {
                actions.push(Action::ProcessorCrashes { by, leaves: None });
            }
            actions.extend(sent.iter().map(|request| Action::ProcessorCrashes {
                by,
                leaves: Some(request.clone()),
            }));
        }
        if self.losses < line.losses {
            actions.extend(sent.into_iter().map(|request| Action::Unanswered { by, request }));
        }
    }

    fn of_sequencer(&self, line: &Line, by: usize, sequencer: &Sequencer, actions: &mut Vec<Action>) {
        let mut last = sequencer.owner.clone().map(|owner| Request::Campaign { owner });
        match &sequencer.emitting {
            Some(Emitting::Sent(emit)) => {
                actions.push(Action::Emit { by });
                last = Some(Request::Emit(emit.clone()));
                if self.losses < line.losses {
                    actions.push(Action::EmitUnanswered { by });
                }
            }
            Some(Emitting::Answered(..)) => actions.push(Action::HearEmitted { by }),
            None => {}
        }
        actions.push(match sequencer.following {
            Some(_) => Action::HearFollowed { by },
            None => Action::Follow { by },
        });
        actions.push(Action::Campaign { by });
        if sequencer.machine.term().is_some() && self.stops < line.stops {
            actions.push(Action::StepDown { by });
        }
        if sequencer.owner.is_some() && self.crashes < line.crashes {
            let leaves = last.filter(|request| !self.wire.contains(request));
            actions.push(Action::SequencerCrashes { by, leaves });
        }
    }

    fn of_time(&self, line: &Line, actions: &mut Vec<Action>) {
        let status = self.store.status(crate::NOW);
        let may_end = |owner: &OwnerId| self.pauses < line.pauses || !self.lives(owner);
        if status.in_flight > 0 {
            let ends = status.processors.into_iter().filter(may_end);
            actions.extend(
                ends.filter(|owner| !self.leased_to(owner).is_empty())
                    .map(|owner| Action::LeaseEnds { owner }),
            );
        }
        actions.extend(
            status
                .leader
                .into_iter()
                .filter(may_end)
                .map(|owner| Action::LockEnds { owner }),
        );
    }
}

impl Action {
    /// What happens, for people.
    pub(crate) fn describe(&self, state: &State) -> String {
        let processor = |by: &usize| name(state.processors[*by].owner.as_ref(), "a new processor");
        let sequencer = |by: &usize| name(state.sequencers[*by].owner.as_ref(), "a new sequencer");
        let left = |leaves: &Option<Request>| {
            let what = leaves.as_ref().map(Request::to_string);
            what.map_or_else(String::new, |what| format!(", leaving {what}"))
        };
        match self {
            Self::Claim { by, .. } => format!("{} claims", processor(by)),
            Self::Complete { by, held } => format!("{} completes {}/{}", processor(by), held.position, held.attempt),
            Self::Compare { by } => format!("{} compares what it holds", processor(by)),
            Self::Renew { by } => format!("{} renews", processor(by)),
            Self::Unanswered { by, request } => format!("{} gets no answer to {request}", processor(by)),
            Self::Campaign { by } => format!("{} campaigns", sequencer(by)),
            Self::Follow { by } => format!("{} follows", sequencer(by)),
            Self::HearFollowed { by } => format!("{} hears what it follows", sequencer(by)),
            Self::Emit { by } => format!("the emit of {} arrives", sequencer(by)),
            Self::HearEmitted { by } => format!("{} hears what became of its emit", sequencer(by)),
            Self::EmitUnanswered { by } => format!("{} gets no answer to its emit", sequencer(by)),
            Self::StepDown { by } => format!("{} steps down", sequencer(by)),
            Self::ProcessorCrashes { by, leaves } => format!("{} crashes{}", processor(by), left(leaves)),
            Self::SequencerCrashes { by, leaves } => format!("{} crashes{}", sequencer(by), left(leaves)),
            Self::Arrives { request } => format!("{request} arrives"),
            Self::LeaseEnds { owner } => format!("the leases of {owner} end"),
            Self::Judge { position, verdict } => format!("a person says {verdict:?} of {position}"),
            Self::LockEnds { owner } => format!("the lock of {owner} ends"),
            Self::Control { flow } => format!("the line is {}", flow.name()),
        }
    }
}

fn name(owner: Option<&OwnerId>, unnamed: &str) -> String {
    owner.map_or_else(|| unnamed.to_owned(), OwnerId::to_string)
}
