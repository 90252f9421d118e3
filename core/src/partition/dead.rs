//! Dead: what a person decides about dead letters. Either the head has gone on past them, with a tombstone in their place or
//! without one, and nothing in the order asks for them any more; or the line is halted at them, and goes on by what is decided.

use super::{DeadLetter, Flight, Partition, Strikes};
use crate::message::Position;
use crate::time::Micros;

/// What is to become of dead letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It is tried again, and the dead letter goes, in the same step. Where the line is halted at it, in its own place, and
    /// the attempts that it has had do not count any more; else its entry goes to the end of the input as a new message.
    Retry,
    /// The line that is halted at it goes on, with nothing in its place. The dead letter stays.
    Skip,
    /// The same with its tombstone in its place.
    Mark,
    /// It goes.
    Purge,
}

/// A verdict on dead letters, by their positions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadRequest {
    /// What is to become of them.
    pub verdict: Verdict,
    /// Which. Those that are retried come into the input in this order.
    pub positions: Vec<Position>,
}

/// What became of a verdict on one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Judged {
    /// It is done.
    Done,
    /// There is no dead letter of this position: it was retried or purged before, maybe by the call that this one repeats;
    /// retention has let go of it; or there never was one. Nothing was changed.
    Missing,
    /// Its turn has not come: the head is not past it yet. Nothing was changed.
    Early,
    /// The line is not halted at it: it never was, or it was told to go on before, maybe by the call that this one repeats.
    /// Nothing was changed.
    Passed,
}

impl Partition {
    /// Carries out a verdict; the answers stand in the order of the positions.
    pub fn dead(&mut self, now: Micros, request: &DeadRequest) -> Vec<Judged> {
        let positions = request.positions.iter();
        positions
            .map(|position| self.judge(now, request.verdict, *position))
            .collect()
    }

    fn judge(&mut self, now: Micros, verdict: Verdict, position: Position) -> Judged {
        let Some(index) = self.dead.iter().position(|letter| letter.position == position) else {
            return Judged::Missing;
        };
        let halted = match self.flights.get(&position) {
            Some(Flight::Halted(attempt)) => Some(*attempt),
            _ => None,
        };
        match (verdict, halted) {
            (Verdict::Skip | Verdict::Mark, None) => return Judged::Passed,
            (Verdict::Skip | Verdict::Mark, Some(_)) => {
                let letter = &mut self.dead[index];
                let open = letter.open.take().filter(|_| verdict == Verdict::Mark);
                let tombstone = open.map(|open| (open, letter.died));
                self.pass_by(now, position, tombstone);
            }
            (Verdict::Retry, Some(attempt)) => {
                self.dead.remove(index);
                let strikes = Strikes {
                    excused: attempt.0,
                    crashes: 0,
                };
                self.strikes.insert(position, strikes);
                self.put(position, Flight::Free(attempt));
            }
            (Verdict::Retry | Verdict::Purge, _) if position >= self.head => return Judged::Early,
            (Verdict::Purge, _) => drop(self.dead.remove(index)),
            (Verdict::Retry, None) => {
                if let Some(letter) = self.dead.remove(index) {
                    self.send(&[letter.entry]);
                }
            }
        }
        Judged::Done
    }

    /// The dead letter of a position.
    pub(super) fn letter_at(&self, position: Position) -> Option<&DeadLetter> {
        self.dead.iter().find(|letter| letter.position == position)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::lease::{Attempt, OwnerId};
    use crate::message::Body;
    use crate::partition::{ClaimRequest, Completion, Limits, OnDead, Shelf};

    /// Two messages; both have failed for good, and only the first is delivered past if `only_first`.
    fn buried(only_first: bool) -> Partition {
        let mut partition = Partition::default();
        partition.send(&["a", "b"].map(Bytes::from));
        let owner = OwnerId::new("p");
        let request = ClaimRequest {
            owner: owner.clone(),
            max: 2,
            lease_us: 1_000,
            window: 10,
            below: None,
            limits: Limits::default(),
        };
        for claim in partition.claim(Micros(1), &request) {
            let tombstone = claim.record(Body::Dead {
                reason: "no".to_owned(),
            });
            partition.complete(
                Micros(2),
                &owner,
                &[Completion::Dead {
                    tombstone,
                    on_dead: OnDead::Mark,
                }],
            );
            if claim.position == Position(1) || !only_first {
                partition.deliver_ready(Micros(3));
            }
        }
        partition
    }

    fn say(partition: &mut Partition, verdict: Verdict, positions: &[u64]) -> Vec<Judged> {
        let positions = positions.iter().copied().map(Position).collect();
        partition.dead(Micros(3), &DeadRequest { verdict, positions })
    }

    #[test]
    fn what_is_retried_comes_again_as_a_new_message_and_once() {
        let mut partition = buried(false);
        let answers = say(&mut partition, Verdict::Retry, &[2, 1, 2, 9]);
        assert_eq!(answers, [Judged::Done, Judged::Done, Judged::Missing, Judged::Missing]);
        assert!(partition.browse(Shelf::Dead).rows.is_empty());
        assert_eq!(partition.raw(Position(3)).map(|entry| &entry[..]), Some(&b"b"[..]));
        assert_eq!(partition.raw(Position(4)).map(|entry| &entry[..]), Some(&b"a"[..]));
        assert_eq!(partition.raw(Position(5)), None);
        let request = ClaimRequest {
            owner: OwnerId::new("q"),
            max: 9,
            lease_us: 1_000,
            window: 10,
            below: None,
            limits: Limits::default(),
        };
        let claims = partition.claim(Micros(4), &request);
        let taken: Vec<_> = claims.iter().map(|claim| (claim.position.0, claim.attempt)).collect();
        assert_eq!(taken, [(3, Attempt(1)), (4, Attempt(1))]);
    }

    #[test]
    fn what_is_purged_is_gone_and_nothing_comes() {
        let mut partition = buried(false);
        assert_eq!(say(&mut partition, Verdict::Purge, &[1]), [Judged::Done]);
        assert_eq!(partition.browse(Shelf::Dead).rows.len(), 1);
        assert_eq!(partition.raw(Position(3)), None);
    }

    #[test]
    fn what_waits_for_its_turn_is_left_alone() {
        let mut partition = buried(true);
        let before = partition.clone();
        for verdict in [Verdict::Retry, Verdict::Purge] {
            assert_eq!(say(&mut partition, verdict, &[2]), [Judged::Early]);
            assert_eq!(partition, before);
        }
    }
}
