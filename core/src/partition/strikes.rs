//! Strikes: which attempts at a message count. An attempt that nobody has had the message fail in does not.

use super::Partition;
use crate::lease::Attempt;
use crate::message::Position;

/// What is known of a message's attempts besides their number. Most messages have none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Strikes {
    /// How many attempts do not count: the message is given up by those that do.
    pub excused: u32,
}

impl Strikes {
    /// The how manieth of the attempts that count this one is.
    pub fn tries(self, attempt: Attempt) -> Attempt {
        Attempt(attempt.0.saturating_sub(self.excused).max(1))
    }
}

impl Partition {
    /// Those of a message.
    pub(super) fn strikes_of(&self, position: Position) -> Strikes {
        self.strikes.get(&position).copied().unwrap_or_default()
    }
}
