//! Renew: the call of `renew.lua`.

use conga_core::lease::Attempt;
use conga_core::message::Position;
use conga_core::partition::{Claim, RenewRequest, Renewed};
use conga_core::time::Micros;

use super::claim::entry;
use super::reply::Items;
use super::{RedisStore, script, whole};
use crate::store::Result;
use crate::wake::Topic;

impl RedisStore {
    pub(super) async fn renew_leases(&self, request: &RenewRequest) -> Result<Renewed> {
        let keys = &self.keys;
        let mut call = script::RENEW.call(&[
            &keys.owners,
            &keys.lease,
            &keys.free,
            &keys.input,
            &keys.meta,
            keys.wake(Topic::Input),
            &keys.alive,
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
        let mut reply = Items::of(self.run(&script::RENEW, &call).await?)?;
        let known = reply.number::<u8>()? == 1;
        let mut positions = reply.items()?;
        let mut lost = Vec::with_capacity(positions.len());
        while !positions.is_empty() {
            lost.push(Position(positions.number()?));
        }
        let mut claims = reply.items()?;
        let mut found = Vec::with_capacity(claims.len() / 4);
        while !claims.is_empty() {
            found.push(Claim {
                position: Position(claims.number()?),
                attempt: Attempt(claims.number()?),
                claimed: Micros(claims.number()?),
                entry: entry(claims.value()?)?,
            });
        }
        Ok(Renewed { known, lost, found })
    }
}
