//! Messages that kill their processors: every order in which a few of them, their neighbours and deaths by chance can meet.
//!
//! The store is the core's own [`Partition`]; whom it blames and what it hands out alone is `core/src/partition/strikes.rs`. The
//! store delivers, for the leaders are the other model's. A poison ends whoever is at it, and is never done.

use std::fmt;

use bytes::Bytes;
use conga_core::lease::OwnerId;
use conga_core::partition::{OnDead, Partition};
use stateright::{Model, Property};

mod flaws;
mod properties;
mod state;

use super::check;
use crate::ways::Ways;
use state::State;

/// A rule that is broken on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flaw {
    /// The store says of everything that it was never blamed.
    ForgetsCrashes,
    /// The store hands out others beside what is to be alone.
    NeverIsolates,
    /// The store takes who leaves for dead.
    LeavingIsDeath,
    /// What was blamed so often that it is to be alone is given up at once.
    GivesUpEarly,
    /// What a dead processor held stays with it.
    NeverFrees,
    /// The line goes on past what it should halt at.
    GoesOn,
}

/// What is checked: its size, and what may go wrong in it.
#[derive(Debug, Clone)]
struct Line {
    messages: u64,
    /// Which of them kill.
    poisons: Vec<u64>,
    processors: usize,
    /// How many messages a processor claims and holds at once.
    hands: usize,
    max_crashes: u32,
    /// How many processors may die by chance, in all.
    crashes: u8,
    /// How many answers to claims may be lost, in all.
    losses: u8,
    /// How many processors may give back what they hold and end, in all.
    leaves: u8,
    on_dead: OnDead,
    flaw: Option<Flaw>,
    ways: Ways,
}

impl Line {
    fn of(messages: u64, poisons: &[u64]) -> Self {
        Self {
            messages,
            poisons: poisons.to_vec(),
            processors: 2,
            hands: 2,
            max_crashes: 4,
            crashes: 0,
            losses: 0,
            leaves: 0,
            on_dead: OnDead::Mark,
            flaw: None,
            ways: Ways::default(),
        }
    }

    fn has(&self, flaw: Flaw) -> bool {
        self.flaw == Some(flaw)
    }

    fn kills(&self, position: u64) -> bool {
        self.poisons.contains(&position)
    }
}

/// What happens next. A processor is meant by its place.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Action {
    Claim {
        by: usize,
    },
    /// The same, and nobody hears the answer.
    ClaimUnheard {
        by: usize,
    },
    /// A processor asks what it holds.
    Compare {
        by: usize,
    },
    /// A processor gives all back and ends.
    Leave {
        by: usize,
    },
    /// A handler has a result.
    Done {
        by: usize,
        position: u64,
    },
    /// What was blamed too often is given up by whoever has claimed it, without being tried.
    GiveUp {
        by: usize,
        position: u64,
    },
    /// A poison ends its processor, and another takes its place.
    Kill {
        by: usize,
    },
    /// A processor dies by chance.
    Crash {
        by: usize,
    },
    /// A dead owner's time is up.
    LeaseEnds {
        owner: OwnerId,
    },
    /// A person has the line go on with the tombstone.
    Mark {
        position: u64,
    },
}

impl Model for Line {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let mut store = Partition::default();
        let entry = |position| Bytes::from(format!("{{\"id\":\"m{position}\",\"payload\":0}}"));
        store.send(&(1..=self.messages).map(entry).collect::<Vec<_>>());
        vec![State::new(self, store)]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        state.actions(self, actions);
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
        write!(
            f,
            "{} messages, poison {:?}, {} processors with {} hands, given up after {} crashes ({:?}), {} deaths by \
             chance, {} losses, {} leave",
            self.messages,
            self.poisons,
            self.processors,
            self.hands,
            self.max_crashes,
            self.on_dead,
            self.crashes,
            self.losses,
            self.leaves
        )
    }
}

#[test]
fn a_poison_is_found_beside_its_neighbours() {
    check(Line::of(2, &[1]));
    check(Line::of(3, &[2]));
}

#[test]
fn a_line_halts_at_a_poison() {
    check(Line {
        on_dead: OnDead::Halt,
        ..Line::of(2, &[1])
    });
}

#[test]
fn lost_answers_and_processors_that_leave_beside_a_poison() {
    check(Line {
        losses: 1,
        leaves: 1,
        ..Line::of(3, &[2])
    });
}

/// Each death by chance may be one more that an innocent is blamed for: with so many more crashes allowed it lives.
#[test]
fn deaths_by_chance_beside_a_poison() {
    check(Line {
        crashes: 1,
        max_crashes: 5,
        ..Line::of(2, &[1])
    });
}

/// And with none more it may be given up: the bound is exact.
#[test]
fn with_fewer_crashes_allowed_an_innocent_may_be_given_up() {
    check(Line {
        crashes: 1,
        ..Line::of(2, &[1])
    });
}

#[test]
fn two_poisons_and_a_neighbour() {
    check(Line::of(3, &[1, 3]));
    check(Line {
        hands: 3,
        ..Line::of(4, &[2, 3])
    });
}

#[test]
fn deaths_by_chance_beside_a_poison_and_its_neighbours() {
    check(Line {
        crashes: 2,
        max_crashes: 6,
        hands: 3,
        ..Line::of(3, &[2])
    });
}

#[test]
#[ignore = "large"]
fn two_poisons_a_death_by_chance_and_a_lost_answer() {
    check(Line {
        crashes: 1,
        losses: 1,
        max_crashes: 5,
        ..Line::of(3, &[1, 3])
    });
}
