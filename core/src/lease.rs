//! Who holds a message, for how long, and for the how manieth time.

use std::fmt;
use std::sync::Arc;

use crate::message::Position;
use crate::time::Micros;

/// A process's name towards the store. Each start of a process takes a new one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnerId(Arc<str>);

impl OwnerId {
    /// Takes any text without white space: stores keep it as one word.
    ///
    /// # Panics
    /// Never: white space is replaced by `_`, and an empty name becomes `_`.
    pub fn new(name: impl AsRef<str>) -> Self {
        Self(one_word(name.as_ref()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A name as one word: white space is replaced by `_`, and an empty name becomes `_`.
pub(crate) fn one_word(name: &str) -> Arc<str> {
    if name.is_empty() {
        return Arc::from("_");
    }
    if name.contains(char::is_whitespace) {
        return name.replace(char::is_whitespace, "_").into();
    }
    Arc::from(name)
}

impl fmt::Display for OwnerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The how manieth claim of the same message this is: 1, 2, 3 …
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Attempt(pub u32);

impl Attempt {
    /// The attempt after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One owner's hold on one message.
///
/// Its deadline is that of its owner: a process renews all that it holds in one step, and loses all of it
/// together. So a renewal costs the same for one message as for ten thousand.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Lease {
    /// Who holds the message.
    pub owner: OwnerId,
    /// The how manieth claim this is.
    pub attempt: Attempt,
    /// When it was claimed.
    pub claimed: Micros,
}

impl Lease {
    /// Whether this lease is the one that `owner` took with `attempt`.
    pub fn is_held_by(&self, owner: &OwnerId, attempt: Attempt) -> bool {
        self.owner == *owner && self.attempt == attempt
    }
}

/// Names one lease: the message and the attempt. With the owner it is unique for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Held {
    /// The message.
    pub position: Position,
    /// The attempt by which it is held.
    pub attempt: Attempt,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_always_one_word() {
        assert_eq!(OwnerId::new("a b\nc").as_str(), "a_b_c");
        assert_eq!(OwnerId::new("").as_str(), "_");
    }

    #[test]
    fn a_lease_is_its_owners_and_its_attempts() {
        let lease = Lease {
            owner: OwnerId::new("a"),
            attempt: Attempt(2),
            claimed: Micros(0),
        };
        assert!(lease.is_held_by(&OwnerId::new("a"), Attempt(2)));
        assert!(!lease.is_held_by(&OwnerId::new("a"), Attempt(1)));
        assert!(!lease.is_held_by(&OwnerId::new("b"), Attempt(2)));
    }
}
