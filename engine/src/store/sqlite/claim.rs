//! Claim (law 1): first what is free again, lowest position first, then new messages from the input.

use bytes::Bytes;
use conga_core::lease::{Attempt, OwnerId};
use conga_core::message::{Entry, Position, key_of};
use conga_core::partition::{Claim, ClaimRequest, Flow, Hands, PASS_MOST};
use conga_core::shape::Order;
use rusqlite::params;

use super::control::save_bucket;
use super::convert::{attempt_at, entry_at, int, micros_at, position_at, strikes_at};
use super::database::{Commit, Database};
use super::in_place::{PARKED, first_of};
use super::renew::{Fate, forget, free_leases, has_suspects, keep_alive};
use super::sql::sql;
use super::step::{LineRow, Step};
use crate::store::Result;

pub(super) fn claim(database: &mut Database, request: &ClaimRequest) -> Result<Vec<Claim>> {
    database.show_alive(&request.owner);
    let gone = database.look_for_gone()?;
    if gone.is_empty() && is_idle(database, request)? {
        return Ok(Vec::new());
    }
    database.write(Commit::Written, |step| {
        for owner in &gone {
            forget(step, owner)?;
            free_leases(step, owner, Fate::Died)?;
        }
        step.tell_time()?;
        keep_alive(step, &request.owner, request.lease_us.max(1))?;
        free_the_expired(step)?;
        let hands = hands_of(step, &request.owner)?;
        let line = step.load()?;
        let mut claims = Claims {
            request,
            step,
            bytes: 0,
            taken: Vec::new(),
            allowed: line.bucket.allows(line.control.rate, step.now),
            fresh: 0,
            hands,
            is_barred: false,
        };
        if line.control.flow != Flow::Paused {
            claims.take_free()?;
        }
        if line.control.flow == Flow::Running && !claims.is_barred && claims.hands.may_take(0) {
            claims.take_new(&line)?;
        }
        if let Some(rate) = line.control.rate.filter(|_| claims.fresh > 0) {
            save_bucket(step, line.bucket.spent(rate, step.now, claims.fresh))?;
        }
        Ok(claims.taken)
    })
}

/// Whether there is nothing to do, so that an idle process neither takes the write lock nor writes.
fn is_idle(database: &Database, request: &ClaimRequest) -> Result<bool> {
    let (work, stands, now) = database.read(|step| {
        let line = step.load()?;
        let (freed, stands) = step.prepare(sql!("claim.sql", "look"))?.query_row(
            params![step.line, int(step.now.0), request.owner.as_str()],
            |row| {
                let stands: Option<i64> = row.get(1)?;
                Ok((row.get(0)?, stands.map(|_| micros_at(row, 1)).transpose()?))
            },
        )?;
        let new = line.next <= line.last
            && line.next < limit(&line, request)
            && line.control.flow == Flow::Running
            && line.bucket.allows(line.control.rate, step.now) > 0;
        let set_back = line.set_back(step.now).is_some();
        Ok((freed || new || set_back, stands, step.now))
    })?;
    Ok(!work && database.is_spared(stands, now + request.lease_us, request.lease_us))
}

/// Below which position new messages are handed out.
fn limit(line: &LineRow, request: &ClaimRequest) -> Position {
    let limit = line.limit(request.window);
    request.below.map_or(limit, |below| limit.min(below))
}

/// Frees what owners held whose time is up, and what has waited out its delay.
fn free_the_expired(step: &Step<'_>) -> rusqlite::Result<()> {
    let gone = step
        .prepare(sql!("claim.sql", "bury_owners"))?
        .query_map(params![step.line, int(step.now.0)], |row| row.get(0))?
        .collect::<rusqlite::Result<Vec<String>>>()?;
    for owner in gone {
        free_leases(step, &OwnerId::new(owner), Fate::Died)?;
    }
    step.prepare(sql!("claim.sql", "free_due"))?
        .execute(params![step.line, int(step.now.0)])
        .map(drop)
}

/// What an owner holds, where it matters: what was handed out while nothing was suspect may be anything.
fn hands_of(step: &Step<'_>, owner: &OwnerId) -> rusqlite::Result<Hands> {
    let mut hands = Hands::default();
    if has_suspects(step)? {
        let mut held = step.prepare(sql!("claim.sql", "hands"))?;
        let mut rows = held.query(params![step.line, owner.as_str()])?;
        while let Some(row) = rows.next()? {
            hands.take(row.get(0)?);
        }
    }
    Ok(hands)
}

struct Claims<'a, 'b> {
    request: &'a ClaimRequest,
    step: &'a Step<'b>,
    bytes: u64,
    taken: Vec<Claim>,
    /// How many may be handed out for the first time, and how many are.
    allowed: u64,
    fresh: u64,
    hands: Hands,
    /// What is free next may not be handed out to this owner, and nothing newer goes before it.
    is_barred: bool,
}

impl Claims<'_, '_> {
    fn take_free(&mut self) -> rusqlite::Result<()> {
        let (step, owner) = (self.step, &self.request.owner);
        let from = self.taken.len();
        self.take(sql!("claim.sql", "free_again"), &[])?;
        let mut lease = step.prepare(sql!("claim.sql", "lease_again"))?;
        for claim in &self.taken[from..] {
            lease.execute(params![
                step.line,
                int(claim.position.0),
                owner.as_str(),
                claim.attempt.0,
                int(step.now.0)
            ])?;
        }
        Ok(())
    }

    fn take_new(&mut self, line: &LineRow) -> rusqlite::Result<()> {
        let (step, owner) = (self.step, &self.request.owner);
        let from = self.taken.len();
        let limit = limit(line, self.request);
        if let Order::Key { serial } = line.shape.unwrap_or_default().order {
            return self.take_new_by_key(line, limit, serial);
        }
        self.take(sql!("claim.sql", "new"), &[line.next, limit])?;
        let Some(next) = self.taken[from..].last().map(|last| last.position.next()) else {
            return Ok(());
        };
        // They are dense, so one statement leases them all.
        step.prepare(sql!("claim.sql", "lease_new"))?.execute(params![
            step.line,
            step.place(line.next),
            step.place(next),
            owner.as_str(),
            int(step.now.0)
        ])?;
        step.prepare(sql!("claim.sql", "advance"))?
            .execute(params![step.line, int(next.0)])
            .map(drop)
    }

    /// As `take_new`, but puts each behind the others of its key, and with `serial` passes over what may not go yet.
    fn take_new_by_key(&mut self, line: &LineRow, limit: Position, serial: bool) -> rusqlite::Result<()> {
        let (step, limits, next) = (self.step, self.request.limits, line.next);
        let (mut upcoming, mut passed) = (next, 0);
        let mut new = step.prepare(sql!("in_place.sql", "new"))?;
        let mut fly = step.prepare(sql!("in_place.sql", "fly"))?;
        let mut rows = new.query([step.line, step.place(next), step.place(limit)])?;
        while self.taken.len() < self.request.max
            && self.bytes < limits.total_bytes
            && passed < PASS_MOST
            && self.fresh < self.allowed
            && let Some(row) = rows.next()?
        {
            let position = position_at(row, 0)?;
            let body = row.get_ref(2)?.as_blob()?;
            let key = key_of(body);
            let is_behind = match &key {
                Some(key) if serial => first_of(step, key)?.is_some(),
                _ => false,
            };
            let (attempt, owner, due) = if is_behind {
                (0, None, Some(PARKED))
            } else {
                (1, Some(self.request.owner.as_str()), None)
            };
            let (at, now) = (int(position.0), int(step.now.0));
            fly.execute(params![step.line, at, attempt, owner, now, due, key])?;
            upcoming = position.next();
            if is_behind {
                passed += 1;
                continue;
            }
            let entry = match body.len() as u64 {
                bytes if bytes > limits.entry_bytes => Entry::Oversize { bytes },
                _ => Entry::Whole(Bytes::copy_from_slice(body)),
            };
            self.bytes += entry.handed_out();
            self.fresh += 1;
            self.taken.push(Claim {
                position,
                attempt: Attempt(attempt),
                tries: Attempt(attempt),
                crashes: 0,
                claimed: step.now,
                entry,
            });
        }
        step.prepare(sql!("claim.sql", "advance"))?
            .execute(params![step.line, int(upcoming.0)])
            .map(drop)
    }

    /// Reads messages, at most so many, until there are enough of them or of their bytes.
    fn take(&mut self, statement: &'static str, range: &[Position]) -> rusqlite::Result<()> {
        let (step, limits) = (self.step, self.request.limits);
        let wanted = (self.request.max - self.taken.len()) as u64;
        if wanted == 0 || self.bytes >= limits.total_bytes {
            return Ok(());
        }
        let mut statement = step.prepare(statement)?;
        let values = [step.line, int(limits.entry_bytes), int(wanted)]
            .into_iter()
            .chain(range.iter().map(|position| step.place(*position)));
        let mut rows = statement.query(rusqlite::params_from_iter(values))?;
        while self.bytes < limits.total_bytes
            && let Some(row) = rows.next()?
        {
            let strikes = strikes_at(row, 4)?;
            let tried: Attempt = attempt_at(row, 1)?;
            // New, or passed over up to now.
            let is_first = tried == Attempt::default();
            if (is_first && self.fresh == self.allowed) || !self.hands.may_take(strikes.crashes) {
                self.is_barred = true;
                break;
            }
            self.fresh += u64::from(is_first);
            self.hands.take(strikes.crashes);
            let entry = entry_at(row, 2, 3)?;
            self.bytes += entry.handed_out();
            let attempt = tried.next();
            self.taken.push(Claim {
                position: position_at(row, 0)?,
                attempt,
                tries: strikes.tries(attempt),
                crashes: strikes.crashes,
                claimed: step.now,
                entry,
            });
        }
        Ok(())
    }
}
