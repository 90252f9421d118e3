//! The steps of those who merge, each by itself: any of them may be the last.

use conga_core::merge::{Action, Event, Room};
use conga_core::partition::{CampaignRequest, GiveUp, Late, MergeRequest, Merged, Piece, ReceiveRequest, Received};
use conga_core::term::{Campaign, Reign, Role};

use super::World;
use crate::LOCK_US;
use crate::op::Fate;
use crate::output::{found, open, processed};

const TIMEOUT_US: u64 = 2_000;
const WINDOW: usize = 12;
/// How much is kept of a partition, and of how many the place is known.
const ROOM: Room = Room { count: 5, bytes: 9 };
const PLACES: usize = 20;

impl World {
    pub(super) fn campaign(&mut self, who: usize) {
        let merger = &mut self.mergers[who];
        let request = CampaignRequest {
            owner: merger.owner.clone(),
            role: Role::Leader,
            lock_us: LOCK_US,
        };
        match self.base.campaign(self.now, &request) {
            Campaign::Leader { term } => merger.step(Event::Elected { term }),
            Campaign::Standby { .. } => {
                merger.step(Event::Deposed);
                merger.wish = None;
            }
        }
    }

    /// Whether all that there is was read.
    pub(super) fn read(&mut self, who: usize, partition: usize, max: usize) -> bool {
        let (merger, part) = (&mut self.mergers[who], &mut self.parts[partition]);
        let request = CampaignRequest {
            owner: merger.owner.clone(),
            role: Role::Consumer,
            lock_us: LOCK_US,
        };
        match part.campaign(self.now, &request) {
            Campaign::Leader { term } => {
                let reign = Reign {
                    owner: merger.owner.clone(),
                    term,
                };
                if merger.reigns[partition].as_ref() != Some(&reign) {
                    merger.reigns[partition] = Some(reign);
                    merger.step(Event::Lost { partition });
                }
            }
            // It may believe that it still is: then it is fenced.
            Campaign::Standby { .. } => {}
        }
        let done = merger.machine.acknowledge(partition);
        let acknowledged = done.map_or(0, |(_, count)| count);
        let (held, head) = (merger.machine.held(partition), merger.machine.head());
        let is_sought = merger.machine.is_sought_in(partition);
        let max = if is_sought {
            max
        } else {
            max.min(WINDOW.saturating_sub(held))
        };
        let glimpses = is_sought && held >= PLACES;
        if merger.glimpsed[partition].0 != head || held == 0 {
            merger.glimpsed[partition] = (head, 0);
        }
        let beyond = if glimpses { merger.glimpsed[partition].1 } else { 0 };
        let request = ReceiveRequest {
            reign: merger.reigns[partition].clone(),
            acknowledge: done.map(|(position, _)| position),
            skip: held - acknowledged + beyond,
            max,
        };
        let Received::Outputs(outputs) = part.receive(&request) else {
            merger.step(Event::Lost { partition });
            return false;
        };
        if let Some((position, _)) = done {
            merger.step(Event::Acknowledged { partition, position });
        }
        let all = outputs.len() < max;
        let outputs: Vec<_> = outputs.into_iter().map(found).collect();
        let room = ROOM;
        if glimpses {
            merger.glimpsed[partition].1 += outputs.len();
            merger.step(Event::Glimpsed {
                partition,
                outputs,
                room,
            });
        } else {
            merger.step(Event::Read {
                partition,
                outputs,
                room,
            });
        }
        assert!(merger.machine.bytes(partition) <= ROOM.bytes + PLACES, "it is bounded");
        if let Some(partition) = merger.machine.again() {
            merger.step(Event::Lost { partition });
        }
        all
    }

    pub(super) fn merge(&mut self, who: usize, fate: Fate) {
        let merger = &mut self.mergers[who];
        let Some(Action::Merge {
            term,
            head,
            count,
            is_missing,
            give_up,
            ..
        }) = merger.wish.take()
        else {
            return;
        };
        let tombstones = (0..give_up as u64).map(|nth| open(head.plus(nth)));
        let request = MergeRequest {
            term,
            head,
            late: merger
                .machine
                .late()
                .map(|(position, output)| Late {
                    position,
                    reason: "late".to_owned(),
                    output: String::from_utf8(output.to_vec()).expect("text"),
                })
                .collect(),
            pieces: merger
                .machine
                .ready(count)
                .map(|(position, is_dead, _)| match (is_dead, self.deliver_dead) {
                    (false, _) => Piece::Result(processed(position)),
                    (true, true) => Piece::Tombstone(processed(position)),
                    (true, false) => Piece::Nothing,
                })
                .collect(),
            is_missing,
            give_up: (give_up > 0).then(|| GiveUp {
                after_us: TIMEOUT_US,
                tombstones: tombstones.collect(),
            }),
        };
        if matches!(fate, Fate::Dropped) {
            return merger.step(Event::Unknown);
        }
        let answer = self.base.merge(self.now, &request);
        if give_up > 0
            && let Merged::Advanced {
                head: after, missing, ..
            } = answer
        {
            for number in head.0..after.0 {
                let overdue = missing.expect("it is missing") + TIMEOUT_US;
                let came = self.came.get(&number);
                assert!(
                    came.is_none_or(|came| *came >= overdue),
                    "{number} had come at {came:?}"
                );
                self.given_up.insert(number);
            }
        }
        let merger = &mut self.mergers[who];
        if let (Fate::Answered, Merged::Advanced { head, missing, .. }) = (fate, answer) {
            merger.missing = missing.map(|since| (head, since));
        }
        merger.step(match (fate, answer) {
            (Fate::Unheard | Fate::Dropped, _) => Event::Unknown,
            (_, Merged::Advanced { head, .. }) => Event::Merged { head },
            (_, Merged::Moved { head }) => Event::Moved { head },
            (_, Merged::Fenced { .. }) => Event::Deposed,
        });
        if matches!(answer, Merged::Fenced { .. }) {
            merger.wish = None;
        }
    }

    /// As a service does when a number is missing for long enough.
    pub(super) fn prove(&mut self, who: usize) {
        let merger = &mut self.mergers[who];
        let missing = merger
            .missing
            .filter(|(head, since)| Some(*head) == merger.machine.missing() && self.now.since(*since) >= TIMEOUT_US);
        let Some((head, _)) = missing.filter(|_| self.gives_up) else {
            merger.ends = None;
            return;
        };
        let status: Vec<_> = self.parts.iter().map(|part| part.status(self.now)).collect();
        let ends = match merger.ends.take() {
            Some((of, ends)) if of == head => ends,
            _ => status.iter().map(|status| status.next.plus(status.waiting)).collect(),
        };
        for partition in merger.machine.doubts() {
            if status[partition].head >= ends[partition] && self.read(who, partition, 100) {
                self.mergers[who].step(Event::Proved { partition, head });
            }
        }
        self.mergers[who].ends = Some((head, ends));
    }
}
