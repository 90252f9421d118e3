//! Who claims and completes, and may not know what it holds.

use conga::core::invariant::Event;
use conga::core::lease::OwnerId;
use conga::core::message::Position;
use conga::core::partition::{ClaimRequest, Completed, Keep, Limit};
use conga::core::shape::Order;

use super::{Driver, WINDOW};
use crate::pair::{LEASE_US, ask, dead, done, halt, retry, stay, trim};

impl Driver {
    /// With `forget` the reply is lost: the owner does not know what it holds.
    pub(super) async fn claim(&mut self, owner: usize, max: usize, forget: bool) {
        // Near the end, or it would hold up all that comes.
        let end = self.sent.len() as u64 + 1;
        let below = (self.random.chance(10)).then(|| Position(end.saturating_sub(self.random.below(6)).max(1)));
        let request = ClaimRequest {
            window: WINDOW,
            below,
            ..ask(self.owners[owner].0, max)
        };
        let claims = self.pair.claim(&request).await;
        for claim in &claims {
            self.history.push(Event::Claimed {
                position: claim.position,
                attempt: claim.attempt,
                owner: request.owner.clone(),
                at: self.pair.now(),
            });
        }
        if !forget {
            self.owners[owner].1.extend(claims);
        }
    }

    /// Ends one to three things that the owner has, or once had, and maybe says so twice.
    pub(super) async fn complete(&mut self, owner: usize) {
        let mut claims = Vec::new();
        for _ in 0..=self.random.below(3) {
            let known = &mut self.owners[owner].1;
            if !known.is_empty() {
                let index = self.random.index(known.len());
                claims.push(known[index].clone());
                if self.random.chance(70) {
                    known.remove(index);
                }
            }
        }
        let mut completions = Vec::new();
        for claim in &claims {
            let may_die = crate::pair::record(claim).id.as_str().starts_with('d');
            completions.push(match self.random.below(10) {
                0 => retry(claim, 0),
                1 => retry(claim, 1 + self.random.below(LEASE_US)),
                2..4 if may_die => halt(claim),
                4..7 if may_die => dead(claim, self.random.chance(50)),
                _ => done(claim),
            });
        }
        let name = OwnerId::new(self.owners[owner].0);
        for _ in 0..=u64::from(self.random.chance(20)) {
            let answers = self.pair.complete(&name, &completions).await;
            for (claim, answer) in claims.iter().zip(answers) {
                self.history.push(Event::Completed {
                    position: claim.position,
                    attempt: claim.attempt,
                    owner: name.clone(),
                    accepted: answer == Completed::Accepted,
                });
            }
        }
    }

    pub(super) async fn renew(&mut self, owner: usize) {
        let (name, known) = &mut self.owners[owner];
        let compare = self.random.chance(70);
        let renewed = self.pair.renew(&stay(name, compare.then_some(known))).await;
        if self.random.chance(50) {
            known.retain(|claim| !renewed.lost.contains(&claim.position));
        }
        known.extend(renewed.found);
    }

    /// Of the records as many stay as it takes to know again what is sent again: an id is at most so far from its first.
    pub(super) async fn trim(&mut self, owner: usize) {
        const RESENT: u64 = 16;
        let random = &mut self.random;
        let mut limit = |least: u64| Limit {
            count: random.chance(70).then(|| least + random.below(6)),
            age_us: (least == 0 && random.chance(50)).then(|| random.below(2 * LEASE_US)),
        };
        let keep = Keep {
            // Where they do not ascend, which of them goes first is a store's own.
            records: if self.order == Order::Total {
                limit(RESENT)
            } else {
                Limit::NONE
            },
            dead: limit(0),
            outputs: limit(0),
        };
        // What goes has to be seen before, and what the renewal would deliver.
        let name = self.owners[owner].0;
        self.pair.renew(&stay(name, None)).await;
        self.look_at_shelves().await;
        if keep.outputs.is_set() {
            let active = self.pair.active.lock().expect("no panic").clone();
            self.receive_under(active, usize::MAX, None).await;
        }
        self.pair.renew(&trim(name, keep)).await;
    }
}
