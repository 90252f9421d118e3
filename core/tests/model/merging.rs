//! A line of two partitions that is merged: every order in which a few numbers, two mergers, crashes and lost replies can meet.
//!
//! The states are the core's own: the base and the partitions are [`Partition`]s, and each merger has a
//! [`conga_core::merge::Merge`]. What a partition does with a number until it is out is one step here; that is the other model's.

use std::fmt;

use conga_core::message::Position;
use conga_core::partition::Partition;
use conga_core::shape::Shape;
use stateright::{Model, Property};

mod flaws;
mod properties;
mod state;
mod step;

use super::check;
use crate::ways::Ways;
use state::State;

/// Two, and so each number's is its remainder.
const PARTITIONS: usize = 2;

/// A rule that is broken on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flaw {
    /// The base takes a merge under any term.
    NoFence,
    /// The base takes a merge from any head.
    NoHeadCheck,
    /// A merger acknowledges all that it has read.
    AcknowledgesAtOnce,
    /// The base does not know any more which numbers were passed.
    ForgetsThePassed,
    /// A merger gives up a number that it has not looked for.
    Unproved,
}

/// What is checked: its size, and what may go wrong in it.
#[derive(Debug, Clone)]
struct Line {
    /// The numbers are 1 to this.
    last: u64,
    /// One that never comes.
    never: Option<u64>,
    /// Whether what is missing is given up.
    gives_up: bool,
    /// How many are merged in one step.
    batch: usize,
    mergers: usize,
    /// How many mergers may crash, in all.
    crashes: u8,
    /// How many calls may go unanswered, in all.
    losses: u8,
    /// How often the lock or the place of somebody who lives may end, in all. Of the dead always.
    pauses: u8,
    flaw: Option<Flaw>,
    ways: Ways,
}

impl Line {
    fn of(last: u64) -> Self {
        Self {
            last,
            never: None,
            gives_up: false,
            batch: 2,
            mergers: 2,
            crashes: 0,
            losses: 0,
            pauses: 0,
            flaw: None,
            ways: Ways::default(),
        }
    }

    fn has(&self, flaw: Flaw) -> bool {
        self.flaw == Some(flaw)
    }

    fn numbers(&self) -> impl Iterator<Item = u64> + use<> {
        let never = self.never;
        (1..=self.last).filter(move |number| Some(*number) != never)
    }
}

fn home(number: u64) -> usize {
    usize::try_from(number).expect("small") % PARTITIONS
}

/// What happens next.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Action {
    /// A number comes to its partition, and out of it.
    Comes {
        number: u64,
    },
    Campaign {
        by: usize,
    },
    /// Asks for its place as the consumer, acknowledges and reads; maybe nobody hears the answer.
    Read {
        by: usize,
        partition: usize,
        heard: bool,
    },
    /// The merge that was asked for is done; maybe nobody hears the answer.
    Merge {
        by: usize,
        heard: bool,
    },
    /// It may be done later, or never.
    MergeIsLost {
        by: usize,
    },
    Arrives {
        index: usize,
    },
    Prove {
        by: usize,
        partition: usize,
    },
    Crash {
        by: usize,
        leaves: bool,
    },
    LockEnds,
    PlaceEnds {
        partition: usize,
    },
}

impl Model for Line {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let mut base = Partition::default();
        base.shape(Some("total/2".parse::<Shape>().expect("a shape")));
        vec![State::new(self, base)]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.broken.is_empty() {
            state.actions(self, actions);
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let next = state.after(self, &action);
        (next != *state).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all(self)
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            last,
            mergers,
            crashes,
            losses,
            pauses,
            ..
        } = self;
        let never = self
            .never
            .map_or_else(String::new, |number| format!(" without {number}"));
        let gap = if self.gives_up { "gives up" } else { "waits for" };
        write!(
            f,
            "merged, {gap} what is missing: {last} numbers{never}, {mergers} mergers, {crashes} crashes, {losses} losses, {pauses} pauses"
        )
    }
}

#[test]
fn three_numbers_and_a_merger_that_crashes() {
    check(Line {
        crashes: 1,
        ..Line::of(3)
    });
}

#[test]
fn two_numbers_and_a_lost_reply() {
    check(Line {
        losses: 1,
        pauses: 1,
        ..Line::of(2)
    });
}

#[test]
fn a_number_that_is_missing_is_given_up_and_may_come_then() {
    for never in [None, Some(1)] {
        check(Line {
            gives_up: true,
            never,
            crashes: 1,
            ..Line::of(2)
        });
    }
    check(Line {
        gives_up: true,
        losses: 1,
        mergers: 1,
        ..Line::of(3)
    });
}

#[test]
#[ignore = "large"]
fn three_numbers_that_are_given_up_after_crashes_and_a_lost_reply() {
    check(Line {
        gives_up: true,
        crashes: 1,
        losses: 1,
        ..Line::of(3)
    });
}

#[test]
#[ignore = "large"]
fn three_numbers_two_crashes_and_a_lost_reply() {
    check(Line {
        crashes: 2,
        losses: 1,
        ..Line::of(3)
    });
}

/// The next number that is expected.
fn head(base: &Partition) -> Position {
    base.status(crate::NOW).head
}
