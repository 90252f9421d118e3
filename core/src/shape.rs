//! The shape of a line: what order its messages keep, and in how many partitions they are.
//!
//! It is no option of a service but what the line is, so that no two services can see it in different ways. It is kept with
//! the line, and set once.

use std::fmt;
use std::num::NonZeroU16;
use std::str::FromStr;

/// Which messages come out in the order in which they came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Order {
    /// All of them.
    #[default]
    Total,
    /// Those that have the same key. Messages without one have no order.
    Key {
        /// Whether a message is handed out only when the one before it with the same key is done.
        serial: bool,
    },
    /// None.
    None,
}

/// What a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Shape {
    /// What order its messages keep.
    pub order: Order,
    /// In how many partitions they are.
    pub partitions: NonZeroU16,
}

/// A text that names no shape, or no order.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no shape of a line: write total, key, key serial or none, with /N behind it for N partitions")]
pub struct BadShape(pub String);

impl Shape {
    /// What a line is of which nobody has said anything: one total order.
    pub const TOTAL: Self = Self {
        order: Order::Total,
        partitions: NonZeroU16::MIN,
    };

    /// Of this order, in one partition.
    pub const fn of(order: Order) -> Self {
        Self {
            order,
            partitions: NonZeroU16::MIN,
        }
    }

    /// Whether its partitions are put in one order by who merges them.
    pub fn is_merged(self) -> bool {
        self.order == Order::Total && self.partitions > NonZeroU16::MIN
    }

    /// What becomes of a wish: what the line is from then on. `kept` is what was set before; `has_claimed` and `has_entries`
    /// say whether it ever handed out a message, or was sent one. A line of an earlier version has nothing kept.
    ///
    /// Nothing kept and nothing wished: what is not set yet. As long as nothing was handed out, the order of what was sent
    /// can still be chosen, so that a producer may come first; but not in which partition it is.
    pub fn settle(kept: Option<Self>, wanted: Option<Self>, has_claimed: bool, has_entries: bool) -> Option<Self> {
        if kept.is_some() {
            return kept;
        }
        let is_late = |wanted: &Self| has_claimed || (has_entries && wanted.partitions > NonZeroU16::MIN);
        match wanted {
            None if has_claimed => Some(Self::TOTAL),
            Some(wanted) if is_late(&wanted) => Some(Self::TOTAL),
            wanted => wanted,
        }
    }
}

impl Default for Shape {
    fn default() -> Self {
        Self::TOTAL
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Total => "total",
            Self::Key { serial: false } => "key",
            Self::Key { serial: true } => "key serial",
            Self::None => "none",
        })
    }
}

impl FromStr for Order {
    type Err = BadShape;

    fn from_str(text: &str) -> Result<Self, BadShape> {
        Ok(match text {
            "total" => Self::Total,
            "key" => Self::Key { serial: false },
            "key serial" => Self::Key { serial: true },
            "none" => Self::None,
            _ => return Err(BadShape(text.to_owned())),
        })
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.partitions.get() {
            1 => self.order.fmt(f),
            partitions => write!(f, "{}/{partitions}", self.order),
        }
    }
}

impl FromStr for Shape {
    type Err = BadShape;

    fn from_str(text: &str) -> Result<Self, BadShape> {
        let bad = || BadShape(text.to_owned());
        let (order, partitions) = match text.split_once('/') {
            Some((order, partitions)) => (order, partitions.parse().map_err(|_| bad())?),
            None => (text, NonZeroU16::MIN),
        };
        let order = order.parse().map_err(|_| bad())?;
        Ok(Self { order, partitions })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Order; 4] = [
        Order::Total,
        Order::Key { serial: false },
        Order::Key { serial: true },
        Order::None,
    ];

    #[test]
    fn a_shape_is_read_as_it_is_written() {
        for order in ALL {
            for partitions in [1, 4, u16::MAX] {
                let partitions = NonZeroU16::new(partitions).unwrap();
                let shape = Shape { order, partitions };
                assert_eq!(shape.to_string().parse(), Ok(shape));
            }
            assert_eq!(order.to_string().parse(), Ok(Shape::of(order)));
        }
        assert_eq!("key serial/4".parse::<Shape>().unwrap().partitions.get(), 4);
    }

    #[test]
    fn what_is_none_says_what_would_be() {
        for bad in [
            "",
            "keys",
            "total/0",
            "total/",
            "none/65536",
            "/2",
            "key/-1",
            "key  serial",
        ] {
            let error = bad.parse::<Shape>().unwrap_err().to_string();
            assert!(error.contains("write total, key"), "{error}");
        }
    }

    #[test]
    fn it_is_set_once_and_before_anything_depends_on_it() {
        let none = Some(Shape::of(Order::None));
        let four = Some("total/4".parse().unwrap());
        let total = Some(Shape::TOTAL);
        assert_eq!(Shape::settle(None, None, false, true), None, "nobody has said");
        assert_eq!(
            Shape::settle(None, none, false, true),
            none,
            "what waits has no order yet"
        );
        assert_eq!(Shape::settle(None, four, false, false), four);
        assert_eq!(Shape::settle(None, four, false, true), total, "it is in one partition");
        assert_eq!(Shape::settle(None, none, true, true), total, "of an earlier version");
        assert_eq!(Shape::settle(None, None, true, false), total);
        assert_eq!(Shape::settle(none, total, false, false), none, "the first one counts");
    }
}
