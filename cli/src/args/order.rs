//! What order a line keeps, as it is typed.

use clap::ValueEnum;
use conga::core::shape::{Order, Shape};

/// `--order` and `--per-key`, or the settings of these names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::Args)]
pub(crate) struct Ordering {
    /// What comes out in the order in which it came in: all messages, those of the same key, or none. A line stays what it is
    /// first [default: what the line is, else total]
    #[arg(long, value_enum, value_name = "ORDER")]
    pub(crate) order: Option<OrderName>,
    /// With `--order key`: hand out a message only when the one before it of the same key is done
    #[arg(long, value_enum, value_name = "HOW")]
    pub(crate) per_key: Option<PerKey>,
}

/// What order a benchmark's line keeps, and what keys its messages have.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub(crate) struct Orders {
    #[command(flatten)]
    pub(crate) ordering: Ordering,
    /// How many keys the messages have; 0: none [default: 100 with --order key, else 0]
    #[arg(long, value_name = "N")]
    pub(crate) keys: Option<u64>,
    /// One of the keys is hot: so many percent of the messages have it
    #[arg(long, value_name = "PERCENT", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub(crate) hot: u8,
}

impl Orders {
    /// What the line has to be.
    ///
    /// # Errors
    /// As [`Ordering::meant`].
    pub(crate) fn shape(&self) -> Result<Option<Shape>, &'static str> {
        Ok(self.ordering.meant()?.map(Shape::of))
    }

    /// How many keys, and how many percent the first of them has besides its share.
    pub(crate) fn keys(&self) -> (u64, u8) {
        let by_key = self.ordering.order == Some(OrderName::Key);
        (self.keys.unwrap_or(if by_key { 100 } else { 0 }), self.hot)
    }
}

/// What order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OrderName {
    Total,
    Key,
    None,
}

/// How the messages of a key are processed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PerKey {
    /// At once; only their results wait for each other.
    Parallel,
    /// One after the other.
    Serial,
}

impl Ordering {
    /// The same, where nothing is typed from the settings file.
    pub(crate) fn or(self, order: Option<OrderName>, per_key: Option<PerKey>) -> Self {
        Self {
            order: self.order.or(order),
            // What the file says of keys is for what the file says of the order.
            per_key: self
                .per_key
                .or(per_key.filter(|_| self.order.is_none_or(|order| order == OrderName::Key))),
        }
    }

    /// What it means; nothing, where nothing is said.
    ///
    /// # Errors
    /// What to type instead.
    pub(crate) fn meant(self) -> Result<Option<Order>, &'static str> {
        let serial = self.per_key == Some(PerKey::Serial);
        match (self.order, self.per_key) {
            (Some(OrderName::Key), _) => Ok(Some(Order::Key { serial })),
            (_, Some(_)) => Err("--per-key is for --order key: say both, or leave it out"),
            (Some(OrderName::Total), None) => Ok(Some(Order::Total)),
            (Some(OrderName::None), None) => Ok(Some(Order::None)),
            (None, None) => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_goes_before_the_file() {
        let typed = |order, per_key| Ordering { order, per_key };
        let (key, serial) = (Some(OrderName::Key), Some(PerKey::Serial));
        assert_eq!(typed(None, None).meant(), Ok(None));
        assert_eq!(typed(key, serial).meant(), Ok(Some(Order::Key { serial: true })));
        assert_eq!(typed(key, None).meant(), Ok(Some(Order::Key { serial: false })));
        assert_eq!(
            typed(None, None).or(key, serial).meant(),
            Ok(Some(Order::Key { serial: true }))
        );
        let none = typed(Some(OrderName::None), None);
        assert_eq!(
            none.or(key, serial).meant(),
            Ok(Some(Order::None)),
            "the file's are both passed over"
        );
        assert!(typed(None, serial).meant().is_err() && typed(Some(OrderName::Total), serial).meant().is_err());
    }
}
