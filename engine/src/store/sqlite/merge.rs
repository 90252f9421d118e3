//! Merge (law 3): the base of a merged line takes what has come out of the partitions.

use conga_core::message::{Position, finish};
use conga_core::partition::{GIVE_UP_MOST, GiveUp, Late, MergeRequest, Merged, PASSED_MOST, Piece};
use conga_core::time::Micros;
use rusqlite::params;

use super::convert::{int, uint};
use super::database::{Commit, Database};
use super::sql::sql;
use super::step::Step;
use crate::store::Result;
use crate::wake::Topic;

pub(super) fn merge(database: &mut Database, request: &MergeRequest) -> Result<Merged> {
    // Not synced by itself: the partitions are in the same file, so that whatever takes an output off there is on the disk later.
    let (merged, is_news) = database.write(Commit::Written, |step| {
        let line = step.load()?;
        if request.term != line.term {
            return Ok((Merged::Fenced { term: line.term }, false));
        }
        if request.head != line.head || !line.shape.unwrap_or_default().is_merged() {
            return Ok((Merged::Moved { head: line.head }, false));
        }
        for late in &request.late {
            bury(step, line.head, late)?;
        }
        let mut base = Base {
            step,
            head: line.head,
            output: line.output,
            missing: missing(step)?,
            has_passed: false,
        };
        for piece in &request.pieces {
            base.put_piece(piece)?;
        }
        if !request.pieces.is_empty() {
            base.missing = None;
        }
        if request.is_missing {
            base.missing = Some(base.missing.unwrap_or(step.now).min(step.now));
        }
        if let Some(give_up) = request.give_up.as_ref().filter(|_| request.pieces.is_empty()) {
            base.give_up(give_up)?;
        }
        base.save()?;
        let merged = Merged::Advanced {
            now: step.now,
            head: base.head,
            missing: base.missing,
        };
        Ok((merged, base.output > line.output))
    })?;
    if is_news {
        database.wake(Topic::Output);
    }
    Ok(merged)
}

/// Since when the message at the head is missing, if it is.
pub(super) fn missing(step: &Step<'_>) -> rusqlite::Result<Option<Micros>> {
    step.prepare(sql!("merge.sql", "missing"))?
        .query_row([step.line], |row| {
            Ok(row.get::<_, Option<i64>>(0)?.map(|since| Micros(uint(since))))
        })
}

/// What a step changes of the base.
struct Base<'a, 'b> {
    step: &'a Step<'b>,
    head: Position,
    output: u64,
    missing: Option<Micros>,
    has_passed: bool,
}

impl Base<'_, '_> {
    fn put_piece(&mut self, piece: &Piece) -> rusqlite::Result<()> {
        if !matches!(piece, Piece::Result(_)) {
            self.pass()?;
        }
        if let Piece::Result(open) | Piece::Tombstone(open) = piece {
            let now = self.step.now;
            self.put(&format!("{open},\"sequencing\":\"{now}\",\"sequenced\":\"{now}\"}}"))?;
        }
        self.head = self.head.next();
        Ok(())
    }

    fn give_up(&mut self, give_up: &GiveUp) -> rusqlite::Result<()> {
        let now = self.step.now;
        if self.missing.is_none_or(|since| now.since(since) < give_up.after_us) {
            return Ok(());
        }
        for tombstone in give_up.tombstones.iter().take(GIVE_UP_MOST) {
            if !tombstone.is_empty() {
                let mut text = tombstone.clone();
                finish(&mut text, now, now, now);
                self.put(&text)?;
            }
            self.pass()?;
            self.head = self.head.next();
        }
        Ok(())
    }

    /// Appends an output at the head.
    fn put(&mut self, text: &str) -> rusqlite::Result<()> {
        self.output += 1;
        self.step
            .prepare(sql!("emit.sql", "deliver"))?
            .execute(params![self.step.place(self.head), text])
            .map(drop)
    }

    /// Notes that the head is passed without a result.
    fn pass(&mut self) -> rusqlite::Result<()> {
        self.has_passed = true;
        self.step
            .prepare(sql!("merge.sql", "pass"))?
            .execute([self.step.line, int(self.head.0)])
            .map(drop)
    }

    fn save(&self) -> rusqlite::Result<()> {
        let missing = self.missing.map(|since| int(since.0));
        self.step.prepare(sql!("merge.sql", "advance"))?.execute(params![
            self.step.line,
            int(self.head.0),
            int(self.output),
            missing
        ])?;
        if self.has_passed {
            self.step
                .prepare(sql!("merge.sql", "forget_passed"))?
                .execute([self.step.line, int(PASSED_MOST as u64)])?;
        }
        Ok(())
    }
}

/// Keeps what came when its place was passed without a result, once.
fn bury(step: &Step<'_>, head: Position, late: &Late) -> rusqlite::Result<()> {
    let place = int(late.position.0);
    if late.position >= head
        || step
            .prepare(sql!("merge.sql", "take_passed"))?
            .execute([step.line, place])?
            == 0
    {
        return Ok(());
    }
    step.prepare(sql!("merge.sql", "count_dead"))?.execute([step.line])?;
    step.prepare(sql!("merge.sql", "bury"))?
        .execute(params![
            step.line,
            place,
            late.position.to_string(),
            late.reason,
            int(step.now.0),
            int(step.load()?.cursor),
            late.output,
        ])
        .map(drop)
}
