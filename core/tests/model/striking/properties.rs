//! What must hold in every state, and what must be met with.

use conga_core::lifecycle::State as Place;
use conga_core::partition::{ALONE_FROM, OnDead};
use stateright::Property;

use super::state::State;
use super::{Action, Line};
use crate::shared::hash;

/// So many steps are enough from anywhere, with no death but by poison.
const STEPS: usize = 200;

pub(super) fn all(line: &Line) -> Vec<Property<Line>> {
    let mut all = vec![
        always("order", is_in_order),
        always("poison", |line, state| {
            state
                .outputs
                .iter()
                .all(|(position, is_result)| !is_result || !line.kills(*position))
        }),
        always("alone", is_alone),
        always("halt", |line, state| {
            let halts = line.on_dead == OnDead::Halt;
            state.given_up.iter().all(|position| {
                let is_out = state.outputs.iter().any(|(at, _)| at == position);
                !halts || is_out || state.place(*position) == Some(Place::Halted)
            })
        }),
        always("progress", moves_on),
        sometimes("all came out after every death", |line, state| {
            (state.crashes, state.losses, state.leaves) == (line.crashes, line.losses, line.leaves)
                && state.is_done(line)
        }),
        sometimes("an innocent is blamed", |line, state| {
            holds(state).any(|has| has.crashes > 0 && !line.kills(has.position))
        }),
        sometimes("a poison is to be alone", |line, state| {
            holds(state).any(|has| has.crashes >= ALONE_FROM && line.kills(has.position))
        }),
        sometimes("a poison is given up", |line, state| {
            state.given_up.iter().any(|position| line.kills(*position))
        }),
    ];
    // For a poison beside it it is blamed until it is alone, and then for nobody but who dies by chance.
    if line.max_crashes > ALONE_FROM + u32::from(line.crashes) {
        all.push(always("innocent", no_innocent_is_given_up));
    } else {
        all.push(sometimes("an innocent is given up", |line, state| {
            !no_innocent_is_given_up(line, state)
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

fn holds(state: &State) -> impl Iterator<Item = &super::state::Has> {
    state.processors.iter().flat_map(|(_, holds)| holds)
}

/// Each comes out in its place, once: with its result, or its tombstone where it was given up. So nothing is lost either.
fn is_in_order(line: &Line, state: &State) -> bool {
    let mut each = (1..).zip(&state.outputs);
    let is_right = each.all(|(place, (position, is_result)): (u64, &(u64, bool))| {
        place == *position && *is_result != state.given_up.contains(position)
    });
    let is_out = |position: &u64| state.place(*position) == Some(Place::Delivered);
    let head = (1..=line.messages).take_while(is_out).count();
    is_right && head == state.outputs.len()
}

fn no_innocent_is_given_up(line: &Line, state: &State) -> bool {
    state.given_up.iter().all(|position| line.kills(*position))
}

fn is_alone(_: &Line, state: &State) -> bool {
    let alone = |(_, holds): &(Option<u8>, Vec<super::state::Has>)| {
        holds.len() < 2 || holds.iter().all(|has| has.crashes < ALONE_FROM)
    };
    state.processors.iter().all(alone)
}

/// Progress (G7): from here all comes out, if nobody dies but by poison. Each poison is given up, or the line halts at it.
fn moves_on(line: &Line, state: &State) -> bool {
    let (mut state, mut way, mut actions) = (state.clone(), Vec::new(), Vec::new());
    while !state.is_done(line) && !line.ways.leads_on(&state) {
        way.push(hash(&state));
        actions.clear();
        state.actions(line, &mut actions);
        let next = (actions.iter())
            .filter(|action| {
                let is_fault = matches!(
                    action,
                    Action::Crash { .. } | Action::ClaimUnheard { .. } | Action::Leave { .. }
                );
                !is_fault
            })
            .map(|action| state.after(line, action))
            .find(|next| *next != state);
        match next {
            Some(next) if way.len() < STEPS => state = next,
            _ => return false,
        }
    }
    line.ways.keep(way);
    true
}
