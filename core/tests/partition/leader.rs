//! Who emits: a sequencer process with all that it was told, and one that knows everything.

use conga_core::lease::OwnerId;
use conga_core::partition::{Cursor, EmitRequest, Partition, Processed, Ready};
use conga_core::sequencer::{Action, Event as News, Sequencer};
use conga_core::time::Micros;

/// A sequencer process: it believes what it was last told.
pub(crate) struct Leader {
    pub(crate) name: OwnerId,
    sequencer: Sequencer<Processed>,
    pub(crate) cursor: Cursor,
    pub(crate) wish: Option<EmitRequest>,
}

impl Leader {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: OwnerId::new(name),
            sequencer: Sequencer::new(16, 4),
            cursor: Cursor::default(),
            wish: None,
        }
    }

    pub(crate) fn hear(&mut self, now: Micros, news: News<Processed>) {
        match self.sequencer.step(news) {
            Action::Wait => {}
            Action::Follow => self.cursor = Cursor::default(),
            Action::Emit { term, head, count } => {
                let entries = self.sequencer.ready(count).cloned();
                self.wish = Some(EmitRequest {
                    term,
                    head,
                    entries: entries
                        .map(|processed| Ready {
                            processed,
                            sequencing: now,
                        })
                        .collect(),
                });
            }
        }
    }
}

/// What a leader would deliver who knows all there is, at once and under the current term.
pub(crate) fn best_emit(partition: &Partition, now: Micros) -> EmitRequest {
    let mut waiting = partition.follow(now, Cursor::default(), usize::MAX).entries;
    waiting.sort_by_key(|processed| processed.position);
    let status = partition.status(now);
    let dense = (status.head.0..)
        .zip(waiting)
        .take_while(|(at, next)| *at == next.position.0);
    EmitRequest {
        term: status.term,
        head: status.head,
        entries: dense
            .map(|(_, processed)| Ready {
                processed,
                sequencing: now,
            })
            .collect(),
    }
}
