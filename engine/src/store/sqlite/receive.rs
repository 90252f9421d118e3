//! Receive: read the output in its order, and take off what was written down.

use bytes::Bytes;
use conga_core::partition::ReceiveRequest;
use rusqlite::params;

use super::convert::int;
use super::database::{Commit, Database, Step};
use super::sql::sql;
use crate::store::Result;

pub(super) fn receive(database: &mut Database, request: ReceiveRequest) -> Result<Vec<Bytes>> {
    if let Some(written) = request.acknowledge.map(|position| int(position.0)) {
        let news = database.read(|step| {
            step.prepare(sql!("receive.sql", "written"))?
                .query_row(params![step.line, written], |row| row.get::<_, bool>(0))
        })?;
        if news {
            return database.write(Commit::Synced, |step| {
                let gone = step
                    .prepare(sql!("receive.sql", "acknowledge"))?
                    .execute(params![step.line, written])?;
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
        .query_map(params![step.line, int(max as u64)], |row| {
            row.get::<_, String>(0).map(Bytes::from)
        })?
        .collect()
}
