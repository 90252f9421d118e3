//! A person who has the line go on when all else is healed.

use conga::core::message::Position;
use conga::core::partition::{ControlRequest, Cursor, DeadRequest, Flow, OnDead, Shelf, Verdict};
use conga::deliver::position_of;

use super::World;
use crate::history::{Happened, Moved};

impl World {
    /// Whoever paused or limited the line, now it goes on.
    pub(super) async fn resume(&self) {
        for site in self.plan.sites() {
            for request in [ControlRequest::Flow(Flow::Running), ControlRequest::Rate(None)] {
                let control = self.sites[site].store.control(&request).await.unwrap();
                self.note_at(site, None, Happened::Controlled { request, control });
            }
        }
        self.pass_on_hints();
    }

    /// Where the line is halted it is told to go on. What was sent to be tried once more is told so once.
    pub(super) async fn see_to_the_halted(&self, retried: &mut Vec<(usize, Position)>) {
        if self.plan.poison.on_dead != OnDead::Halt {
            return;
        }
        for site in self.plan.sites() {
            if self.sites[site].store.status().await.unwrap().halted > 0 {
                self.have_it_go_on(site, retried).await;
            }
        }
        self.pass_on_hints();
    }

    async fn have_it_go_on(&self, site: usize, retried: &mut Vec<(usize, Position)>) {
        let head = self.head(site).await;
        let rows = self.sites[site].store.browse(Shelf::Dead, None).await.unwrap().rows;
        let mut positions: Vec<_> = rows.iter().filter_map(|row| position_of(&row.json)).collect();
        positions.sort_unstable();
        for position in positions.into_iter().filter(|position| *position >= head) {
            let drawn = self.dice.lock().unwrap().size(0, 2);
            let verdict = self
                .plan
                .possible([Verdict::Skip, Verdict::Mark, Verdict::Retry][drawn]);
            if verdict == Verdict::Retry {
                if retried.contains(&(site, position)) {
                    continue;
                }
                retried.push((site, position));
            }
            let request = DeadRequest {
                verdict,
                positions: vec![position],
            };
            let from = self.head(site).await;
            let answers = self.sites[site].delivering.dead(&request).await.unwrap();
            let to = self.head(site).await;
            let delivered = (verdict != Verdict::Retry).then_some(Moved { from, to });
            let judged = Happened::Judged {
                request,
                answers,
                delivered,
            };
            self.note_at(site, None, judged);
        }
    }

    async fn head(&self, site: usize) -> Position {
        let followed = self.sites[site].store.follow(Cursor::default(), 0).await;
        followed.unwrap().head
    }
}
