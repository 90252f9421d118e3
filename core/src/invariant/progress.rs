//! Progress (G7): as long as there is work, something comes out at least every so often, but for the time of a fault.

use std::collections::{HashMap, HashSet};

use super::{Event, Violation};
use crate::message::{Id, Position};
use crate::time::Micros;

/// Finds gaps of more than `limit_us` microseconds between deliveries while messages were sent and not delivered. A
/// gap begins with a delivery, with the first message after everything was delivered, or with the end of a fault.
/// Dead letters that were never delivered are no work. Where events stand in the history does not matter here, only
/// their times do.
pub fn check(history: &[Event], limit_us: u64) -> Vec<Violation> {
    let mut sweep = Sweep {
        limit_us,
        ..Sweep::default()
    };
    for (at, _, moment) in timeline(history) {
        sweep.meet(at, moment);
    }
    sweep.violations
}

/// Something that matters to progress.
#[derive(Clone, Copy)]
enum Moment<'a> {
    Delivered(Position, &'a Id),
    FaultOver,
    Fault,
    Sent(&'a Id),
    Ended,
}

/// The moments by time. At the same time a fault ends before anything moves, and one begins after it has.
fn timeline(history: &[Event]) -> Vec<(Micros, u8, Moment<'_>)> {
    let delivered: HashSet<&Id> = history
        .iter()
        .filter_map(|event| match event {
            Event::Delivered { id, .. } => Some(id),
            _ => None,
        })
        .collect();
    let dead: HashSet<&Id> = history
        .iter()
        .filter_map(|event| match event {
            Event::DeadLetter { id } if !delivered.contains(id) => Some(id),
            _ => None,
        })
        .collect();
    let mut moments: Vec<_> = history
        .iter()
        .filter_map(|event| match event {
            Event::FaultOver { at } => Some((*at, 0, Moment::FaultOver)),
            Event::Sent { id, at } if !dead.contains(id) => Some((*at, 1, Moment::Sent(id))),
            Event::Delivered { position, id, at, .. } => Some((*at, 2, Moment::Delivered(*position, id))),
            Event::Fault { at } => Some((*at, 3, Moment::Fault)),
            Event::Ended { at } => Some((*at, 4, Moment::Ended)),
            _ => None,
        })
        .collect();
    moments.sort_by_key(|(at, rank, _)| (*at, *rank));
    moments
}

#[derive(Default)]
struct Sweep<'a> {
    limit_us: u64,
    /// Whether each message is delivered. One may come out before the clock of its sender says that it was sent.
    messages: HashMap<&'a Id, bool>,
    outstanding: u64,
    /// Since when nothing has come out, though there is work.
    since: Micros,
    /// How many faults are on.
    faults: u32,
    violations: Vec<Violation>,
}

impl<'a> Sweep<'a> {
    fn meet(&mut self, at: Micros, moment: Moment<'a>) {
        match moment {
            Moment::Sent(id) => {
                if !self.messages.contains_key(id) {
                    self.messages.insert(id, false);
                    if self.outstanding == 0 {
                        self.since = self.since.max(at);
                    }
                    self.outstanding += 1;
                }
            }
            Moment::Delivered(position, id) => {
                self.judge(at, Some(position), id);
                self.since = at;
                if self.messages.insert(id, true) == Some(false) {
                    self.outstanding -= 1;
                }
            }
            Moment::Fault => {
                if self.faults == 0
                    && let Some(id) = self.waiting()
                {
                    self.judge(at, None, id);
                }
                self.faults += 1;
            }
            Moment::FaultOver => {
                self.faults = self.faults.saturating_sub(1);
                self.since = self.since.max(at);
            }
            Moment::Ended => {
                if let Some(id) = self.waiting() {
                    self.judge(at, None, id);
                }
            }
        }
    }

    /// Some message that waits.
    fn waiting(&self) -> Option<&'a Id> {
        if self.outstanding == 0 {
            return None;
        }
        self.messages
            .iter()
            .filter(|(_, delivered)| !**delivered)
            .map(|(id, _)| *id)
            .min()
    }

    fn judge(&mut self, at: Micros, position: Option<Position>, id: &Id) {
        let gap_us = at.since(self.since);
        if self.outstanding > 0 && self.faults == 0 && gap_us > self.limit_us {
            let what = match position {
                Some(_) => format!(
                    "came out after {gap_us} µs of nothing, the limit is {} µs",
                    self.limit_us
                ),
                None => format!(
                    "waits and nothing came out for {gap_us} µs, the limit is {} µs",
                    self.limit_us
                ),
            };
            self.violations.push(Violation {
                invariant: "progress",
                position,
                id: Some(id.clone()),
                what,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::plant::{delivered, sent};
    use super::*;

    #[test]
    fn a_stall_between_two_deliveries_is_found() {
        let history = [sent("a", 0), sent("b", 0), delivered(1, "a", 5), delivered(2, "b", 16)];
        let found = check(&history, 10);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].id, Some(Id::given("b")));
        assert_eq!(check(&history, 11), []);
    }

    #[test]
    fn one_that_never_comes_out_is_found() {
        let history = [
            sent("a", 0),
            sent("b", 1),
            delivered(1, "a", 5),
            Event::Ended { at: Micros(50) },
        ];
        let found = check(&history, 10);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].id, Some(Id::given("b")));
    }

    #[test]
    fn a_line_without_work_may_stand_still() {
        let history = [
            sent("a", 0),
            delivered(1, "a", 5),
            sent("b", 1_000),
            sent("b", 2_000),
            sent("dead", 1_000),
            delivered(2, "b", 1_005),
            Event::DeadLetter { id: Id::given("dead") },
            Event::Ended { at: Micros(9_000) },
        ];
        assert_eq!(check(&history, 10), []);
    }

    #[test]
    fn the_time_of_a_fault_does_not_count_and_that_after_it_does() {
        let history = |back| {
            [
                sent("a", 0),
                Event::Fault { at: Micros(5) },
                Event::FaultOver { at: Micros(500) },
                delivered(1, "a", back),
            ]
        };
        assert_eq!(check(&history(509), 10), []);
        assert_eq!(check(&history(511), 10).len(), 1);
    }
}
