//! All there is at one moment: the store, the processes, and what is on its way between them.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use conga_core::lease::{Held, OwnerId};
use conga_core::lifecycle::State as Place;
use conga_core::message::{Output, Position};
use conga_core::partition::{Claim, Cursor, EmitRequest, Emitted, Followed, Limits, Partition, Ready, RenewRequest};
use conga_core::sequencer::Sequencer as Machine;
use conga_core::shape::Order;

use crate::NOW;
use crate::line::Line;
use crate::shared::{Shared, hash};
use crate::witness::Witness;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) store: Shared<Partition>,
    /// What the consumer has taken off the output.
    pub(crate) outputs: Shared<Vec<Output>>,
    pub(crate) processors: Vec<Shared<Processor>>,
    pub(crate) sequencers: Vec<Shared<Sequencer>>,
    /// Requests that nobody waits for any more. Each may still arrive, or never.
    pub(crate) wire: Vec<Request>,
    pub(crate) witness: Shared<Witness>,
    /// How many names processes have taken so far. A process takes one with its first call, and another after a
    /// crash, so that states which differ only in who is who are the same state.
    pub(crate) names: Names,
    pub(crate) crashes: u8,
    pub(crate) pauses: u8,
    pub(crate) losses: u8,
    pub(crate) stops: u8,
    pub(crate) controls: u8,
    /// The properties that a step has broken. Nothing follows after that.
    pub(crate) broken: BTreeSet<&'static str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Names {
    pub(crate) processors: u8,
    pub(crate) sequencers: u8,
}

impl Names {
    pub(crate) fn processor(&mut self) -> OwnerId {
        self.processors += 1;
        OwnerId::new(format!("p{}", self.processors))
    }

    pub(crate) fn sequencer(&mut self) -> OwnerId {
        self.sequencers += 1;
        OwnerId::new(format!("s{}", self.sequencers))
    }

    /// All processors that there have been.
    pub(crate) fn all_processors(self) -> impl Iterator<Item = OwnerId> {
        (1..=self.processors).map(|number| OwnerId::new(format!("p{number}")))
    }
}

/// What a processor has in its memory.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Processor {
    pub(crate) owner: Option<OwnerId>,
    pub(crate) holds: Vec<Held>,
    /// A reply to a claim was lost, and it has not compared what it holds since.
    pub(crate) unsure: bool,
    /// Whether it has the store deliver. So has whoever takes its place.
    pub(crate) delivers: bool,
}

/// What a sequencer has in its memory.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Sequencer {
    pub(crate) owner: Option<OwnerId>,
    pub(crate) machine: Machine<Ready>,
    pub(crate) cursor: Cursor,
    pub(crate) emitting: Option<Emitting>,
    /// What was read, and the head as it was known when the call began. Only with late answers.
    pub(crate) following: Option<(Position, Followed)>,
}

/// An emit that its sequencer waits for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Emitting {
    Sent(Arc<EmitRequest>),
    /// Only with late answers.
    Answered(Position, Emitted),
}

/// A request that nobody waits for any more: its process has crashed, or has asked again.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Request {
    Claim { owner: OwnerId, max: usize },
    Complete { owner: OwnerId, held: Held, delivers: bool },
    Campaign { owner: OwnerId },
    Emit(Arc<EmitRequest>),
}

impl Request {
    /// The order on the wire means nothing, so it is always the same.
    fn place(&self) -> (u8, Option<OwnerId>, u64, u64) {
        match self {
            Self::Claim { owner, max } => (0, Some(owner.clone()), *max as u64, 0),
            Self::Complete { owner, held, .. } => (1, Some(owner.clone()), held.position.0, held.attempt.0.into()),
            Self::Campaign { owner } => (2, Some(owner.clone()), 0, 0),
            Self::Emit(emit) => (3, None, emit.term.0, (emit.head.0 << 32) + emit.entries.len() as u64),
        }
    }
}

impl State {
    pub(crate) fn new(line: &Line, store: Partition) -> Self {
        let sequencer = Shared::new(Sequencer::new(line));
        Self {
            store: Shared::new(store),
            outputs: Shared::new(Vec::new()),
            processors: (0..line.processors)
                .map(|place| Shared::new(Processor::new(line.delivers(place))))
                .collect(),
            sequencers: vec![sequencer; line.sequencers],
            wire: Vec::new(),
            witness: Shared::new(Witness::new(line)),
            names: Names::default(),
            crashes: 0,
            pauses: 0,
            losses: 0,
            stops: 0,
            controls: 0,
            broken: BTreeSet::new(),
        }
    }

    /// Whether every message is past the head.
    pub(crate) fn is_done(&self, line: &Line) -> bool {
        self.head(line).0 > line.messages.len() as u64
    }

    /// The lowest position not yet delivered.
    pub(crate) fn head(&self, line: &Line) -> Position {
        head(&self.store, line)
    }

    /// Whether a message waits for nothing but its turn: in total order that at the head.
    pub(crate) fn is_ready(&self, line: &Line) -> bool {
        let is_done = |position| matches!(self.store.state(position), Some(Place::Processed | Place::Dead));
        if line.order == Order::Total {
            return is_done(self.head(line));
        }
        let is_delivered = |position| self.store.state(position) == Some(Place::Delivered);
        let mut all = line.positions();
        all.any(|position| is_done(position) && line.before(position).all(is_delivered))
    }

    /// What the store has leased to `owner`.
    pub(crate) fn leased_to(&self, owner: &OwnerId) -> Vec<Claim> {
        let ask = RenewRequest {
            keep: None,
            owner: owner.clone(),
            lease_us: crate::LEASE_US,
            held: Some(Vec::new()),
            limits: Limits::default(),
        };
        // A question that changes something is put to a copy.
        Partition::clone(&self.store).renew(NOW, &ask).found
    }

    /// Whether a process has this name now.
    pub(crate) fn lives(&self, owner: &OwnerId) -> bool {
        let named = |name: &Option<OwnerId>| name.as_ref() == Some(owner);
        self.processors.iter().any(|processor| named(&processor.owner))
            || self.sequencers.iter().any(|sequencer| named(&sequencer.owner))
    }

    /// Leaves a request on the wire, if there is none like it.
    pub(crate) fn leave(&mut self, request: Request) {
        if !self.wire.contains(&request) {
            self.wire.push(request);
            self.wire.sort_by_cached_key(Request::place);
        }
    }

    /// A cursor means the newest that it has passed of what still waits.
    pub(crate) fn trim(&mut self) {
        for sequencer in &mut self.sequencers {
            if sequencer.cursor == Cursor::default() {
                continue;
            }
            let waiting = self.store.follow(NOW, Cursor::default(), usize::MAX).entries;
            let passed = waiting
                .iter()
                .map(|entry| entry.cursor)
                .take_while(|cursor| *cursor <= sequencer.cursor);
            let newest = passed.last().unwrap_or_default();
            if newest != sequencer.cursor {
                sequencer.edit(|sequencer| sequencer.cursor = newest);
            }
        }
    }

    /// Processes without a name come last, and are otherwise in an order that depends on nothing but themselves.
    pub(crate) fn sort(&mut self) {
        self.processors
            .sort_by_key(|processor| (processor.owner.is_none(), processor.owner.clone(), !processor.delivers));
        self.sequencers.sort_by_cached_key(|sequencer| {
            let unnamed = sequencer.owner.is_none().then(|| hash(sequencer));
            (unnamed, sequencer.owner.clone())
        });
    }
}

pub(crate) fn head(store: &Partition, line: &Line) -> Position {
    line.positions()
        .find(|position| store.state(*position) != Some(Place::Delivered))
        .unwrap_or(Position(line.messages.len() as u64 + 1))
}

impl Processor {
    pub(crate) fn new(delivers: bool) -> Self {
        Self {
            owner: None,
            holds: Vec::new(),
            unsure: false,
            delivers,
        }
    }
}

impl Sequencer {
    pub(crate) fn new(line: &Line) -> Self {
        Self {
            owner: None,
            machine: Machine::new(line.capacity, 2),
            cursor: Cursor::default(),
            emitting: None,
            following: None,
        }
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Claim { owner, .. } => write!(f, "a claim of {owner}"),
            Self::Complete { owner, held, .. } => write!(f, "{owner}'s result of {}/{}", held.position, held.attempt),
            Self::Campaign { owner } => write!(f, "a campaign of {owner}"),
            Self::Emit(emit) => write!(f, "an emit of term {} from {} on", emit.term, emit.head),
        }
    }
}
