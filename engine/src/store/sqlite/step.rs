//! A step on its way: a transaction, the time at which it happens, and the line's own row.

use conga_core::lease::OwnerId;
use conga_core::message::Position;
use conga_core::partition::{Bucket, Control, REACH, SET_BACK_US, TELL_EVERY_US};
use conga_core::shape::{Order, Shape};
use conga_core::term::{Lock, Reign, Role, Term};
use conga_core::time::Micros;
use rusqlite::{CachedStatement, Connection};

use super::control::control_at;
use super::convert::{int, micros_at, position_at, shape_at, uint_at};
use super::sql::sql;

/// Of a place, what is the position's: 280 trillion of them, in each of 32,767 lines.
const PLACE_BITS: u32 = 48;
const LAST_PLACE: u64 = (1 << PLACE_BITS) - 1;
pub(super) const LAST_LINE: i64 = (1 << (63 - PLACE_BITS)) - 1;

/// A step on its way: a transaction, and the time at which it happens.
pub(super) struct Step<'a> {
    pub(super) line: i64,
    pub(super) now: Micros,
    connection: &'a Connection,
}

/// The line's own row.
#[derive(Debug)]
pub(super) struct LineRow {
    pub(super) head: Position,
    pub(super) next: Position,
    pub(super) last: Position,
    pub(super) cursor: u64,
    pub(super) term: Term,
    pub(super) lock: Option<Lock>,
    pub(super) processed: u64,
    pub(super) output: u64,
    pub(super) recorded: u64,
    pub(super) dead: u64,
    /// The time when a deadline was last set.
    told: Micros,
    /// The latest reign of an active consumer, with a deadline that may be over.
    pub(super) consumer: Option<Lock>,
    pub(super) consumer_term: Term,
    pub(super) consumer_since: Micros,
    /// What it is, where that was set.
    pub(super) shape: Option<Shape>,
    /// How many are delivered beyond the head.
    pub(super) in_place: u64,
    pub(super) control: Control,
    pub(super) bucket: Bucket,
}

impl LineRow {
    /// Whether all messages keep their order, so that only what stands at the head is delivered.
    pub(super) fn is_total(&self) -> bool {
        self.shape.unwrap_or_default().order == Order::Total
    }

    /// How many are claimed and not yet delivered.
    pub(super) fn undelivered(&self) -> u64 {
        self.next.past(self.head).saturating_sub(self.in_place)
    }

    /// Below which position new messages may be claimed.
    pub(super) fn limit(&self, window: u64) -> Position {
        let by_window = self.next.plus(window.saturating_sub(self.undelivered()));
        by_window.min(self.head.plus(window.saturating_mul(REACH)))
    }

    /// The lock and the term of a role.
    pub(super) fn seat(&self, role: Role) -> (Option<&Lock>, Term) {
        match role {
            Role::Leader => (self.lock.as_ref(), self.term),
            Role::Consumer => (self.consumer.as_ref(), self.consumer_term),
        }
    }

    /// Whether a reign is the latest of a consumer.
    pub(super) fn is_latest(&self, reign: Option<&Reign>) -> bool {
        match (reign, &self.consumer) {
            (Some(reign), Some(lock)) => reign.owner == lock.owner && reign.term == self.consumer_term,
            (None, None) => true,
            _ => false,
        }
    }

    /// By how much the clock was set back since a deadline was set, if it was.
    pub(super) fn set_back(&self, now: Micros) -> Option<u64> {
        Some(self.told.since(now)).filter(|back| *back >= SET_BACK_US)
    }
}

impl<'a> Step<'a> {
    pub(super) fn at(line: i64, now: Micros, connection: &'a Connection) -> Self {
        Self { line, now, connection }
    }

    /// What a handler's effect works on.
    pub(super) fn connection(&self) -> &'a Connection {
        self.connection
    }

    pub(super) fn prepare(&self, statement: &'static str) -> rusqlite::Result<CachedStatement<'a>> {
        self.connection.prepare_cached(statement)
    }

    /// Where the row of a position is in `input` and `output`. What no line can reach is its last place.
    pub(super) fn place(&self, position: Position) -> i64 {
        (self.line << PLACE_BITS) + int(position.0.min(LAST_PLACE))
    }

    /// The number of the row inserted last.
    pub(super) fn inserted(&self) -> i64 {
        self.connection.last_insert_rowid()
    }

    pub(super) fn load(&self) -> rusqlite::Result<LineRow> {
        self.prepare(sql!("line.sql", "load"))?.query_row([self.line], |row| {
            let owner: Option<String> = row.get(5)?;
            let deadline = micros_at(row, 6)?;
            let consumer: Option<String> = row.get(13)?;
            let consumer_deadline = micros_at(row, 14)?;
            let lock = |owner: Option<String>, deadline| {
                owner.map(|owner| Lock {
                    owner: OwnerId::new(owner),
                    deadline,
                })
            };
            Ok(LineRow {
                head: position_at(row, 0)?,
                next: position_at(row, 1)?,
                last: position_at(row, 2)?,
                cursor: uint_at(row, 3)?,
                term: uint_at(row, 4).map(Term)?,
                lock: lock(owner, deadline),
                processed: uint_at(row, 7)?,
                output: uint_at(row, 8)?,
                recorded: uint_at(row, 9)?,
                dead: uint_at(row, 10)?,
                told: micros_at(row, 11)?,
                consumer: lock(consumer, consumer_deadline),
                consumer_term: uint_at(row, 12).map(Term)?,
                consumer_since: micros_at(row, 15)?,
                shape: shape_at(row, 16)?,
                in_place: uint_at(row, 17)?,
                control: control_at(row, 18)?,
                bucket: Bucket {
                    credit_ns: uint_at(row, 21)?,
                    at: micros_at(row, 22)?,
                },
            })
        })
    }

    /// Writes back what a step may change of the line's row, the cursors of claim and send aside.
    pub(super) fn save(&self, line: &LineRow) -> rusqlite::Result<()> {
        self.prepare(sql!("line.sql", "save"))?
            .execute(rusqlite::params![
                self.line,
                int(line.head.0),
                int(line.cursor),
                int(line.processed),
                int(line.output),
                int(line.recorded),
                int(line.dead)
            ])
            .map(drop)
    }

    /// Sets all deadlines back where the clock was.
    pub(super) fn notice_set_back(&self) -> rusqlite::Result<()> {
        match self.load()?.set_back(self.now) {
            Some(back) => self.set_back(back),
            None => Ok(()),
        }
    }

    /// Says what time it is, before a deadline is set.
    pub(super) fn tell_time(&self) -> rusqlite::Result<()> {
        let line = self.load()?;
        match line.set_back(self.now) {
            Some(back) => self.set_back(back),
            None if self.now >= line.told + TELL_EVERY_US => self.tell(),
            None => Ok(()),
        }
    }

    fn set_back(&self, back: u64) -> rusqlite::Result<()> {
        for statement in [
            sql!("line.sql", "set_back_owners"),
            sql!("line.sql", "set_back_delays"),
            sql!("line.sql", "set_back_lock"),
        ] {
            self.prepare(statement)?.execute([self.line, int(back)])?;
        }
        self.tell()
    }

    fn tell(&self) -> rusqlite::Result<()> {
        self.prepare(sql!("line.sql", "tell"))?
            .execute([self.line, int(self.now.0)])
            .map(drop)
    }
}
