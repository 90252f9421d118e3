//! What holds where not all messages keep their order: outputs stand in the order in which they went out, each key has its
//! own, and what is claimed and not delivered fits the window.

use bytes::Bytes;
use conga::core::lease::Held;
use conga::core::message::Position;
use conga::core::shape::Order;
use conga::deliver::position_of;

use super::Judge;

impl Judge {
    pub(super) fn is_total(&self) -> bool {
        self.plan.order == Order::Total
    }

    fn key(&self, position: Position) -> Option<&[u8]> {
        self.accepted_at(position)?.key.as_deref()
    }

    /// The earlier messages of the same key that are not done.
    fn stand_before(&self, position: Position) -> Vec<Position> {
        let Some(key) = self.key(position).filter(|_| self.plan.order != Order::None) else {
            return Vec::new();
        };
        let earlier = (self.head.0..position.0).map(Position);
        earlier
            .filter(|earlier| self.key(*earlier) == Some(key) && !self.over.contains(earlier))
            .collect()
    }

    /// Whether the store has delivered it by now: in place, and so in the step in which it could.
    fn is_delivered(&self, position: Position) -> bool {
        position < self.head || (self.over.contains(&position) && self.stand_before(position).is_empty())
    }

    /// A claim of a message on a line that is not in total order.
    pub(super) fn claimed_in_place(&mut self, held: Held, is_new: bool) {
        let position = held.position;
        if self.plan.order == (Order::Key { serial: true }) {
            let before = self.stand_before(position);
            self.expect(before.is_empty(), || {
                format!("{held:?} is handed out, and {before:?} of its key are not done")
            });
        }
        let all = || self.leases.keys().copied();
        let highest = all().max();
        let flying = all().filter(|position| !self.is_delivered(*position)).count() as u64;
        let window = self.plan.window;
        self.expect(!is_new || flying <= window, || {
            format!("{held:?} is claimed as number {flying}, and the window is {window}")
        });
        let is_serial = self.plan.order == (Order::Key { serial: true });
        self.expect(!is_new || is_serial || highest == Some(position), || {
            format!("{held:?} is claimed after position {highest:?}")
        });
    }

    /// The output is a queue: what is handed out is what stands at its head, and what was acknowledged never comes again.
    pub(super) fn received_in_place(&mut self, acknowledged: Option<Position>, outputs: &[Bytes]) {
        if let Some(position) = acknowledged {
            let stands = self.queue.iter().position(|at| *at == position);
            let is_written = self.written.contains_key(&position);
            self.expect(stands.is_some() && is_written, || {
                format!("{position} is acknowledged, and handed out {stands:?}, written {is_written}")
            });
            self.taken = self.taken.max(stands.map_or(0, |at| at + 1));
        }
        let came: Vec<_> = outputs.iter().filter_map(|output| position_of(output)).collect();
        let known = self.queue[self.taken..].to_vec();
        let (again, new) = came.split_at(known.len().min(came.len()));
        let is_head = known.starts_with(again);
        let is_new = new.iter().all(|position| !self.queue.contains(position));
        self.expect(is_head && is_new, || {
            format!("{came:?} are handed out, and at the head of the output stand {known:?}")
        });
        let early: Vec<_> = new.iter().filter(|at| !self.is_delivered(**at)).copied().collect();
        self.expect(early.is_empty(), || {
            format!("{early:?} are handed out before their turn")
        });
        self.queue.extend_from_slice(new);
    }
}
