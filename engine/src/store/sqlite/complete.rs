//! Complete (law 2): the end of a lease, only for the one who still has it.

use conga_core::lease::{Held, OwnerId};
use conga_core::message::{Body, Position, Record, write_open};
use conga_core::partition::{Completed, Completion};
use rusqlite::{CachedStatement, OptionalExtension, params};

use super::convert::{self, int, sequence};
use super::database::{Commit, Database, Step};
use super::sql::sql;
use crate::store::Result;
use crate::wake::Topic;

pub(super) fn complete(database: &mut Database, owner: &OwnerId, completions: &[Completion]) -> Result<Vec<Completed>> {
    if completions.is_empty() {
        return Ok(Vec::new());
    }
    let answers = database.write(Commit::Synced, |step| {
        let mut ends = Ends::new(step, owner)?;
        let answers = completions
            .iter()
            .map(|completion| ends.end(completion))
            .collect::<rusqlite::Result<Vec<_>>>()?;
        ends.finish()?;
        Ok(answers)
    })?;
    let accepted = |retry: bool| {
        completions.iter().zip(&answers).any(|(completion, answer)| {
            *answer == Completed::Accepted && matches!(completion, Completion::Retry { .. }) == retry
        })
    };
    let (retried, processed) = (accepted(true), accepted(false));
    if processed {
        database.wake(Topic::Processed);
    }
    if retried {
        database.wake(Topic::Input);
    }
    Ok(answers)
}

/// Many completions in one step, and what they add to the line's row.
struct Ends<'a, 'b> {
    step: &'a Step<'b>,
    owner: &'a OwnerId,
    end: CachedStatement<'b>,
    give_back: CachedStatement<'b>,
    record: CachedStatement<'b>,
    append: CachedStatement<'b>,
    cursor: u64,
    processed: u64,
    recorded: u64,
    dead: u64,
}

impl<'a, 'b> Ends<'a, 'b> {
    fn new(step: &'a Step<'b>, owner: &'a OwnerId) -> rusqlite::Result<Self> {
        Ok(Self {
            step,
            owner,
            end: step.prepare(sql!("complete.sql", "end"))?,
            give_back: step.prepare(sql!("complete.sql", "give_back"))?,
            record: step.prepare(sql!("complete.sql", "record"))?,
            append: step.prepare(sql!("complete.sql", "append"))?,
            cursor: step.load()?.cursor,
            processed: 0,
            recorded: 0,
            dead: 0,
        })
    }

    fn end(&mut self, completion: &Completion) -> rusqlite::Result<Completed> {
        let Held { position, attempt } = completion.held();
        let (line, at, owner) = (self.step.line, int(position.0), self.owner.as_str());
        let ended = match completion {
            Completion::Retry { delay_us, .. } => {
                let due = (*delay_us > 0).then(|| int((self.step.now + *delay_us).0));
                self.give_back.execute(params![line, at, owner, attempt.0, due])?
            }
            _ => self.end.execute(params![line, at, owner, attempt.0])?,
        };
        if ended == 0 {
            return Ok(Completed::Stale);
        }
        match completion {
            Completion::Done(record) => {
                let number = self.record(record)?;
                self.append(position, Some(number), None)?;
            }
            Completion::Dead { tombstone, deliver } => {
                if let Some(number) = self.recorded(tombstone)? {
                    self.append(position, Some(number), None)?;
                } else {
                    self.bury(tombstone)?;
                    let open = deliver.then(|| write_open(tombstone));
                    self.append(position, None, open.as_deref())?;
                }
            }
            Completion::Retry { .. } => {}
        }
        Ok(Completed::Accepted)
    }

    /// Records a result unless its id has one; answers the number of the row that holds it.
    fn record(&mut self, record: &Record) -> rusqlite::Result<i64> {
        let (line, id, position) = (self.step.line, record.id.as_str(), int(record.position.0));
        let (reason, payload) = convert::body(&record.body);
        let inserted = self.record.execute(params![
            line,
            id,
            position,
            sequence(record.sequence),
            record.key,
            record.attempts.0,
            int(record.created.0),
            int(record.processing.0),
            int(self.step.now.0),
            reason,
            payload,
        ])?;
        if inserted > 0 {
            self.recorded += 1;
            return Ok(self.step.inserted());
        }
        self.recorded(record)?.ok_or(rusqlite::Error::QueryReturnedNoRows)
    }

    /// The number of the row that holds the result of this id, if there is one. It moves to the lower position.
    fn recorded(&self, record: &Record) -> rusqlite::Result<Option<i64>> {
        self.step
            .prepare(sql!("complete.sql", "recorded"))?
            .query_row(
                params![self.step.line, record.id.as_str(), int(record.position.0)],
                |row| row.get(0),
            )
            .optional()
    }

    fn bury(&mut self, tombstone: &Record) -> rusqlite::Result<()> {
        let reason = match &tombstone.body {
            Body::Dead { reason } => reason,
            Body::Result(_) => "",
        };
        self.dead += 1;
        self.step
            .prepare(sql!("complete.sql", "bury"))?
            .execute(params![
                self.step.line,
                int(tombstone.position.0),
                tombstone.id.as_str(),
                reason,
                tombstone.attempts.0,
                int(self.step.now.0),
            ])
            .map(drop)
    }

    fn append(&mut self, position: Position, record: Option<i64>, open: Option<&str>) -> rusqlite::Result<()> {
        self.cursor += 1;
        self.processed += 1;
        let died = open.is_some().then(|| int(self.step.now.0));
        self.append
            .execute(params![
                self.step.line,
                int(self.cursor),
                int(position.0),
                record,
                open,
                died
            ])
            .map(drop)
    }

    fn finish(self) -> rusqlite::Result<()> {
        if self.processed == 0 {
            return Ok(());
        }
        self.step
            .prepare(sql!("complete.sql", "advance"))?
            .execute(params![
                self.step.line,
                int(self.cursor),
                int(self.processed),
                int(self.recorded),
                int(self.dead)
            ])
            .map(drop)
    }
}
