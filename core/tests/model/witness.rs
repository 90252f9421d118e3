//! What an observer remembers in order to judge the next step, and its judgement: by the core's own oracles.
//!
//! A whole history would make every state different. Of what fences, only the latest of each kind matters.

use std::collections::BTreeMap;

use conga_core::invariant::{Event, Violation, bound, duplicate, fence, loss, order};
use conga_core::lease::{Attempt, Held, OwnerId};
use conga_core::lifecycle::State as Place;
use conga_core::message::{Body, Entry, Id, Output, Position};
use conga_core::partition::{Claim, EmitRequest, Flow, Partition, Shelf};
use conga_core::shape::Order;
use conga_core::term::Term;

use crate::NOW;
use crate::line::Line;
use crate::state::head;
use crate::step::Step;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Witness {
    reign: Option<(Term, OwnerId)>,
    /// The latest claim of each message, by position.
    claims: Vec<Option<Seen>>,
    /// The system of record as it was.
    records: BTreeMap<Id, Output>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Seen {
    attempt: Attempt,
    /// `None` once the lease is over: by a completion that counted if `ended`, else because it was free again.
    owner: Option<OwnerId>,
    ended: bool,
}

impl Witness {
    pub(crate) fn new(line: &Line) -> Self {
        Self {
            reign: None,
            claims: vec![None; line.messages.len()],
            records: BTreeMap::new(),
        }
    }

    /// The newest term that was ever given.
    pub(crate) fn term(&self) -> Term {
        self.reign.as_ref().map_or(Term::default(), |(term, _)| *term)
    }

    fn seen(&mut self, position: Position) -> &mut Option<Seen> {
        &mut self.claims[index(position)]
    }

    /// The lease of a message is over.
    fn let_go(&mut self, position: Position, ended: bool) {
        if let Some(seen) = self.seen(position) {
            seen.owner = None;
            seen.ended |= ended;
        }
    }

    /// What is remembered of a message, as it happened.
    fn of_message(&self, position: Position) -> Vec<Event> {
        let Some(seen) = self.claims[index(position)].clone() else {
            return Vec::new();
        };
        let owner = seen.owner.unwrap_or_else(|| OwnerId::new("nobody"));
        let mut events = vec![claimed(position, seen.attempt, &owner)];
        if seen.ended {
            events.push(completed(position, seen.attempt, &owner));
        }
        events
    }
}

fn index(position: Position) -> usize {
    usize::try_from(position.0 - 1).expect("few messages")
}

fn claimed(position: Position, attempt: Attempt, owner: &OwnerId) -> Event {
    Event::Claimed {
        position,
        attempt,
        owner: owner.clone(),
        at: NOW,
    }
}

fn completed(position: Position, attempt: Attempt, owner: &OwnerId) -> Event {
    Event::Completed {
        position,
        attempt,
        owner: owner.clone(),
        accepted: true,
    }
}

impl Step<'_> {
    fn blame(&mut self, property: &'static str, found: &[Violation]) {
        if !found.is_empty() {
            self.state.broken.insert(property);
        }
    }

    fn must(&mut self, property: &'static str, holds: bool) {
        if !holds {
            self.state.broken.insert(property);
        }
    }

    pub(crate) fn judge_claims(&mut self, before: &Partition, owner: &OwnerId, claims: &[Claim]) {
        self.judge_moves(before, true);
        let window = Event::Window { size: self.line.window };
        let head = Event::Head {
            position: head(before, self.line),
        };
        let (mut history, mut flying) = (Vec::new(), vec![head, window]);
        for position in self.line.positions() {
            // What is free again has nobody's lease from now on.
            if self.state.store.state(position) == Some(Place::Waiting) {
                self.state.witness.edit(|witness| witness.let_go(position, false));
            }
            let events = self.state.witness.of_message(position);
            // Where not all keep their order, some that stand beyond the head are delivered.
            if before.state(position) != Some(Place::Delivered) {
                flying.extend(events.clone());
            }
            history.extend(events);
        }
        let flow = before.status(NOW).control.flow;
        for claim in claims {
            let event = claimed(claim.position, claim.attempt, owner);
            history.push(event.clone());
            flying.push(event);
            let is_new = claim.attempt == Attempt(1);
            let may_flow = flow == Flow::Running || (flow == Flow::Draining && !is_new);
            self.must("flow", may_flow || was_parked(before, claim));
            let is_delivered = |earlier| self.state.store.state(earlier) == Some(Place::Delivered);
            let is_its_turn = self.line.before(claim.position).all(is_delivered);
            self.must("serial", self.line.order != Order::Key { serial: true } || is_its_turn);
            let sent = self.line.message(claim.position);
            let is_what_was_sent = sent.is_some_and(|sent| claim.entry == Entry::Whole(sent.entry.clone()));
            self.must("order", is_what_was_sent);
        }
        self.blame("bound", &bound::check(&flying));
        self.blame("lease", &fence::check(&history));
        self.state.witness.edit(|witness| {
            for claim in claims {
                *witness.seen(claim.position) = Some(Seen {
                    attempt: claim.attempt,
                    owner: Some(owner.clone()),
                    ended: false,
                });
            }
        });
    }

    /// Judges a completion that counted.
    pub(crate) fn judge_completed(&mut self, before: &Partition, owner: &OwnerId, held: Held) {
        self.judge_moves(before, false);
        let mut history = self.state.witness.of_message(held.position);
        history.push(completed(held.position, held.attempt, owner));
        self.blame("lease", &fence::check(&history));
        let is_over = self.state.store.state(held.position) != Some(Place::Delayed);
        self.state
            .witness
            .edit(|witness| witness.let_go(held.position, is_over));
        self.judge_records();
    }

    /// Judges what a person's word has done. A message that is to be tried again may be claimed again.
    pub(crate) fn judge_verdict(&mut self, before: &Partition, position: Position) {
        self.judge_moves(before, false);
        if self.state.store.state(position) == Some(Place::Waiting) {
            self.state.witness.edit(|witness| {
                if let Some(seen) = witness.seen(position) {
                    seen.ended = false;
                }
            });
        }
        self.judge_records();
    }

    pub(crate) fn judge_elected(&mut self, term: Term, owner: &OwnerId) {
        let now = Some((term, owner.clone()));
        let before = self.state.witness.reign.clone();
        if before == now {
            return;
        }
        let reigns = [before, now.clone()];
        let history: Vec<_> = reigns
            .into_iter()
            .flatten()
            .map(|(term, owner)| Event::Elected { term, owner })
            .collect();
        self.blame("fence", &fence::check(&history));
        self.state.witness.edit(|witness| witness.reign = now);
    }

    /// Judges an emit that counted.
    pub(crate) fn judge_emitted(&mut self, before: &Partition, emit: &EmitRequest) {
        self.judge_moves(before, false);
        let emitted = |term, from, to| Event::Emitted {
            term,
            from,
            to,
            accepted: true,
        };
        let mut history = vec![emitted(Term::default(), Position::FIRST, head(before, self.line))];
        let reign = self.state.witness.reign.clone();
        history.extend(reign.map(|(term, owner)| Event::Elected { term, owner }));
        history.push(emitted(emit.term, emit.head, emit.head.plus(emit.entries.len() as u64)));
        self.blame("fence", &fence::check(&history));
    }

    /// A record, once written, stands.
    pub(crate) fn judge_records(&mut self) {
        let now = records(&self.state.store);
        let earlier = &self.state.witness.records;
        let stands = |(id, record): (&Id, &Output)| now.get(id).is_some_and(|now| is_same(now, record));
        let all_stand = earlier.iter().all(stands);
        self.must("record", all_stand);
        self.state.witness.edit(|witness| witness.records = now);
        self.judge_outputs();
    }

    /// Judges all that has come out so far, and the record beside it.
    fn judge_outputs(&mut self) {
        let mut history: Vec<_> = self.line.messages.iter().map(|message| sent(&message.id)).collect();
        for output in self.state.outputs.iter() {
            history.push(Event::Delivered {
                position: output.record.position,
                id: output.record.id.clone(),
                at: NOW,
                dead: matches!(output.record.body, Body::Dead { .. }),
            });
        }
        let records = &self.state.witness.records;
        for (id, record) in records {
            let (id, position) = (id.clone(), record.record.position);
            history.push(Event::Recorded { id, position });
        }
        let dead = self.state.store.browse(Shelf::Dead).rows;
        history.extend(dead.into_iter().map(|row| Event::DeadLetter { id: row.id }));
        for (position, message) in self.line.positions().zip(&self.line.messages) {
            match self.state.store.state(position) {
                Some(Place::Delivered) => {}
                Some(_) => history.push(Event::Left { id: message.id.clone() }),
                None => return self.must("loss", false),
            }
        }
        // Nothing comes out before all that stands before it.
        let is_past = |output: &Output| self.state.store.state(output.record.position) == Some(Place::Delivered);
        let all_are_past = self.state.outputs.iter().all(is_past);
        let is_recorded = |output: &Output| match output.record.body {
            Body::Dead { .. } => true,
            Body::Result(_) => records
                .get(&output.record.id)
                .is_some_and(|row| row.record == output.record),
        };
        let all_are = self.state.outputs.iter().all(is_recorded);
        self.must("record", all_are);
        self.must("order", all_are_past);
        let key = |position, _: &Id| self.line.message(position).and_then(|message| message.key);
        let disorder = match self.line.order {
            Order::Total => order::check(&history),
            Order::Key { .. } => order::check_by(&history, key),
            Order::None => Vec::new(),
        };
        self.blame("order", &disorder);
        self.blame("loss", &loss::check(&history));
        self.blame("duplicate", &duplicate::check(&history));
    }

    /// Judges what the store has delivered by itself, and how the step said so.
    pub(crate) fn judge_delivered(&mut self, before: &Partition, said: bool) {
        self.judge_moves(before, false);
        let moved = head(before, self.line) < self.state.head(self.line);
        self.must("repeatable", moved == said && (moved || *before == *self.state.store));
    }

    /// Every message has made one legal move at most; in a claim, what was free may have been leased in the same step.
    fn judge_moves(&mut self, before: &Partition, claims: bool) {
        for position in self.line.positions() {
            let legal = match (before.state(position), self.state.store.state(position)) {
                (Some(was), Some(is)) => {
                    let by_way_of_free = was.may_become(Place::Waiting) && Place::Waiting.may_become(is);
                    // In place it is done and delivered in one step.
                    let in_place = self.line.order != Order::Total;
                    let at_once = in_place && was.may_become(Place::Processed) && is == Place::Delivered;
                    was == is || was.may_become(is) || (claims && by_way_of_free) || at_once
                }
                _ => false,
            };
            self.must("lifecycle", legal);
        }
    }
}

/// Whether this was held back behind another one of its key when the line began to drain: it goes out all the same.
fn was_parked(before: &Partition, claim: &Claim) -> bool {
    let status = before.status(NOW);
    status.control.flow == Flow::Draining && claim.position < status.next
}

fn sent(id: &Id) -> Event {
    Event::Sent {
        id: id.clone(),
        at: NOW,
    }
}

/// The system of record.
fn records(store: &Partition) -> BTreeMap<Id, Output> {
    let rows = store.browse(Shelf::Record).rows;
    let read = |row: conga_core::partition::Row| (row.id, Output::parse(&row.json).expect("a row"));
    rows.into_iter().map(read).collect()
}

/// Whether a record says the same as before. Its position may become an earlier one, as long as it is not delivered.
fn is_same(now: &Output, before: &Output) -> bool {
    now.record.body == before.record.body
        && now.record.attempts == before.record.attempts
        && now.record.position <= before.record.position
        && (before.sequenced.is_none() || now == before)
}
