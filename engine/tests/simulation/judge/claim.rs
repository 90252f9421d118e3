//! Who has which message, and how that ended.

use conga::core::invariant::Event;
use conga::core::lease::{Attempt, Held, OwnerId};
use conga::core::message::Position;
use conga::core::partition::{Completed, OnDead};
use conga::core::shape::Order;
use conga::core::time::Micros;

use super::{Judge, Lease};
use crate::history::Ending;

impl Judge {
    pub(super) fn gone(&mut self, owner: &OwnerId) {
        self.alive.remove(owner);
        for lease in self.leases.values_mut().filter(|lease| lease.owner == *owner) {
            lease.free = true;
        }
    }

    /// Law 1 and G4: what is free before what is new, and nothing is taken from a living owner.
    pub(super) fn claimed(
        &mut self,
        at: Micros,
        owner: &OwnerId,
        lease_us: u64,
        claims: &[Held],
        blamed: &[(Position, u32)],
    ) {
        self.alive.insert(owner.clone(), at + lease_us);
        let dead: Vec<_> = self
            .alive
            .iter()
            .filter(|(_, until)| **until <= at)
            .map(|(owner, _)| owner.clone())
            .collect();
        for owner in &dead {
            self.blame(owner);
            self.gone(owner);
        }
        self.claimed_under_control(at, claims);
        self.expect(claims.is_sorted(), || {
            format!("{owner} claims out of order: {claims:?}")
        });
        for held in claims {
            let head = self.head;
            self.expect(held.position >= head, || {
                format!("{held:?} is claimed after its delivery")
            });
            let said = blamed.iter().find(|(position, _)| *position == held.position);
            self.claimed_with_blame(owner, held.position, said.map_or(0, |(_, times)| *times));
            let lease = Lease {
                attempt: held.attempt,
                owner: owner.clone(),
                free: false,
            };
            let newest = self.leases.len() as u64;
            let before = self.leases.insert(held.position, lease);
            if !self.is_total() {
                self.claimed_in_place(*held, before.is_none());
            }
            // What stands behind another one of its key may be passed over.
            let may_skip = self.plan.order == (Order::Key { serial: true });
            match before {
                None => self.expect(
                    (may_skip || held.position == Position(newest + 1)) && held.attempt == Attempt(1),
                    || format!("{held:?} is claimed after position {newest}"),
                ),
                Some(before) => self.expect(before.free && before.attempt.next() == held.attempt, || {
                    format!("{owner} claims {held:?} from {before:?}")
                }),
            }
            self.events.push(Event::Claimed {
                position: held.position,
                attempt: held.attempt,
                owner: owner.clone(),
                at,
            });
        }
    }

    pub(super) fn completed(&mut self, owner: &OwnerId, held: Held, ending: Ending, answer: Completed) {
        let accepted = answer == Completed::Accepted;
        if accepted {
            self.ended(held, ending);
        }
        self.events.push(Event::Completed {
            position: held.position,
            attempt: held.attempt,
            owner: owner.clone(),
            accepted,
        });
    }
    /// A lease has ended, and that counted.
    pub(super) fn ended(&mut self, held: Held, ending: Ending) {
        let position = held.position;
        let is_free = matches!(ending, Ending::Retry | Ending::GivenBack);
        if let Some(lease) = self.leases.get_mut(&position) {
            lease.free = is_free;
        }
        match ending {
            Ending::Done => _ = self.done.insert(held),
            Ending::Dead { on_dead, by_crashes } => {
                self.died.insert(position);
                if by_crashes {
                    self.give_up(position);
                }
                // Where its id has a result that stands.
                if on_dead == OnDead::Halt && !self.has_result(position) {
                    self.halted.insert(position);
                }
            }
            Ending::Retry | Ending::GivenBack => {}
        }
        if ending != Ending::GivenBack {
            self.absolve(position);
        }
        if !is_free && !self.halted.contains(&position) {
            self.over.insert(position);
        }
    }
}
