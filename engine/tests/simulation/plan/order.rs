//! What order a line keeps, and by what keys. Drawn by dice of its own, as who delivers is.

use conga::core::shape::Order;

use super::Dice;

/// Half of the lines are in total order, where the keys are as they always were.
pub(super) fn draw(seed: u64) -> (Order, u64) {
    let mut dice = Dice::new(seed ^ 0x6f72_6465_7200);
    let order = match dice.between(0, 19) {
        0..10 => Order::Total,
        10..14 => Order::Key { serial: false },
        14..16 => Order::Key { serial: true },
        _ => Order::None,
    };
    (order, dice.between(1, 6))
}

/// The key of message `number`, the same each time that it is sent; some have none.
pub(super) fn key_of(order: Order, keys: u64, number: u64) -> Option<String> {
    if order == Order::Total {
        return (number.is_multiple_of(5) && !number.is_multiple_of(3)).then(|| "key".to_owned());
    }
    (!number.is_multiple_of(7)).then(|| format!("k{}", number % keys))
}
