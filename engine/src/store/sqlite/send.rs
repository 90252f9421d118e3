//! Send: entries get their positions as they arrive; of those that are numbered, the ones that are not there yet.

use bytes::Bytes;
use conga_core::partition::{FORGOTTEN_AT_ONCE, KEPT_US, Numbered, Sent, Session};
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
                let (number, process) = (uint_at(row, 2)?, any_of(row.get(3)?));
                Ok((uint_at(row, 0)?, any_of(row.get(1)?), Session { number, process }))
            })
            .optional()?;
        if let Some((.., session)) = known
            && !numbered.session.counts_after(session)
        {
            return Ok((Sent::Replaced { session }, false));
        }
        let (last, mark) = known.map_or((0, 0), |(last, mark, _)| (last, mark));
        let (first, next) = (numbered.first.max(1), last.saturating_add(1));
        let is_missing = first > next && !entries.is_empty();
        let there = usize::try_from(next.saturating_sub(first)).unwrap_or(usize::MAX);
        let mut news = match entries.get(there..) {
            Some(news) if !is_missing => news,
            _ => &[],
        };
        let line = step.load()?;
        let waiting = line.last.next().past(line.next);
        let is_full = !numbered.has_room(waiting, news.len() as u64);
        if is_full {
            news = &[];
        }
        let is_news = !news.is_empty();
        if is_news {
            append(step, news)?;
        }
        if known.is_none() {
            let limit = i64::try_from(FORGOTTEN_AT_ONCE).unwrap_or(i64::MAX);
            step.prepare(sql!("send.sql", "forget"))?.execute(params![
                step.line,
                int(step.now.0) - int(KEPT_US),
                limit
            ])?;
        }
        let last = last + news.len() as u64;
        let mark = if is_news { numbered.mark } else { mark };
        step.prepare(sql!("send.sql", "remember"))?.execute(params![
            step.line,
            producer,
            int(last),
            mark.cast_signed(),
            int(numbered.session.number),
            numbered.session.process.cast_signed(),
            int(step.now.0)
        ])?;
        let sent = if is_missing {
            Sent::Missing { from: next }
        } else if is_full {
            Sent::Full { waiting, last }
        } else {
            Sent::Accepted { last, mark }
        };
        Ok((sent, is_news))
    })?;
    if is_news {
        database.wake(Topic::Input);
    }
    Ok(sent)
}

/// All 64 bits of a mark or the like, which SQLite has only with a sign.
fn any_of(stored: i64) -> u64 {
    stored.cast_unsigned()
}

pub(super) fn append(step: &Step<'_>, entries: &[Bytes]) -> rusqlite::Result<()> {
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
