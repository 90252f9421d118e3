//! Claim: the call of `claim.lua`, and what its claims look like.

use ::redis::Value;
use conga_core::lease::Attempt;
use conga_core::message::{Entry, Position};
use conga_core::partition::{Claim, ClaimRequest, Strikes};
use conga_core::time::Micros;

use super::reply::{self, Items};
use super::{RedisStore, script, whole};
use crate::store::Result;

impl RedisStore {
    pub(super) async fn claim_entries(&self, request: &ClaimRequest) -> Result<Vec<Claim>> {
        let keys = &self.keys;
        let mut call = script::CLAIM.call(&[
            &keys.input,
            &keys.meta,
            &keys.flight,
            &keys.free,
            &keys.delayed,
            &keys.owners,
            &keys.alive,
            &keys.lock,
            &keys.numbers,
            &keys.keys,
            &keys.keyed,
            &keys.strikes,
        ]);
        call.arg(self.time())
            .arg(request.owner.as_str())
            .arg(whole(request.max as u64))
            .arg(whole(request.lease_us))
            .arg(whole(request.window))
            .arg(whole(request.limits.entry_bytes))
            .arg(whole(request.limits.total_bytes))
            .arg(whole(request.below.map_or(u64::MAX, |below| below.0)));
        let mut reply = Items::of(self.run(&script::CLAIM, &call).await?)?;
        let claimed = Micros(reply.number()?);
        let mut claims = Vec::new();
        while !reply.is_empty() {
            let first = Position(reply.number()?);
            let (attempt, strikes) = attempt_of(&reply.value()?)?;
            let entries = reply.items()?;
            claims.reserve(entries.len());
            for (value, nth) in entries.oldest_first().zip(0..) {
                claims.push(Claim {
                    position: first.plus(nth),
                    attempt,
                    tries: strikes.tries(attempt),
                    crashes: strikes.crashes,
                    claimed,
                    entry: entry(value)?,
                });
            }
        }
        Ok(claims)
    }
}

/// An attempt and its strikes. It is a number, or with strikes a text: `attempt excused crashes`.
pub(super) fn attempt_of(value: &Value) -> Result<(Attempt, Strikes)> {
    if let Value::Int(_) = value {
        return Ok((Attempt(reply::number(value)?), Strikes::default()));
    }
    let text = reply::text(value.clone())?;
    let numbers: Vec<u32> = text.split(' ').filter_map(|number| number.parse().ok()).collect();
    let [attempt, excused, crashes] = numbers[..] else {
        return Err(reply::unexpected("an attempt and its strikes", value));
    };
    Ok((Attempt(attempt), Strikes { excused, crashes }))
}

/// An entry, or the size of one that is too large to be handed out.
pub(super) fn entry(value: Value) -> Result<Entry> {
    match value {
        Value::Int(_) => Ok(Entry::Oversize {
            bytes: reply::number(&value)?,
        }),
        value => reply::bytes(value).map(Entry::Whole),
    }
}
