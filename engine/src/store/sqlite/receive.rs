//! Receive: read the output in its order, and take off what was written down. For the active consumer only.

use bytes::Bytes;
use conga_core::message::Position;
use conga_core::partition::{ACKNOWLEDGE_WITHIN, ReceiveRequest, Received};
use rusqlite::{OptionalExtension, params};

use super::convert::int;
use super::database::{Commit, Database};
use super::sql::sql;
use super::step::Step;
use crate::store::Result;

pub(super) fn receive(database: &mut Database, request: &ReceiveRequest) -> Result<Received> {
    if request.acknowledge.is_some() {
        // Even if it takes off nothing: an earlier one, whose answer nobody waited for, may have, and not be synced.
        database.expose();
    }
    if let Some(written) = request.acknowledge
        && database.read(|step| Ok(last_written(step, written)?.is_some()))?
    {
        return database.write(Commit::Synced, |step| {
            if let Some(fenced) = fenced(step, request)? {
                return Ok(fenced);
            }
            if let Some(last) = last_written(step, written)? {
                let gone = step
                    .prepare(sql!("receive.sql", "acknowledge"))?
                    .execute([step.place(Position::FIRST), last])?;
                step.prepare(sql!("receive.sql", "advance"))?
                    .execute(params![step.line, int(gone as u64)])?;
            }
            oldest(step, request)
        });
    }
    let received = database.read(|step| match fenced(step, request)? {
        Some(fenced) => Ok(fenced),
        None => oldest(step, request),
    })?;
    if matches!(&received, Received::Outputs(outputs) if !outputs.is_empty()) {
        database.expose();
    }
    Ok(received)
}

/// Up to which place the outputs are written down, if any of them is.
fn last_written(step: &Step<'_>, written: Position) -> rusqlite::Result<Option<i64>> {
    let first = step.place(Position::FIRST);
    if step.load()?.is_total() {
        let last = step.place(written);
        let is_there = step
            .prepare(sql!("receive.sql", "written"))?
            .query_row([first, last], |row| row.get::<_, bool>(0))?;
        return Ok(is_there.then_some(last));
    }
    let beginning = format!("{{\"position\":{written},");
    step.prepare(sql!("in_place.sql", "find_output"))?
        .query_row(
            params![
                first,
                step.place(Position(u64::MAX)),
                int(ACKNOWLEDGE_WITHIN as u64),
                beginning
            ],
            |row| row.get(0),
        )
        .optional()
}

fn fenced(step: &Step<'_>, request: &ReceiveRequest) -> rusqlite::Result<Option<Received>> {
    let line = step.load()?;
    let is_latest = line.is_latest(request.reign.as_ref());
    Ok((!is_latest).then_some(Received::Fenced {
        term: line.consumer_term,
    }))
}

fn oldest(step: &Step<'_>, request: &ReceiveRequest) -> rusqlite::Result<Received> {
    if request.max == 0 {
        return Ok(Received::Outputs(Vec::new()));
    }
    step.prepare(sql!("receive.sql", "oldest"))?
        .query_map(
            [
                step.place(Position::FIRST),
                step.place(Position(u64::MAX)),
                int(request.max as u64),
                int(request.skip as u64),
            ],
            |row| row.get::<_, String>(0).map(Bytes::from),
        )?
        .collect::<rusqlite::Result<_>>()
        .map(Received::Outputs)
}
