//! What a person asks of the line while it is at work. Drawn by dice of its own, as who delivers is.

use std::time::Duration;

use conga::core::partition::{ControlRequest, Flow, OnDead, Rate, Verdict};

use super::{Dice, Place, Plan, Poison, Role, faults};

/// One thing that is asked for, once: whoever hears nothing does not ask again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    Control(ControlRequest),
    /// On some of the dead letters that are there.
    Dead(Verdict),
}

/// In every second run there is somebody who asks, and a place for them.
pub(super) fn draw(seed: u64, trouble: Duration, places: &mut Vec<Place>) -> Vec<(Duration, Command)> {
    let mut dice = Dice::new(seed ^ 0x636f_6e74_726f);
    let dice = &mut dice;
    if dice.chance(500) {
        return Vec::new();
    }
    let crashes = dice.rate(400);
    places.push(Place {
        role: Role::Operator,
        number: 0,
        delivers: false,
        faults: faults(dice, trouble, [crashes, 0, 0]),
        cuts: Vec::new(),
    });
    let count = dice.between(1, 10);
    let pace = u64::try_from(trouble.as_millis()).unwrap() / count;
    let each = (0..count).map(|_| (dice.millis(0, 2 * pace), command(dice)));
    each.collect()
}

fn command(dice: &mut Dice) -> Command {
    let rate = [4.0, 20.0, 100.0][dice.size(0, 2)];
    match dice.between(0, 11) {
        0..3 => Command::Control(ControlRequest::Flow(Flow::Running)),
        3 => Command::Control(ControlRequest::Flow(Flow::Paused)),
        4 => Command::Control(ControlRequest::Flow(Flow::Draining)),
        5 => Command::Control(ControlRequest::Settle),
        6 => Command::Control(ControlRequest::Rate(Rate::per_second(rate))),
        7 => Command::Control(ControlRequest::Rate(None)),
        8..11 => Command::Dead(Verdict::Retry),
        _ => Command::Dead(Verdict::Purge),
    }
}

/// Where the line halts at what fails for good, what is said of it has it go on, most often.
pub(super) fn halting(seed: u64, poison: &Poison, mut commands: Vec<(Duration, Command)>) -> Vec<(Duration, Command)> {
    if poison.on_dead == OnDead::Halt {
        let mut dice = Dice::new(seed ^ 0x0068_616c_7400);
        for (_, command) in &mut commands {
            if dice.chance(500) || matches!(command, Command::Dead(_)) {
                let verdicts = [Verdict::Retry, Verdict::Skip, Verdict::Mark, Verdict::Purge];
                *command = Command::Dead(verdicts[dice.size(0, 3)]);
            }
        }
    }
    commands
}

impl Plan {
    /// In a merged line what is skipped has to be marked: who merges waits for each number.
    pub(crate) fn possible(&self, verdict: Verdict) -> Verdict {
        match verdict {
            Verdict::Skip if self.merging.is_some() => Verdict::Mark,
            verdict => verdict,
        }
    }
}
