//! A loop among those of its process: what it tells them, and what it may claim and begin with for their sake.

use conga_core::partition::{ALONE_FROM, Claim};
use tokio::time::Instant;

use super::super::attempt::held;
use super::super::quarantine::MOMENT;
use super::{Handler, Work};

impl<H: Handler> Work<H> {
    /// Tells the others what this loop has. A store that does not answer holds up none of them, when it has been waited for: until
    /// then, if it was asked for something.
    pub(super) fn stand(&mut self, is_asked: bool) -> Option<Instant> {
        self.unheard = (is_asked || !self.results.is_empty()).then(|| self.unheard.unwrap_or_else(Instant::now));
        let patient_until = self.unheard.map(|since| since + MOMENT);
        self.is_silent = patient_until.is_some_and(|until| until <= Instant::now());
        self.quarantine.report(self.holds());
        if self.is_silent {
            self.quarantine.forgo();
        }
        let is_over = |held| !self.holdings.has(held) || self.is_silent && self.is_idle();
        if self.alone.is_some_and(is_over) {
            self.quarantine.release();
            self.alone = None;
        }
        patient_until.filter(|_| !self.is_silent)
    }

    /// What may have been claimed and not been heard of.
    fn asked(&self) -> usize {
        if self.is_silent { 0 } else { self.reserved }
    }

    /// What would be blamed for the death of this process: while its store answers, also what has ended and what may have
    /// been claimed.
    fn holds(&self) -> usize {
        let at_work = self.running.len() + self.upcoming.len();
        let leases = if self.is_silent { 0 } else { self.holdings.len() };
        leases.max(at_work) + self.asked()
    }

    /// How many messages to claim now: all that there is room for here, or the part of it that the share gives.
    pub(super) fn granted(&mut self, free: usize, now: bool) -> usize {
        let is_idle = self.holdings.len() == 0 && self.running.is_empty();
        let now = now && self.quarantine.may_claim(is_idle);
        let granted = match &self.share {
            None if now => free,
            None => 0,
            Some(share) => {
                share.has(self.busy() + self.asked(), self.running.len());
                if now {
                    share.ask(free)
                } else {
                    share.withdraw();
                    0
                }
            }
        };
        if now {
            self.reserved = granted;
            self.quarantine.report(self.holds());
        }
        granted
    }

    /// Whether a message can be begun with, as far as it has to be alone.
    pub(super) fn admits(&mut self, claim: &Claim) -> bool {
        if !self.is_suspect(claim) {
            return true;
        }
        let admits = self.quarantine.admit(self.is_idle());
        if admits {
            self.alone = Some(held(claim));
        }
        admits
    }

    /// Whether it is to be alone when it is begun with.
    pub(super) fn is_suspect(&self, claim: &Claim) -> bool {
        claim.crashes >= ALONE_FROM && !self.is_poison(claim)
    }
}
