//! Send: entries get their positions as they arrive; of those that are numbered, the ones that are not there yet.

use bytes::Bytes;
use conga_core::partition::{FORGOTTEN_AT_ONCE, KEPT_US, Numbered, Sent};
use rusqlite::{OptionalExtension, params};

use super::convert::{int, uint_at};
use super::database::{Commit, Database};
use super::sql::sql;
use super::step::Step;
use crate::store::Result;
use crate::wake::Topic;

pub(super) fn send(database: &mut Database, entries: &[Bytes]) -> Result<Sent> {
    if entries.is_empty() {
        return Ok(Sent::UNNUMBERED);
    }
    database.write(Commit::Synced, |step| append(step, entries))?;
    database.wake(Topic::Input);
    Ok(Sent::UNNUMBERED)
}

pub(super) fn send_numbered(database: &mut Database, numbered: &Numbered, entries: &[Bytes]) -> Result<Sent> {
    // Synced even if nothing is new: what is said to be there may be of a step whose answer nobody waited for.
    let (sent, is_news) = database.write(Commit::Synced, |step| {
        let producer = numbered.producer.as_str();
        let known = step
            .prepare(sql!("send.sql", "known"))?
            .query_row(params![step.line, producer], |row| {
                Ok((uint_at(row, 0)?, mark_of(row.get(1)?)))
            })
            .optional()?;
        let (last, mark) = known.unwrap_or_default();
        if known.is_some() {
            step.prepare(sql!("send.sql", "heard"))?
                .execute(params![step.line, producer, int(step.now.0)])?;
        }
        let (first, next) = (numbered.first.max(1), last.saturating_add(1));
        if entries.is_empty() {
            return Ok((Sent::Accepted { last, mark }, false));
        }
        if first > next {
            return Ok((Sent::Missing { from: next }, false));
        }
        let there = usize::try_from(next - first).unwrap_or(usize::MAX);
        let Some(news) = entries.get(there..).filter(|news| !news.is_empty()) else {
            return Ok((Sent::Accepted { last, mark }, false));
        };
        append(step, news)?;
        if known.is_none() {
            let limit = i64::try_from(FORGOTTEN_AT_ONCE).unwrap_or(i64::MAX);
            step.prepare(sql!("send.sql", "forget"))?.execute(params![
                step.line,
                int(step.now.0) - int(KEPT_US),
                limit
            ])?;
        }
        let (last, mark) = (last + news.len() as u64, numbered.mark);
        step.prepare(sql!("send.sql", "accept"))?.execute(params![
            step.line,
            producer,
            int(last),
            mark.cast_signed(),
            int(step.now.0)
        ])?;
        Ok((Sent::Accepted { last, mark }, true))
    })?;
    if is_news {
        database.wake(Topic::Input);
    }
    Ok(sent)
}

/// All 64 bits of it, which SQLite has only with a sign.
fn mark_of(stored: i64) -> u64 {
    stored.cast_unsigned()
}

fn append(step: &Step<'_>, entries: &[Bytes]) -> rusqlite::Result<()> {
    let mut last = step.load()?.last;
    let mut append = step.prepare(sql!("send.sql", "append"))?;
    for entry in entries {
        last = last.next();
        append.execute(params![step.place(last), &entry[..]])?;
    }
    step.prepare(sql!("send.sql", "advance"))?
        .execute(params![step.line, int(last.0)])
        .map(drop)
}
