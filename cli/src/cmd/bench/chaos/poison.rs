//! Messages that kill their processor, amid everything else: each of them has to end as a dead letter, and none of the others.

use std::collections::BTreeSet;

use serde::Serialize;

use super::report::Findings;
use crate::bench::load::Load;
use crate::bench::trail::Trail;
use crate::text;

/// After so many deaths the processors give one up, by default; after more, where who was to say so died as well.
const MOST: u32 = 10;

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
            let poisons = text::count(self.never as u64, "poison");
            findings.add(format!("{poisons} never sent: let it run longer"));
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
        for reason in trail.reasons.iter().filter(|reason| !tells_of_deaths(reason)) {
            findings.add(format!("a dead letter says: {reason}"));
        }
    }
}

/// Whether a dead letter says that it was given up for its processors' deaths.
fn tells_of_deaths(reason: &str) -> bool {
    let rest = reason.strip_prefix("its processor died ");
    let number = rest.and_then(|rest| rest.strip_suffix(" times while it was in flight"));
    number
        .and_then(|number| number.parse().ok())
        .is_some_and(|number: u32| number >= MOST)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::bench::load::Until;

    const REASON: &str = "its processor died 11 times while it was in flight";

    /// What is found where messages 1 to 4 were sent, 2 is poison, and these have the dead letters that say so.
    fn found(dead: &[(u64, &str)], sent: usize) -> Vec<String> {
        let load = Load::new(Until::Count(4), None, 40)
            .numbered(Some(1))
            .poisoned([2].into());
        let mut trail = Trail::default();
        for number in 1..=4 {
            let told = dead.iter().find(|(position, _)| *position == number);
            let what = told.map_or(
                format!("\"payload\":{}", load.payload_of(number).text()),
                |(_, reason)| format!("\"dead\":{{\"reason\":\"{reason}\",\"attempts\":10}}"),
            );
            let at = "2026-01-02T03:04:05Z";
            let line = format!(
                "{{\"position\":{number},\"id\":\"{number}\",\"sequence\":{number},{what},\"attempts\":10,\"created\":\"{at}\",\"processing\":\"{at}\",\"processed\":\"{at}\"}}"
            );
            trail.take(0, &[Bytes::from(line)]);
        }
        assert_eq!((trail.came.len(), trail.strange.len()), (4, 0), "{:?}", trail.strange);
        let poison = Poison::of(&[2].into(), &load, &trail, sent, (10, None));
        let mut findings = Findings::default();
        poison.judge(&trail, &load, &mut findings);
        let buried = dead.iter().filter(|(number, _)| *number == 2).count();
        assert_eq!((poison.buried, poison.innocents_buried), (buried, dead.len() - buried));
        findings.list()
    }

    #[test]
    fn exactly_the_poison_has_to_be_buried_and_for_what_it_is() {
        assert_eq!(found(&[(2, REASON)], 4), [""; 0]);
        for (dead, sent, says) in [
            (&[][..], 4, "no tombstone came out"),
            (
                &[(2, REASON), (3, REASON)],
                4,
                "id 3 is a dead letter, and was no poison",
            ),
            (&[(2, "it is bad")], 4, "a dead letter says: it is bad"),
            (
                &[(2, "its processor died 9 times while it was in flight")],
                4,
                "died 9 times",
            ),
            (&[], 1, "1 poison never sent"),
        ] {
            let found = found(dead, sent);
            assert!(found.len() == 1 && found[0].contains(says), "{found:?}");
        }
    }
}
