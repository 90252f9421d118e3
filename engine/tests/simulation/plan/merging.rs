//! Lines in total order over several partitions: numbers that come out of order, late or never, and the leaders that merge
//! them. Drawn by dice of its own, as who delivers is.

use std::time::Duration;

use conga::core::message::Payload;
use conga::core::partition::Keep;
use conga::core::shape::Order;
use conga::send::Outgoing;
use conga::shards::OnGap;

use super::parting::apart;
use super::{Dice, Parcel, Place, Plan, Role, command, cuts, entries, faults, poison, text};

/// What a merged line is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Merging {
    pub(crate) partitions: usize,
    /// The last number. It always comes.
    pub(crate) last: u64,
    pub(crate) on_gap: OnGap,
    pub(crate) gap_timeout: Duration,
    pub(crate) mark_dead: bool,
    /// How many outputs of each partition a merger has in hand.
    pub(crate) window: usize,
    pub(crate) batch: usize,
}

/// A quarter of the lines.
pub(super) fn draw(seed: u64) -> Option<Merging> {
    let mut dice = Dice::new(seed ^ 0x6d65_7267_6500);
    let merging = Merging {
        partitions: dice.size(2, 3),
        last: dice.between(5, 60),
        on_gap: if dice.chance(500) { OnGap::GiveUp } else { OnGap::Hold },
        gap_timeout: dice.millis(100, 1_000),
        mark_dead: dice.chance(700),
        window: dice.size(1, 24),
        batch: dice.size(1, 8),
    };
    dice.chance(250).then_some(merging)
}

impl Plan {
    /// The same as a merged line: one who numbers, and two or three who merge.
    pub(super) fn merged(mut self, merging: Merging) -> Self {
        let mut dice = Dice::new(self.seed ^ 0x6d65_7267_6501);
        let dice = &mut dice;
        let trouble = self.trouble;
        let (crashes, pauses, stops, cut_off) = (dice.rate(1_000), dice.rate(700), dice.rate(500), dice.rate(600));
        self.places
            .retain(|place| place.role != Role::Sequencer && (place.role != Role::Producer || place.number == 0));
        for number in 0..dice.size(2, 3) {
            self.places.push(Place {
                role: Role::Sequencer,
                number,
                delivers: false,
                faults: faults(dice, trouble, [crashes, pauses, stops]),
                cuts: cuts(dice, trouble, cut_off),
            });
        }
        for place in &mut self.places {
            place.delivers = place.role == Role::Processor;
        }
        apart(dice, trouble, merging.partitions, (&mut self.places, &mut self.jumps));
        self.order = Order::Total;
        self.keep = Keep::ALL;
        self.parcels = vec![parcels(dice, merging, trouble)];
        // Whether a tombstone comes out is said where they are merged.
        self.poison = poison::draw(self.seed, Order::Total, true, &entries(&self.parcels));
        // A death takes long, and all partitions stand still for it.
        if dice.chance(700) {
            self.poison.numbers.clear();
        }
        self.commands = command::halting(self.seed, &self.poison, self.commands);
        self.numbering = vec![false];
        self.limits = vec![None];
        self.merging = Some(merging);
        self
    }
}

/// About in order; some twice, some when all others have come, some never.
fn parcels(dice: &mut Dice, merging: Merging, trouble: Duration) -> Vec<(Duration, Parcel)> {
    let (shifted, gaps) = (dice.rate(600), dice.rate(120));
    let (mut order, mut late) = (Vec::new(), Vec::new());
    for number in 1..=merging.last {
        if number < merging.last && late.len() < 4 && dice.chance(gaps) {
            if merging.on_gap == OnGap::Hold || dice.chance(600) {
                late.push(number);
            }
            continue;
        }
        let when = number + if dice.chance(shifted) { dice.between(0, 12) } else { 0 };
        order.push((when, number));
        if dice.chance(50) {
            order.push((when + dice.between(0, 12), number));
        }
    }
    order.sort_unstable();
    let mut numbers = order.into_iter().map(|(_, number)| number).peekable();
    let pace = u64::try_from(trouble.as_millis()).unwrap() / 12;
    let mut parcels = Vec::new();
    while numbers.peek().is_some() {
        let batch: Vec<_> = numbers.by_ref().take(dice.size(1, 8)).map(message).collect();
        parcels.push((dice.millis(0, 2 * pace), Parcel::Named(batch)));
    }
    let timeout = u64::try_from(merging.gap_timeout.as_millis()).unwrap();
    for number in late {
        let at = dice.size(0, parcels.len());
        // Before it is given up, while it is, or after that.
        parcels.insert(
            parcels.len() - at.min(2),
            (dice.millis(0, 2 * timeout), Parcel::Named(vec![message(number)])),
        );
    }
    parcels
}

fn message(number: u64) -> Outgoing {
    Outgoing {
        sequence: Some(number),
        ..Outgoing::new(Payload::string(&text(number)))
    }
}
