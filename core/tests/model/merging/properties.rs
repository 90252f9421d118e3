//! What must hold in every state, and what must be met with.

use std::collections::BTreeSet;

use conga_core::lease::OwnerId;
use conga_core::message::{Body, Output};
use conga_core::partition::{CampaignRequest, Partition, ReceiveRequest, Shelf};
use conga_core::term::{Campaign, Reign, Role};
use stateright::Property;

use super::state::State;
use super::{Action, Line, PARTITIONS, head, home};
use crate::shared::hash;
use crate::{LEASE_US, NOW};

/// So many rounds without a fault are enough from anywhere.
const ROUNDS: usize = 12;

pub(super) fn all(line: &Line) -> Vec<Property<Line>> {
    let mut all = vec![
        always("order", |_, state| is_in_order(state)),
        always("loss", |_, state| nothing_is_lost(state)),
        always("once", |_, state| each_is_once(state)),
        always("fence", |_, state| !state.broken.contains("fence")),
        always("repeatable", |_, state| !state.broken.contains("repeatable")),
        always("gap", |_, state| !state.broken.contains("gap")),
        always("progress", moves_on),
        sometimes("all came out after every crash and loss", |line, state| {
            state.crashes == line.crashes
                && state.losses == line.losses
                && state.pauses == line.pauses
                && is_done(line, state)
        }),
    ];
    if line.gives_up && line.never.is_none() {
        all.push(sometimes("a number comes too late", |_, state| {
            !buried(&state.base).is_empty()
        }));
    }
    if line.crashes > 0 {
        all.push(sometimes("only the term stops a merge", |_, state| {
            let now = state.base.status(NOW);
            let mut wire = state.wire.iter();
            wire.any(|request| request.head == now.head && request.term < now.term)
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

/// All that is in the output, for a copy of it that is read by somebody else.
fn outputs(store: &Partition) -> Vec<Output> {
    let mut copy = store.clone();
    let owner = OwnerId::new("reader");
    let request = CampaignRequest {
        owner: owner.clone(),
        role: Role::Consumer,
        lock_us: LEASE_US,
    };
    let Campaign::Leader { term } = copy.campaign(NOW + 2 * LEASE_US, &request) else {
        unreachable!("nobody's place lasts so long");
    };
    let all = ReceiveRequest {
        max: usize::MAX,
        reign: Some(Reign { owner, term }),
        ..ReceiveRequest::default()
    };
    let outputs = copy.receive(&all).outputs();
    outputs
        .iter()
        .map(|output| Output::parse(output).expect("an output"))
        .collect()
}

fn buried(base: &Partition) -> Vec<u64> {
    let rows = base.browse(Shelf::Dead).rows;
    rows.iter()
        .map(|row| row.id.as_str().parse().expect("a number"))
        .collect()
}

/// All up to the head, each in its place.
fn is_in_order(state: &State) -> bool {
    let positions: Vec<u64> = outputs(&state.base)
        .iter()
        .map(|output| output.record.position.0)
        .collect();
    let should: Vec<u64> = (1..head(&state.base).0).collect();
    positions == should
}

/// What has come is in its partition still, or has come out, or is a dead letter.
fn nothing_is_lost(state: &State) -> bool {
    let mut there: BTreeSet<u64> = buried(&state.base).into_iter().collect();
    let results = outputs(&state.base).into_iter();
    let results = results.filter(|output| matches!(output.record.body, Body::Result(_)));
    there.extend(results.map(|output| output.record.position.0));
    let left = |number: &u64| {
        outputs(&state.parts[home(*number)])
            .iter()
            .any(|output| output.record.sequence == Some(*number))
    };
    state.came.iter().all(|number| there.contains(number) || left(number))
}

/// A number is a result that came, or a tombstone of one that was given up; and a dead letter only beside that, once.
fn each_is_once(state: &State) -> bool {
    let buried = buried(&state.base);
    let distinct: BTreeSet<_> = buried.iter().collect();
    let is_right = |output: &Output| {
        let number = output.record.position.0;
        match output.record.body {
            Body::Result(_) => state.came.contains(&number) && !buried.contains(&number),
            Body::Dead { .. } => state.given_up.contains(&number),
        }
    };
    distinct.len() == buried.len()
        && buried.iter().all(|number| state.given_up.contains(number))
        && outputs(&state.base).iter().all(is_right)
}

fn is_done(line: &Line, state: &State) -> bool {
    let stops = line.never.filter(|_| !line.gives_up).unwrap_or(line.last + 1);
    let is_out = head(&state.base).0 == stops;
    let is_read = |part: &crate::shared::Shared<Partition>| part.status(NOW).output == 0;
    line.numbers().all(|number| state.came.contains(&number)) && is_out && state.parts.iter().all(is_read)
}

/// Progress (G7): from here all comes out, if nothing more goes wrong and one merger is left alone.
fn moves_on(line: &Line, state: &State) -> bool {
    if !state.broken.is_empty() {
        return true;
    }
    let mut way = Vec::new();
    let mut state = state.clone();
    for number in line.numbers() {
        if !state.came.contains(&number) {
            state = state.after(line, &Action::Comes { number });
        }
    }
    for _ in 0..ROUNDS {
        if is_done(line, &state) || line.ways.leads_on(&state) {
            line.ways.keep(way);
            return true;
        }
        way.push(hash(&state));
        state = round(line, state);
    }
    false
}

/// Whoever leads, or else the first, does all that it can; what is dead ends.
fn round(line: &Line, mut state: State) -> State {
    let leader = state.base.status(NOW).leader;
    if leader.as_ref().is_some_and(|owner| !state.lives(owner)) {
        state = state.after(line, &Action::LockEnds);
    }
    for partition in 0..PARTITIONS {
        let consumer = state.parts[partition].status(NOW).consumer;
        // One that leads no more gives its place back.
        if consumer.is_some() && consumer != state.base.status(NOW).leader {
            let pauses = state.pauses;
            state = state.after(line, &Action::PlaceEnds { partition });
            state.pauses = pauses;
        }
    }
    let leads = |state: &State| {
        let leader = state.base.status(NOW).leader;
        (state.mergers.iter())
            .position(|merger| merger.owner.is_some() && merger.owner == leader)
            .unwrap_or(0)
    };
    let mut act = |make: &dyn Fn(usize) -> Action| {
        let by = leads(&state);
        state = state.after(line, &make(by));
    };
    act(&|by| Action::Campaign { by });
    for partition in 0..PARTITIONS {
        act(&|by| Action::Merge { by, heard: true });
        act(&|by| Action::Read {
            by,
            partition,
            heard: true,
        });
        act(&|by| Action::Merge { by, heard: true });
    }
    if line.gives_up {
        for partition in 0..PARTITIONS {
            let by = leads(&state);
            if state.mergers[by].is_sure() && state.mergers[by].machine.doubts().contains(&partition) {
                state = state.after(line, &Action::Prove { by, partition });
            }
        }
    }
    state
}
