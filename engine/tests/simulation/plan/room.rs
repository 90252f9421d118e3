//! Which producers send only while no more than so many wait, and what they do then. Drawn by dice of its own, as who
//! delivers is.

use conga::send::WhenFull;

use super::Dice;

/// Every second one has a limit.
pub(super) fn draw(seed: u64, producers: usize) -> Vec<Option<(u64, WhenFull)>> {
    let mut dice = Dice::new(seed ^ 0x726f_6f6d_0000);
    let mut each = || {
        let when_full = if dice.chance(500) {
            WhenFull::Wait
        } else {
            WhenFull::Refuse
        };
        let most = dice.between(1, 8);
        dice.chance(500).then_some((most, when_full))
    };
    (0..producers).map(|_| each()).collect()
}
