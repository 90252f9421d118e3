//! Who leads, or is the active consumer: a reign, and the lock that it holds.

use std::fmt;

use crate::lease::OwnerId;
use crate::time::Micros;

/// What one process at a time is for a line, while others stand by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// The leader of the sequencers, who may emit.
    Leader,
    /// The active consumer, who may receive.
    Consumer,
}

/// One owner's time in a role. The owner is named beside the term, for a store that comes back older than it was may give
/// the same term again, to somebody else.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reign {
    /// Whose.
    pub owner: OwnerId,
    /// Under which term.
    pub term: Term,
}

/// The number of a reign. It only grows, and fences whatever an earlier leader still sends. 0: nobody has led yet.
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

/// The lock: who holds it, and until when if it is not renewed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Lock {
    /// Who leads, or is active.
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

/// What a campaign came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Campaign {
    /// The caller leads, or is the active consumer.
    Leader {
        /// The term of this reign: the same as long as the lock is renewed.
        term: Term,
    },
    /// Somebody else does, or (after a resignation) nobody.
    Standby {
        /// Who does.
        leader: Option<OwnerId>,
    },
}
