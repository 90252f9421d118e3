//! Lines by key and without order over several partitions, of which each is a line of its own. Drawn by dice of its own, as
//! who delivers is.

use std::num::NonZeroU16;
use std::time::Duration;

use conga::core::route::{By, Router};
use conga::core::shape::{Order, Shape};
use conga::send::Outgoing;
use conga::shards;

use crate::flaw::Ground;

use super::{Cut, Dice, Parcel, Place, Plan, Role, cuts};

/// Of the lines that are not in total order two in five have so many partitions.
pub(super) fn draw(seed: u64, order: Order) -> Option<usize> {
    let mut dice = Dice::new(seed ^ 0x0070_6172_7473);
    let partitions = dice.size(2, 4);
    (order != Order::Total && dice.chance(400)).then_some(partitions)
}

/// One of the stores may be away, and the others there; and each has a clock of its own.
pub(super) fn apart(dice: &mut Dice, trouble: Duration, partitions: usize, plan: (&mut [Place], &mut Jumps)) {
    let (places, jumps) = plan;
    let rate = dice.rate(300);
    for place in places {
        for site in 0..=partitions {
            let cuts = cuts(dice, trouble, rate).into_iter();
            place.cuts.extend(cuts.map(|cut| Cut {
                site: Some(site),
                ..cut
            }));
        }
    }
    jumps.clear();
    for site in 0..=partitions {
        if dice.chance(70) {
            jumps.push((dice.millis(0, 2_000).min(trouble), dice.millis(1, 3_600_000), site));
        }
    }
    jumps.sort_unstable();
}

/// When a store's clock jumps, how far, and which store's.
pub(super) type Jumps = Vec<(Duration, Duration, usize)>;

impl Plan {
    /// The same over so many partitions. Nobody leads: each of them delivers in place.
    pub(super) fn parted(mut self, partitions: usize) -> Self {
        let mut dice = Dice::new(self.seed ^ 0x0070_6172_7474);
        self.places.retain(|place| place.role != Role::Sequencer);
        apart(&mut dice, self.trouble, partitions, (&mut self.places, &mut self.jumps));
        self.parted = Some(partitions);
        self
    }

    /// What kind of line it is.
    pub(crate) fn ground(&self) -> Ground {
        match (self.merging, self.parted) {
            (Some(_), _) => Ground::Merged,
            (None, Some(_)) => Ground::Parted,
            (None, None) => Ground::One,
        }
    }

    /// How many partitions there are, each with a store of its own beside the base; none, where the base is the line.
    pub(crate) fn partitions(&self) -> usize {
        let merged = self.merging.map(|merging| merging.partitions);
        merged.or(self.parted).unwrap_or(0)
    }

    /// The stores in which messages are.
    pub(crate) fn sites(&self) -> std::ops::RangeInclusive<usize> {
        match self.partitions() {
            0 => 0..=0,
            several => 1..=several,
        }
    }

    /// How messages come to their partitions, if there are several.
    pub(crate) fn router(&self) -> Option<Router> {
        (self.partitions() > 0).then(|| shards::router(self.shape()))
    }

    /// What the line is told to be.
    pub(crate) fn shape(&self) -> Shape {
        let partitions = u16::try_from(self.partitions()).unwrap();
        Shape {
            partitions: NonZeroU16::new(partitions).unwrap_or(NonZeroU16::MIN),
            ..Shape::of(self.order)
        }
    }

    /// What it is for one of its partitions: what is sent is what belongs there.
    pub(crate) fn of_partition(mut self, site: usize) -> Self {
        let Some(router) = self.router() else { return self };
        for parcels in &mut self.parcels {
            let mut turn = 0;
            let mut is_here = |entry| {
                turn += 1;
                router
                    .partition_of(&entry, turn)
                    .is_ok_and(|at| at as usize + 1 == site)
            };
            for (_, parcel) in parcels {
                match parcel {
                    Parcel::Named(batch) => batch.retain(|message: &Outgoing| is_here(message.to_entry())),
                    Parcel::Nameless(entries) => entries.retain(|entry| is_here(entry.clone().into())),
                }
            }
        }
        self
    }

    /// By what messages come to their partitions.
    pub(crate) fn by(&self) -> By {
        self.router().map(|router| router.by()).unwrap_or_default()
    }
}
