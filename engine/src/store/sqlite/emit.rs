//! Emit (law 3): deliver what has its turn.

use conga_core::message::{Position, finish, write_open};
use conga_core::partition::{Cursor, EmitRequest, Emitted, Processed, Ready, Turn};
use conga_core::time::Micros;
use rusqlite::{CachedStatement, OptionalExtension, params};

use super::convert::{Stored, int, position_at};
use super::database::{Commit, Database, Step};
use super::follow::turn_at;
use super::sql::sql;
use crate::store::Result;
use crate::wake::Topic;

/// What stands in the processed stream at a cursor.
struct Waiting {
    position: Position,
    turn: Turn,
    record: Option<Stored>,
}

pub(super) fn emit(database: &mut Database, request: &EmitRequest) -> Result<Emitted> {
    let emitted = database.write(Commit::Written, |step| {
        let line = step.load()?;
        if request.term != line.term {
            return Ok(Emitted::Fenced { term: line.term });
        }
        if request.head != line.head {
            return Ok(Emitted::Moved { head: line.head });
        }
        let Some(waiting) = all_wait(step, request)? else {
            return Ok(Emitted::Moved { head: line.head });
        };
        let head = request.head.plus(waiting.len() as u64);
        if !waiting.is_empty() {
            deliver(step, request, waiting, head)?;
        }
        Ok(Emitted::Advanced { head })
    })?;
    if matches!(emitted, Emitted::Advanced { .. }) && !request.entries.is_empty() {
        database.wake(Topic::Output);
    }
    Ok(emitted)
}

/// What waits under the cursors given, if the entries are dense from the head on and each is what waits there.
fn all_wait(step: &Step<'_>, request: &EmitRequest) -> rusqlite::Result<Option<Vec<Waiting>>> {
    let mut at = step.prepare(sql!("emit.sql", "waiting"))?;
    let mut all = Vec::with_capacity(request.entries.len());
    for (index, ready) in request.entries.iter().enumerate() {
        let Processed { cursor, position, turn } = &ready.processed;
        match waiting(step, &mut at, *cursor)? {
            Some(waiting)
                if *position == request.head.plus(index as u64)
                    && waiting.position == *position
                    && waiting.turn == *turn =>
            {
                all.push(waiting);
            }
            _ => return Ok(None),
        }
    }
    Ok(Some(all))
}

fn waiting(step: &Step<'_>, at: &mut CachedStatement<'_>, cursor: Cursor) -> rusqlite::Result<Option<Waiting>> {
    if cursor.0 != 0 {
        return Ok(None);
    }
    at.query_row(params![step.line, int(cursor.1)], |row| {
        let number: Option<i64> = row.get(0)?;
        let record = number.map(|_| Stored::read(row)).transpose()?;
        let id = record.as_ref().map(|stored| stored.record.id.as_str().to_owned());
        Ok(Waiting {
            position: position_at(row, Stored::COLUMNS)?,
            turn: turn_at(row, id, Stored::COLUMNS + 1)?,
            record,
        })
    })
    .optional()
}

fn deliver(step: &Step<'_>, request: &EmitRequest, waiting: Vec<Waiting>, head: Position) -> rusqlite::Result<()> {
    let mut output = step.prepare(sql!("emit.sql", "deliver"))?;
    let mut delivered = step.prepare(sql!("emit.sql", "delivered"))?;
    let mut remove = step.prepare(sql!("emit.sql", "remove"))?;
    let (passed, mut written) = (waiting.len() as u64, 0);
    for (waiting, ready) in waiting.into_iter().zip(&request.entries) {
        if let Some(stored) = waiting.record.as_ref().filter(|stored| is_its_own(stored, ready)) {
            delivered.execute(params![stored.number, int(ready.sequencing.0), int(step.now.0)])?;
        }
        if let Some(text) = output_of(waiting, ready, step.now) {
            output.execute(params![step.line, int(ready.processed.position.0), text])?;
            written += 1;
        }
        remove.execute(params![step.line, int(ready.processed.cursor.1)])?;
    }
    step.prepare(sql!("emit.sql", "forget"))?
        .execute(params![step.line, int(head.0)])?;
    step.prepare(sql!("emit.sql", "advance"))?
        .execute(params![step.line, int(head.0), int(passed), int(written)])
        .map(drop)
}

/// Whether a record belongs to this position, and not to a lower one that came with the same id.
fn is_its_own(stored: &Stored, ready: &Ready) -> bool {
    stored.record.position == ready.processed.position
}

/// The output, if there is one. It is written here and not by the caller, for only here is it known what the record
/// holds and what time it is.
fn output_of(waiting: Waiting, ready: &Ready, now: Micros) -> Option<String> {
    let (mut text, processed) = match waiting.turn {
        Turn::Record(_) => waiting
            .record
            .filter(|stored| is_its_own(stored, ready))
            .map(|stored| (write_open(&stored.record), stored.processed))?,
        Turn::Tombstone { open, died } => (open, died),
        Turn::Nothing => return None,
    };
    finish(&mut text, processed, ready.sequencing, now);
    Some(text)
}
