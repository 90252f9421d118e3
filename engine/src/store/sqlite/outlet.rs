//! The outlet: what has its turn goes out of it, within one step, be it the leader's or the store's own.

use conga_core::message::{Position, finish};
use conga_core::time::Micros;
use rusqlite::{CachedStatement, params};

use super::convert::int;
use super::sql::sql;
use super::step::{LineRow, Step};
use super::waiting::Waiting;

/// A step delivers what waited only up to so many messages and bytes, so that it does not keep the lock, and what it
/// reads, for long. What is left is for the next step.
const MOST: u64 = 1_000;
const MOST_BYTES: usize = 8 << 20;
/// So many of them are read at once.
const AT_ONCE: u64 = 100;

/// The end of a line, open for one step. It holds the line's row, and writes it when it is closed.
pub(super) struct Outlet<'a, 'b> {
    step: &'a Step<'b>,
    pub(super) line: LineRow,
    /// Where the head was.
    first: Position,
    output: CachedStatement<'b>,
    /// How an output ends that is processed and delivered by this step: the times are the same for all of them.
    end: String,
    /// How many of what waited went out.
    waited: u64,
    bytes: usize,
    /// The head has moved since it was last seen that nothing waits there.
    unseen: bool,
    /// It has delivered as much as one step may of what waited.
    full: bool,
}

impl<'a, 'b> Outlet<'a, 'b> {
    pub(super) fn open(step: &'a Step<'b>) -> rusqlite::Result<Self> {
        let line = step.load()?;
        let mut end = String::new();
        finish(&mut end, step.now, step.now, step.now);
        Ok(Self {
            step,
            end,
            first: line.head,
            line,
            output: step.prepare(sql!("emit.sql", "deliver"))?,
            waited: 0,
            bytes: 0,
            unseen: true,
            full: false,
        })
    }

    /// Whether it is this position's turn, after all that waits before it.
    pub(super) fn is_turn_of(&mut self, position: Position) -> rusqlite::Result<bool> {
        if position > self.line.head {
            self.drain()?;
        }
        Ok(position == self.line.head)
    }

    /// Delivers what waits at the head without a gap.
    pub(super) fn drain(&mut self) -> rusqlite::Result<()> {
        while self.unseen && self.line.processed > 0 && !self.full {
            let (ready, may_be_more) = self.ready()?;
            for waiting in ready {
                self.deliver(waiting, self.step.now)?;
            }
            self.unseen = may_be_more;
            self.full = self.bytes >= MOST_BYTES || self.line.head.past(self.first) >= MOST;
        }
        Ok(())
    }

    /// What waits at the head without a gap, or some of it; and whether there may be more.
    fn ready(&self) -> rusqlite::Result<(Vec<Waiting>, bool)> {
        let mut statement = self.step.prepare(sql!("emit.sql", "ready"))?;
        let mut rows = statement.query(params![self.step.line, int(self.line.head.0), int(AT_ONCE)])?;
        let (mut ready, mut bytes) = (Vec::new(), self.bytes);
        while let Some(row) = rows.next()? {
            let waiting = Waiting::read(row)?;
            let count = ready.len() as u64;
            if waiting.position != self.line.head.plus(count) {
                return Ok((ready, false));
            }
            bytes += waiting.size();
            ready.push(waiting);
            if count + 1 == AT_ONCE || bytes >= MOST_BYTES {
                return Ok((ready, true));
            }
        }
        Ok((ready, false))
    }

    /// Delivers what waited.
    pub(super) fn deliver(&mut self, waiting: Waiting, sequencing: Micros) -> rusqlite::Result<()> {
        self.line.processed = self.line.processed.saturating_sub(1);
        self.waited += 1;
        self.pass(waiting, sequencing)
    }

    /// Delivers what is there already, but did not wait: the record's row is told when.
    pub(super) fn pass(&mut self, waiting: Waiting, sequencing: Micros) -> rusqlite::Result<()> {
        if let Some(stored) = waiting.own() {
            self.step.prepare(sql!("emit.sql", "delivered"))?.execute(params![
                stored.number,
                int(sequencing.0),
                int(self.step.now.0)
            ])?;
        }
        let text = waiting.output(sequencing, self.step.now);
        self.put(text.as_deref())
    }

    /// The same with an output that is processed and delivered by this step, and is written but for that.
    pub(super) fn put_open(&mut self, open: Option<String>) -> rusqlite::Result<()> {
        let text = open.map(|open| open + &self.end);
        self.put(text.as_deref())
    }

    /// Appends the output of the message at the head, if it has one, and moves the head on.
    fn put(&mut self, text: Option<&str>) -> rusqlite::Result<()> {
        if let Some(text) = text {
            self.output.execute(params![self.step.place(self.line.head), text])?;
            self.line.output += 1;
            self.bytes += text.len();
        }
        self.line.head = self.line.head.next();
        self.unseen = true;
        Ok(())
    }

    /// Where the head was when it was opened.
    pub(super) fn first(&self) -> Position {
        self.first
    }

    /// Whether anything was delivered.
    pub(super) fn has_delivered(&self) -> bool {
        self.line.head > self.first
    }

    /// Whether more may be ready than one step delivers.
    pub(super) fn is_full(&self) -> bool {
        self.full
    }

    /// Removes what is delivered, and writes the line's row.
    pub(super) fn close(self) -> rusqlite::Result<()> {
        let step = self.step;
        if self.has_delivered() {
            step.prepare(sql!("emit.sql", "forget"))?
                .execute([step.place(self.first), step.place(self.line.head)])?;
        }
        if self.waited > 0 {
            step.prepare(sql!("emit.sql", "remove"))?
                .execute([step.line, int(self.line.head.0)])?;
        }
        step.save(&self.line)
    }
}
