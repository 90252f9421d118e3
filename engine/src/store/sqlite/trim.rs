//! Trim: what is over goes with a renewal, the oldest first, in a short step of its own.

use std::time::{Duration, Instant};

use conga_core::message::Position;
use conga_core::partition::{Grace, Keep, Limit, Oldest, TRIM_MOST};
use conga_core::time::Micros;
use rusqlite::{OptionalExtension, Row, params};

use super::convert::{int, micros_at, position_at, uint_at};
use super::database::{Commit, Database};
use super::sql::sql;
use super::step::Step;
use crate::store::Result;

/// A step ends when it has had the file locked for so long. Under a manual clock nothing depends on that.
const LONGEST: Duration = Duration::from_millis(1);

/// Lets go of what is over, as much as goes into one step. Whether there is more. If that fails for now it does no harm:
/// the next renewal of anybody goes on with it.
pub(super) fn trim(database: &mut Database, keep: &Keep) -> Result<bool> {
    let longest = if database.is_real_time() {
        LONGEST
    } else {
        Duration::MAX
    };
    match trim_some(database, keep, longest) {
        Err(error) if error.is_passing() => {
            tracing::debug!(%error, "could not trim what is over; somebody will");
            Ok(false)
        }
        trimmed => trimmed,
    }
}

/// It takes the lock for writing only if there is something to write.
fn trim_some(database: &mut Database, keep: &Keep, longest: Duration) -> Result<bool> {
    let told = keep.to_text();
    let is_idle = database.read(|step| {
        let line = Line::load(step)?;
        let line_after = line.after(&told, keep);
        Ok(line == line_after && !Trim::new(step, line_after, keep, Duration::MAX).is_over()?)
    })?;
    if is_idle {
        return Ok(false);
    }
    // Not synced: what comes back in a power cut goes again.
    database.write(Commit::Written, |step| {
        let line = Line::load(step)?;
        let line_after = line.after(&told, keep);
        if line != line_after {
            line_after.tell(step)?;
        }
        Trim::new(step, line_after, keep, longest).run()
    })
}

/// What of the line's row it goes by.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    head: Position,
    next: Position,
    dead: u64,
    output: u64,
    recorded: u64,
    told: Option<String>,
    grace: Grace,
}

impl Line {
    fn load(step: &Step<'_>) -> rusqlite::Result<Self> {
        step.prepare(sql!("trim.sql", "look"))?.query_row([step.line], |row| {
            Ok(Self {
                head: position_at(row, 0)?,
                next: position_at(row, 1)?,
                dead: uint_at(row, 2)?,
                output: uint_at(row, 3)?,
                recorded: uint_at(row, 4)?,
                told: row.get(5)?,
                grace: Grace {
                    safe: position_at(row, 6)?,
                    below: position_at(row, 7)?,
                    until: position_at(row, 8)?,
                },
            })
        })
    }

    /// The same with what this renewal tells.
    fn after(&self, told: &str, keep: &Keep) -> Self {
        Self {
            told: Some(told.to_owned()),
            grace: if keep.records.is_set() {
                self.grace.at(self.head, self.next)
            } else {
                self.grace
            },
            ..self.clone()
        }
    }

    fn tell(&self, step: &Step<'_>) -> rusqlite::Result<()> {
        let Grace { safe, below, until } = self.grace;
        step.prepare(sql!("trim.sql", "tell"))?
            .execute(params![step.line, self.told, int(safe.0), int(below.0), int(until.0)])
            .map(drop)
    }
}

/// One step.
struct Trim<'a, 'b> {
    step: &'a Step<'b>,
    line: Line,
    keep: &'a Keep,
    began: Instant,
    longest: Duration,
}

impl<'a, 'b> Trim<'a, 'b> {
    fn new(step: &'a Step<'b>, line: Line, keep: &'a Keep, longest: Duration) -> Self {
        Self {
            step,
            line,
            keep,
            began: Instant::now(),
            longest,
        }
    }

    /// Whether anything is over.
    fn is_over(&self) -> rusqlite::Result<bool> {
        Ok(self.records(0)?.1 || self.dead(0)?.1 || self.outputs(0)?.1)
    }

    /// Lets go of it. Whether there is more.
    fn run(self) -> rusqlite::Result<bool> {
        let (records, more_records) = self.records(TRIM_MOST)?;
        let (dead, more_dead) = self.dead(TRIM_MOST)?;
        let (outputs, more_outputs) = self.outputs(TRIM_MOST)?;
        if records + dead + outputs > 0 {
            self.step.prepare(sql!("trim.sql", "count"))?.execute(params![
                self.step.line,
                int(records),
                int(dead),
                int(outputs)
            ])?;
        }
        Ok(more_records || more_dead || more_outputs)
    }

    // Each lets go of so many at most; and answers how many have gone, and whether there is more.

    fn records(&self, most: u64) -> rusqlite::Result<(u64, bool)> {
        let limit = self.keep.records;
        if !limit.is_set() {
            return Ok((0, false));
        }
        let undelivered: u64 = self
            .step
            .prepare(if self.step.load()?.is_total() {
                sql!("trim.sql", "undelivered")
            } else {
                sql!("in_place.sql", "undelivered")
            })?
            .query_row([self.step.line, int(self.line.head.0)], |row| uint_at(row, 0))?;
        let count = self.line.recorded.saturating_sub(undelivered);
        let mut oldest = self.step.prepare(sql!("trim.sql", "records"))?;
        let mut rows = oldest.query([self.step.line, int(self.line.grace.safe.0), int(most + 1)])?;
        let mut forget = self.step.prepare(sql!("trim.sql", "forget_record"))?;
        self.each(
            limit,
            count,
            most,
            || {
                let Some(row) = rows.next()? else { return Ok(None) };
                Ok(Some((row.get::<_, i64>(0)?, micros_at(row, 2)?)))
            },
            |number| forget.execute([number]).map(drop),
        )
    }

    fn dead(&self, most: u64) -> rusqlite::Result<(u64, bool)> {
        let limit = self.keep.dead;
        if !limit.is_set() || self.line.dead == 0 {
            return Ok((0, false));
        }
        let mut oldest = self.step.prepare(sql!("trim.sql", "dead"))?;
        let mut rows = oldest.query([self.step.line, int(most + 1)])?;
        let mut forget = self.step.prepare(sql!("trim.sql", "forget_dead"))?;
        self.each(
            limit,
            self.line.dead,
            most,
            || {
                let Some(row) = rows.next()? else { return Ok(None) };
                Ok(Some((row.get::<_, i64>(0)?, micros_at(row, 1)?)))
            },
            |position| forget.execute([self.step.line, position]).map(drop),
        )
    }

    fn outputs(&self, most: u64) -> rusqlite::Result<(u64, bool)> {
        let limit = self.keep.outputs;
        if !limit.is_set() || self.line.output == 0 {
            return Ok((0, false));
        }
        let (first, last) = (self.step.place(Position::FIRST), self.step.place(Position(u64::MAX)));
        let mut oldest = self.step.prepare(sql!("trim.sql", "outputs"))?;
        let mut rows = oldest.query([first, last, int(most + 1)])?;
        let mut delivered = self.step.prepare(sql!("trim.sql", "delivered"))?;
        let mut forget = self.step.prepare(sql!("trim.sql", "forget_output"))?;
        self.each(
            limit,
            self.line.output,
            most,
            || {
                let Some(row) = rows.next()? else { return Ok(None) };
                let place: i64 = row.get(0)?;
                // It may be long, so it is only looked at where that matters.
                let since = if limit.age_us.is_some() {
                    delivered.query_row([place], datetime)?
                } else {
                    None
                };
                Ok(Some((place, since.unwrap_or(self.step.now))))
            },
            |place| forget.execute([place]).map(drop),
        )
    }

    fn each(
        &self,
        limit: Limit,
        count: u64,
        most: u64,
        mut next: impl FnMut() -> rusqlite::Result<Option<(i64, Micros)>>,
        mut forget: impl FnMut(i64) -> rusqlite::Result<()>,
    ) -> rusqlite::Result<(u64, bool)> {
        let mut gone = 0;
        while let Some((which, since)) = next()? {
            if !limit.is_over(count - gone.min(count), since, self.step.now) {
                return Ok((gone, false));
            }
            if gone == most || self.began.elapsed() >= self.longest {
                return Ok((gone, true));
            }
            forget(which)?;
            gone += 1;
        }
        Ok((gone, false))
    }
}

/// The datetime with which an output ends.
fn datetime(row: &Row<'_>) -> rusqlite::Result<Option<Micros>> {
    row.get::<_, String>(0).map(|text| Micros::parse(&text).ok())
}

/// How much stays, as it was last told, and since when the oldest of each kind is there.
pub(super) fn kept(step: &Step<'_>) -> rusqlite::Result<(Option<Keep>, Oldest)> {
    let line = Line::load(step)?;
    let record = if step.load()?.is_total() {
        let mut oldest = step.prepare(sql!("trim.sql", "records"))?;
        oldest.query_row([step.line, int(line.head.0), 1], |row| micros_at(row, 2))
    } else {
        let mut oldest = step.prepare(sql!("in_place.sql", "oldest_record"))?;
        oldest.query_row([step.line], |row| micros_at(row, 0))
    };
    let record = record.optional()?;
    let dead = step
        .prepare(sql!("trim.sql", "oldest_dead"))?
        .query_row([step.line], |row| micros_at(row, 0))
        .optional()?;
    let output = step
        .prepare(sql!("trim.sql", "oldest_output"))?
        .query_row([step.place(Position::FIRST), step.place(Position(u64::MAX))], datetime)
        .optional()?
        .flatten();
    let keep = line.told.as_deref().and_then(Keep::of_text);
    Ok((keep, Oldest { record, dead, output }))
}
