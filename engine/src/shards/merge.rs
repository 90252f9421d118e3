//! Merge: the sequencing service of a line in total order over several partitions. One leads and puts what comes out of them
//! in the order of the sequences, the others stand by.
//!
//! The rules are [`conga_core::merge`]; this carries out its actions and tells it what came of them. It leads at the line's own
//! name, the base, and is the active consumer of each partition.

use std::time::Duration;

use conga_core::lease::OwnerId;
use conga_core::partition::Keep;
use conga_core::term::Role;
use tokio_util::sync::CancellationToken;

use self::work::Work;
use super::Shards;
use crate::lead::Elector;
use crate::random::Random;
use crate::sequence::Sequencing;
use crate::store::Result;

mod gap;
mod hand;
mod lane;
mod text;
mod work;

/// What becomes of a number that is missing for longer than [`MergerOptions::gap_timeout`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnGap {
    /// The line waits for it, with an alarm in the log and in the status.
    #[default]
    Hold,
    /// A tombstone is delivered in its place. Coming later, it becomes a dead letter of the base.
    GiveUp,
}

/// How a merging sequencer works.
#[derive(Debug, Clone, Copy)]
pub struct MergerOptions {
    /// How many outputs of each partition it has in hand at most: so far out of order may numbers come to their partition.
    pub window: usize,
    /// Of how many outputs of the partition in which a missing number belongs it knows the places. What comes after them is looked
    /// through for that number again and again.
    pub places: usize,
    /// How many messages it delivers in one step.
    pub batch: usize,
    /// Whether the tombstone of a dead letter is delivered in its place.
    pub mark_dead: bool,
    /// How long a number may be missing, since a later one was there.
    pub gap_timeout: Duration,
    /// What becomes of it then.
    pub on_gap: OnGap,
    /// How much stays of the outputs, and of what came too late. `None`: as the store has it by default.
    pub keep: Option<Keep>,
}

impl Default for MergerOptions {
    fn default() -> Self {
        Self {
            window: 10_000,
            places: 1_000_000,
            batch: 1_000,
            mark_dead: true,
            gap_timeout: Duration::from_secs(30),
            on_gap: OnGap::Hold,
            keep: None,
        }
    }
}

/// A sequencing service of a merged line.
#[derive(Debug)]
pub struct Merger {
    shards: Shards,
    elector: Elector,
    options: MergerOptions,
}

impl Merger {
    /// A service that merges the partitions of a line, under a name of its own.
    pub fn new(shards: &Shards, options: MergerOptions) -> Self {
        let owner = OwnerId::new(Random::default().name("sequencer"));
        Self {
            elector: Elector::new(shards.base().clone(), Role::Leader, owner),
            shards: shards.clone(),
            options,
        }
    }

    /// The same, with its name drawn from `random`.
    pub fn with_random(self, random: &Random) -> Self {
        let owner = OwnerId::new(random.name("sequencer"));
        Self {
            elector: Elector::new(self.shards.base().clone(), Role::Leader, owner),
            ..self
        }
    }

    /// Its name towards the stores.
    pub fn owner(&self) -> &OwnerId {
        self.elector.owner()
    }

    /// Works until `shutdown`, then hands the leadership over.
    ///
    /// # Errors
    /// Only what no repetition can help; while a store is away it goes on trying.
    ///
    /// # Cancellation
    /// Dropped, it is as if the process had died: its locks expire and a standby takes over.
    pub async fn run(self, shutdown: CancellationToken) -> Result<Sequencing> {
        let mut work = Work::of(self);
        let outcome = work.run(&shutdown).await;
        work.end().await;
        outcome.map(|()| work.sequencing)
    }
}
