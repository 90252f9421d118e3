//! A person, who controls the line and decides about dead letters.

use std::collections::BTreeMap;

use conga::core::invariant::Event;
use conga::core::message::{Id, Position};
use conga::core::partition::{ControlRequest, Flow, Judged, Rate, Shelf, Verdict};

use super::Driver;
use crate::pair::place;

impl Driver {
    /// Runs more often than not, so that histories get on.
    pub(super) async fn control(&mut self) {
        let request = match self.random.below(8) {
            0 => ControlRequest::Flow(Flow::Paused),
            1 => ControlRequest::Flow(Flow::Draining),
            2 => ControlRequest::Settle,
            3 => ControlRequest::Rate(Rate::every_ns(1 + self.random.below(2_000_000_000))),
            4 => ControlRequest::Rate(None),
            _ => ControlRequest::Flow(Flow::Running),
        };
        self.pair.control(&request).await;
    }

    /// A person looks at the dead letters, and has some of them retried, skipped, marked or purged, whether their turn has come or not; and
    /// one that is none. Maybe twice.
    pub(super) async fn judge_letters(&mut self) {
        self.look_at_shelves().await;
        let letters = self.pair.browse(Shelf::Dead).await;
        let mut places: Vec<_> = letters.iter().map(|row| place(&row.json)).collect();
        places.truncate(1 + self.random.index(3));
        places.push((1 + self.random.below(self.sent.len() as u64 + 2), String::new()));
        let positions: Vec<_> = places.iter().map(|(position, _)| *position).collect();
        let verdicts = [
            Verdict::Retry,
            Verdict::Retry,
            Verdict::Purge,
            Verdict::Skip,
            Verdict::Mark,
        ];
        let verdict = verdicts[self.random.index(verdicts.len())];
        let halted = self.halted().await;
        let ids: BTreeMap<_, _> = letters.iter().map(|row| place(&row.json)).collect();
        for _ in 0..=u64::from(self.random.chance(30)) {
            let answers = self.pair.dead(verdict, &positions).await;
            for (position, answer) in positions.iter().zip(answers) {
                if (verdict, answer) == (Verdict::Retry, Judged::Done) {
                    let id = ids[position].clone();
                    if halted.contains(position) {
                        // The same message again.
                        self.dead.remove(&Id::given(id.as_str()));
                        continue;
                    }
                    self.history.push(Event::Sent {
                        id: Id::given(id.as_str()),
                        at: self.pair.now(),
                    });
                    self.sent.push(id);
                }
            }
        }
    }

    /// The positions at which the line is halted.
    pub(super) async fn halted(&self) -> Vec<u64> {
        let rows = self.pair.browse(Shelf::Dead).await;
        let is_halted = |json: &[u8]| json.windows(13).any(|part| part == b"\"halted\":true");
        let halted = rows.iter().filter(|row| is_halted(&row.json));
        halted.map(|row| place(&row.json).0).collect()
    }

    pub(super) async fn look_at_shelves(&mut self) {
        for row in self.pair.browse(Shelf::Record).await {
            let (position, _) = place(&row.json);
            self.records.insert(row.id, Position(position));
        }
        for row in self.pair.browse(Shelf::Dead).await {
            self.dead.insert(row.id);
        }
    }
}
