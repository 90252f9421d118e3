//! Send: entries get their positions as they arrive.

use bytes::Bytes;
use rusqlite::params;

use super::convert::int;
use super::database::{Commit, Database};
use super::sql::sql;
use crate::store::Result;
use crate::wake::Topic;

pub(super) fn send(database: &mut Database, entries: &[Bytes]) -> Result<()> {
    if entries.is_empty() {
        return Ok(());
    }
    database.write(Commit::Synced, |step| {
        let mut last = step.load()?.last;
        let mut append = step.prepare(sql!("send.sql", "append"))?;
        for entry in entries {
            last = last.next();
            append.execute(params![step.place(last), &entry[..]])?;
        }
        step.prepare(sql!("send.sql", "advance"))?
            .execute(params![step.line, int(last.0)])
    })?;
    database.wake(Topic::Input);
    Ok(())
}
