//! A person who has the line go on when all else is healed.

use conga::core::message::Position;
use conga::core::partition::{ControlRequest, Cursor, DeadRequest, Flow, OnDead, Shelf, Verdict};
use conga::deliver::position_of;

use super::{BASE, World};
use crate::history::{Happened, Moved};

impl World {
    /// Whoever paused or limited the line, now it goes on.
    pub(super) async fn resume(&self) {
        for request in [ControlRequest::Flow(Flow::Running), ControlRequest::Rate(None)] {
            let control = self.store().control(&request).await.unwrap();
            self.note(None, Happened::Controlled { request, control });
        }
        self.pass_on_hints();
    }

    /// Where the line is halted it is told to go on. What was sent to be tried once more is told so once.
    pub(super) async fn see_to_the_halted(&self, retried: &mut Vec<Position>) {
        let head = self.head().await;
        if self.plan.poison.on_dead != OnDead::Halt || self.store().status().await.unwrap().halted == 0 {
            return;
        }
        let rows = self.store().browse(Shelf::Dead, None).await.unwrap().rows;
        let mut positions: Vec<_> = rows.iter().filter_map(|row| position_of(&row.json)).collect();
        positions.sort_unstable();
        for position in positions.into_iter().filter(|position| *position >= head) {
            let drawn = self.dice.lock().unwrap().size(0, 2);
            let verdict = [Verdict::Skip, Verdict::Mark, Verdict::Retry][drawn];
            if verdict == Verdict::Retry {
                if retried.contains(&position) {
                    continue;
                }
                retried.push(position);
            }
            let request = DeadRequest {
                verdict,
                positions: vec![position],
            };
            let from = self.head().await;
            let answers = self.sites[BASE].delivering.dead(&request).await.unwrap();
            let to = self.head().await;
            let delivered = (verdict != Verdict::Retry).then_some(Moved { from, to });
            self.note(
                None,
                Happened::Judged {
                    request,
                    answers,
                    delivered,
                },
            );
        }
        self.pass_on_hints();
    }

    async fn head(&self) -> Position {
        self.store().follow(Cursor::default(), 0).await.unwrap().head
    }
}
