//! Dead: what a person has decided about dead letters, in one transaction.

use bytes::Bytes;
use conga_core::message::Position;
use conga_core::partition::{DeadRequest, Judged, Verdict};
use conga_core::time::Micros;
use rusqlite::{OptionalExtension, params};

use super::convert::{int, micros_at};
use super::database::{Commit, Database};
use super::deliver::deliver_ready;
use super::in_place;
use super::send::append;
use super::sql::sql;
use super::step::{LineRow, Step};
use crate::store::Result;
use crate::wake::Topic;

pub(super) fn dead(database: &mut Database, request: &DeadRequest) -> Result<Vec<Judged>> {
    // Synced even if nothing is done: what is missing may have gone by a step whose answer nobody waited for.
    let (answers, is_free, goes_on) = database.write(Commit::Synced, |step| {
        let line = step.load()?;
        let mut judge = Judge {
            step,
            head: line.head,
            gone: 0,
            again: Vec::new(),
            freed: false,
            given_up: Vec::new(),
        };
        let answers = request.positions.iter().map(|at| judge.judge(request.verdict, *at));
        let answers = answers.collect::<rusqlite::Result<Vec<_>>>()?;
        let goes_on = !judge.given_up.is_empty();
        let is_free = judge.close(line)?;
        Ok((answers, is_free, goes_on))
    })?;
    if is_free {
        database.wake(Topic::Input);
    }
    if goes_on {
        database.wake(Topic::Processed);
        database.wake_of_head();
    }
    // What the line goes on past has its turn, maybe; and so it may have had since a call whose answer was lost.
    if matches!(request.verdict, Verdict::Skip | Verdict::Mark) {
        deliver_ready(database);
    }
    Ok(answers)
}

/// Verdicts on their way.
struct Judge<'a, 'b> {
    step: &'a Step<'b>,
    head: Position,
    /// How many letters have gone.
    gone: u64,
    /// What is to come again as new messages.
    again: Vec<Bytes>,
    /// Something is free again in its own place.
    freed: bool,
    /// What the line is to go on past, with its tombstone and when it died or with nothing.
    given_up: Vec<(Position, Option<(String, Micros)>)>,
}

impl Judge<'_, '_> {
    fn judge(&mut self, verdict: Verdict, position: Position) -> rusqlite::Result<Judged> {
        let Some(letter) = self.letter(position)? else {
            return Ok(Judged::Missing);
        };
        match (verdict, letter.open) {
            (Verdict::Skip | Verdict::Mark, None) => return Ok(Judged::Passed),
            (Verdict::Skip | Verdict::Mark, Some(open)) => {
                self.execute(sql!("dead.sql", "close"), position)?;
                let tombstone = (verdict == Verdict::Mark).then_some((open, letter.died));
                self.given_up.push((position, tombstone));
            }
            (Verdict::Retry, Some(_)) => {
                self.forget(position)?;
                self.execute(sql!("dead.sql", "again"), position)?;
                self.freed = true;
            }
            (Verdict::Retry | Verdict::Purge, _) if position >= self.head => return Ok(Judged::Early),
            (Verdict::Retry, None) => {
                self.forget(position)?;
                self.again.push(letter.entry.into());
            }
            (Verdict::Purge, _) => self.forget(position)?,
        }
        Ok(Judged::Done)
    }

    fn letter(&self, position: Position) -> rusqlite::Result<Option<Letter>> {
        self.step
            .prepare(sql!("dead.sql", "letter"))?
            .query_row(params![self.step.line, int(position.0)], |row| {
                Ok(Letter {
                    entry: row.get(0)?,
                    died: micros_at(row, 1)?,
                    open: row.get(2)?,
                })
            })
            .optional()
    }

    fn forget(&mut self, position: Position) -> rusqlite::Result<()> {
        self.gone += 1;
        self.execute(sql!("dead.sql", "forget"), position)
    }

    fn execute(&self, statement: &'static str, position: Position) -> rusqlite::Result<()> {
        let mut statement = self.step.prepare(statement)?;
        statement.execute([self.step.line, int(position.0)]).map(drop)
    }

    /// Carries out what was gathered. Whether anything may be claimed that could not be before.
    fn close(self, mut line: LineRow) -> rusqlite::Result<bool> {
        let step = self.step;
        let mut is_free = self.freed || !self.again.is_empty();
        if !self.given_up.is_empty() {
            if line.is_total() {
                for (position, tombstone) in self.given_up {
                    let (open, died) = tombstone.unzip();
                    let died = died.map(|died: Micros| int(died.0));
                    line.cursor += 1;
                    line.processed += 1;
                    step.prepare(sql!("dead.sql", "let_go"))?
                        .execute([step.line, int(position.0)])?;
                    step.prepare(sql!("dead.sql", "append"))?.execute(params![
                        step.line,
                        int(line.cursor),
                        int(position.0),
                        open,
                        died
                    ])?;
                }
                step.save(&line)?;
            } else {
                is_free |= in_place::pass(step, line, self.given_up)?;
            }
        }
        if self.gone > 0 {
            step.prepare(sql!("dead.sql", "count"))?
                .execute(params![step.line, int(self.gone)])?;
        }
        if !self.again.is_empty() {
            append(step, &self.again)?;
        }
        Ok(is_free)
    }
}

/// A dead letter.
struct Letter {
    entry: Vec<u8>,
    died: Micros,
    /// Its tombstone as far as it is written, if the line is halted at it.
    open: Option<String>,
}
