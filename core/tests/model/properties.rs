//! What must hold in every state, and what must be met with, so that it does not hold for want of trouble.

use conga_core::lifecycle::State as Place;
use conga_core::partition::Flow;
use conga_core::shape::Order;
use stateright::Property;

use crate::action::Action;
use crate::line::{Delivery, Line};
use crate::shared::hash;
use crate::state::{Emitting, Request, State};
use crate::step::Step;

/// So many steps without a fault are enough to deliver everything from anywhere.
const STEPS: usize = 40;

pub(crate) fn all(line: &Line) -> Vec<Property<Line>> {
    let mut all = vec![
        always("order", |_, state| !state.broken.contains("order")),
        always("loss", |_, state| !state.broken.contains("loss")),
        always("duplicate", |_, state| !state.broken.contains("duplicate")),
        always("record", |_, state| !state.broken.contains("record")),
        always("lease", |_, state| !state.broken.contains("lease")),
        always("fence", |_, state| !state.broken.contains("fence")),
        always("bound", |_, state| !state.broken.contains("bound")),
        always("flow", |_, state| !state.broken.contains("flow")),
        always("serial", |_, state| !state.broken.contains("serial")),
        always("lifecycle", |_, state| !state.broken.contains("lifecycle")),
        always("repeatable", |_, state| !state.broken.contains("repeatable")),
        always("halt", |_, state| !state.broken.contains("halt")),
        always("progress", moves_on),
        sometimes("all came out after every crash and pause", |line, state| {
            state.crashes == line.crashes && state.pauses == line.pauses && state.is_done(line)
        }),
    ];
    // Where nothing goes wrong nothing is late.
    if line.crashes + line.losses + line.pauses > 0 {
        all.push(sometimes("only the lease stops a result", only_the_lease));
    }
    if line.controls > 0 {
        all.push(sometimes("the line is paused while something waits", |line, state| {
            state.store.status(crate::NOW).control.flow == Flow::Paused && !state.is_done(line)
        }));
    }
    if line.order == (Order::Key { serial: true }) {
        all.push(sometimes("something is held back", |line, state| {
            line.positions()
                .any(|position| state.store.state(position) == Some(Place::Parked))
        }));
    } else if line.order != Order::Total
        && line
            .positions()
            .skip(1)
            .any(|position| line.before(position).next().is_none())
    {
        all.push(sometimes("something is delivered beyond the head", |line, state| {
            let head = state.head(line);
            line.positions()
                .any(|position| position > head && state.store.state(position) == Some(Place::Delivered))
        }));
    }
    if line.sequencers > 0 {
        all.push(sometimes("only the term stops an emit", |line, state| {
            emits(state).any(|emit| emit.head == state.head(line) && emit.term < state.witness.term())
        }));
        all.push(sometimes("only the head stops an emit", |line, state| {
            emits(state).any(|emit| emit.head < state.head(line) && emit.term == state.witness.term())
        }));
    }
    match line.delivery {
        Delivery::Leader => {}
        // With nobody to leave anything, nothing is left, not for a moment.
        Delivery::Store => all.push(always("at once", |line, state| !state.is_ready(line))),
        Delivery::Mixed => all.push(sometimes("the head is left to somebody else", |line, state| {
            state.is_ready(line)
        })),
    }
    let may_wait = match line.order {
        Order::Total => true,
        // Of those that are processed one after the other none is done too early.
        Order::Key { serial } => !serial && line.positions().any(|position| line.before(position).next().is_some()),
        Order::None => false,
    };
    if line.delivery != Delivery::Leader && line.messages.len() > 1 && line.window > 1 && may_wait {
        all.push(sometimes("something waits behind a gap", |line, state| {
            !state.is_ready(line)
                && line
                    .positions()
                    .any(|position| matches!(state.store.state(position), Some(Place::Processed | Place::Dead)))
        }));
    }
    all
}

fn always(name: &'static str, condition: fn(&Line, &State) -> bool) -> Property<Line> {
    Property::always(name, condition)
}

fn sometimes(name: &'static str, condition: fn(&Line, &State) -> bool) -> Property<Line> {
    Property::sometimes(name, condition)
}

/// Emits that may still arrive.
fn emits(state: &State) -> impl Iterator<Item = &conga_core::partition::EmitRequest> {
    let lost = state.wire.iter().filter_map(|request| match request {
        Request::Emit(emit) => Some(&**emit),
        _ => None,
    });
    let sent = state
        .sequencers
        .iter()
        .filter_map(|sequencer| match &sequencer.emitting {
            Some(Emitting::Sent(emit)) => Some(&**emit),
            _ => None,
        });
    lost.chain(sent)
}

/// A result is on its way for a message that somebody else has by now.
fn only_the_lease(_: &Line, state: &State) -> bool {
    state.wire.iter().any(|request| match request {
        Request::Complete { owner, held, .. } => {
            state.store.state(held.position) == Some(Place::Leased)
                && !state
                    .leased_to(owner)
                    .iter()
                    .any(|claim| claim.position == held.position)
        }
        _ => false,
    })
}

/// Progress (G7): from here all comes out, if nothing more goes wrong.
fn moves_on(line: &Line, state: &State) -> bool {
    if !state.broken.is_empty() {
        return true;
    }
    let mut state = state.clone();
    let mut way = Vec::new();
    let mut actions = Vec::new();
    while !state.is_done(line) && !line.ways.leads_on(&state) {
        way.push(hash(&state));
        actions.clear();
        state.actions(line, &mut actions);
        let next = actions
            .iter()
            .filter(|action| action.is_healthy(&state))
            .find_map(|action| quietly(line, &state, action));
        match next {
            Some(next) if way.len() < STEPS => state = next,
            _ => return false,
        }
    }
    line.ways.keep(way);
    true
}

/// Takes a step that is judged elsewhere. `None` if it changes nothing.
fn quietly(line: &Line, state: &State, action: &Action) -> Option<State> {
    let mut step = Step::new(line, state);
    step.judges = false;
    step.take(action);
    let next = step.finish();
    (next != *state).then_some(next)
}
