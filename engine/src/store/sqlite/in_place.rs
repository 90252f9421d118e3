//! Complete where not all messages keep their order: what is done goes out wherever it stands. The rules are those of
//! core's `partition/in_place.rs`.

use conga_core::lease::{Held, OwnerId};
use conga_core::message::{Position, Record, finish, write_open};
use conga_core::partition::{Completed, Completion, OnDead};
use conga_core::shape::Order;
use conga_core::time::Micros;
use rusqlite::{OptionalExtension, params};

use super::complete::{bury, has_result, insert};
use super::convert::{self, Stored, int, position_at};
use super::leases::Leases;
use super::sql::sql;
use super::step::{LineRow, Step};
use super::waiting::Waiting;

/// When a message is due that waits for another of its key.
pub(super) const PARKED: i64 = i64::MAX;
/// And when one at which the line is halted.
pub(super) const HALTED: i64 = i64::MAX - 1;

/// What came of a batch.
pub(super) struct Ended {
    pub(super) answers: Vec<Completed>,
    /// Something went out.
    pub(super) delivered: bool,
    /// Something may be claimed that was held back.
    pub(super) freed: bool,
}

/// The first of a key that is not done, and whether it is held back.
pub(super) fn first_of(step: &Step<'_>, key: &[u8]) -> rusqlite::Result<Option<(Position, bool)>> {
    step.prepare(sql!("in_place.sql", "first"))?
        .query_row(params![step.line, key], |row| {
            let due: Option<i64> = row.get(1)?;
            Ok((position_at(row, 0)?, due == Some(PARKED)))
        })
        .optional()
}

pub(super) fn complete(
    step: &Step<'_>,
    line: LineRow,
    owner: &OwnerId,
    completions: &[Completion],
) -> rusqlite::Result<Ended> {
    let mut ends = InPlace::open(step, line, Leases::read(step, owner, completions)?)?;
    let mut answers = Vec::with_capacity(completions.len());
    for completion in completions {
        ends.cursor += 1;
        let ended = ends.end(completion)?;
        answers.push(if ended { Completed::Accepted } else { Completed::Stale });
    }
    let (delivered, freed) = ends.close()?;
    Ok(Ended {
        answers,
        delivered,
        freed,
    })
}

/// Has a line go on past messages that a person has given up, with their tombstones or with nothing in their places. Whether
/// anything may be claimed that was held back.
pub(super) fn pass(
    step: &Step<'_>,
    line: LineRow,
    given_up: Vec<(Position, Option<(String, Micros)>)>,
) -> rusqlite::Result<bool> {
    let mut ends = InPlace::open(step, line, Leases::none(step))?;
    for (position, tombstone) in given_up {
        ends.pass(position, tombstone)?;
    }
    ends.close().map(|(_, freed)| freed)
}

struct InPlace<'a, 'b> {
    step: &'a Step<'b>,
    line: LineRow,
    order: Order,
    leases: Leases<'a, 'b>,
    undelivered: u64,
    /// Of the completion that ends.
    cursor: u64,
    /// Outputs stand in the order in which they go out.
    next_place: i64,
    /// How an output ends that is processed and delivered by this step.
    end: String,
    delivered: Vec<Position>,
    freed: bool,
}

impl<'a, 'b> InPlace<'a, 'b> {
    fn open(step: &'a Step<'b>, line: LineRow, leases: Leases<'a, 'b>) -> rusqlite::Result<Self> {
        let last: Option<i64> = step
            .prepare(sql!("in_place.sql", "last_output"))?
            .query_row([step.place(Position::FIRST), step.place(Position(u64::MAX))], |row| {
                row.get(0)
            })?;
        let mut end = String::new();
        finish(&mut end, step.now, step.now, step.now);
        Ok(Self {
            step,
            order: line.shape.unwrap_or_default().order,
            leases,
            undelivered: line.undelivered(),
            cursor: line.cursor,
            next_place: last.map_or(step.place(Position::FIRST), |last| last + 1),
            line,
            end,
            delivered: Vec::new(),
            freed: false,
        })
    }

    fn end(&mut self, completion: &Completion) -> rusqlite::Result<bool> {
        let held = completion.held();
        let record = match completion {
            Completion::Retry { delay_us, .. } => return self.leases.give_back(held, *delay_us),
            Completion::Done(record) | Completion::Dead { tombstone: record, .. } => record,
        };
        if let Completion::Dead { tombstone, on_dead } = completion
            && *on_dead == OnDead::Halt
            && !has_result(self.step, tombstone)?
        {
            return self.halt(tombstone);
        }
        let key = self.key_of(held.position)?;
        if !self.leases.end(held)? {
            return Ok(false);
        }
        let mut is_turn = true;
        if let Some(key) = &key {
            // The rows of those that have ended are still there, and would count as not done.
            self.leases.close()?;
            is_turn = first_of(self.step, key)?.is_none_or(|(first, _)| first > held.position);
        }
        let key = key.as_deref();
        match completion {
            Completion::Dead { on_dead, .. } => self.dead(record, key, *on_dead == OnDead::Mark, is_turn)?,
            _ => self.done(record, key, is_turn)?,
        }
        if let (Some(key), true) = (key, is_turn) {
            self.deliver_queue(key)?;
        }
        Ok(true)
    }

    /// The line halts at a message. What of its key stands behind it waits, for this is not done.
    fn halt(&mut self, tombstone: &Record) -> rusqlite::Result<bool> {
        let held = Held {
            position: tombstone.position,
            attempt: tombstone.attempts,
        };
        if !self.leases.halt(held)? {
            return Ok(false);
        }
        self.line.dead += 1;
        bury(self.step, tombstone, self.cursor, Some(write_open(tombstone)))?;
        Ok(true)
    }

    /// A person has given up a message at which the line was halted: it has its turn, or waits for it.
    fn pass(&mut self, position: Position, tombstone: Option<(String, Micros)>) -> rusqlite::Result<()> {
        self.cursor += 1;
        let key = self.key_of(position)?;
        self.step
            .prepare(sql!("dead.sql", "let_go"))?
            .execute([self.step.line, int(position.0)])?;
        let first = key.as_ref().map(|key| first_of(self.step, key)).transpose()?.flatten();
        if first.is_some_and(|(first, _)| first < position) {
            let (open, died) = tombstone.unzip();
            return self.wait(position, key.as_deref(), None, open.as_deref(), died);
        }
        let now = self.step.now;
        let text = tombstone.map(|(mut open, died)| {
            finish(&mut open, died, now, now);
            open
        });
        self.put(position, text.as_deref())?;
        key.map_or(Ok(()), |key| self.deliver_queue(&key))
    }

    fn key_of(&self, position: Position) -> rusqlite::Result<Option<Vec<u8>>> {
        if self.order == Order::None {
            return Ok(None);
        }
        let mut key = self.step.prepare(sql!("in_place.sql", "key"))?;
        let found = key.query_row([self.step.line, int(position.0)], |row| row.get(0));
        Ok(found.optional()?.flatten())
    }

    fn done(&mut self, record: &Record, key: Option<&[u8]>, is_turn: bool) -> rusqlite::Result<()> {
        if !self.record(record, is_turn)? {
            return self.duplicate(record, key, is_turn);
        }
        if is_turn {
            let text = write_open(record) + &self.end;
            return self.put(record.position, Some(&text));
        }
        self.wait(record.position, key, Some(self.step.inserted()), None, None)
    }

    /// A dead letter; but where its id has a result, by another position, that stands.
    fn dead(&mut self, tombstone: &Record, key: Option<&[u8]>, deliver: bool, is_turn: bool) -> rusqlite::Result<()> {
        if self.recorded(tombstone)?.is_some() {
            return self.duplicate(tombstone, key, is_turn);
        }
        self.line.dead += 1;
        bury(self.step, tombstone, self.cursor, None)?;
        let open = deliver.then(|| write_open(tombstone));
        if is_turn {
            let text = open.map(|open| open + &self.end);
            return self.put(tombstone.position, text.as_deref());
        }
        let died = open.is_some().then_some(self.step.now);
        self.wait(tombstone.position, key, None, open.as_deref(), died)
    }

    /// What the record holds goes out where it was recorded, unless that is still to come, behind this in the same queue.
    fn duplicate(&mut self, record: &Record, key: Option<&[u8]>, is_turn: bool) -> rusqlite::Result<()> {
        let position = record.position;
        let taken = match self.recorded(record)? {
            Some((number, other, false, Some(of_other))) if position < other && key == Some(&of_other[..]) => {
                let mut take = self.step.prepare(sql!("in_place.sql", "take_over"))?;
                take.execute([number, int(position.0)])?;
                Some(number)
            }
            _ => None,
        };
        match (is_turn, taken) {
            (true, Some(number)) => {
                let mut stored = self.step.prepare(sql!("complete.sql", "stored"))?;
                let stored = stored.query_row([number], Stored::read)?;
                self.deliver(Waiting::recorded(position, stored))
            }
            (true, None) => self.put(position, None),
            (false, taken) => self.wait(position, key, taken, None, None),
        }
    }

    /// The row of an id: its number, its position, whether it is delivered, and in which queue it waits.
    #[expect(clippy::type_complexity, reason = "one row, read in one place")]
    fn recorded(&self, record: &Record) -> rusqlite::Result<Option<(i64, Position, bool, Option<Vec<u8>>)>> {
        self.step
            .prepare(sql!("in_place.sql", "recorded"))?
            .query_row(params![self.step.line, record.id.as_str()], |row| {
                Ok((row.get(0)?, position_at(row, 1)?, row.get(2)?, row.get(3)?))
            })
            .optional()
    }

    /// Records a result unless its id has one, maybe as delivered at once. Whether it did.
    fn record(&mut self, record: &Record, delivered: bool) -> rusqlite::Result<bool> {
        let mut statement = self.step.prepare(sql!("complete.sql", "record"))?;
        let inserted = insert(self.step, &mut statement, record, delivered)?;
        self.line.recorded += u64::from(inserted);
        Ok(inserted)
    }

    fn wait(
        &mut self,
        position: Position,
        key: Option<&[u8]>,
        record: Option<i64>,
        open: Option<&str>,
        died: Option<Micros>,
    ) -> rusqlite::Result<()> {
        self.line.processed += 1;
        let died = died.map(|died| int(died.0));
        self.step
            .prepare(sql!("in_place.sql", "append"))?
            .execute(params![
                self.step.line,
                int(self.cursor),
                int(position.0),
                record,
                open,
                died,
                key
            ])
            .map(drop)
    }

    /// Delivers what is done at the beginning of a queue, and lets go of what comes next, if it was held back.
    fn deliver_queue(&mut self, key: &[u8]) -> rusqlite::Result<()> {
        let first = first_of(self.step, key)?;
        let below = first.map_or(i64::MAX, |(position, _)| int(position.0));
        loop {
            let mut ready = self.step.prepare(sql!("in_place.sql", "ready"))?;
            let ready = ready
                .query_map(params![self.step.line, key, below], Waiting::read)?
                .collect::<rusqlite::Result<Vec<_>>>()?;
            if ready.is_empty() {
                break;
            }
            for waiting in ready {
                let mut remove = self.step.prepare(sql!("in_place.sql", "remove"))?;
                remove.execute([self.step.line, int(waiting.position.0)])?;
                self.line.processed = self.line.processed.saturating_sub(1);
                self.deliver(waiting)?;
            }
        }
        if let Some((position, true)) = first {
            let mut unpark = self.step.prepare(sql!("in_place.sql", "unpark"))?;
            unpark.execute([self.step.line, int(position.0)])?;
            self.freed = true;
        }
        Ok(())
    }

    fn deliver(&mut self, waiting: Waiting) -> rusqlite::Result<()> {
        let now = self.step.now;
        if let Some(stored) = waiting.own() {
            let mut delivered = self.step.prepare(sql!("emit.sql", "delivered"))?;
            delivered.execute([stored.number, int(now.0), int(now.0)])?;
        }
        let position = waiting.position;
        self.put(position, waiting.output(now, now).as_deref())
    }

    /// Appends the output of a message, if it has one.
    fn put(&mut self, position: Position, text: Option<&str>) -> rusqlite::Result<()> {
        if let Some(text) = text {
            let mut output = self.step.prepare(sql!("emit.sql", "deliver"))?;
            output.execute(params![self.next_place, text])?;
            self.next_place += 1;
            self.line.output += 1;
        }
        self.delivered.push(position);
        Ok(())
    }

    /// Removes what is delivered from the input, moves the head over it, and writes the line's row.
    fn close(mut self) -> rusqlite::Result<(bool, bool)> {
        let step = self.step;
        self.leases.close()?;
        let delivered = !self.delivered.is_empty();
        self.delivered.sort_unstable();
        for run in self.delivered.chunk_by(|one, next| one.next() == *next) {
            let places = [step.place(run[0]), step.place(run[run.len() - 1].next())];
            step.prepare(sql!("emit.sql", "forget"))?.execute(places)?;
        }
        if delivered {
            self.line.head = step
                .prepare(sql!("in_place.sql", "head"))?
                .query_row([step.line], |row| {
                    let (flying, waiting): (Option<i64>, Option<i64>) = (row.get(0)?, row.get(1)?);
                    let lowest = flying.into_iter().chain(waiting).min();
                    Ok(lowest.map(convert::uint).map(Position))
                })?
                .unwrap_or(self.line.next);
            let undelivered = self.undelivered - self.delivered.len() as u64;
            self.line.in_place = self.line.next.past(self.line.head) - undelivered;
            step.prepare(sql!("in_place.sql", "save"))?
                .execute([step.line, int(self.line.in_place)])?;
        }
        self.line.cursor = self.cursor;
        step.save(&self.line)?;
        Ok((delivered, self.freed))
    }
}
