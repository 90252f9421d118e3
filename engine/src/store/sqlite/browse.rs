//! Browse: the system of record and the dead letters, a page at a time.

use conga_core::lease::Attempt;
use conga_core::message::{Id, Position, finish, write_open};
use conga_core::partition::{Page, Row, finish_processed, write_dead_letter};
use conga_core::time::Micros;
use rusqlite::params;

use super::convert::{Stored, attempt_at, int, micros_at, position_at};
use super::database::Database;
use super::sql::sql;
use crate::store::{Result, StoreError};

/// A page ends with whichever comes first.
const PAGE_ROWS: usize = 1_000;
const PAGE_BYTES: usize = 8 << 20;

/// A page as it was read, to be written as text outside of the database's thread.
#[derive(Debug)]
pub(super) struct Sheet<T> {
    rows: Vec<T>,
    next: Option<String>,
}

#[derive(Debug)]
pub(super) struct DeadLetter {
    position: Position,
    id: Id,
    reason: String,
    attempts: Attempt,
    died: Micros,
    entry: Vec<u8>,
    is_halted: bool,
}

impl<T> Sheet<T> {
    pub(super) fn write(self, write: impl Fn(T) -> Row) -> Page {
        Page {
            rows: self.rows.into_iter().map(write).collect(),
            next: self.next,
        }
    }

    fn read(
        mut rows: rusqlite::Rows<'_>,
        read: impl Fn(&rusqlite::Row<'_>) -> rusqlite::Result<(T, usize)>,
        key: impl Fn(&T) -> String,
    ) -> rusqlite::Result<Self> {
        let (mut sheet, mut bytes) = (Vec::new(), 0);
        while let Some(row) = rows.next()? {
            let (row, size) = read(row)?;
            if sheet.len() == PAGE_ROWS || bytes >= PAGE_BYTES {
                return Ok(Self {
                    rows: sheet,
                    next: Some(key(&row)),
                });
            }
            bytes += size;
            sheet.push(row);
        }
        Ok(Self {
            rows: sheet,
            next: None,
        })
    }
}

/// Records, by id.
pub(super) fn records(database: &Database, from: &str) -> Result<Sheet<Stored>> {
    database.read(|step| {
        let mut records = step.prepare(sql!("browse.sql", "records"))?;
        Sheet::read(
            records.query(params![step.line, from, int(PAGE_ROWS as u64 + 1)])?,
            |row| {
                let size = row
                    .get_ref(Stored::COLUMNS - 1)?
                    .as_bytes_or_null()?
                    .map_or(0, <[u8]>::len);
                Ok((Stored::read(row)?, size))
            },
            |stored| stored.record.id.as_str().to_owned(),
        )
    })
}

/// Dead letters, by position.
pub(super) fn dead(database: &Database, from: &str) -> Result<Sheet<DeadLetter>> {
    let from: i64 = match from {
        "" => 0,
        from => from
            .parse()
            .map_err(|_| StoreError::Broken(format!("`{from}` names no page of the dead letters")))?,
    };
    database.read(|step| {
        let mut dead = step.prepare(sql!("browse.sql", "dead"))?;
        Sheet::read(
            dead.query(params![step.line, from, int(PAGE_ROWS as u64 + 1)])?,
            |row| {
                let letter = DeadLetter {
                    position: position_at(row, 0)?,
                    id: Id::given(row.get::<_, String>(1)?),
                    reason: row.get(2)?,
                    attempts: attempt_at(row, 3)?,
                    died: micros_at(row, 4)?,
                    entry: row.get(5)?,
                    is_halted: row.get(6)?,
                };
                let size = letter.entry.len();
                Ok((letter, size))
            },
            |letter| letter.position.to_string(),
        )
    })
}

pub(super) fn write_record(stored: Stored) -> Row {
    let mut text = write_open(&stored.record);
    match stored.delivered {
        Some((sequencing, sequenced)) => finish(&mut text, stored.processed, sequencing, sequenced),
        None => finish_processed(&mut text, stored.processed),
    }
    Row {
        id: stored.record.id,
        json: text.into(),
    }
}

pub(super) fn write_dead(letter: DeadLetter) -> Row {
    let text = write_dead_letter(
        letter.position,
        &letter.id,
        &letter.reason,
        letter.attempts,
        letter.died,
        &letter.entry,
        letter.is_halted,
    );
    Row {
        id: letter.id,
        json: text.into(),
    }
}
