//! Two who lead, or believe that they do.

use conga::core::invariant::Event;
use conga::core::lease::OwnerId;
use conga::core::partition::{Cursor, EmitRequest, Emitted, Processed, Ready};
use conga::core::sequencer::{Action, Event as News, Sequencer};
use conga::core::term::Campaign;
use conga::core::time::Micros;

use super::Driver;

/// A sequencer process: it believes what it was last told.
pub(super) struct Leader {
    pub(super) name: &'static str,
    sequencer: Sequencer<Processed>,
    cursor: Cursor,
    pub(super) wish: Option<EmitRequest>,
}

impl Leader {
    pub(super) fn new(name: &'static str) -> Self {
        Self {
            name,
            sequencer: Sequencer::new(16, 4),
            cursor: Cursor::default(),
            wish: None,
        }
    }

    fn hear(&mut self, now: Micros, news: News<Processed>) {
        match self.sequencer.step(news) {
            Action::Wait => {}
            Action::Follow => self.cursor = Cursor::default(),
            Action::Emit { term, head, count } => {
                let ready = self.sequencer.ready(count).cloned().map(|processed| Ready {
                    processed,
                    sequencing: now,
                });
                let entries = ready.collect();
                self.wish = Some(EmitRequest { term, head, entries });
            }
        }
    }
}

impl Driver {
    pub(super) async fn campaign(&mut self, leader: usize, lock_us: u64) {
        let name = self.leaders[leader].name;
        let mut answer = self.pair.lead(name, lock_us).await;
        if self.random.chance(10) {
            answer = self.pair.lead(name, lock_us).await;
        }
        let news = match answer {
            Campaign::Leader { term } => {
                if term != self.term {
                    self.term = term;
                    let owner = OwnerId::new(name);
                    self.history.push(Event::Elected { term, owner });
                }
                News::Elected { term }
            }
            // Some do not hear that they lead no longer.
            Campaign::Standby { .. } if self.random.chance(50) => return,
            Campaign::Standby { .. } => News::Deposed,
        };
        self.leaders[leader].hear(self.pair.now(), news);
    }

    pub(super) async fn follow(&mut self, leader: usize) {
        let leader = &mut self.leaders[leader];
        let followed = self.pair.follow(leader.cursor, 5).await;
        leader.hear(followed.now, News::Head { head: followed.head });
        for ticket in followed.entries {
            leader.cursor = ticket.cursor;
            let position = ticket.position;
            leader.hear(followed.now, News::Processed { position, ticket });
        }
    }

    /// Carries out the leader's last wish; with `lost` the reply is lost and it asks again.
    pub(super) async fn emit(&mut self, leader: usize, lost: bool) {
        let Some(wish) = self.leaders[leader].wish.take() else {
            return;
        };
        let mut answer = self.emit_once(&wish).await;
        if lost {
            let counted = matches!(answer, Emitted::Advanced { .. });
            answer = self.emit_once(&wish).await;
            assert!(
                !counted || matches!(answer, Emitted::Moved { .. }),
                "said again: {answer:?}"
            );
        }
        let now = self.pair.now();
        let leader = &mut self.leaders[leader];
        match answer {
            Emitted::Advanced { head } => leader.hear(now, News::Emitted { head }),
            Emitted::Fenced { .. } => leader.hear(now, News::Deposed),
            Emitted::Moved { head } => {
                leader.cursor = Cursor::default();
                leader.hear(now, News::Reload);
                leader.hear(now, News::Head { head });
            }
        }
    }

    pub(super) async fn emit_once(&mut self, wish: &EmitRequest) -> Emitted {
        let answer = self.pair.emit(wish).await;
        self.history.push(Event::Emitted {
            term: wish.term,
            from: wish.head,
            to: wish.head.plus(wish.entries.len() as u64),
            accepted: matches!(answer, Emitted::Advanced { .. }),
        });
        answer
    }
}
