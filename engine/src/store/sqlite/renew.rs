//! Renew: an owner says that it is alive, asks what it holds, or leaves.

use std::collections::HashSet;

use conga_core::lease::{Held, OwnerId};
use conga_core::message::{Entry, Position};
use conga_core::partition::{ALONE_FROM, Claim, Limits, RenewRequest, Renewed};
use conga_core::time::Micros;
use rusqlite::{OptionalExtension, params};

use super::convert::{attempt_at, int, micros_at, position_at, strikes_at, uint_at};
use super::database::{Commit, Database};
use super::deliver::deliver_ready;
use super::sql::sql;
use super::step::Step;
use super::trim::trim;
use crate::store::Result;
use crate::wake::Topic;

pub(super) fn renew(database: &mut Database, request: &RenewRequest) -> Result<Renewed> {
    let mut renewed = renew_or_leave(database, request)?;
    deliver_ready(database);
    if let Some(keep) = request.keep.filter(|_| request.lease_us > 0) {
        renewed.is_overfull = trim(database, &keep)?;
    }
    Ok(renewed)
}

fn renew_or_leave(database: &mut Database, request: &RenewRequest) -> Result<Renewed> {
    if request.lease_us == 0 {
        return leave(database, &request.owner);
    }
    database.show_alive(&request.owner);
    let (deadline, blocking, now) = database.read(|step| {
        Ok((
            deadline(step, &request.owner)?,
            blocking(step, &request.owner)?,
            step.now,
        ))
    })?;
    let spared = database.is_spared(deadline, now + request.lease_us, request.lease_us);
    let known = if spared {
        true
    } else {
        database.write(Commit::Written, |step| {
            let known = self::deadline(step, &request.owner)?.is_some();
            step.tell_time()?;
            keep_alive(step, &request.owner, request.lease_us)?;
            Ok(known)
        })?
    };
    // Two steps that are as good as one: nobody but the owner adds to what it holds, and what it loses between them
    // it could have lost right after them as well.
    let (lost, found) = match &request.held {
        None => Default::default(),
        Some(believed) => database.read(|step| compare(step, &request.owner, believed, request.limits))?,
    };
    Ok(Renewed {
        known,
        lost,
        found,
        blocking,
        is_overfull: false,
    })
}

fn leave(database: &mut Database, owner: &OwnerId) -> Result<Renewed> {
    let (known, freed) = database.write(Commit::Written, |step| {
        Ok((forget(step, owner)?, free_leases(step, owner, Fate::Left)?))
    })?;
    database.show_gone(owner);
    if freed > 0 {
        database.wake(Topic::Input);
    }
    Ok(Renewed {
        known,
        ..Renewed::default()
    })
}

/// Takes an owner for gone from now on; answers whether it was known.
pub(super) fn forget(step: &Step<'_>, owner: &OwnerId) -> rusqlite::Result<bool> {
    step.prepare(sql!("renew.sql", "leave"))?
        .execute(params![step.line, owner.as_str()])
        .map(|gone| gone > 0)
}

/// Until when an owner is taken to be alive, if it is known.
fn deadline(step: &Step<'_>, owner: &OwnerId) -> rusqlite::Result<Option<Micros>> {
    step.prepare(sql!("renew.sql", "deadline"))?
        .query_row(params![step.line, owner.as_str()], |row| micros_at(row, 0))
        .optional()
}

/// The head, if the owner holds it; or what it holds first, if somebody has to hold nothing.
fn blocking(step: &Step<'_>, owner: &OwnerId) -> rusqlite::Result<Option<Held>> {
    let held_at = |row: &rusqlite::Row<'_>| {
        Ok(Held {
            position: position_at(row, 0)?,
            attempt: attempt_at(row, 1)?,
        })
    };
    let head = step
        .prepare(sql!("renew.sql", "blocking"))?
        .query_row(params![step.line, owner.as_str()], held_at)
        .optional()?;
    if head.is_some() || !has_suspects(step)? {
        return Ok(head);
    }
    step.prepare(sql!("renew.sql", "in_the_way"))?
        .query_row(params![step.line, owner.as_str(), ALONE_FROM], held_at)
        .optional()
}

/// Whether any message is to be handed out in small numbers, or alone.
pub(super) fn has_suspects(step: &Step<'_>) -> rusqlite::Result<bool> {
    step.prepare(sql!("claim.sql", "has_suspects"))?
        .query_row([step.line], |row| row.get(0))
}

/// Takes an owner to be alive for so long from now on.
pub(super) fn keep_alive(step: &Step<'_>, owner: &OwnerId, lease_us: u64) -> rusqlite::Result<()> {
    let deadline = step.now + lease_us;
    step.prepare(sql!("renew.sql", "alive"))?
        .execute(params![step.line, owner.as_str(), int(deadline.0)])
        .map(drop)
}

/// How it comes that an owner holds nothing any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Left,
    Died,
}

/// Frees what an owner holds, and blames what most suspicion is on, if it died; answers how many that were.
pub(super) fn free_leases(step: &Step<'_>, owner: &OwnerId, fate: Fate) -> rusqlite::Result<usize> {
    let blamed: Option<i64> = match fate {
        Fate::Left => None,
        Fate::Died => step
            .prepare(sql!("renew.sql", "most_blamed"))?
            .query_row(params![step.line, owner.as_str()], |row| row.get(0))?,
    };
    step.prepare(sql!("renew.sql", "free_leases"))?
        .execute(params![step.line, owner.as_str(), blamed.unwrap_or(-1)])
}

/// What the owner does not hold of what it believes to, and what it holds besides.
fn compare(
    step: &Step<'_>,
    owner: &OwnerId,
    believed: &[Held],
    limits: Limits,
) -> rusqlite::Result<(Vec<Position>, Vec<Claim>)> {
    let known: HashSet<&Held> = believed.iter().collect();
    let mut really = HashSet::new();
    let mut found = Vec::new();
    let mut bytes = 0;
    let mut leases = step.prepare(sql!("renew.sql", "leases"))?;
    let mut rows = leases.query(params![step.line, owner.as_str()])?;
    while let Some(row) = rows.next()? {
        let held = Held {
            position: position_at(row, 0)?,
            attempt: attempt_at(row, 1)?,
        };
        really.insert(held);
        if known.contains(&held) || bytes >= limits.total_bytes {
            continue;
        }
        let size = uint_at(row, 3)?;
        let entry = if size > limits.entry_bytes {
            Entry::Oversize { bytes: size }
        } else {
            bytes += size;
            Entry::Whole(body(step, held.position)?.into())
        };
        let strikes = strikes_at(row, 4)?;
        found.push(Claim {
            position: held.position,
            attempt: held.attempt,
            tries: strikes.tries(held.attempt),
            crashes: strikes.crashes,
            claimed: micros_at(row, 2)?,
            entry,
        });
    }
    let lost = believed
        .iter()
        .filter(|held| !really.contains(held))
        .map(|held| held.position)
        .collect();
    Ok((lost, found))
}

fn body(step: &Step<'_>, position: Position) -> rusqlite::Result<Vec<u8>> {
    step.prepare(sql!("renew.sql", "body"))?
        .query_row([step.place(position)], |row| row.get(0))
}
