//! Follow: what is processed, in the order in which it was.

use conga_core::message::Id;
use conga_core::partition::{Cursor, Followed, Processed, Turn};
use conga_core::time::Micros;
use rusqlite::{Row, params};

use super::convert::{int, position_at, uint, uint_at};
use super::database::Database;
use super::sql::sql;
use crate::store::Result;

pub(super) fn follow(database: &Database, cursor: Cursor, max: usize) -> Result<Followed> {
    database.read(|step| {
        // All our cursors are of the kind 0.
        let after = if cursor.0 == 0 { int(cursor.1) } else { i64::MAX };
        let line = step.load()?;
        // Otherwise there is nothing to sequence.
        let max = if line.is_total() { max } else { 0 };
        let entries = step
            .prepare(sql!("follow.sql", "follow"))?
            .query_map(params![step.line, after, int(max as u64)], |row| {
                let id: Option<String> = row.get(2)?;
                Ok(Processed {
                    cursor: Cursor(0, uint_at(row, 0)?),
                    position: position_at(row, 1)?,
                    turn: turn_at(row, id, 3)?,
                })
            })?
            .collect::<rusqlite::Result<_>>()?;
        Ok(Followed {
            now: step.now,
            head: line.head,
            entries,
        })
    })
}

/// What comes out: the record of that id, else what stands in the columns `open` and `died`.
pub(super) fn turn_at(row: &Row<'_>, id: Option<String>, open: usize) -> rusqlite::Result<Turn> {
    if let Some(id) = id {
        return Ok(Turn::Record(Id::given(id)));
    }
    let died: Option<i64> = row.get(open + 1)?;
    Ok(match row.get(open)? {
        Some(open) => Turn::Tombstone {
            open,
            died: Micros(died.map_or(0, uint)),
        },
        None => Turn::Nothing,
    })
}
