//! Who delivers in a run. Drawn by dice of its own: so a line in which only the leader does is what its seed always was.

use super::{Dice, Place, Role};

/// Who delivers what is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivering {
    /// The leading sequencer.
    Leader,
    /// The store, for every processor. There is no sequencer.
    Store,
    /// The store for some of the processors, and a leader.
    Mixed,
    /// The store for some of the processors, of which one is the first. There is no sequencer: what the others complete is
    /// left to the next step of one of these.
    Left,
}

impl Delivering {
    /// Draws it, and makes the places what that asks for.
    pub(super) fn draw(seed: u64, places: &mut Vec<Place>) -> Self {
        let mut dice = Dice::new(seed ^ 0x00de_11fe);
        let drawn = match dice.between(0, 9) {
            0..4 => Self::Leader,
            4..7 => Self::Store,
            7..9 => Self::Mixed,
            _ => Self::Left,
        };
        for place in places.iter_mut().filter(|place| place.role == Role::Processor) {
            place.delivers = match drawn {
                Self::Leader => false,
                Self::Store => true,
                Self::Mixed => dice.chance(500),
                Self::Left => place.number == 0 || dice.chance(300),
            };
        }
        if matches!(drawn, Self::Store | Self::Left) {
            places.retain(|place| place.role != Role::Sequencer);
        }
        drawn
    }
}
