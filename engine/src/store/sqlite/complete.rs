//! Complete (law 2): the end of a lease, only for the one who still has it.

use std::collections::HashSet;

use conga_core::lease::{Held, OwnerId};
use conga_core::message::{Body, Position, Record, write_open};
use conga_core::partition::{Completed, Completion, OnDead};
use rusqlite::{CachedStatement, OptionalExtension, params};

use super::convert::{self, Stored, int, sequence};
use super::database::{Commit, Database};
use super::deliver::deliver_ready;
use super::in_place;
use super::leases::Leases;
use super::outlet::Outlet;
use super::sql::sql;
use super::step::Step;
use super::waiting::Waiting;
use crate::store::Result;
use crate::wake::Topic;

pub(super) fn complete(database: &mut Database, owner: &OwnerId, completions: &[Completion]) -> Result<Vec<Completed>> {
    if completions.is_empty() {
        deliver_ready(database);
        return Ok(Vec::new());
    }
    let delivers = database.delivers();
    let order = if delivers { order_of(completions) } else { None };
    let (answers, delivered, full, freed) = database.write(Commit::Synced, |step| {
        let mut ends = Ends::new(step, Leases::read(step, owner, completions)?, delivers)?;
        if !ends.outlet.line.is_total() {
            let ended = in_place::complete(step, ends.outlet.line, owner, completions)?;
            return Ok((ended.answers, ended.delivered, false, ended.freed));
        }
        let mut answers = vec![Completed::Stale; completions.len()];
        for turn in 0..completions.len() {
            let index = order.as_ref().map_or(turn, |order| order[turn]);
            answers[index] = ends.end(index as u64, &completions[index])?;
        }
        let (delivered, full) = ends.finish(completions.len() as u64)?;
        Ok((answers, delivered, full, false))
    })?;
    tell(database, completions, &answers, delivered, full);
    if freed {
        database.wake(Topic::Input);
    }
    Ok(answers)
}

/// Wakes whoever can go on now, and delivers what one step had to leave.
pub(super) fn tell(
    database: &mut Database,
    completions: &[Completion],
    answers: &[Completed],
    delivered: bool,
    full: bool,
) {
    let delivers = database.delivers();
    let accepted = |retry: bool| {
        completions.iter().zip(answers).any(|(completion, answer)| {
            *answer == Completed::Accepted && matches!(completion, Completion::Retry { .. }) == retry
        })
    };
    let (retried, processed) = (accepted(true), accepted(false));
    if delivered {
        database.wake_of_head();
    }
    if processed && !delivers {
        database.wake(Topic::Processed);
    }
    if retried {
        database.wake(Topic::Input);
    }
    if full {
        deliver_ready(database);
    }
}

/// By position, if it is not so already: then what follows the head does not have to wait for it. An id that is there
/// twice is recorded as it comes, so that such a batch stays as it is.
fn order_of(completions: &[Completion]) -> Option<Vec<usize>> {
    let position = |index: usize| completions[index].held().position;
    if (1..completions.len()).all(|index| position(index - 1) < position(index)) {
        return None;
    }
    let mut ids = HashSet::with_capacity(completions.len());
    let unlike = completions.iter().all(|completion| match completion {
        Completion::Done(record) | Completion::Dead { tombstone: record, .. } => ids.insert(record.id.as_str()),
        Completion::Retry { .. } => true,
    });
    let mut order: Vec<usize> = (0..completions.len()).collect();
    order.sort_by_key(|index| position(*index));
    unlike.then_some(order)
}

/// Many completions in one step, and what they add to the line's row.
pub(super) struct Ends<'a, 'b> {
    step: &'a Step<'b>,
    leases: Leases<'a, 'b>,
    record: CachedStatement<'b>,
    append: CachedStatement<'b>,
    outlet: Outlet<'a, 'b>,
    delivers: bool,
    /// The last cursor before this step.
    cursor: u64,
    /// The place in the batch of the one that ends: they follow each other by cursor as they came.
    index: u64,
    ended: bool,
}

impl<'a, 'b> Ends<'a, 'b> {
    pub(super) fn new(step: &'a Step<'b>, leases: Leases<'a, 'b>, delivers: bool) -> rusqlite::Result<Self> {
        let outlet = Outlet::open(step)?;
        Ok(Self {
            step,
            leases,
            record: step.prepare(sql!("complete.sql", "record"))?,
            append: step.prepare(sql!("complete.sql", "append"))?,
            cursor: outlet.line.cursor,
            outlet,
            delivers,
            index: 0,
            ended: false,
        })
    }

    /// Whether a message is still to be worked at: its lease is held, and its id has no result yet.
    pub(super) fn wants_result(&mut self, record: &Record) -> rusqlite::Result<bool> {
        let held = Held {
            position: record.position,
            attempt: record.attempts,
        };
        Ok(self.leases.is_held(held)? && !has_result(self.step, record)?)
    }

    pub(super) fn end(&mut self, index: u64, completion: &Completion) -> rusqlite::Result<Completed> {
        let halts = self.halts(completion)?;
        let ended = match completion {
            Completion::Retry { held, delay_us } => self.leases.give_back(*held, *delay_us)?,
            _ if halts => self.leases.halt(completion.held())?,
            _ => self.leases.end(completion.held())?,
        };
        if !ended {
            return Ok(Completed::Stale);
        }
        self.index = index;
        match completion {
            Completion::Done(record) => self.done(record)?,
            Completion::Dead { tombstone, .. } if halts => {
                self.ended = true;
                self.bury(tombstone, Some(write_open(tombstone)))?;
            }
            Completion::Dead { tombstone, on_dead } => self.dead(tombstone, *on_dead == OnDead::Mark)?,
            Completion::Retry { .. } => {}
        }
        Ok(Completed::Accepted)
    }

    /// Whether the line halts at a message, if its lease is still held. Where its id has a result, by another position, that
    /// stands.
    fn halts(&self, completion: &Completion) -> rusqlite::Result<bool> {
        match completion {
            Completion::Dead { tombstone, on_dead } if *on_dead == OnDead::Halt => {
                has_result(self.step, tombstone).map(|has| !has)
            }
            _ => Ok(false),
        }
    }

    /// A result: delivered at once if it is its turn, else it waits. What comes out is what the record holds, at the
    /// lowest position that has its id.
    fn done(&mut self, record: &Record) -> rusqlite::Result<()> {
        let position = record.position;
        if self.is_turn_of(position)? {
            return if self.record(record, true)? {
                self.outlet.put_open(Some(write_open(record)))
            } else {
                let number = self.recorded(record)?.map(|(number, _)| number);
                self.pass_recorded(position, number)
            };
        }
        let number = if self.record(record, false)? {
            Some(self.step.inserted())
        } else {
            let recorded = self.recorded(record)?.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
            self.waits_with(recorded)
        };
        self.append(position, number, None)
    }

    /// A dead letter; but where its id has a result, by another position, that stands.
    fn dead(&mut self, tombstone: &Record, deliver: bool) -> rusqlite::Result<()> {
        let position = tombstone.position;
        let is_turn = self.is_turn_of(position)?;
        let recorded = self.recorded(tombstone)?;
        if recorded.is_none() {
            self.bury(tombstone, None)?;
        }
        let open = (recorded.is_none() && deliver).then(|| write_open(tombstone));
        match (recorded, open) {
            (Some((number, _)), _) if is_turn => self.pass_recorded(position, Some(number)),
            (None, open) if is_turn => self.outlet.put_open(open),
            (recorded, open) => {
                let number = recorded.and_then(|recorded| self.waits_with(recorded));
                self.append(position, number, open.as_deref())
            }
        }
    }

    fn is_turn_of(&mut self, position: Position) -> rusqlite::Result<bool> {
        self.ended = true;
        Ok(self.delivers && self.outlet.is_turn_of(position)?)
    }

    /// Delivers what the record holds at the head, or nothing, if it belongs to a lower position.
    fn pass_recorded(&mut self, position: Position, number: Option<i64>) -> rusqlite::Result<()> {
        let stored = self
            .step
            .prepare(sql!("complete.sql", "stored"))?
            .query_row([number], Stored::read)?;
        self.outlet.pass(Waiting::recorded(position, stored), self.step.now)
    }

    /// Records a result unless its id has one, maybe as delivered at once. Whether it did.
    fn record(&mut self, record: &Record, delivered: bool) -> rusqlite::Result<bool> {
        let inserted = insert(self.step, &mut self.record, record, delivered)?;
        self.outlet.line.recorded += u64::from(inserted);
        Ok(inserted)
    }

    /// The record to ask for when it is its turn; none, where it was delivered before this step, and so may go meanwhile.
    fn waits_with(&self, (number, position): (i64, Position)) -> Option<i64> {
        (position >= self.outlet.first()).then_some(number)
    }

    /// The number of the row that holds the result of this id, and its place, if there is one. It moves to the lower
    /// position.
    fn recorded(&self, record: &Record) -> rusqlite::Result<Option<(i64, Position)>> {
        self.step
            .prepare(sql!("complete.sql", "recorded"))?
            .query_row(
                params![self.step.line, record.id.as_str(), int(record.position.0)],
                |row| Ok((row.get(0)?, convert::position_at(row, 1)?)),
            )
            .optional()
    }

    fn bury(&mut self, tombstone: &Record, open: Option<String>) -> rusqlite::Result<()> {
        self.outlet.line.dead += 1;
        bury(self.step, tombstone, self.cursor + 1 + self.index, open)
    }

    fn append(&mut self, position: Position, record: Option<i64>, open: Option<&str>) -> rusqlite::Result<()> {
        self.outlet.line.processed += 1;
        let died = open.is_some().then(|| int(self.step.now.0));
        self.append
            .execute(params![
                self.step.line,
                int(self.cursor + 1 + self.index),
                int(position.0),
                record,
                open,
                died
            ])
            .map(drop)
    }

    /// Delivers what is ready, if that is the store's to do, and writes the line's row. Whether anything was delivered,
    /// and whether there may be more.
    pub(super) fn finish(mut self, count: u64) -> rusqlite::Result<(bool, bool)> {
        self.leases.close()?;
        if self.delivers {
            self.outlet.drain()?;
        }
        self.outlet.line.cursor = self.cursor + count;
        let (delivered, full) = (self.outlet.has_delivered(), self.outlet.is_full());
        if delivered || self.ended {
            self.outlet.close()?;
        }
        Ok((delivered, full))
    }
}

/// Whether the id of a message has a result.
pub(super) fn has_result(step: &Step<'_>, record: &Record) -> rusqlite::Result<bool> {
    step.prepare(sql!("effect.sql", "has_result"))?
        .exists(params![step.line, record.id.as_str()])
}

/// Records a result by the statement `record`, unless its id has one. Whether it did.
pub(super) fn insert(
    step: &Step<'_>,
    statement: &mut CachedStatement<'_>,
    record: &Record,
    delivered: bool,
) -> rusqlite::Result<bool> {
    let (reason, payload) = convert::body(&record.body);
    let now = int(step.now.0);
    let inserted = statement.execute(params![
        step.line,
        record.id.as_str(),
        int(record.position.0),
        sequence(record.sequence),
        record.key,
        record.attempts.0,
        int(record.created.0),
        int(record.processing.0),
        now,
        delivered.then_some(now),
        reason,
        payload,
    ])?;
    Ok(inserted > 0)
}

/// Keeps a dead letter; `cursor` is its place among those, and `open` its tombstone if the line halts at it.
pub(super) fn bury(step: &Step<'_>, tombstone: &Record, cursor: u64, open: Option<String>) -> rusqlite::Result<()> {
    let reason = match &tombstone.body {
        Body::Dead { reason } => reason,
        Body::Result(_) => "",
    };
    step.prepare(sql!("complete.sql", "bury"))?
        .execute(params![
            step.line,
            int(tombstone.position.0),
            tombstone.id.as_str(),
            reason,
            tombstone.attempts.0,
            int(step.now.0),
            step.place(tombstone.position),
            int(cursor),
            open,
        ])
        .map(drop)
}
