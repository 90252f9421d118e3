//! Status: the depths of a line and what holds it up.

use conga_core::lease::OwnerId;
use conga_core::message::{Id, Position};
use conga_core::partition::{Blocker, Status};
use conga_core::time::Micros;
use rusqlite::{OptionalExtension, params};

use super::convert::{attempt_at, int, micros_at, uint, uint_at};
use super::database::Database;
use super::in_place::HALTED;
use super::sql::sql;
use super::step::Step;
use super::{merge, trim};
use crate::store::Result;

pub(super) fn status(database: &Database) -> Result<Status> {
    database.read(|step| {
        let line = step.load()?;
        let processors = step
            .prepare(sql!("status.sql", "processors"))?
            .query_map(params![step.line, int(step.now.0)], |row| {
                row.get::<_, String>(0).map(OwnerId::new)
            })?
            .collect::<rusqlite::Result<_>>()?;
        let producers = step
            .prepare(sql!("status.sql", "producers"))?
            .query_row([step.line], |row| uint_at(row, 0))?;
        let halted = step
            .prepare(sql!("status.sql", "count_halted"))?
            .query_row([step.line], |row| uint_at(row, 0))?;
        let (keep, oldest) = trim::kept(step)?;
        Ok(Status {
            now: step.now,
            // The positions from next to last, and from head to next: each of those is in flight or processed.
            waiting: line.last.next().past(line.next),
            in_flight: line.undelivered().saturating_sub(line.processed),
            processed: line.processed,
            output: line.output,
            recorded: line.recorded,
            dead: line.dead,
            halted,
            oldest,
            keep,
            control: line.control,
            head: line.head,
            next: line.next,
            blocker: blocker(step, line.head)?,
            term: line.term,
            leader: line.lock.filter(|lock| lock.holds(step.now)).map(|lock| lock.owner),
            processors,
            consumer: line.consumer.filter(|lock| lock.holds(step.now)).map(|lock| lock.owner),
            consumer_term: line.consumer_term,
            consumer_since: line.consumer_since,
            producers,
            missing: merge::missing(step)?,
        })
    })
}

fn blocker(step: &Step<'_>, head: Position) -> rusqlite::Result<Option<Blocker>> {
    step.prepare(sql!("status.sql", "blocker"))?
        .query_row(params![step.line, int(head.0)], |row| {
            let owner: Option<String> = row.get(1)?;
            let due: Option<i64> = row.get(3)?;
            Ok(match (owner, due) {
                (Some(owner), _) => Blocker::Leased {
                    owner: OwnerId::new(owner),
                    attempt: attempt_at(row, 0)?,
                    since: micros_at(row, 2)?,
                },
                (None, Some(HALTED)) => {
                    step.prepare(sql!("status.sql", "halted"))?
                        .query_row(params![step.line, int(head.0)], |row| {
                            Ok(Blocker::Halted {
                                id: Id::given(row.get::<_, String>(0)?),
                                reason: row.get(1)?,
                                died: micros_at(row, 2)?,
                            })
                        })?
                }
                (None, Some(due)) => Blocker::Delayed { due: Micros(uint(due)) },
                (None, None) => Blocker::Free,
            })
        })
        .optional()
}
