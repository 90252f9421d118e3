//! Receive: read the output in its order, and take off what was written down.

use bytes::Bytes;
use conga_core::message::Position;
use conga_core::partition::ReceiveRequest;
use rusqlite::params;

use super::convert::int;
use super::database::{Commit, Database};
use super::sql::sql;
use super::step::Step;
use crate::store::Result;

pub(super) fn receive(database: &mut Database, request: ReceiveRequest) -> Result<Vec<Bytes>> {
    if request.acknowledge.is_some() {
        // Even if it takes off nothing: an earlier one, whose answer nobody waited for, may have, and not be synced.
        database.expose();
    }
    if let Some(written) = request.acknowledge {
        let news = database.read(|step| {
            step.prepare(sql!("receive.sql", "written"))?
                .query_row([step.place(Position::FIRST), step.place(written)], |row| {
                    row.get::<_, bool>(0)
                })
        })?;
        if news {
            return database.write(Commit::Synced, |step| {
                let gone = step
                    .prepare(sql!("receive.sql", "acknowledge"))?
                    .execute([step.place(Position::FIRST), step.place(written)])?;
                step.prepare(sql!("receive.sql", "advance"))?
                    .execute(params![step.line, int(gone as u64)])?;
                oldest(step, request.max)
            });
        }
    }
    if request.max == 0 {
        return Ok(Vec::new());
    }
    let outputs = database.read(|step| oldest(step, request.max))?;
    if !outputs.is_empty() {
        database.expose();
    }
    Ok(outputs)
}

fn oldest(step: &Step<'_>, max: usize) -> rusqlite::Result<Vec<Bytes>> {
    step.prepare(sql!("receive.sql", "oldest"))?
        .query_map(
            [
                step.place(Position::FIRST),
                step.place(Position(u64::MAX)),
                int(max as u64),
            ],
            |row| row.get::<_, String>(0).map(Bytes::from),
        )?
        .collect()
}
