//! When: rounds of one fault each, drawn from a seed. What comes is decided here and nowhere else, so that a campaign
//! that failed can be had again.

use std::collections::HashMap;
use std::time::Duration;

use crate::args::Fault;

/// One fault, and what happens meanwhile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Round {
    pub(super) before: Duration,
    pub(super) fault: Fault,
    /// Decides whom it hits, and in which of its forms.
    pub(super) lot: Lot,
    /// What overlaps it, by the time since its beginning.
    pub(super) company: Vec<(Duration, Fault, Lot)>,
}

/// A drawn number, of which each question takes another part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lot(u64);

impl Lot {
    /// One of `count`; `nth` says which question this is, at most 3.
    pub(super) fn one_of(self, nth: u32, count: usize) -> usize {
        let part = self.0 >> (16 * nth) & 0xFFFF;
        usize::try_from(part).unwrap_or(0) % count.max(1)
    }
}

/// How often something else happens during a fault that has company.
const COMPANY_EVERY: Duration = Duration::from_millis(400);

/// Rounds without end: every fault comes, in an order of its own, before all of them come again.
#[derive(Debug)]
pub(super) struct Schedule {
    faults: Vec<Fault>,
    bag: Vec<Fault>,
    /// How often each has come.
    come: HashMap<Fault, usize>,
    random: u64,
}

impl Schedule {
    pub(super) fn new(faults: &[Fault], seed: u64) -> Self {
        Self {
            faults: faults.to_vec(),
            bag: Vec::new(),
            come: HashMap::new(),
            // Neighbouring seeds shall not begin alike.
            random: mixed(seed),
        }
    }

    /// How long it takes at most until each fault has come.
    pub(super) fn once(faults: &[Fault]) -> Duration {
        let each = |fault: &Fault| (JITTER + fault.takes() + fault.rest()) * u32::try_from(fault.weight()).unwrap_or(1);
        faults.iter().map(each).sum()
    }

    pub(super) fn next(&mut self) -> Option<Round> {
        if self.bag.is_empty() {
            for fault in &self.faults {
                self.bag.extend(std::iter::repeat_n(*fault, fault.weight()));
            }
        }
        if self.bag.is_empty() {
            return None;
        }
        let at = self.draw().one_of(0, self.bag.len());
        let fault = self.bag.swap_remove(at);
        let (lot, when) = (self.draw(), self.draw());
        // Everything here runs in steps of 100 ms, and would otherwise be hit at the same point of its step.
        let jitter = u64::try_from(when.one_of(0, 100)).unwrap_or(0);
        Some(Round {
            before: Duration::from_millis(jitter),
            fault,
            lot,
            company: self.company(fault),
        })
    }

    /// Every second time a longer fault has company: so each is measured alone, and each happens in a mix.
    fn company(&mut self, fault: Fault) -> Vec<(Duration, Fault, Lot)> {
        let come = self.come.entry(fault).or_default();
        *come += 1;
        let others: Vec<Fault> = self.faults.iter().copied().filter(|other| other.is_company()).collect();
        if others.is_empty() || fault.lasts() < 2 * COMPANY_EVERY || *come % 2 == 1 {
            return Vec::new();
        }
        let mut company = Vec::new();
        let mut at = COMPANY_EVERY;
        while at < fault.lasts() {
            let lot = self.draw();
            company.push((at, others[lot.one_of(3, others.len())], lot));
            at += COMPANY_EVERY;
        }
        company
    }

    fn draw(&mut self) -> Lot {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        Lot(mixed(self.random))
    }
}

/// The longest pause before a round, and some more for what it takes to do it.
const JITTER: Duration = Duration::from_millis(200);

/// Source: G. Steele, D. Lea, C. Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
pub(super) fn mixed(mut number: u64) -> u64 {
    number = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAULTS: [Fault; 4] = [Fault::KillProcessor, Fault::KillLeader, Fault::BlackHole, Fault::Oom];

    fn rounds(seed: u64, count: usize) -> Vec<Round> {
        let mut schedule = Schedule::new(&FAULTS, seed);
        std::iter::from_fn(|| schedule.next()).take(count).collect()
    }

    #[test]
    fn the_seed_decides_everything() {
        assert_eq!(rounds(7, 50), rounds(7, 50));
        assert_ne!(rounds(7, 50), rounds(8, 50));
    }

    #[test]
    fn each_fault_comes_before_all_come_again() {
        for seed in 0..50 {
            for bag in rounds(seed, 30).chunks(6) {
                for fault in FAULTS {
                    assert_eq!(bag.iter().filter(|round| round.fault == fault).count(), fault.weight());
                }
            }
        }
    }

    #[test]
    fn the_longer_faults_have_company_every_second_time_and_only_they() {
        for fault in FAULTS {
            let all = rounds(1, 600);
            let with: Vec<bool> = all
                .iter()
                .filter(|round| round.fault == fault)
                .map(|round| !round.company.is_empty())
                .collect();
            let is_long = fault.lasts() > Duration::ZERO;
            assert!(with.chunks(2).all(|pair| pair == [false, is_long]), "{fault:?}");
        }
    }
}
