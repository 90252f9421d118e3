//! A message on its way in, and the record of it on its way out.

use std::fmt;

use bytes::Bytes;

mod input;
mod key;
mod output;
mod payload;
mod record;

pub use input::{Format, Input, Reject, identify, parse};
pub use key::key_of;
pub use output::{NotAnOutput, Output};
pub use payload::{NotJson, Payload};
pub use record::{Body, Record, finish, write_open, write_string};

/// The dense number (1, 2, 3 …) of a message in its partition. It is the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

impl Position {
    /// The position of the first message of all.
    pub const FIRST: Self = Self(1);

    /// The position right after this one.
    #[must_use]
    pub fn next(self) -> Self {
        self.plus(1)
    }

    /// The position `count` after this one.
    #[must_use]
    pub fn plus(self, count: u64) -> Self {
        Self(self.0.saturating_add(count))
    }

    /// How far this one is past `earlier`; zero if it is not.
    pub fn past(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A message's identity for idempotency: the producer's id, else its sequence, else its position.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(Box<str>);

impl Id {
    /// What the producer gave, id or sequence.
    pub fn given(id: impl Into<Box<str>>) -> Self {
        Self(id.into())
    }

    /// The identity of a message whose producer gave none. It is written `@17`, so that it can never be taken for
    /// another message's id or sequence: that would make a duplicate, and so a loss, of what is none.
    pub fn of_position(position: Position) -> Self {
        Self(format!("@{position}").into())
    }

    /// The same in a partition of a line that has several: written `@3.17`, for each of them has a position 17.
    pub fn of_place(partition: u32, position: Position) -> Self {
        Self(format!("@{partition}.{position}").into())
    }

    /// Whether it stands for a message whose producer gave none.
    pub fn is_of_position(&self) -> bool {
        is_of_position(&self.0)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// No producer's id looks like this.
fn is_of_position(text: &str) -> bool {
    let number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    text.strip_prefix('@').is_some_and(|rest| match rest.split_once('.') {
        Some((partition, position)) => number(partition) && number(position),
        None => number(rest),
    })
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What stands in the input at a position, as far as the store hands it out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// The bytes as the producer sent them.
    Whole(Bytes),
    /// More bytes than the limit. The store keeps them; they go to the dead letters from there.
    Oversize {
        /// How many bytes there are.
        bytes: u64,
    },
}

impl Entry {
    /// How many bytes are handed out with it: what a limit on an answer counts.
    pub fn handed_out(&self) -> u64 {
        match self {
            Self::Whole(bytes) => bytes.len() as u64,
            Self::Oversize { .. } => 0,
        }
    }
}
