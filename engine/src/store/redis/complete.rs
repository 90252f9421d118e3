//! Complete: the call of `complete.lua`.

use ::redis::Cmd;
use conga_core::lease::OwnerId;
use conga_core::message::{Body, write_open};
use conga_core::partition::{Completed, Completion};

use super::reply::Items;
use super::{RedisStore, script, whole};
use crate::store::Result;
use crate::wake::Topic;

impl RedisStore {
    pub(super) async fn end_leases(&self, owner: &OwnerId, completions: &[Completion]) -> Result<Vec<Completed>> {
        if completions.is_empty() {
            return Ok(Vec::new());
        }
        let keys = &self.keys;
        let mut call = script::COMPLETE.call(&[
            &keys.lease,
            &keys.free,
            &keys.delayed,
            &keys.record,
            &keys.processed,
            &keys.dead,
            &keys.input,
            &keys.meta,
            keys.wake(Topic::Processed),
            keys.wake(Topic::Input),
        ]);
        call.arg(self.time()).arg(owner.as_str());
        for completion in completions {
            write(&mut call, completion);
        }
        let mut reply = Items::of(self.run(&script::COMPLETE, &call).await?)?;
        completions
            .iter()
            .map(|_| {
                Ok(match reply.number::<u8>()? {
                    1 => Completed::Accepted,
                    _ => Completed::Stale,
                })
            })
            .collect()
    }
}

/// Six arguments: kind, position, attempt, and three that depend on the kind.
fn write(call: &mut Cmd, completion: &Completion) {
    let held = completion.held();
    let kind = match completion {
        Completion::Done(_) => "D",
        Completion::Dead { deliver: true, .. } => "M",
        Completion::Dead { deliver: false, .. } => "S",
        Completion::Retry { .. } => "R",
    };
    call.arg(kind).arg(held.position.0).arg(held.attempt.0);
    match completion {
        Completion::Done(record) => call.arg(record.id.as_str()).arg(write_open(record)).arg(""),
        Completion::Dead { tombstone, deliver } => {
            let reason = match &tombstone.body {
                Body::Dead { reason } => reason.as_str(),
                Body::Result(_) => "",
            };
            let open = if *deliver { write_open(tombstone) } else { String::new() };
            call.arg(tombstone.id.as_str()).arg(reason).arg(open)
        }
        Completion::Retry { delay_us, .. } => call.arg(whole(*delay_us)).arg("").arg(""),
    };
}
