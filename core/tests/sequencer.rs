//! The sequencer against a naive one that keeps everything in a sorted map.

use std::collections::BTreeMap;

use conga_core::message::Position;
use conga_core::sequencer::{Action, Event, Sequencer};
use conga_core::term::Term;
use proptest::prelude::*;

/// What a sequencer should do, said as plainly as possible.
struct Naive {
    head: u64,
    kept: BTreeMap<u64, usize>,
    capacity: u64,
    batch: usize,
    term: Option<Term>,
    emitting: bool,
    missed: Option<u64>,
}

impl Naive {
    fn new(capacity: u64, batch: usize) -> Self {
        Self {
            head: 1,
            kept: BTreeMap::new(),
            capacity,
            batch,
            term: None,
            emitting: false,
            missed: None,
        }
    }

    fn ready(&self) -> Vec<usize> {
        (self.head..)
            .map_while(|position| self.kept.get(&position).copied())
            .take(self.batch)
            .collect()
    }

    fn fits(&self, position: u64) -> bool {
        position < self.head + self.capacity
    }

    fn step(&mut self, event: &Event<usize>) -> Action {
        match *event {
            Event::Elected { term } => {
                self.emitting &= self.term == Some(term);
                self.term = Some(term);
            }
            Event::Deposed => (self.term, self.emitting) = (None, false),
            Event::Head { head } => self.head = self.head.max(head.0),
            Event::Emitted { head } => {
                self.head = self.head.max(head.0);
                self.emitting = false;
            }
            Event::Processed { position, ticket } => {
                if self.fits(position.0) {
                    self.kept.insert(position.0, ticket);
                } else {
                    self.missed = Some(self.missed.unwrap_or(u64::MAX).min(position.0));
                }
            }
            Event::Reload => {
                self.kept.clear();
                (self.head, self.emitting, self.missed) = (1, false, None);
            }
        }
        self.kept.retain(|position, _| *position >= self.head);
        let (Some(term), false, count) = (self.term, self.emitting, self.ready().len()) else {
            return Action::Wait;
        };
        if count > 0 {
            self.emitting = true;
            let head = Position(self.head);
            return Action::Emit { term, head, count };
        }
        if self.missed.is_some_and(|missed| self.fits(missed)) {
            self.missed = None;
            return Action::Follow;
        }
        Action::Wait
    }
}

fn event() -> impl Strategy<Value = Event<usize>> {
    let position = || (1_u64..40).prop_map(Position);
    prop_oneof![
        12 => position().prop_map(|position| Event::Processed { position, ticket: 0 }),
        3 => position().prop_map(|head| Event::Emitted { head }),
        2 => (1_u64..5).prop_map(|term| Event::Elected { term: Term(term) }),
        1 => position().prop_map(|head| Event::Head { head }),
        1 => Just(Event::Deposed),
        1 => Just(Event::Reload),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn it_does_what_the_naive_one_does(
        events in prop::collection::vec(event(), 1..200),
        capacity in 1_usize..12,
        batch in 1_usize..6,
    ) {
        let mut sequencer = Sequencer::new(capacity, batch);
        let mut naive = Naive::new(capacity as u64, batch);
        for (ticket, mut event) in events.into_iter().enumerate() {
            if let Event::Processed { ticket: blank, .. } = &mut event {
                *blank = ticket;
            }
            let expected = naive.step(&event);
            prop_assert_eq!(sequencer.step(event.clone()), expected, "{:?}", event);
            prop_assert_eq!(sequencer.ready(batch).copied().collect::<Vec<_>>(), naive.ready());
            prop_assert_eq!(sequencer.head(), Position(naive.head));
            prop_assert!(sequencer.span() <= capacity, "the window bounds the memory");
        }
    }

    /// Whatever order they come in, whatever is lost and read again: they leave in order, each once, all of them.
    #[test]
    fn all_leave_in_order_when_its_wishes_are_carried_out(
        stream in Just((1_u64..=60).collect::<Vec<_>>()).prop_shuffle(),
        troubles in prop::collection::vec(0_u8..12, 60),
        capacity in 1_usize..20,
        batch in 1_usize..8,
    ) {
        let mut sequencer = Sequencer::new(capacity, batch);
        let mut out: Vec<u64> = Vec::new();
        let mut term = Term(1);
        // What the store shows to who follows from the beginning: all that is processed and not delivered.
        let mut shown: Vec<u64> = Vec::new();
        let mut to_read: Vec<u64> = Vec::new();
        let mut actions = vec![sequencer.step(Event::Elected { term })];
        for (position, trouble) in stream.into_iter().zip(troubles.into_iter().chain(std::iter::repeat(11))) {
            shown.push(position);
            to_read.push(position);
            match trouble {
                0 => {
                    sequencer.step(Event::Reload);
                    // Whoever reads anew is told the head first.
                    let head = Position(out.len() as u64 + 1);
                    actions.push(sequencer.step(Event::Head { head }));
                    to_read.clone_from(&shown);
                }
                1 => {
                    sequencer.step(Event::Deposed);
                    term = term.next();
                    actions.push(sequencer.step(Event::Elected { term }));
                }
                2 => to_read.extend_from_within(..),
                _ => {}
            }
            loop {
                match actions.pop() {
                    Some(Action::Emit { term: under, head, count }) => {
                        let head_now = out.len() as u64 + 1;
                        if under != term || head.0 != head_now {
                            // Refused: what it knows is out of date.
                            sequencer.step(Event::Reload);
                            actions.push(sequencer.step(Event::Head { head: Position(head_now) }));
                            to_read.clone_from(&shown);
                            continue;
                        }
                        let tickets: Vec<u64> = sequencer.ready(count).copied().collect();
                        prop_assert_eq!(tickets.len(), count);
                        shown.retain(|position| !tickets.contains(position));
                        out.extend(tickets);
                        actions.push(sequencer.step(Event::Emitted { head: Position(out.len() as u64 + 1) }));
                    }
                    Some(Action::Follow) => to_read.clone_from(&shown),
                    Some(Action::Wait) => {}
                    None if to_read.is_empty() => break,
                    None => {
                        let position = to_read.remove(0);
                        actions.push(sequencer.step(Event::Processed { position: Position(position), ticket: position }));
                    }
                }
            }
        }
        prop_assert_eq!(out, (1..=60).collect::<Vec<_>>());
    }
}
