//! The sequencers' side of a step: what carries out the actions of [`conga_core::sequencer`].

use std::sync::Arc;

use conga_core::message::Position;
use conga_core::partition::{Cursor, EmitRequest, Emitted, Followed, Ready};
use conga_core::sequencer::{Action, Event};
use conga_core::term::Campaign;

use crate::line::Flaw;
use crate::state::{Emitting, Request};
use crate::step::Step;

impl Step<'_> {
    /// Who is only told that another leads has left no trace, and so needs no name yet.
    pub(crate) fn campaign(&mut self, by: usize) {
        let mut names = self.state.names;
        let owner = self.state.sequencers[by]
            .owner
            .clone()
            .unwrap_or_else(|| names.sequencer());
        match self.call_campaign(&owner) {
            Campaign::Leader { term } => {
                self.state.names = names;
                self.state.sequencers[by].edit(|sequencer| sequencer.owner = Some(owner));
                if self.state.sequencers[by].machine.term() != Some(term) {
                    self.rewind(by);
                    self.hear(by, Event::Elected { term });
                }
            }
            Campaign::Standby { .. } => self.depose(by),
        }
    }

    pub(crate) fn depose(&mut self, by: usize) {
        if self.state.sequencers[by].machine.term().is_some() {
            self.hear(by, Event::Deposed);
        }
    }

    pub(crate) fn follow(&mut self, by: usize) {
        let known = self.state.sequencers[by].machine.head();
        let followed = self.call_follow(self.state.sequencers[by].cursor);
        if !self.line.late {
            self.read(by, known, followed);
        } else if !followed.entries.is_empty() || followed.head > known {
            self.state.sequencers[by].edit(|sequencer| sequencer.following = Some((known, followed)));
        }
    }

    pub(crate) fn hear_followed(&mut self, by: usize) {
        let following = self.state.sequencers[by].edit(|sequencer| sequencer.following.take());
        if let Some((known, followed)) = following {
            self.read(by, known, followed);
        }
    }

    fn read(&mut self, by: usize, known: Position, followed: Followed) {
        if followed.head < known {
            self.reload(by);
            return;
        }
        let newest = followed.entries.iter().map(|entry| entry.cursor).max();
        self.state.sequencers[by].edit(|sequencer| sequencer.cursor = sequencer.cursor.max(newest.unwrap_or_default()));
        self.hear(by, Event::Head { head: followed.head });
        for processed in followed.entries {
            let event = Event::Processed {
                position: processed.position,
                ticket: Ready {
                    processed,
                    sequencing: followed.now,
                },
            };
            self.hear(by, event);
        }
    }

    pub(crate) fn emit(&mut self, by: usize) {
        let Some(Emitting::Sent(emit)) = self.take_emitting(by) else {
            return;
        };
        let emitted = self.call_emit(&emit);
        if self.line.late {
            let answered = Emitting::Answered(emit.head, emitted);
            self.state.sequencers[by].edit(|sequencer| sequencer.emitting = Some(answered));
        } else {
            self.emitted(by, emitted);
        }
    }

    pub(crate) fn hear_emitted(&mut self, by: usize) {
        if let Some(Emitting::Answered(_, emitted)) = self.take_emitting(by) {
            self.emitted(by, emitted);
        }
    }

    fn emitted(&mut self, by: usize, emitted: Emitted) {
        match emitted {
            Emitted::Advanced { head } => self.hear(by, Event::Emitted { head }),
            Emitted::Moved { .. } => self.reload(by),
            Emitted::Fenced { .. } => {
                self.depose(by);
                self.reload(by);
            }
        }
    }

    pub(crate) fn emit_unanswered(&mut self, by: usize) {
        let Some(Emitting::Sent(emit)) = self.take_emitting(by) else {
            return;
        };
        self.state.losses += 1;
        self.state.leave(Request::Emit(emit));
        if !self.line.has(Flaw::NoReload) {
            self.reload(by);
        }
    }

    fn reload(&mut self, by: usize) {
        self.rewind(by);
        self.hear(by, Event::Reload);
    }

    fn rewind(&mut self, by: usize) {
        self.state.sequencers[by].edit(|sequencer| {
            sequencer.cursor = Cursor::default();
            sequencer.following = None;
        });
    }

    /// Hands an event to the machine, and does what it says.
    fn hear(&mut self, by: usize, event: Event<Ready>) {
        let action = self.state.sequencers[by].edit(|sequencer| sequencer.machine.step(event));
        match action {
            Action::Wait => {}
            Action::Follow => self.rewind(by),
            Action::Emit { term, head, count } => {
                let emit = EmitRequest {
                    term,
                    head,
                    entries: self.state.sequencers[by].machine.ready(count).cloned().collect(),
                };
                let sent = Emitting::Sent(Arc::new(emit));
                let earlier = self.state.sequencers[by].edit(|sequencer| sequencer.emitting.replace(sent));
                if let Some(Emitting::Sent(earlier)) = earlier {
                    self.state.leave(Request::Emit(earlier));
                }
            }
        }
    }

    fn take_emitting(&mut self, by: usize) -> Option<Emitting> {
        self.state.sequencers[by].edit(|sequencer| sequencer.emitting.take())
    }
}
