//! The leases that a batch of completions ends: looked at together, and ended in runs.

use conga_core::lease::{Attempt, Held, OwnerId};
use conga_core::message::Position;
use conga_core::partition::Completion;
use rusqlite::params;

use super::convert::{attempt_at, int, position_at};
use super::sql::sql;
use super::step::Step;

/// They are read together if at most so many times as many places as completions lie between the first and the last.
const SPARSE: u64 = 4;

/// What an owner holds of what it says has ended. All within one step, under the lock for writing.
pub(super) struct Leases<'a, 'b> {
    step: &'a Step<'b>,
    owner: Option<&'a OwnerId>,
    first: Position,
    /// What it holds from `first` on, by place. Empty where the completions lie far apart: then each is asked for.
    held: Vec<Option<Attempt>>,
    /// From where up to where leases have ended whose rows are still there.
    run: Option<(Position, Position)>,
}

impl<'a, 'b> Leases<'a, 'b> {
    pub(super) fn read(step: &'a Step<'b>, owner: &'a OwnerId, completions: &[Completion]) -> rusqlite::Result<Self> {
        let places = || completions.iter().map(|completion| completion.held().position);
        let first = places().min().unwrap_or(Position::FIRST);
        let last = places().max().unwrap_or(first);
        let mut leases = Self {
            step,
            owner: Some(owner),
            first,
            held: Vec::new(),
            run: None,
        };
        let span = last.past(first).saturating_add(1);
        if completions.len() > 1 && span <= SPARSE * completions.len() as u64 {
            leases.held = vec![None; usize::try_from(span).unwrap_or(0)];
            let mut between = step.prepare(sql!("complete.sql", "between"))?;
            let mut rows = between.query(params![step.line, int(first.0), int(last.0), owner.as_str()])?;
            while let Some(row) = rows.next()? {
                let index = leases.index(position_at(row, 0)?);
                if let Some(place) = leases.held.get_mut(index) {
                    *place = Some(attempt_at(row, 1)?);
                }
            }
        }
        Ok(leases)
    }

    /// Those of nobody.
    pub(super) fn none(step: &'a Step<'b>) -> Self {
        Self {
            step,
            owner: None,
            first: Position::FIRST,
            held: Vec::new(),
            run: None,
        }
    }

    fn owner(&self) -> Option<&str> {
        self.owner.map(OwnerId::as_str)
    }

    /// Ends a lease; whether it was still held.
    pub(super) fn end(&mut self, held: Held) -> rusqlite::Result<bool> {
        let Held { position, attempt } = held;
        if self.held.is_empty() {
            let (line, at, owner) = (self.step.line, int(position.0), self.owner());
            let mut end = self.step.prepare(sql!("complete.sql", "end"))?;
            return end.execute(params![line, at, owner, attempt.0]).map(|ended| ended > 0);
        }
        if !self.take(held) {
            return Ok(false);
        }
        self.run = match self.run {
            Some((from, to)) if to.next() == position => Some((from, position)),
            _ => {
                self.close()?;
                Some((position, position))
            }
        };
        Ok(true)
    }

    /// Whether a lease is still held.
    pub(super) fn is_held(&mut self, held: Held) -> rusqlite::Result<bool> {
        // The rows of those that have ended are still there, and would count as held.
        self.close()?;
        self.step.prepare(sql!("complete.sql", "held"))?.exists(params![
            self.step.line,
            int(held.position.0),
            self.owner(),
            held.attempt.0
        ])
    }

    /// Frees a lease, at once or when it is due; whether it was still held.
    pub(super) fn give_back(&mut self, held: Held, delay_us: u64) -> rusqlite::Result<bool> {
        let (line, at) = (self.step.line, int(held.position.0));
        if !self.is_held(held)? {
            return Ok(false);
        }
        self.take(held);
        if delay_us > 0 {
            self.step.tell_time()?;
        }
        let due = (delay_us > 0).then(|| int((self.step.now + delay_us).0));
        self.step
            .prepare(sql!("complete.sql", "give_back"))?
            .execute(params![line, at, due])
            .map(|freed| freed > 0)
    }

    /// Ends a lease at which the line halts; whether it was still held.
    pub(super) fn halt(&mut self, held: Held) -> rusqlite::Result<bool> {
        if !self.is_held(held)? {
            return Ok(false);
        }
        self.take(held);
        self.step
            .prepare(sql!("complete.sql", "halt"))?
            .execute([self.step.line, int(held.position.0)])
            .map(|halted| halted > 0)
    }

    /// Removes the rows of the leases that have ended: all from one place up to another, so that no other is between.
    pub(super) fn close(&mut self) -> rusqlite::Result<()> {
        let Some((from, to)) = self.run.take() else {
            return Ok(());
        };
        self.step
            .prepare(sql!("complete.sql", "end_run"))?
            .execute([self.step.line, int(from.0), int(to.0)])
            .map(drop)
    }

    /// Takes a lease out of what was read, if it is there.
    fn take(&mut self, held: Held) -> bool {
        let index = self.index(held.position);
        self.held
            .get_mut(index)
            .is_some_and(|place| place.take_if(|attempt| *attempt == held.attempt).is_some())
    }

    fn index(&self, position: Position) -> usize {
        position
            .0
            .checked_sub(self.first.0)
            .and_then(|index| usize::try_from(index).ok())
            .unwrap_or(usize::MAX)
    }
}
