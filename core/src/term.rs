//! A leader's reign, and the lock it holds.

use std::fmt;

use crate::lease::OwnerId;
use crate::time::Micros;

/// A leader's reign. It only grows, and fences whatever an earlier leader still sends. 0: nobody has led yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Term(pub u64);

impl Term {
    /// The reign after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The leader's lock: who holds it, and until when if it is not renewed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Lock {
    /// Who leads.
    pub owner: OwnerId,
    /// When the lock expires.
    pub deadline: Micros,
}

impl Lock {
    /// Whether the lock keeps everybody but its owner out at `now`.
    pub fn holds(&self, now: Micros) -> bool {
        now < self.deadline
    }
}

/// What a campaign for the leadership came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Campaign {
    /// The caller leads.
    Leader {
        /// The term of this reign: the same as long as the lock is renewed.
        term: Term,
    },
    /// Somebody else leads, or (after a resignation) nobody.
    Standby {
        /// Who leads.
        leader: Option<OwnerId>,
    },
}
