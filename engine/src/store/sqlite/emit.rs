//! Emit (law 3): deliver what has its turn.

use conga_core::partition::{EmitRequest, Emitted, Processed};
use rusqlite::{OptionalExtension, params};

use super::convert::int;
use super::database::{Commit, Database};
use super::outlet::Outlet;
use super::sql::sql;
use super::step::Step;
use super::waiting::Waiting;
use crate::store::Result;

pub(super) fn emit(database: &mut Database, request: &EmitRequest) -> Result<Emitted> {
    let emitted = database.write(Commit::Written, |step| {
        let mut outlet = Outlet::open(step)?;
        let (term, head) = (outlet.line.term, outlet.line.head);
        if request.term != term {
            return Ok(Emitted::Fenced { term });
        }
        if request.head != head || !outlet.line.is_total() {
            return Ok(Emitted::Moved { head });
        }
        let Some(waiting) = all_wait(step, request)? else {
            return Ok(Emitted::Moved { head });
        };
        for (waiting, ready) in waiting.into_iter().zip(&request.entries) {
            outlet.deliver(waiting, ready.sequencing)?;
        }
        let head = outlet.line.head;
        if outlet.has_delivered() {
            outlet.close()?;
        }
        Ok(Emitted::Advanced { head })
    })?;
    if matches!(emitted, Emitted::Advanced { .. }) && !request.entries.is_empty() {
        database.wake_of_head();
    }
    Ok(emitted)
}

/// What waits at the positions given, if they are dense from the head on and each is what waits there.
fn all_wait(step: &Step<'_>, request: &EmitRequest) -> rusqlite::Result<Option<Vec<Waiting>>> {
    let mut at = step.prepare(sql!("emit.sql", "waiting"))?;
    let mut all = Vec::with_capacity(request.entries.len());
    for (index, ready) in request.entries.iter().enumerate() {
        let Processed { cursor, position, turn } = &ready.processed;
        let waiting = at
            .query_row(params![step.line, int(position.0)], Waiting::read)
            .optional()?;
        match waiting {
            Some(waiting)
                if *position == request.head.plus(index as u64)
                    && waiting.cursor == *cursor
                    && waiting.turn == *turn =>
            {
                all.push(waiting);
            }
            _ => return Ok(None),
        }
    }
    Ok(Some(all))
}
