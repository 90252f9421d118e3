//! Messages that kill their processor, amid everything else: each of them has to end as a dead letter, and none of the others.

use std::collections::BTreeSet;

use serde::Serialize;

use super::report::Findings;
use crate::bench::load::Load;
use crate::bench::trail::Trail;

/// What the dead letter of a poison says, as the processors have it by default.
const REASON: &str = "its processor died 10 times while it was in flight";

/// What became of them.
#[derive(Debug, Serialize)]
pub(super) struct Poison {
    /// Of those that there were to be.
    pub(super) sent: usize,
    /// Processors that died of one.
    pub(super) deaths: usize,
    /// Poisons that are dead letters.
    pub(super) buried: usize,
    /// Others that are.
    pub(super) innocents_buried: usize,
    /// How often any other was blamed for a death at the same time, as far as the store was looked at (SQLite, one Redis).
    pub(super) most_blame: Option<u32>,
    /// The most attempts that any other took.
    pub(super) most_attempts: u32,
    #[serde(skip)]
    numbers: BTreeSet<u64>,
    #[serde(skip)]
    never: usize,
}

impl Poison {
    /// Of these numbers, when so many messages were sent.
    pub(super) fn of(
        numbers: &BTreeSet<u64>,
        load: &Load,
        trail: &Trail,
        sent: usize,
        (deaths, most_blame): (usize, Option<u32>),
    ) -> Self {
        let sent: BTreeSet<u64> = numbers.range(..=sent as u64).copied().collect();
        let innocents = || trail.came.iter().filter(|came| !load.is_poison(came.id.as_str()));
        Self {
            sent: sent.len(),
            deaths,
            buried: trail.came.iter().filter(|came| came.dead).count() - innocents().filter(|came| came.dead).count(),
            innocents_buried: innocents().filter(|came| came.dead).count(),
            most_blame,
            most_attempts: innocents().map(|came| came.attempts).max().unwrap_or(0),
            never: numbers.len() - sent.len(),
            numbers: sent,
        }
    }

    pub(super) fn to_text(&self) -> String {
        let blame = self
            .most_blame
            .map_or(String::new(), |most| format!(", blamed {most} times at most"));
        format!(
            "  poison      {} sent, {} buried after {} deaths; {} others buried{blame}, {} attempts at most\n",
            self.sent, self.buried, self.deaths, self.innocents_buried, self.most_attempts
        )
    }

    /// How many dead letters there have to be.
    pub(super) fn expected(&self) -> u64 {
        self.numbers.len() as u64
    }

    /// Exactly the poisons are dead, for what they are.
    pub(super) fn judge(&self, trail: &Trail, load: &Load, findings: &mut Findings) {
        if self.never > 0 {
            findings.add(format!("{} poisons were never sent: let it run longer", self.never));
        }
        let dead: BTreeSet<&str> = trail
            .came
            .iter()
            .filter(|came| came.dead)
            .map(|came| came.id.as_str())
            .collect();
        for number in &self.numbers {
            if !dead.contains(load.id(*number).as_str()) {
                findings.add(format!(
                    "message {number} is poison, and no tombstone came out in its place"
                ));
            }
        }
        for id in dead.iter().filter(|id| !load.is_poison(id)) {
            findings.add(format!("id {id} is a dead letter, and was no poison"));
        }
        for reason in trail.reasons.iter().filter(|reason| *reason != REASON) {
            findings.add(format!("a dead letter says: {reason}"));
        }
    }
}
