//! Whom a death is blamed on, counted once more by hand: only what was blamed most often of what the dead one held, few of
//! them together from the second time on, and alone from the third. So nothing is given up for the death of another.

use conga::core::lease::{Held, OwnerId};
use conga::core::message::Position;

use super::Judge;
use crate::history::DIED;
use crate::plan::{Fate, number_of};

/// What is blamed so often is with so many others like it at most, and then alone.
const FEW_FROM: u32 = 2;
const FEW: usize = 16;
const ALONE_FROM: u32 = 3;

/// How often a message was blamed.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Blame {
    crashes: u32,
    /// With no poison beside it, in whatever partition.
    by_chance: u32,
}

impl Judge {
    fn crashes(&self, position: Position) -> u32 {
        self.blame.get(&position).map_or(0, |blame| blame.crashes)
    }

    fn is_poison(&self, position: Position) -> bool {
        self.number_at(position)
            .is_some_and(|number| self.plan.fate(number) == Fate::Kills)
    }

    /// Which message was accepted at this position.
    pub(super) fn number_at(&self, position: Position) -> Option<u64> {
        number_of(&String::from_utf8_lossy(&self.accepted_at(position)?.entry))
    }

    fn held_by(&self, owner: &OwnerId) -> Vec<Position> {
        let leases = self.leases.iter();
        let held = leases.filter(|(position, lease)| {
            let is_done = self.over.contains(position) || self.halted.contains(position);
            lease.owner == *owner && !lease.free && !is_done
        });
        held.map(|(position, _)| *position).collect()
    }

    fn has_begun(&self, position: Position) -> bool {
        let attempt = self.leases.get(&position).map(|lease| lease.attempt);
        attempt.is_some_and(|attempt| self.begun.contains(&Held { position, attempt }))
    }

    /// An owner is taken for dead, before what it held is free.
    pub(super) fn blame(&mut self, owner: &OwnerId) {
        let held = self.held_by(owner);
        let most = held.iter().map(|position| self.crashes(*position)).max();
        let is_killed = self.owners.get(owner).is_some_and(|who| self.killed.contains(who));
        let is_beside_poison = held.iter().any(|position| self.is_poison(*position));
        for position in held {
            if Some(self.crashes(position)) == most {
                // What was handed out a moment ago, and is to be alone, is given back: until then it is blamed for all partitions.
                let has_begun = self.has_begun(position);
                let by_chance = !(is_beside_poison || is_killed && has_begun);
                let blame = self.blame.entry(position).or_default();
                blame.crashes += 1;
                blame.by_chance += u32::from(by_chance);
            }
        }
    }

    /// Its handler has answered, or somebody says that it is to be tried as if it were new.
    pub(super) fn absolve(&mut self, position: Position) {
        self.blame.remove(&position);
    }

    /// Before `position` is `owner`'s.
    pub(super) fn claimed_with_blame(&mut self, owner: &OwnerId, position: Position, said: u32) {
        let crashes = self.crashes(position);
        self.expect(said == crashes, || {
            format!("{position} is said to have been blamed {said} times, and was {crashes} times")
        });
        let held = self.held_by(owner);
        let alone = held
            .iter()
            .find(|position| self.crashes(**position) >= ALONE_FROM)
            .copied();
        self.expect(alone.is_none(), || {
            format!("{position} is handed out to {owner}, which holds {alone:?}, that is to be alone")
        });
        self.expect(crashes < ALONE_FROM || held.is_empty(), || {
            format!("{position} is to be alone, and is handed out to {owner}, which holds {held:?}")
        });
        let few = |position: &&Position| (FEW_FROM..ALONE_FROM).contains(&self.crashes(**position));
        let beside = held.iter().filter(few).count();
        self.expect(crashes < FEW_FROM || beside < FEW, || {
            format!("{position} is handed out to {owner} with {beside} that are to be few")
        });
    }

    /// A message is given up for its crashes, or was: whether it may be. What is no poison is blamed for one no more than three
    /// times, for then it is alone.
    pub(super) fn may_be_given_up(&self, position: Position, reason: &str) -> bool {
        let Some(Blame { crashes, by_chance }) = self.given_up.get(&position).copied() else {
            return false;
        };
        let said = reason.strip_prefix(DIED).and_then(|rest| rest.split(' ').next());
        let most = self.plan.poison.max_crashes;
        let is_true = said.and_then(|said| said.parse().ok()) == Some(crashes);
        let is_due = most > 0 && crashes >= most;
        is_true && is_due && (self.is_poison(position) || by_chance + ALONE_FROM >= crashes)
    }

    pub(super) fn give_up(&mut self, position: Position) {
        let blame = self.blame.get(&position).copied().unwrap_or_default();
        self.given_up.insert(position, blame);
    }
}
