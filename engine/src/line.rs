//! The name of a line, and of one partition of it.

use std::fmt;
use std::str::FromStr;

/// One partition of a line: the unit of atomicity, and what a store is opened for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Line {
    name: String,
    /// `None` for a line with one partition.
    partition: Option<u32>,
}

/// A name that a line can't have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` can't be a line's name: use 1 to 100 letters, digits, `-` and `_`")]
pub struct BadLineName(pub String);

impl Line {
    /// Its tag: `orders` for a line with one partition, `orders.3` for partition 3 of a sharded line. A name has no
    /// dot, so that no two partitions share a tag.
    pub fn tag(&self) -> String {
        match self.partition {
            None => self.name.clone(),
            Some(partition) => format!("{}.{partition}", self.name),
        }
    }

    /// The name of the whole line.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The same line's partition `partition`.
    #[must_use]
    pub fn partition(&self, partition: u32) -> Self {
        Self {
            name: self.name.clone(),
            partition: Some(partition),
        }
    }
}

impl FromStr for Line {
    type Err = BadLineName;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let fits = (1..=100).contains(&name.len())
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        if fits {
            Ok(Self {
                name: name.to_owned(),
                partition: None,
            })
        } else {
            Err(BadLineName(name.to_owned()))
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.tag())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_partitions_share_a_tag() {
        let orders: Line = "orders".parse().unwrap();
        assert_eq!(orders.tag(), "orders");
        assert_eq!(orders.partition(3).tag(), "orders.3");
        assert!("orders.3".parse::<Line>().is_err());
    }

    #[test]
    fn a_name_that_would_break_a_key_is_refused() {
        for name in ["", "a b", "{a}", "a:b", "ü"] {
            assert!(name.parse::<Line>().is_err(), "{name}");
        }
    }
}
