//! Renew: the call of `renew.lua`.

use conga_core::lease::{Attempt, Held};
use conga_core::message::Position;
use conga_core::partition::{Claim, RenewRequest, Renewed};
use conga_core::time::Micros;

use super::claim::{attempt_of, entry};
use super::reply::Items;
use super::{RedisStore, script, whole};
use crate::store::{Delivery, Result};
use crate::wake::Topic;

impl RedisStore {
    pub(super) async fn renew_leases(&self, request: &RenewRequest) -> Result<Renewed> {
        let keys = &self.keys;
        let mut call = script::RENEW.call(&[
            &keys.owners,
            &keys.flight,
            &keys.free,
            &keys.input,
            &keys.meta,
            keys.wake(Topic::Input),
            &keys.alive,
            &keys.delayed,
            &keys.lock,
            &keys.numbers,
            &keys.strikes,
        ]);
        call.arg(self.time())
            .arg(request.owner.as_str())
            .arg(whole(request.lease_us))
            .arg(whole(request.limits.entry_bytes))
            .arg(whole(request.limits.total_bytes))
            .arg(self.presence())
            .arg(u8::from(request.held.is_some()));
        for held in request.held.iter().flatten() {
            call.arg(held.position.0).arg(held.attempt.0);
        }
        let (reply, node) = self.run_on_primary(&script::RENEW, &call).await?;
        let mut reply = Items::of(reply)?;
        // A server that took over may hold leases for an owner that has ended them, or never heard of. It knows the owner,
        // and not what the owner knows: so it does not count as known until both are compared.
        let is_another = self.witness.is_another(request.owner.as_str(), &node);
        if request.lease_us == 0 {
            self.witness.forget(request.owner.as_str());
            self.hints.forget(request.owner.as_str());
        }
        let known = reply.number::<u8>()? == 1 && !(is_another && request.held.is_none());
        let mut positions = reply.items()?;
        let mut lost = Vec::with_capacity(positions.len());
        while !positions.is_empty() {
            lost.push(Position(positions.number()?));
        }
        let mut claims = reply.items()?;
        let mut found = Vec::with_capacity(claims.len() / 4);
        while !claims.is_empty() {
            let position = Position(claims.number()?);
            let (attempt, strikes) = attempt_of(&claims.value()?)?;
            found.push(Claim {
                position,
                attempt,
                tries: strikes.tries(attempt),
                crashes: strikes.crashes,
                claimed: Micros(claims.number()?),
                entry: entry(claims.value()?)?,
            });
        }
        let mut head = reply.items()?;
        let blocking = if head.is_empty() {
            None
        } else {
            Some(Held {
                position: Position(head.number()?),
                attempt: Attempt(head.number()?),
            })
        };
        let is_ready = reply.number::<u8>()? == 1;
        if reply.number::<u8>()? == 1 {
            self.hints.shown(request.owner.as_str());
        }
        // What others had to leave, or have left to a leader.
        if is_ready && self.delivery == Delivery::Store {
            self.deliver_ready(&request.owner).await?;
        }
        let is_overfull = match &request.keep {
            Some(keep) if request.lease_us > 0 => self.trim(keep).await?,
            _ => false,
        };
        Ok(Renewed {
            known,
            lost,
            found,
            blocking,
            is_overfull,
        })
    }
}
