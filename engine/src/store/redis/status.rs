//! Status: the call of `status.lua`.

use conga_core::lease::{Attempt, OwnerId};
use conga_core::message::Position;
use conga_core::partition::{Blocker, Status};
use conga_core::term::Term;
use conga_core::time::Micros;

use super::reply::Items;
use super::{RedisStore, script};
use crate::store::{Result, StoreError};

impl RedisStore {
    pub(super) async fn count(&self) -> Result<Status> {
        let keys = &self.keys;
        let mut call = script::STATUS.call(&[
            &keys.input,
            &keys.meta,
            &keys.lease,
            &keys.processed,
            &keys.output,
            &keys.record,
            &keys.dead,
            &keys.owners,
            &keys.lock,
        ]);
        call.arg(self.time());
        let mut reply = Items::of(self.run(&script::STATUS, &call).await?)?;
        let now = Micros(reply.number()?);
        let entries: u64 = reply.number()?;
        let head = Position(reply.number()?);
        let next = Position(reply.number()?);
        let mut status = Status {
            now,
            waiting: entries.saturating_sub(next.past(head)),
            term: Term(reply.number()?),
            in_flight: reply.number()?,
            processed: reply.number()?,
            output: reply.number()?,
            recorded: reply.number()?,
            dead: reply.number()?,
            head,
            next,
            blocker: reply.optional_text()?.map(|lease| blocker(&lease)).transpose()?,
            leader: reply.optional_text()?.map(OwnerId::new),
            processors: Vec::new(),
        };
        let mut owners = reply.items()?;
        while !owners.is_empty() {
            status.processors.push(OwnerId::new(owners.text()?));
        }
        status.processors.sort();
        Ok(status)
    }
}

/// Reads a value of the hash of leases.
fn blocker(lease: &str) -> Result<Blocker> {
    let mut words = lease.split(' ');
    let read = match words.next() {
        Some("L") => leased(words),
        Some("F") => Some(Blocker::Free),
        Some("D") => words
            .nth(1)
            .and_then(|due| due.parse().ok())
            .map(|due| Blocker::Delayed { due: Micros(due) }),
        _ => None,
    };
    read.ok_or_else(|| {
        StoreError::Broken(format!(
            "`{lease}` is no lease: somebody else has changed what is stored"
        ))
    })
}

fn leased<'a>(mut words: impl Iterator<Item = &'a str>) -> Option<Blocker> {
    Some(Blocker::Leased {
        owner: OwnerId::new(words.next()?),
        attempt: Attempt(words.next()?.parse().ok()?),
        since: Micros(words.next()?.parse().ok()?),
    })
}
