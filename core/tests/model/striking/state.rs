//! All there is at one moment, what may happen next, and what comes of it.

use std::collections::BTreeSet;

use conga_core::lease::{Attempt, Held, OwnerId};
use conga_core::lifecycle::State as Place;
use conga_core::message::{Body, Id, Output, Payload, Position, Record};
use conga_core::partition::{
    ALONE_FROM, Claim, ClaimRequest, Completion, DeadRequest, Limits, OnDead, Partition, ReceiveRequest, RenewRequest,
    Verdict,
};
use conga_core::time::Micros;

use super::{Action, Flaw, Line};
use crate::shared::Shared;
use crate::{LEASE_US, NOW};

/// A lease ago.
const THEN: Micros = Micros(NOW.0 - LEASE_US);

/// What a processor was handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Has {
    pub(super) position: u64,
    attempt: u32,
    pub(super) crashes: u32,
    /// Under its other name, where the store is wrong.
    beside: bool,
}

impl Has {
    fn of(claim: &Claim, beside: bool) -> Self {
        Self {
            position: claim.position.0,
            attempt: claim.attempt.0,
            crashes: claim.crashes,
            beside,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct State {
    pub(super) store: Shared<Partition>,
    /// Each by its number, if it has one yet, and what it holds.
    pub(super) processors: Vec<(Option<u8>, Vec<Has>)>,
    /// The dead of whom the store does not know.
    dead: BTreeSet<OwnerId>,
    names: u8,
    pub(super) crashes: u8,
    pub(super) losses: u8,
    pub(super) leaves: u8,
    pub(super) given_up: BTreeSet<u64>,
    /// What came out, in its order: where, and whether it is a result.
    pub(super) outputs: Vec<(u64, bool)>,
}

fn name(number: u8, beside: bool) -> OwnerId {
    OwnerId::new(format!("p{number:02}{}", if beside { "b" } else { "" }))
}

impl State {
    pub(super) fn new(line: &Line, store: Partition) -> Self {
        Self {
            store: Shared::new(store),
            processors: vec![(None, Vec::new()); line.processors],
            dead: BTreeSet::new(),
            names: 0,
            crashes: 0,
            losses: 0,
            leaves: 0,
            given_up: BTreeSet::new(),
            outputs: Vec::new(),
        }
    }

    pub(super) fn place(&self, position: u64) -> Option<Place> {
        self.store.state(Position(position))
    }

    pub(super) fn is_done(&self, line: &Line) -> bool {
        (1..=line.messages).all(|position| self.place(position) == Some(Place::Delivered))
    }

    pub(super) fn actions(&self, line: &Line, actions: &mut Vec<Action>) {
        for (by, (number, holds)) in self.processors.iter().enumerate() {
            // Two that are the same do the same.
            if by > 0 && self.processors[by - 1] == self.processors[by] {
                continue;
            }
            let is_over = |has: &Has| {
                let most = if line.has(Flaw::GivesUpEarly) {
                    ALONE_FROM
                } else {
                    line.max_crashes
                };
                has.crashes >= most
            };
            for has in holds {
                let position = has.position;
                if is_over(has) {
                    actions.push(Action::GiveUp { by, position });
                } else if !line.kills(position) {
                    actions.push(Action::Done { by, position });
                }
            }
            if holds.iter().any(|has| line.kills(has.position) && !is_over(has)) {
                actions.push(Action::Kill { by });
            }
            if holds.len() < line.hands {
                actions.push(Action::Claim { by });
                if self.losses < line.losses {
                    actions.push(Action::ClaimUnheard { by });
                }
            }
            if number.is_some() && self.losses > 0 {
                actions.push(Action::Compare { by });
            }
            if number.is_some() && self.leaves < line.leaves {
                actions.push(Action::Leave { by });
            }
            if number.is_some() && self.crashes < line.crashes {
                actions.push(Action::Crash { by });
            }
        }
        if !line.has(Flaw::NeverFrees) {
            actions.extend(self.dead.iter().map(|owner| Action::LeaseEnds { owner: owner.clone() }));
        }
        let halted = (1..=line.messages).filter(|position| self.place(*position) == Some(Place::Halted));
        actions.extend(halted.map(|position| Action::Mark { position }));
    }

    pub(super) fn after(&self, line: &Line, action: &Action) -> Self {
        let mut state = self.clone();
        match action {
            Action::Claim { by } => state.claim(line, *by),
            Action::ClaimUnheard { by } => {
                let holds = state.processors[*by].1.clone();
                state.claim(line, *by);
                state.processors[*by].1 = holds;
                state.losses += 1;
            }
            Action::Compare { by } => state.compare(*by),
            Action::Leave { by } => {
                state.leaves += 1;
                state.leave(line, *by);
            }
            Action::Done { by, position } => state.complete(*by, *position, None),
            Action::GiveUp { by, position } => {
                let on_dead = if line.has(Flaw::GoesOn) {
                    OnDead::Skip
                } else {
                    line.on_dead
                };
                state.given_up.insert(*position);
                state.complete(*by, *position, Some(on_dead));
            }
            Action::Kill { by } => state.die(*by),
            Action::Crash { by } => {
                state.crashes += 1;
                state.die(*by);
            }
            Action::LeaseEnds { owner } => {
                state.dead.remove(owner);
                // It was renewed a lease ago, so that its time is up for whoever claims next.
                let renewed = renewal(owner);
                state.store.edit(|store| store.renew(THEN, &renewed));
            }
            Action::Mark { position } => {
                let request = DeadRequest {
                    verdict: Verdict::Mark,
                    positions: vec![Position(*position)],
                };
                state.store.edit(|store| store.dead(NOW, &request));
            }
        }
        state.deliver();
        state
            .processors
            .sort_by_key(|(number, holds)| (number.is_none(), *number, holds.clone()));
        state
    }

    /// An empty answer leaves no trace: it tells the store only that somebody lives. Unless it was told that others do not.
    fn claim(&mut self, line: &Line, by: usize) {
        let before = self.clone();
        let number = self.processors[by].0.unwrap_or_else(|| {
            self.names += 1;
            self.names
        });
        self.processors[by].0 = Some(number);
        let max = line.hands - self.processors[by].1.len();
        let mut claims = self.ask(line, number, max, false);
        if line.has(Flaw::NeverIsolates) {
            let is_alone = |claims: &[Has]| claims.iter().any(|has| has.crashes >= ALONE_FROM);
            if is_alone(&claims) || is_alone(&self.processors[by].1) {
                claims.extend(self.ask(line, number, max - claims.len(), true));
            }
        }
        if claims.is_empty() {
            *self = before;
            return;
        }
        let holds = &mut self.processors[by].1;
        holds.extend(claims);
        holds.sort_unstable();
    }

    fn compare(&mut self, by: usize) {
        let (number, holds) = &self.processors[by];
        let owner = name(number.expect("it has claimed"), false);
        let held = holds.iter().map(|has| Held {
            position: Position(has.position),
            attempt: Attempt(has.attempt),
        });
        let request = RenewRequest {
            held: Some(held.collect()),
            ..renewal(&owner)
        };
        let found = self.store.edit(|store| store.renew(NOW, &request)).found;
        let holds = &mut self.processors[by].1;
        holds.extend(found.into_iter().map(|claim| Has::of(&claim, false)));
        holds.sort_unstable();
    }

    fn leave(&mut self, line: &Line, by: usize) {
        if line.has(Flaw::LeavingIsDeath) {
            return self.die(by);
        }
        let (number, _) = std::mem::take(&mut self.processors[by]);
        let request = RenewRequest {
            lease_us: 0,
            ..renewal(&name(number.expect("it has claimed"), false))
        };
        self.store.edit(|store| store.renew(NOW, &request));
    }

    fn ask(&mut self, line: &Line, number: u8, max: usize, beside: bool) -> Vec<Has> {
        let request = ClaimRequest {
            owner: name(number, beside),
            max,
            lease_us: LEASE_US,
            window: line.messages,
            below: None,
            limits: Limits::default(),
        };
        let claims = self.store.edit(|store| store.claim(NOW, &request));
        let forgets = line.has(Flaw::ForgetsCrashes);
        let mut holds: Vec<_> = claims.iter().map(|claim| Has::of(claim, beside)).collect();
        for has in holds.iter_mut().filter(|_| forgets) {
            has.crashes = 0;
        }
        holds
    }

    /// With a result, or as a dead letter.
    fn complete(&mut self, by: usize, position: u64, dead: Option<OnDead>) {
        let (number, holds) = &mut self.processors[by];
        let Some(index) = holds.iter().position(|has| has.position == position) else {
            return;
        };
        let has = holds.remove(index);
        let held = Held {
            position: Position(position),
            attempt: Attempt(has.attempt),
        };
        let mut record = Record {
            position: held.position,
            id: Id::given(format!("m{position}")),
            sequence: None,
            key: None,
            body: Body::Result(Payload::string("")),
            attempts: held.attempt,
            created: NOW,
            processing: NOW,
        };
        let completion = match dead {
            None => Completion::Done(record),
            Some(on_dead) => {
                let reason = "its processor died".to_owned();
                record.body = Body::Dead { reason };
                Completion::Dead {
                    tombstone: record,
                    on_dead,
                }
            }
        };
        let owner = name(number.expect("it has claimed"), has.beside);
        self.store.edit(|store| store.complete(NOW, &owner, &[completion]));
    }

    fn die(&mut self, by: usize) {
        let (number, holds) = std::mem::take(&mut self.processors[by]);
        let owners = holds.iter().zip(number.iter().cycle());
        self.dead.extend(owners.map(|(has, number)| name(*number, has.beside)));
        // It may hold what it does not know of.
        self.dead
            .extend(number.filter(|_| self.losses > 0).map(|number| name(number, false)));
    }

    fn deliver(&mut self) {
        let read = ReceiveRequest {
            max: usize::MAX,
            ..ReceiveRequest::default()
        };
        let lines = self.store.edit(|store| {
            store.deliver_ready(NOW);
            store.receive(&read)
        });
        for line in lines.outputs() {
            let record = Output::parse(&line).expect("an output").record;
            let position = record.position;
            self.outputs.push((position.0, matches!(record.body, Body::Result(_))));
            let acknowledge = ReceiveRequest {
                acknowledge: Some(position),
                ..ReceiveRequest::default()
            };
            self.store.edit(|store| store.receive(&acknowledge));
        }
    }
}

fn renewal(owner: &OwnerId) -> RenewRequest {
    RenewRequest {
        keep: None,
        owner: owner.clone(),
        lease_us: LEASE_US,
        held: None,
        limits: Limits::default(),
    }
}
