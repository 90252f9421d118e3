//! Messages that end the process that handles them, and what stands in the place of what fails for good. Drawn by dice of
//! its own, as who delivers is.

use std::collections::BTreeSet;

use bytes::Bytes;
use conga::core::partition::OnDead;
use conga::core::shape::Order;

use super::{Dice, number_of};

/// What a run does about messages that fail for good, and which kill.
#[derive(Debug)]
pub(crate) struct Poison {
    /// Blamed for so many crashes a message is given up; 0: never, and then none is poison.
    pub(crate) max_crashes: u32,
    pub(crate) on_dead: OnDead,
    /// The numbers of those that kill.
    pub(crate) numbers: BTreeSet<u64>,
}

/// In a third of the lines some messages are poison, and an eighth halts at what fails for good.
pub(super) fn draw(seed: u64, order: Order, mark_dead: bool, messages: &[Bytes]) -> Poison {
    let mut dice = Dice::new(seed ^ 0x0070_6f69_736f);
    let max_crashes = if dice.chance(150) {
        0
    } else {
        u32::try_from(dice.between(4, 10)).unwrap()
    };
    // Without order nothing waits for anything.
    let on_dead = match dice.chance(125) && order != Order::None {
        true => OnDead::Halt,
        false if mark_dead => OnDead::Mark,
        false => OnDead::Skip,
    };
    let mut numbers = BTreeSet::new();
    if max_crashes > 0 && dice.chance(400) {
        for _ in 0..dice.between(1, 3) {
            let text = &messages[dice.size(0, messages.len() - 1)];
            numbers.extend(number_of(&String::from_utf8_lossy(text)));
        }
    }
    Poison {
        max_crashes,
        on_dead,
        numbers,
    }
}
