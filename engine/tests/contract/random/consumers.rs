//! Two who receive, or believe that they may.

use conga::core::invariant::Event;
use conga::core::lease::OwnerId;
use conga::core::message::{Id, Position};
use conga::core::term::{Campaign, Reign};

use super::Driver;
use crate::pair::{LEASE_US, place};

impl Driver {
    /// A consumer asks for its place, or gives it up. It may not hear that it has lost it.
    pub(super) async fn stand(&mut self) {
        let index = self.random.index(2);
        let lock_us = if self.random.chance(25) { 0 } else { LEASE_US };
        let (name, believed) = &mut self.consumers[index];
        match self.pair.stand(name, lock_us).await {
            Campaign::Leader { term } => {
                let owner = OwnerId::new(*name);
                *believed = Some(Reign { owner, term });
            }
            Campaign::Standby { .. } if self.random.chance(50) => *believed = None,
            Campaign::Standby { .. } => {}
        }
    }

    pub(super) async fn receive(&mut self, max: usize, acknowledge: bool) {
        let acknowledge = self
            .outputs
            .last()
            .filter(|_| acknowledge)
            .map(|(position, _)| *position);
        let believed = self.consumers[self.random.index(2)].1.clone();
        self.receive_under(believed, max, acknowledge).await;
    }

    pub(super) async fn receive_under(&mut self, believed: Option<Reign>, max: usize, acknowledge: Option<u64>) {
        for output in self.pair.receive_as(believed, acknowledge, max).await.outputs() {
            let (position, id) = place(&output);
            if let Some((_, before)) = self.outputs.iter().find(|(at, _)| *at == position) {
                assert_eq!(*before, output, "an output never changes");
                continue;
            }
            self.history.push(Event::Delivered {
                position: Position(position),
                id: Id::given(id),
                at: self.pair.now(),
                dead: output.windows(7).any(|part| part == b"\"dead\":"),
            });
            self.outputs.push((position, output));
        }
    }
}
