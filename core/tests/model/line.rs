//! The line that is checked: how many of everything there are, what may go wrong, and how a message ends.

use std::fmt;

use bytes::Bytes;
use conga_core::lease::{Attempt, Held};
use conga_core::message::{Body, Entry, Format, Id, Payload, Position, Record, parse};
use conga_core::partition::{Completion, OnDead, Partition};
use conga_core::shape::{Order, Shape};
use stateright::{Model, Property};

use crate::action::Action;
use crate::state::State;
use crate::step::Step;
use crate::ways::Ways;
use crate::{NOW, properties};

/// A message that waits in the input from the start. One that came later could only be claimed later.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) entry: Bytes,
    pub(crate) id: Id,
    pub(crate) ending: Ending,
    pub(crate) key: Option<&'static str>,
}

/// What a handler comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// A result.
    Done,
    /// A failure for good, with a tombstone in the output or without.
    Dead { on_dead: OnDead },
    /// A failure for now at the first attempt, then a result.
    Retried,
    /// A failure for good at the first attempt, at which the line halts; where it is tried again, a result.
    Halted,
}

/// When a processor asks the store what it holds, in order to find what it does not know of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compare {
    /// Sooner or later, whatever happened.
    Again,
    /// Once after each lost reply to a claim.
    Once,
}

/// Who delivers what is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// The leading sequencer.
    Leader,
    /// The store, for every processor.
    Store,
    /// The store for the first processor, and not for the others: they leave it to whoever comes.
    Mixed,
}

/// A rule that is broken on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// The store takes an emit under any term.
    NoFence,
    /// The store takes an emit from any head.
    NoHeadCheck,
    /// The store takes a result from whoever sends it, as long as somebody has the lease.
    NoLeaseCheck,
    /// Claims run ahead of the head as far as they like.
    NoWindow,
    /// A lock that is taken does not begin a new term.
    SameTerm,
    /// A sequencer waits for the answer to its emit for as long as it lives.
    NoReload,
    /// The store delivers what waits, whether or not something before it is missing.
    PastAGap,
    /// The store delivers the result that it was given, whether or not the lease is still held.
    DeliversStale,
    /// What the store has delivered it does not take off: it comes out again.
    KeepsDelivered,
    /// A complete counts, and what is ready then is not delivered in the same step.
    HalfComplete,
    /// A renewal delivers nothing.
    HalfRenewal,
    /// The store takes a line by key for one without order.
    NoKeys,
    /// The store hands out a message though the one before it of its key is not done.
    NotSerial,
    /// The store hands out messages of a line that is paused.
    NoPause,
}

/// What is checked: its size, and what may go wrong in it.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) messages: Vec<Message>,
    pub(crate) processors: usize,
    pub(crate) sequencers: usize,
    pub(crate) delivery: Delivery,
    pub(crate) order: Order,
    /// How many messages a processor claims and holds at once.
    pub(crate) hands: usize,
    pub(crate) window: u64,
    /// How far from the head on a sequencer keeps what is processed.
    pub(crate) capacity: usize,
    /// How many processes may crash, in all.
    pub(crate) crashes: u8,
    /// How often the store may take the living for gone, or their lock for free, in all. The dead always.
    pub(crate) pauses: u8,
    /// How many calls may go unanswered, in all; those of the crashed come on top.
    pub(crate) losses: u8,
    /// How often a leader may stop by its own clock, in all.
    pub(crate) stops: u8,
    /// How often somebody may pause or drain the line, in all. It can always be resumed.
    pub(crate) controls: u8,
    /// Whether a sequencer may hear an answer later than the store gave it.
    pub(crate) late: bool,
    pub(crate) compare: Compare,
    pub(crate) flaw: Option<Flaw>,
    pub(crate) ways: Ways,
}

impl Line {
    /// Two processors and two sequencers with these messages, of which each is given by its id and its ending.
    pub(crate) fn new(messages: &[(&str, Ending)]) -> Self {
        let messages: Vec<_> = (1..)
            .zip(messages)
            .map(|(position, message)| read(position, *message, None))
            .collect();
        Self {
            processors: 2,
            sequencers: 2,
            delivery: Delivery::Leader,
            order: Order::Total,
            hands: 1,
            window: messages.len() as u64,
            capacity: messages.len(),
            crashes: 0,
            pauses: 0,
            losses: 0,
            stops: 0,
            controls: 0,
            late: false,
            compare: Compare::Again,
            flaw: None,
            ways: Ways::default(),
            messages,
        }
    }

    /// So many messages that end well.
    pub(crate) fn of(count: usize) -> Self {
        Self::new(
            &[
                ("a", Ending::Done),
                ("b", Ending::Done),
                ("c", Ending::Done),
                ("d", Ending::Done),
            ][..count],
        )
    }

    /// The same line, delivered by somebody else, with so many sequencers beside.
    pub(crate) fn delivered(self, delivery: Delivery, sequencers: usize) -> Self {
        Self {
            sequencers,
            delivery,
            ..self
        }
    }

    /// The same line in this order, with these keys, `-` for none. There the store delivers, and no sequencer is needed.
    pub(crate) fn in_order(mut self, order: Order, keys: &[&'static str]) -> Self {
        for (position, (message, key)) in (1..).zip(self.messages.iter_mut().zip(keys)) {
            let key = (*key != "-").then_some(*key);
            *message = read(position, (message.id.as_str(), message.ending), key);
        }
        Self { order, ..self }.delivered(Delivery::Store, 0)
    }

    /// The messages that have the same key and stand before this one.
    pub(crate) fn before(&self, position: Position) -> impl Iterator<Item = Position> {
        let key = self.message(position).and_then(|message| message.key);
        let is_by_key = matches!(self.order, Order::Key { .. }) && key.is_some();
        let all = self.positions().take_while(move |earlier| *earlier < position);
        all.filter(move |earlier| is_by_key && self.message(*earlier).is_some_and(|message| message.key == key))
    }

    /// Whether the store delivers for the processors in this place.
    pub(crate) fn delivers(&self, place: usize) -> bool {
        match self.delivery {
            Delivery::Leader => false,
            Delivery::Store => true,
            Delivery::Mixed => place == 0,
        }
    }

    pub(crate) fn has(&self, flaw: Flaw) -> bool {
        self.flaw == Some(flaw)
    }

    pub(crate) fn message(&self, position: Position) -> Option<&Message> {
        self.messages.get(usize::try_from(position.0).ok()?.checked_sub(1)?)
    }

    pub(crate) fn positions(&self) -> impl Iterator<Item = Position> + use<> {
        (1..=self.messages.len() as u64).map(Position)
    }

    /// How an attempt at a message ends. The result tells which attempt it was, and attempts have one owner each.
    pub(crate) fn completion(&self, held: Held) -> Completion {
        let message = self.message(held.position).expect("only what was sent is claimed");
        let mut record = Record {
            position: held.position,
            id: message.id.clone(),
            sequence: None,
            key: message.key.map(str::to_owned),
            body: Body::Result(Payload::string(&format!("{}/{}", held.position, held.attempt))),
            attempts: held.attempt,
            created: NOW,
            processing: NOW,
        };
        match message.ending {
            Ending::Retried if held.attempt == Attempt(1) => Completion::Retry {
                held,
                delay_us: crate::DELAY_US,
            },
            Ending::Halted if held.attempt == Attempt(1) => {
                record.body = Body::Dead {
                    reason: "planted".to_owned(),
                };
                Completion::Dead {
                    tombstone: record,
                    on_dead: OnDead::Halt,
                }
            }
            Ending::Dead { on_dead } => {
                record.body = Body::Dead {
                    reason: "planted".to_owned(),
                };
                Completion::Dead {
                    tombstone: record,
                    on_dead,
                }
            }
            Ending::Done | Ending::Retried | Ending::Halted => Completion::Done(record),
        }
    }
}

fn read(position: u64, (id, ending): (&str, Ending), key: Option<&'static str>) -> Message {
    let named = key.map_or_else(String::new, |key| format!("\"key\":\"{key}\","));
    let entry: Bytes = format!("{{\"id\":\"{id}\",{named}\"payload\":{position}}}").into();
    let whole = Entry::Whole(entry.clone());
    let input = parse(&whole, Position(position), Format::Any, u64::MAX).expect("an envelope");
    Message {
        entry,
        id: input.id,
        ending,
        key,
    }
}

impl Model for Line {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let mut partition = Partition::default();
        let entries: Vec<_> = self.messages.iter().map(|message| message.entry.clone()).collect();
        partition.send(&entries);
        let order = match self.order {
            Order::Key { .. } if self.has(Flaw::NoKeys) => Order::None,
            Order::Key { .. } if self.has(Flaw::NotSerial) => Order::Key { serial: false },
            order => order,
        };
        if order != Order::Total {
            partition.shape(Some(Shape::of(order)));
        }
        vec![State::new(self, partition)]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.broken.is_empty() {
            state.actions(self, actions);
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut step = Step::new(self, state);
        step.take(&action);
        let next = step.finish();
        (next != *state).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all(self)
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<_> = self.messages.iter().map(|message| message.id.as_str()).collect();
        write!(
            f,
            "{} order: messages {}, {} processors with {} hands{}, {}, window {}, {} crashes, {} pauses, {} losses, {} stops, \
             {} controls{}",
            self.order,
            ids.join(" "),
            self.processors,
            self.hands,
            match self.delivery {
                Delivery::Leader => "",
                Delivery::Store => " that have the store deliver",
                Delivery::Mixed => ", for one of which the store delivers",
            },
            match self.sequencers {
                0 => "no sequencer".to_owned(),
                some => format!("{some} sequencers that keep {}", self.capacity),
            },
            self.window,
            self.crashes,
            self.pauses,
            self.losses,
            self.stops,
            self.controls,
            if self.late { ", late answers" } else { "" },
        )
    }
}
