//! What a step does: the mergers' side of it, and what the base and the partitions make of their calls.

use std::sync::Arc;

use bytes::Bytes;
use conga_core::lease::{Attempt, OwnerId};
use conga_core::merge::{Action as Wish, Event, Found, Merge, Room};
use conga_core::message::{Body, Id, Output, Payload, Position, Record, write_open};
use conga_core::partition::{
    CampaignRequest, ClaimRequest, Completion, GiveUp, Late, Limits, MergeRequest, Merged, Partition, Piece,
    ReceiveRequest, Received,
};
use conga_core::term::{Campaign, Reign, Role};
use conga_core::time::Micros;

use super::state::{Merger, State};
use super::{Action, Flaw, Line, head, home};
use crate::shared::Shared;
use crate::{LEASE_US, NOW};

/// A lease ago.
const THEN: Micros = Micros(NOW.0 - LEASE_US);

impl State {
    pub(super) fn after(&self, line: &Line, action: &Action) -> State {
        let mut state = self.clone();
        match *action {
            Action::Comes { number } => state.comes(number),
            Action::Campaign { by } => state.campaign(by),
            Action::Read { by, partition, heard } => {
                state.losses += u8::from(!heard);
                state.read(line, by, partition, heard);
            }
            Action::Merge { by, heard } => {
                state.losses += u8::from(!heard);
                let request = state.mergers[by].edit(|merger| merger.merging.take());
                if let Some(request) = request {
                    let answer = state.merge(line, &request);
                    state.mergers[by].edit(|merger| {
                        merger.missing = match answer {
                            Merged::Advanced { head, missing, .. } if heard => missing.map(|_| head),
                            _ => None,
                        };
                        merger.hear(heard_of(answer, heard));
                    });
                }
            }
            Action::MergeIsLost { by } => {
                state.losses += 1;
                let request = state.mergers[by].edit(|merger| merger.merging.take());
                state.leave(request);
                state.mergers[by].edit(|merger| merger.hear(Event::Unknown));
            }
            Action::Arrives { index } => {
                let request = state.wire.remove(index);
                state.merge(line, &request);
            }
            Action::Prove { by, partition } => {
                let missing = state.mergers[by].machine.missing();
                let is_read = line.has(Flaw::Unproved) || state.read(line, by, partition, true);
                if let Some(head) = missing.filter(|_| is_read) {
                    state.mergers[by].edit(|merger| merger.hear(Event::Proved { partition, head }));
                }
            }
            Action::Crash { by, leaves } => {
                state.crashes += 1;
                let request = state.mergers[by].merging.clone().filter(|_| leaves);
                state.leave(request);
                state.mergers[by] = Shared::new(Merger::new(line));
            }
            Action::LockEnds => {
                if let Some(owner) = state.base.status(NOW).leader {
                    state.pauses += u8::from(state.lives(&owner));
                    ask(&mut state.base, &owner, Role::Leader, THEN);
                }
            }
            Action::PlaceEnds { partition } => {
                if let Some(owner) = state.parts[partition].status(NOW).consumer {
                    state.pauses += u8::from(state.lives(&owner));
                    ask(&mut state.parts[partition], &owner, Role::Consumer, THEN);
                }
            }
        }
        state.mergers.sort_by_key(crate::shared::hash);
        state
    }

    fn leave(&mut self, request: Option<Arc<MergeRequest>>) {
        self.wire.extend(request);
        // The order on the wire means nothing.
        self.wire.sort_by_key(crate::shared::hash);
        self.wire.dedup();
    }

    fn comes(&mut self, number: u64) {
        self.came.insert(number);
        let owner = OwnerId::new("p");
        let request = ClaimRequest {
            owner: owner.clone(),
            max: 1,
            lease_us: LEASE_US,
            window: u64::MAX,
            below: None,
            limits: Limits::default(),
        };
        self.parts[home(number)].edit(|part| {
            part.send(&[Bytes::from(format!("{{\"sequence\":{number},\"payload\":0}}"))]);
            let claims = part.claim(NOW, &request);
            let done = claims
                .iter()
                .map(|claim| Completion::Done(record(claim.position, number)));
            part.complete(NOW, &owner, &done.collect::<Vec<_>>());
            part.deliver_ready(NOW);
        });
    }

    fn name(&mut self, by: usize) -> OwnerId {
        if self.mergers[by].owner.is_none() {
            self.names += 1;
            let owner = OwnerId::new(format!("m{}", self.names));
            self.mergers[by].edit(|merger| merger.owner = Some(owner));
        }
        self.mergers[by].owner.clone().expect("it has one")
    }

    /// Who is only told that another leads has left no trace, and so needs no name yet.
    fn campaign(&mut self, by: usize) {
        let before = self.clone();
        let owner = self.name(by);
        match ask(&mut self.base, &owner, Role::Leader, NOW) {
            Campaign::Leader { term } => self.mergers[by].edit(|merger| {
                if merger.term != Some(term) {
                    merger.merging = None;
                    merger.hear(Event::Elected { term });
                }
            }),
            Campaign::Standby { .. } if before.mergers[by].term.is_some() => self.depose(by),
            Campaign::Standby { .. } => *self = before,
        }
    }

    fn depose(&mut self, by: usize) {
        self.mergers[by].edit(|merger| {
            merger.merging = None;
            merger.hear(Event::Deposed);
        });
    }

    /// Whether all that there is was read.
    fn read(&mut self, line: &Line, by: usize, partition: usize, heard: bool) -> bool {
        let owner = self.name(by);
        let is_new = match ask(&mut self.parts[partition], &owner, Role::Consumer, NOW) {
            Campaign::Leader { term } => {
                let reign = Some(Reign { owner, term });
                let is_new = self.mergers[by].reigns[partition] != reign;
                self.mergers[by].edit(|merger| merger.reigns[partition] = reign);
                is_new
            }
            // It may believe that it still is: then it is fenced.
            Campaign::Standby { .. } => false,
        };
        if is_new {
            self.mergers[by].edit(|merger| merger.hear(Event::Lost { partition }));
        }
        let merger = &self.mergers[by];
        let held = merger.machine.held(partition);
        let mut done = merger.machine.acknowledge(partition);
        if line.has(Flaw::AcknowledgesAtOnce) {
            done = merger.machine.last(partition).map(|position| (position, held));
        }
        let request = ReceiveRequest {
            reign: merger.reigns[partition].clone(),
            acknowledge: done.map(|(position, _)| position),
            skip: held - done.map_or(0, |(_, count)| count),
            max: usize::MAX,
        };
        let received = self.parts[partition].edit(|part| part.receive(&request));
        self.mergers[by].edit(|merger| {
            let Received::Outputs(outputs) = received else {
                merger.reigns[partition] = None;
                merger.hear(Event::Lost { partition });
                return false;
            };
            if !heard {
                merger.hear(Event::Lost { partition });
                return false;
            }
            if let Some((position, _)) = done {
                merger.hear(Event::Acknowledged { partition, position });
            }
            let outputs = outputs.into_iter().map(found).collect();
            merger.hear(Event::Read {
                partition,
                outputs,
                room: Room::ALL,
            });
            true
        })
    }

    fn merge(&mut self, line: &Line, request: &MergeRequest) -> Merged {
        let mut request = request.clone();
        let (was, before) = (head(&self.base), self.base.status(NOW).missing);
        let (told, term) = (request.term, self.base.status(NOW).term);
        if line.has(Flaw::NoFence) {
            request.term = term;
        }
        if line.has(Flaw::NoHeadCheck) {
            request.head = was;
        }
        if line.has(Flaw::ForgetsThePassed) {
            request.late.clear();
        }
        let base = self.base.clone();
        let answer = self.base.edit(|base| base.merge(NOW, &request));
        let now = head(&self.base);
        if !matches!(answer, Merged::Advanced { .. }) && base != self.base {
            self.broken.insert("repeatable");
        }
        if matches!(answer, Merged::Advanced { .. }) && told != term {
            self.broken.insert("fence");
        }
        if request.give_up.is_some() {
            for number in was.0..now.0 {
                self.given_up.insert(number);
                if self.came_then.contains(&number) {
                    self.broken.insert("gap");
                }
            }
        }
        if before.is_none() || (request.give_up.is_none() && was < now) {
            self.came_then = match self.base.status(NOW).missing {
                Some(_) => self.came.clone(),
                None => self.came_then.split_off(&u64::MAX),
            };
        }
        answer
    }
}

fn ask(store: &mut Shared<Partition>, owner: &OwnerId, role: Role, now: Micros) -> Campaign {
    let request = CampaignRequest {
        owner: owner.clone(),
        role,
        lock_us: LEASE_US,
    };
    store.edit(|store| store.campaign(now, &request))
}

fn heard_of(answer: Merged, heard: bool) -> Event<Bytes> {
    match answer {
        _ if !heard => Event::Unknown,
        Merged::Advanced { head, .. } => Event::Merged { head },
        Merged::Moved { head } => Event::Moved { head },
        Merged::Fenced { .. } => Event::Deposed,
    }
}

fn record(position: Position, number: u64) -> Record {
    Record {
        position,
        id: Id::given(number.to_string()),
        sequence: Some(number),
        key: None,
        body: Body::Result(Payload::string("x")),
        attempts: Attempt(1),
        created: NOW,
        processing: NOW,
    }
}

fn found(output: Bytes) -> Found<Bytes> {
    let read = Output::parse(&output).expect("an output").record;
    Found {
        position: read.position,
        place: read.sequence.map(Position),
        is_dead: false,
        bytes: 0,
        ticket: output,
    }
}

/// What a merger sends for a wish of the rules.
pub(super) fn request(machine: &Merge<Bytes>, wish: Wish) -> MergeRequest {
    let Wish::Merge {
        term,
        head,
        count,
        late,
        is_missing,
        give_up,
    } = wish
    else {
        unreachable!("only a merge is asked for");
    };
    let result = |place: Position| format!("{},\"processed\":\"{NOW}\"", write_open(&record(place, place.0)));
    let tombstone = |nth: u64| {
        let place = head.plus(nth);
        let reason = "did not come".to_owned();
        write_open(&Record {
            body: Body::Dead { reason },
            ..record(place, place.0)
        })
    };
    MergeRequest {
        term,
        head,
        late: (machine.late().take(late))
            .map(|(position, output)| Late {
                position,
                reason: "late".to_owned(),
                output: String::from_utf8(output.to_vec()).expect("text"),
            })
            .collect(),
        pieces: (machine.ready(count))
            .map(|(place, ..)| Piece::Result(result(place)))
            .collect(),
        is_missing,
        give_up: (give_up > 0).then(|| GiveUp {
            after_us: 0,
            tombstones: (0..give_up as u64).map(tombstone).collect(),
        }),
    }
}
