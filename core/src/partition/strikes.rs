//! Strikes: which attempts at a message count, and how often its owner has died.
//!
//! An attempt counts that its handler has answered. What was given back, or was with an owner that died, is excused.
//!
//! # Poison
//! A message that kills its owner is to be found, and none of the many that the owner held beside it. So suspicion isolates:
//! when an owner dies, or its time is up, only those of its messages are blamed that had been blamed most often before. The
//! first time that is all of them, and they are handed out again as any others. What was blamed twice is handed out in small
//! numbers, [`FEW`] to an owner; and what was blamed [`ALONE_FROM`] times to an owner that holds nothing else, and is handed
//! nothing else until that is done. So from then on a message is blamed for nobody but itself, and one that is innocent is
//! done, and with that no suspect any more. What is blamed all the same, again and again, is given up by whoever claims it
//! next (`retry::MAX_CRASHES`).
//!
//! It is group testing, as in R. Dorfman, "The Detection of Defective Members of Large Populations", 1943: smaller and smaller
//! groups, until each has one.

use super::{Flight, Partition};
use crate::lease::{Attempt, Held, OwnerId};
use crate::message::Position;

/// So many that were blamed twice an owner holds at most.
pub const FEW: usize = 16;

/// From so many on they are few,
pub const FEW_FROM: u32 = 2;

/// and from so many on alone.
pub const ALONE_FROM: u32 = 3;

/// What is known of a message's attempts besides their number. Most messages have none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Strikes {
    /// How many attempts do not count: the message is given up by those that do.
    pub excused: u32,
    /// How often its owner has died with it, since its handler has last answered; as far as it was blamed for that.
    pub crashes: u32,
}

/// What an owner holds, as far as it decides what else it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Hands {
    /// How many messages.
    pub held: usize,
    /// How many of them are to be few.
    pub few: usize,
    /// One is to be alone.
    pub alone: bool,
}

/// How it comes that an owner holds nothing any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It has given everything back.
    Left,
    /// It is gone, or was not heard of for as long as a lease lasts.
    Died,
}

impl Strikes {
    /// The how manieth of the attempts that count this one is.
    pub fn tries(self, attempt: Attempt) -> Attempt {
        Attempt(attempt.0.saturating_sub(self.excused).max(1))
    }

    /// One more attempt that does not count.
    #[must_use]
    pub fn excuse(self) -> Self {
        Self {
            excused: self.excused.saturating_add(1),
            ..self
        }
    }
}

impl Hands {
    /// Whether a message that was blamed so often may be handed out too.
    pub fn may_take(&self, crashes: u32) -> bool {
        match crashes {
            _ if self.alone => false,
            0..FEW_FROM => true,
            FEW_FROM..ALONE_FROM => self.few < FEW,
            ALONE_FROM.. => self.held == 0,
        }
    }

    /// It was.
    pub fn take(&mut self, crashes: u32) {
        self.held += 1;
        self.few += usize::from((FEW_FROM..ALONE_FROM).contains(&crashes));
        self.alone |= crashes >= ALONE_FROM;
    }
}

impl Partition {
    /// Those of a message.
    pub(super) fn strikes_of(&self, position: Position) -> Strikes {
        self.strikes.get(&position).copied().unwrap_or_default()
    }

    fn put_strikes(&mut self, position: Position, strikes: Strikes) {
        if strikes == Strikes::default() {
            self.strikes.remove(&position);
        } else {
            self.strikes.insert(position, strikes);
        }
    }

    /// Frees what `owner` holds, and blames what most suspicion is on, if it died.
    pub(super) fn free_leases_of(&mut self, owner: &OwnerId, fate: Fate) {
        let held: Vec<_> = self
            .leases_of(owner)
            .map(|(position, lease)| (position, lease.attempt, self.strikes_of(position)))
            .collect();
        let most = held.iter().map(|(_, _, strikes)| strikes.crashes).max();
        for (position, attempt, strikes) in held {
            let mut strikes = strikes.excuse();
            if fate == Fate::Died && Some(strikes.crashes) == most {
                strikes.crashes = strikes.crashes.saturating_add(1);
            }
            self.put_strikes(position, strikes);
            self.put(position, Flight::Free(attempt));
        }
    }

    /// A message was given back, or its handler has failed: then it did not kill its owner.
    pub(super) fn strike(&mut self, position: Position, is_given_back: bool) {
        let strikes = self.strikes_of(position);
        let strikes = if is_given_back {
            strikes.excuse()
        } else {
            Strikes { crashes: 0, ..strikes }
        };
        self.put_strikes(position, strikes);
    }

    /// What `owner` holds.
    pub(super) fn hands_of(&self, owner: &OwnerId) -> Hands {
        let mut hands = Hands::default();
        if !self.strikes.is_empty() {
            for (position, _) in self.leases_of(owner) {
                hands.take(self.strikes_of(position).crashes);
            }
        }
        hands
    }

    /// The first of what `owner` holds, if a message that is to be alone is free and waits for somebody to hold nothing. An
    /// owner that does not know of it would have that wait for ever.
    pub(super) fn in_the_way(&self, owner: &OwnerId) -> Option<Held> {
        let first = self.free.first()?;
        if self.strikes_of(*first).crashes < ALONE_FROM {
            return None;
        }
        self.leases_of(owner).next().map(|(position, lease)| Held {
            position,
            attempt: lease.attempt,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use bytes::Bytes;

    use super::*;
    use crate::message::{Body, Payload};
    use crate::partition::{Claim, ClaimRequest, Completion, Limits, RenewRequest};
    use crate::time::Micros;

    const MAX_CRASHES: u32 = crate::retry::MAX_CRASHES;
    const LEASE_US: u64 = 1_000;

    fn claim(partition: &mut Partition, now: Micros, owner: &str, max: usize) -> Vec<Claim> {
        let request = ClaimRequest {
            owner: OwnerId::new(owner),
            max,
            lease_us: LEASE_US,
            window: 10_000,
            below: None,
            limits: Limits::default(),
        };
        partition.claim(now, &request)
    }

    fn done(claim: &Claim) -> Completion {
        Completion::Done(claim.record(Body::Result(Payload::string(""))))
    }

    fn crashes(claims: &[Claim]) -> Vec<(u64, u32)> {
        claims.iter().map(|claim| (claim.position.0, claim.crashes)).collect()
    }

    fn with(count: usize) -> Partition {
        let mut partition = Partition::default();
        partition.send(&vec![Bytes::from_static(b"x"); count]);
        partition
    }

    #[test]
    fn only_what_most_suspicion_is_on_is_blamed() {
        let mut partition = with(40);
        assert_eq!(claim(&mut partition, Micros(0), "a", 2).len(), 2);
        // With what was blamed once come others, which are not blamed.
        let second = claim(&mut partition, Micros(LEASE_US), "b", 20);
        assert_eq!(crashes(&second)[..3], [(1, 1), (2, 1), (3, 0)]);
        let third = claim(&mut partition, Micros(2 * LEASE_US), "c", 20);
        assert_eq!(crashes(&third)[..3], [(1, 2), (2, 2), (3, 0)]);
        assert!(third.iter().all(|claim| claim.tries == Attempt(1)), "{third:?}");
        let fourth = claim(&mut partition, Micros(3 * LEASE_US), "d", 20);
        assert_eq!(crashes(&fourth), [(1, 3)], "alone");
        assert!(claim(&mut partition, Micros(3 * LEASE_US), "d", 20).is_empty());
        let beside = claim(&mut partition, Micros(3 * LEASE_US), "e", 20);
        assert_eq!(crashes(&beside), [(2, 3)], "and the other with another");
        assert_eq!(claim(&mut partition, Micros(3 * LEASE_US), "f", 20).len(), 20);
        partition.complete(Micros(3 * LEASE_US), &OwnerId::new("d"), &[done(&fourth[0])]);
        let next = claim(&mut partition, Micros(3 * LEASE_US), "d", 1);
        assert_eq!(crashes(&next), [(23, 0)]);
    }

    #[test]
    fn what_was_blamed_twice_comes_in_small_numbers() {
        let mut partition = with(100);
        for crash in 0..2 {
            claim(&mut partition, Micros(crash * LEASE_US), &format!("p{crash}"), 50);
        }
        let now = Micros(2 * LEASE_US);
        assert_eq!(claim(&mut partition, now, "a", 99).len(), FEW);
        assert!(claim(&mut partition, now, "a", 99).is_empty());
        let other = claim(&mut partition, now, "b", 99);
        assert_eq!((other.len(), other[0].position), (FEW, Position(17)));
        partition.complete(now, &OwnerId::new("b"), &[done(&other[3]), done(&other[5])]);
        assert_eq!(claim(&mut partition, now, "b", 99).len(), 2);
    }

    #[test]
    fn who_leaves_is_no_crash_and_an_answer_ends_the_suspicion() {
        let mut partition = with(1);
        for round in 0..3 {
            claim(&mut partition, Micros(round * LEASE_US), &format!("p{round}"), 1);
        }
        let now = Micros(3 * LEASE_US);
        let claims = claim(&mut partition, now, "q", 1);
        assert_eq!(
            (claims[0].attempt, claims[0].tries, claims[0].crashes),
            (Attempt(4), Attempt(1), 3)
        );
        let leave = RenewRequest {
            owner: OwnerId::new("q"),
            lease_us: 0,
            held: None,
            limits: Limits::default(),
            keep: None,
        };
        partition.renew(now, &leave);
        let claims = claim(&mut partition, now, "r", 1);
        assert_eq!(
            (claims[0].attempt, claims[0].tries, claims[0].crashes),
            (Attempt(5), Attempt(1), 3)
        );
        let held = Held {
            position: Position(1),
            attempt: Attempt(5),
        };
        let failed = Completion::Retry { held, delay_us: 1 };
        partition.complete(now, &OwnerId::new("r"), &[failed]);
        let claims = claim(&mut partition, now + 1, "r", 1);
        assert_eq!(
            (claims[0].attempt, claims[0].tries, claims[0].crashes),
            (Attempt(6), Attempt(2), 0)
        );
    }

    /// Several poisons among many neighbours, and processors that hold as many as they may: each poison is found, and nothing
    /// else is given up.
    #[test]
    fn poisons_are_found_and_their_neighbours_live() {
        for (seed, poisons) in [
            (1, vec![1, 2, 3]),
            (2, vec![100, 101, 350, 700]),
            (3, vec![5, 300, 999]),
            (4, vec![]),
        ] {
            let mut partition = with(1_000);
            let mut now = Micros(0);
            let (mut names, mut deaths, mut buried) = (0, 0, BTreeSet::new());
            let mut random: u64 = seed;
            let mut live: Vec<(String, Vec<Claim>)> = Vec::new();
            while partition.status(now).head.0 <= 1_000 {
                assert!(deaths < 200, "they go on dying");
                while live.len() < 3 {
                    names += 1;
                    live.push((format!("p{names}"), Vec::new()));
                }
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let index = usize::try_from(random >> 33).expect("small") % live.len();
                let (name, held) = &mut live[index];
                held.extend(claim(&mut partition, now, name, 256 - held.len()));
                let owner = OwnerId::new(name.clone());
                if let Some(given_up) = held.iter().position(|claim| claim.crashes >= MAX_CRASHES) {
                    let given_up = held.remove(given_up);
                    buried.insert(given_up.position.0);
                    partition.complete(now, &owner, &[done(&given_up)]);
                } else if held.iter().any(|claim| poisons.contains(&claim.position.0)) {
                    // Not all that it was at is lost; but it dies, and the others go on.
                    let some = usize::try_from(random >> 40).expect("small") % 8;
                    let innocent = held.iter().filter(|claim| !poisons.contains(&claim.position.0));
                    let ends: Vec<_> = innocent.take(some).map(done).collect();
                    partition.complete(now, &owner, &ends);
                    live.remove(index);
                    deaths += 1;
                    now = now + LEASE_US;
                    for (name, _) in &live {
                        let stay = RenewRequest {
                            owner: OwnerId::new(name.clone()),
                            lease_us: LEASE_US,
                            held: None,
                            limits: Limits::default(),
                            keep: None,
                        };
                        partition.renew(now, &stay);
                    }
                } else {
                    let ends: Vec<_> = held.drain(..).map(|claim| done(&claim)).collect();
                    partition.complete(now, &owner, &ends);
                }
                partition.deliver_ready(now);
            }
            let found: Vec<u64> = buried.into_iter().collect();
            assert_eq!(found, poisons, "seed {seed}, after {deaths} deaths");
        }
    }
}
