//! How much stays in a run. Drawn by dice of its own, as who delivers is.

use conga::core::partition::{Keep, Limit};

use super::Dice;

/// In a third of the lines the last few records stay, in the others all.
pub(super) fn draw(seed: u64) -> Keep {
    let mut dice = Dice::new(seed ^ 0x006b_6565_7000);
    let records = if dice.chance(333) {
        Limit::last(dice.between(0, 30))
    } else {
        Limit::NONE
    };
    Keep { records, ..Keep::ALL }
}
