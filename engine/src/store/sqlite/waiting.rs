//! What waits for its turn, and what comes out of it.

use conga_core::message::{Body, Position, finish, write_open};
use conga_core::partition::{Cursor, Turn};
use conga_core::time::Micros;
use rusqlite::Row;

use super::convert::{Stored, position_at, uint_at};
use super::follow::turn_at;

/// A row of `processed`, with the record that it names.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) cursor: Cursor,
    pub(super) position: Position,
    pub(super) turn: Turn,
    record: Option<Stored>,
}

impl Waiting {
    /// Reads the columns as `emit.sql` and `deliver.sql` list them.
    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let number: Option<i64> = row.get(0)?;
        let record = number.map(|_| Stored::read(row)).transpose()?;
        let id = record.as_ref().map(|stored| stored.record.id.as_str().to_owned());
        Ok(Self {
            position: position_at(row, Stored::COLUMNS)?,
            turn: turn_at(row, id, Stored::COLUMNS + 1)?,
            cursor: Cursor(0, uint_at(row, Stored::COLUMNS + 3)?),
            record,
        })
    }

    /// One that did not have to wait: the record of its id is there already.
    pub(super) fn recorded(position: Position, stored: Stored) -> Self {
        Self {
            cursor: Cursor::default(),
            position,
            turn: Turn::Record(stored.record.id.clone()),
            record: Some(stored),
        }
    }

    /// The record, if it belongs to this position and not to a lower one that came with the same id.
    pub(super) fn own(&self) -> Option<&Stored> {
        self.record
            .as_ref()
            .filter(|stored| stored.record.position == self.position)
    }

    /// About how many bytes its output has.
    pub(super) fn size(&self) -> usize {
        match (&self.turn, self.own().map(|stored| &stored.record.body)) {
            (Turn::Tombstone { open, .. }, _) => open.len(),
            (_, Some(Body::Result(payload))) => payload.text().len(),
            (_, Some(Body::Dead { reason })) => reason.len(),
            (_, None) => 0,
        }
    }

    /// The output, if there is one. It is written here and not by the caller, for only here is it known what the record
    /// holds and what time it is.
    pub(super) fn output(self, sequencing: Micros, now: Micros) -> Option<String> {
        let own = self.own().map(|stored| (write_open(&stored.record), stored.processed));
        let (mut text, processed) = match self.turn {
            Turn::Record(_) => own?,
            Turn::Tombstone { open, died } => (open, died),
            Turn::Nothing => return None,
        };
        finish(&mut text, processed, sequencing, now);
        Some(text)
    }
}
