//! Dead: what a person has decided about dead letters, in one transaction.

use bytes::Bytes;
use conga_core::message::Position;
use conga_core::partition::{DeadRequest, Judged, Verdict};
use rusqlite::{OptionalExtension, params};

use super::convert::int;
use super::database::{Commit, Database};
use super::send::append;
use super::sql::sql;
use super::step::Step;
use crate::store::Result;
use crate::wake::Topic;

pub(super) fn dead(database: &mut Database, request: &DeadRequest) -> Result<Vec<Judged>> {
    // Synced even if nothing is done: what is missing may have gone by a step whose answer nobody waited for.
    let (answers, is_news) = database.write(Commit::Synced, |step| {
        let head = step.load()?.head;
        let (mut answers, mut again, mut gone) = (Vec::new(), Vec::new(), 0);
        for position in &request.positions {
            let letter = letter(step, *position)?;
            answers.push(match letter {
                None => Judged::Missing,
                Some(_) if *position >= head => Judged::Early,
                Some(entry) => {
                    step.prepare(sql!("dead.sql", "forget"))?
                        .execute(params![step.line, int(position.0)])?;
                    gone += 1;
                    if request.verdict == Verdict::Retry {
                        again.push(Bytes::from(entry));
                    }
                    Judged::Done
                }
            });
        }
        if gone > 0 {
            step.prepare(sql!("dead.sql", "count"))?
                .execute(params![step.line, int(gone)])?;
        }
        if !again.is_empty() {
            append(step, &again)?;
        }
        Ok((answers, !again.is_empty()))
    })?;
    if is_news {
        database.wake(Topic::Input);
    }
    Ok(answers)
}

/// The entry of a dead letter, if there is one of that position.
fn letter(step: &Step<'_>, position: Position) -> rusqlite::Result<Option<Vec<u8>>> {
    step.prepare(sql!("dead.sql", "letter"))?
        .query_row(params![step.line, int(position.0)], |row| row.get(0))
        .optional()
}
