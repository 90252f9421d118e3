//! One that merges.

use bytes::Bytes;
use conga_core::lease::OwnerId;
use conga_core::merge::{Action, Event, Merge};
use conga_core::message::Position;
use conga_core::term::Reign;
use conga_core::time::Micros;

use crate::PARTITIONS;

/// A process that merges: it believes what it was last told.
pub(crate) struct Merger {
    pub(crate) owner: OwnerId,
    pub(crate) machine: Merge<Bytes>,
    /// The merge to be done next.
    pub(crate) wish: Option<Action>,
    pub(crate) reigns: Vec<Option<Reign>>,
    /// So many that come after what is in hand were looked through for which head.
    pub(crate) glimpsed: Vec<(Position, usize)>,
    /// Since when the base says that which head is missing.
    pub(crate) missing: Option<(Position, Micros)>,
    /// When the head was missing for long enough: which, and what had come to each partition by then.
    pub(crate) ends: Option<(Position, Vec<Position>)>,
}

impl Merger {
    pub(crate) fn new(name: String) -> Self {
        Self {
            owner: OwnerId::new(name),
            machine: Merge::new(PARTITIONS, 4),
            wish: None,
            reigns: vec![None; PARTITIONS],
            glimpsed: vec![(Position::FIRST, 0); PARTITIONS],
            missing: None,
            ends: None,
        }
    }

    pub(crate) fn step(&mut self, event: Event<Bytes>) {
        match event {
            Event::Read {
                partition, ref outputs, ..
            } => {
                let (_, count) = &mut self.glimpsed[partition];
                *count = count.saturating_sub(outputs.len());
            }
            Event::Lost { partition } => self.glimpsed[partition].1 = 0,
            _ => {}
        }
        if let wish @ Action::Merge { .. } = self.machine.step(event) {
            // Under a new term what was asked for before is dropped.
            self.wish = Some(wish);
        }
    }
}
