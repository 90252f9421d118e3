//! Accounting at the end: where each message has gone.

use std::collections::BTreeMap;

use conga::core::invariant::Event;
use conga::core::message::{Body, Id, Output, Position, Record};
use conga::core::partition::OnDead;
use conga::core::shape::Order;

use super::{Accepted, Judge};
use crate::history::{DIED, Rest};
use crate::plan::{Fate, Parcel, name_of, number_of};

impl Judge {
    /// Each message is exactly one of: a result, dead, or a duplicate; and what says so says the same everywhere.
    pub(super) fn account(&mut self, rest: &Rest) {
        let end = Position(self.accepted.len() as u64 + 1);
        self.expect((rest.status.head, rest.status.next) == (end, end), || {
            format!("the line ends at {end}, and the status is {:?}", rest.status)
        });
        for (producer, parcels) in self.plan.parcels.clone().into_iter().enumerate() {
            // Of these each one is compared.
            if self.plan.numbering[producer] {
                continue;
            }
            for (_, parcel) in parcels {
                let Parcel::Named(batch) = parcel else { continue };
                for message in batch {
                    let entry = message.to_entry();
                    let is_there = self.accepted.iter().any(|accepted| accepted.entry == entry);
                    self.expect(is_there, || format!("{message:?} was never accepted"));
                }
            }
        }
        for (producer, numbers) in self.plan.numbering.clone().into_iter().enumerate() {
            if numbers {
                let accepted = self.numbered.remove(&name_of(producer)).unwrap_or_default();
                let left_out = self.left_out.remove(&producer).unwrap_or_default();
                let mut all = self.plan.messages(producer);
                let mut place = 0;
                all.retain(|_| {
                    place += 1;
                    !left_out.contains(&(place - 1))
                });
                self.expect(accepted == all, || {
                    format!("producer {producer} has sent {all:?}, and of it was accepted {accepted:?}")
                });
            }
        }
        let mut records = BTreeMap::new();
        for row in &rest.record {
            match Output::parse(&row.json) {
                Ok(output) => {
                    let position = output.record.position;
                    self.events.push(Event::Recorded {
                        id: row.id.clone(),
                        position,
                    });
                    let written = self.written_or_known(position);
                    self.expect(written.as_ref() == Some(&row.json), || {
                        format!("the record has {:?}, the output {written:?}", row.json)
                    });
                    self.result(&output);
                    records.insert(row.id.clone(), position);
                }
                Err(error) => self.wrong(format!("in the record: {error}")),
            }
        }
        let recorded: Vec<_> = records.values().copied().collect();
        self.last_stay(&recorded);
        self.all_written();
        let mut dead = BTreeMap::new();
        for row in &rest.dead {
            self.events.push(Event::DeadLetter { id: row.id.clone() });
            match serde_json::from_slice::<serde_json::Value>(&row.json) {
                Ok(letter) => {
                    let position = Position(letter["position"].as_u64().unwrap_or(0));
                    if dead.insert(position, letter).is_some() {
                        self.wrong(format!("two dead letters at position {position}"));
                    }
                }
                Err(error) => self.wrong(format!("a dead letter: {error}")),
            }
        }
        for index in 0..self.accepted.len() {
            self.account_for(index, &records, &dead);
        }
        let beyond: Vec<_> = self.written.range(end..).map(|(position, _)| *position).collect();
        self.expect(beyond.is_empty(), || format!("nobody sent {beyond:?}"));
    }

    fn account_for(
        &mut self,
        index: usize,
        records: &BTreeMap<Id, Position>,
        dead: &BTreeMap<Position, serde_json::Value>,
    ) {
        let position = Position(index as u64 + 1);
        let Accepted {
            entry,
            id,
            readable,
            key,
        } = &self.accepted[index];
        let number = number_of(&String::from_utf8_lossy(entry)).unwrap_or_default();
        let fate = readable.then(|| self.plan.fate(number));
        let marks = self.is_marked(position);
        let record = records.get(id);
        let output = self.written.get(&position);
        // An id keeps its first place, where both places have an order.
        let may_be_later = match self.plan.order {
            Order::Total => false,
            Order::Key { .. } => key.is_none(),
            Order::None => true,
        };
        let tombstone = output
            .and_then(|output| Output::parse(output).ok())
            .map(|output| output.record.body);
        let right = match (dead.get(&position), record, output) {
            // Somebody has sent it again or deleted it; the tombstone stays.
            (None, record, _) if self.taken_away.contains(&position) => {
                let is_marked = matches!(tombstone, Some(Body::Dead { .. }));
                let may_die = fate != Some(Fate::Succeeds) || self.given_up.contains_key(&position);
                record != Some(&position) && is_marked == marks && may_die
            }
            // Its record may be gone, or that of what it is a duplicate of, or be another's by now.
            (None, ..) if self.came_out(id, position) => true,
            // A result, or a duplicate of what came out before.
            (None, Some(recorded), output) => {
                (may_be_later || *recorded <= position) && (*recorded == position) == output.is_some()
            }
            // Dead; it may be sent again later and have a result at that place.
            (Some(letter), record, _) => {
                let attempts = letter["attempts"].as_u64().unwrap_or(0);
                let reason = letter["reason"].as_str().unwrap_or_default();
                let may_die = match fate {
                    _ if reason.starts_with(DIED) => self.may_be_given_up(position, reason),
                    None => true,
                    Some(Fate::Succeeds | Fate::Kills) => false,
                    Some(Fate::FailsForGood) => reason == "never",
                    Some(Fate::FailsAtFirst(_)) => reason == "not yet" && attempts >= u64::from(self.plan.max_attempts),
                    Some(Fate::PanicsAtFirst) => {
                        reason == "the handler panicked" && attempts >= u64::from(self.plan.max_attempts)
                    }
                };
                let marked = match &tombstone {
                    Some(Body::Dead { reason: said }) => marks && said == reason,
                    Some(Body::Result(_)) => false,
                    None => !marks,
                };
                may_die && marked && record != Some(&position)
            }
            (None, None, _) => false,
        };
        let never_ends_well = matches!(fate, None | Some(Fate::FailsForGood | Fate::Kills));
        if !right || (record == Some(&position) && never_ends_well) {
            let what = format!(
                "position {position} ({id}, {fate:?}): record {record:?}, dead {:?}, output {output:?}",
                dead.get(&position)
            );
            self.wrong(what);
        }
    }

    /// Whether the tombstone of what failed for good here is delivered.
    fn is_marked(&self, position: Position) -> bool {
        match self.plan.poison.on_dead {
            OnDead::Mark => true,
            OnDead::Skip => false,
            OnDead::Halt => self.passed_by.get(&position) == Some(&true),
        }
    }

    /// A result is the one of an attempt that counted, and of this message.
    fn result(&mut self, output: &Output) {
        let Record {
            position,
            id,
            body,
            attempts,
            created,
            processing,
            ..
        } = &output.record;
        let Body::Result(payload) = body else {
            return self.wrong(format!("a tombstone in the record: {output:?}"));
        };
        let same_id = |position: Position| {
            usize::try_from(position.0 - 1)
                .ok()
                .and_then(|index| self.accepted.get(index))
                .filter(|accepted| accepted.id == *id)
        };
        let counted = self
            .done
            .iter()
            .any(|held| held.attempt == *attempts && same_id(held.position).is_some());
        let number = same_id(*position).and_then(|accepted| number_of(&String::from_utf8_lossy(&accepted.entry)));
        let text = payload.text();
        let is_its_own = number.is_some_and(|number| text.starts_with(&format!("\"m{number} by ")));
        let is_this_attempts = text.ends_with(&format!("#{attempts}\""));
        let times = [
            Some(*created),
            Some(*processing),
            Some(output.processed),
            output.sequencing,
            output.sequenced,
        ];
        let in_time = times.is_sorted() && output.sequencing.is_some();
        self.expect(counted && is_its_own && is_this_attempts && in_time, || {
            format!("counted {counted}, own {is_its_own}, attempt's {is_this_attempts}, in time {in_time}: {output:?}")
        });
    }
}
