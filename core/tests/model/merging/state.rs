//! All there is at one moment, and what may happen next.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use conga_core::lease::OwnerId;
use conga_core::merge::{Action as Wish, Event, Merge};
use conga_core::message::Position;
use conga_core::partition::{MergeRequest, Partition};
use conga_core::term::{Reign, Term};

use super::{Action, Line, PARTITIONS};
use crate::shared::Shared;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct State {
    pub(super) base: Shared<Partition>,
    pub(super) parts: Vec<Shared<Partition>>,
    pub(super) mergers: Vec<Shared<Merger>>,
    /// Merges that nobody waits for any more. Each may still arrive, or never.
    pub(super) wire: Vec<Arc<MergeRequest>>,
    pub(super) came: BTreeSet<u64>,
    /// What had come when the head was last said to be missing.
    pub(super) came_then: BTreeSet<u64>,
    pub(super) given_up: BTreeSet<u64>,
    /// How many names mergers have taken so far.
    pub(super) names: u8,
    pub(super) crashes: u8,
    pub(super) losses: u8,
    pub(super) pauses: u8,
    /// The properties that a step has broken. Nothing follows after that.
    pub(super) broken: BTreeSet<&'static str>,
}

/// What a merger has in its memory.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Merger {
    pub(super) owner: Option<OwnerId>,
    pub(super) machine: Merge<Bytes>,
    /// Under which it leads.
    pub(super) term: Option<Term>,
    /// Which head the base has said is missing.
    pub(super) missing: Option<Position>,
    /// The merge that it waits for.
    pub(super) merging: Option<Arc<MergeRequest>>,
    /// Under which reign it reads each partition.
    pub(super) reigns: Vec<Option<Reign>>,
}

impl Merger {
    pub(super) fn new(line: &Line) -> Self {
        Self {
            owner: None,
            machine: Merge::new(PARTITIONS, line.batch),
            term: None,
            missing: None,
            merging: None,
            reigns: vec![None; PARTITIONS],
        }
    }

    /// Whether the base has said that the head is missing, and it is.
    pub(super) fn is_sure(&self) -> bool {
        self.missing.is_some() && self.missing == self.machine.missing()
    }

    /// Hands an event to the rules, and asks for what they say.
    pub(super) fn hear(&mut self, event: Event<Bytes>) {
        match event {
            Event::Elected { term } => self.term = Some(term),
            Event::Deposed => self.term = None,
            _ => {}
        }
        if let wish @ Wish::Merge { .. } = self.machine.step(event) {
            self.merging = Some(Arc::new(super::step::request(&self.machine, wish)));
        }
    }
}

impl State {
    pub(super) fn new(line: &Line, base: Partition) -> Self {
        let merger = Shared::new(Merger::new(line));
        Self {
            base: Shared::new(base),
            parts: vec![Shared::new(Partition::default()); PARTITIONS],
            mergers: vec![merger; line.mergers],
            wire: Vec::new(),
            came: BTreeSet::new(),
            came_then: BTreeSet::new(),
            given_up: BTreeSet::new(),
            names: 0,
            crashes: 0,
            losses: 0,
            pauses: 0,
            broken: BTreeSet::new(),
        }
    }

    pub(super) fn lives(&self, owner: &OwnerId) -> bool {
        self.mergers.iter().any(|merger| merger.owner.as_ref() == Some(owner))
    }

    pub(super) fn actions(&self, line: &Line, actions: &mut Vec<Action>) {
        let coming = line.numbers().filter(|number| !self.came.contains(number));
        actions.extend(coming.map(|number| Action::Comes { number }));
        for (by, merger) in self.mergers.iter().enumerate() {
            // Two that are the same do the same.
            if by == 0 || self.mergers[by - 1] != *merger {
                self.of_merger(line, by, merger, actions);
            }
        }
        actions.extend((0..self.wire.len()).map(|index| Action::Arrives { index }));
        let may_end = |owner: &OwnerId| self.pauses < line.pauses || !self.lives(owner);
        if self.base.status(crate::NOW).leader.is_some_and(|owner| may_end(&owner)) {
            actions.push(Action::LockEnds);
        }
        for partition in 0..PARTITIONS {
            let consumer = self.parts[partition].status(crate::NOW).consumer;
            if consumer.is_some_and(|owner| may_end(&owner)) {
                actions.push(Action::PlaceEnds { partition });
            }
        }
    }

    fn of_merger(&self, line: &Line, by: usize, merger: &Merger, actions: &mut Vec<Action>) {
        actions.push(Action::Campaign { by });
        let loses = self.losses < line.losses;
        if merger.term.is_some() {
            for partition in 0..PARTITIONS {
                actions.push(Action::Read {
                    by,
                    partition,
                    heard: true,
                });
                if loses && merger.machine.acknowledge(partition).is_some() {
                    actions.push(Action::Read {
                        by,
                        partition,
                        heard: false,
                    });
                }
            }
            if line.gives_up && merger.is_sure() {
                let doubts = merger.machine.doubts().into_iter();
                actions.extend(doubts.map(|partition| Action::Prove { by, partition }));
            }
        }
        if merger.merging.is_some() {
            actions.push(Action::Merge { by, heard: true });
            if loses {
                actions.push(Action::Merge { by, heard: false });
                actions.push(Action::MergeIsLost { by });
            }
        }
        if merger.owner.is_some() && self.crashes < line.crashes {
            let leaves = [false, merger.merging.is_some()];
            let ways = if leaves[1] { &leaves[..] } else { &leaves[..1] };
            actions.extend(ways.iter().map(|leaves| Action::Crash { by, leaves: *leaves }));
        }
    }
}
