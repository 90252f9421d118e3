//! Campaign: the call of `campaign.lua`.

use conga_core::lease::OwnerId;
use conga_core::partition::CampaignRequest;
use conga_core::term::{Campaign, Role, Term};

use super::reply::Items;
use super::{RedisStore, script, whole};
use crate::clock::Clock;
use crate::store::Result;
use crate::wake::Topic;

impl RedisStore {
    pub(super) async fn ask_for_lock(&self, request: &CampaignRequest) -> Result<Campaign> {
        let keys = &self.keys;
        let mut call = script::CAMPAIGN.call(&[
            &keys.lock,
            &keys.meta,
            keys.wake(Topic::Lock),
            &keys.owners,
            &keys.delayed,
            &keys.flight,
        ]);
        call.arg(self.time())
            .arg(request.owner.as_str())
            .arg(whole(request.lock_us));
        match self.clock {
            // The key must not end before the deadline that is in it, so the millisecond is rounded up.
            Clock::Store => call.arg(whole(request.lock_us).div_ceil(1_000)),
            Clock::Manual(_) => call.arg(""),
        };
        call.arg(self.presence()).arg(match request.role {
            Role::Leader => "leader",
            Role::Consumer => "consumer",
        });
        let mut reply = Items::of(self.run(&script::CAMPAIGN, &call).await?)?;
        if reply.text()? == "leader" {
            let term = Term(reply.number()?);
            return Ok(Campaign::Leader { term });
        }
        let leader = reply.optional_text()?.map(OwnerId::new);
        Ok(Campaign::Standby { leader })
    }
}
