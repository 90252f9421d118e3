//! What a person has asked for holds from that step on: nothing new is handed out while the line is paused or drains, and no
//! more than the rate allows; what becomes of a dead letter becomes of it once.

use conga::core::invariant::Event;
use conga::core::lease::{Attempt, Held};
use conga::core::message::Position;
use conga::core::partition::{BURST_US, Control, ControlRequest, DeadRequest, Flow, Judged, Verdict};
use conga::core::shape::Order;
use conga::core::time::Micros;

use super::Judge;

/// What was asked for last.
#[derive(Debug, Default)]
pub(super) struct Asked {
    control: Control,
    /// Since when the rate holds, and how many were handed out for the first time since.
    since: Micros,
    count: u64,
}

impl Judge {
    pub(super) fn controlled(&mut self, at: Micros, request: &ControlRequest, control: Control) {
        let before = self.asked.control;
        let is_right = match *request {
            ControlRequest::Flow(flow) => control.flow == flow && control.rate == before.rate,
            ControlRequest::Rate(rate) => control.rate == rate && control.flow == before.flow,
            ControlRequest::Settle => {
                let newest = self.leases.last_key_value().map_or(0, |(position, _)| position.0);
                // What is parked was claimed too, and only the store knows of it.
                let is_serial = self.plan.order == (Order::Key { serial: true });
                let ends = before.flow == Flow::Draining && self.head.0 > newest;
                let flow = if ends { Flow::Paused } else { before.flow };
                control.rate == before.rate && (control.flow == flow || is_serial)
            }
        };
        self.expect(is_right, || format!("after {before:?} {request:?} came to {control:?}"));
        if control.rate != before.rate {
            (self.asked.since, self.asked.count) = (at, 0);
        }
        self.asked.control = control;
    }

    /// Of one claim.
    pub(super) fn claimed_under_control(&mut self, at: Micros, claims: &[Held]) {
        let control = self.asked.control;
        let fresh = claims.iter().filter(|held| held.attempt == Attempt(1)).count() as u64;
        // What is parked counts as claimed before, and goes out when its key is free.
        let is_serial = self.plan.order == (Order::Key { serial: true });
        let allowed = match control.flow {
            Flow::Running => true,
            Flow::Draining => fresh == 0 || is_serial,
            Flow::Paused => claims.is_empty(),
        };
        self.expect(allowed, || {
            format!("{claims:?} are claimed while the line is {:?}", control.flow)
        });
        if let Some(rate) = control.rate {
            self.asked.count += fresh;
            let (count, since) = (self.asked.count, at.since(self.asked.since));
            let most = 1 + (since + BURST_US) * 1_000 / rate.interval_ns();
            self.expect(count <= most, || {
                format!("{count} are handed out for the first time in {since} µs at {rate:?}")
            });
        }
    }

    pub(super) fn judged(&mut self, at: Micros, request: &DeadRequest, answers: &[Judged]) {
        for (position, answer) in request.positions.iter().zip(answers) {
            let position = *position;
            let is_there = self.died.contains(&position) && !self.taken_away.contains(&position);
            let is_past = position < self.head;
            let is_halted = self.halted.contains(&position);
            match answer {
                Judged::Done if is_halted => self.go_on(position, request.verdict),
                Judged::Done => {
                    self.expect(is_there && is_past, || {
                        format!(
                            "{:?} of position {position}: there {is_there}, past {is_past}",
                            request.verdict
                        )
                    });
                    self.take_away(at, position, request.verdict);
                }
                Judged::Passed => {
                    let skips = matches!(request.verdict, Verdict::Skip | Verdict::Mark);
                    self.expect(skips && is_there && !is_halted, || {
                        format!(
                            "position {position} is called passed: there {is_there}, halted {is_halted}, {:?}",
                            request.verdict
                        )
                    });
                }
                Judged::Early => self.expect(is_there && !is_past, || format!("position {position} is called early")),
                Judged::Missing => {
                    // Where its id had a result no letter was kept.
                    let has_result = self.has_result(position);
                    self.expect(!is_there || has_result, || {
                        format!("position {position} is called missing")
                    });
                }
            }
        }
    }

    /// Whether the id of this message has a result, by whatever position.
    pub(super) fn has_result(&self, position: Position) -> bool {
        let id = self.accepted_at(position).map(|accepted| &accepted.id);
        let same = |held: &Held| self.accepted_at(held.position).map(|accepted| &accepted.id) == id;
        self.done.iter().any(same)
    }

    /// The line was halted at this position, and is no more.
    fn go_on(&mut self, position: Position, verdict: Verdict) {
        self.halted.remove(&position);
        match verdict {
            Verdict::Retry => {
                self.died.remove(&position);
                self.given_up.remove(&position);
                if let Some(lease) = self.leases.get_mut(&position) {
                    lease.free = true;
                }
            }
            Verdict::Skip | Verdict::Mark => {
                self.passed_by.insert(position, verdict == Verdict::Mark);
                self.over.insert(position);
            }
            Verdict::Purge => self.wrong(format!("position {position} is deleted, and the line is halted there")),
        }
    }

    fn take_away(&mut self, at: Micros, position: Position, verdict: Verdict) {
        let Some(accepted) = self.accepted_at(position) else {
            return;
        };
        let (id, entry) = (accepted.id.clone(), accepted.entry.clone());
        self.taken_away.insert(position);
        self.events.push(Event::DeadLetter { id });
        if verdict == Verdict::Retry {
            self.accept(at, &entry);
        }
    }
}
