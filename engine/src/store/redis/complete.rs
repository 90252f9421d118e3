//! Complete: the call of `complete.lua`.

use std::collections::HashSet;

use ::redis::Cmd;
use conga_core::lease::OwnerId;
use conga_core::message::{Body, Id, Position, Record, write_open};
use conga_core::partition::{Completed, Completion, OnDead};

use super::reply::Items;
use super::{RedisStore, script, whole};
use crate::store::{Delivery, Result, StoreError};
use crate::wake::Topic;

/// So many in one group at most: what waits is delivered in such portions.
const LONGEST: usize = 1_000;

impl RedisStore {
    /// Ends leases, if any, and delivers, if that is the store's to do: all that is ready, in as many steps as it takes.
    pub(super) async fn end_leases(&self, owner: &OwnerId, completions: &[Completion]) -> Result<Vec<Completed>> {
        if completions.is_empty() && self.delivery == Delivery::Leader {
            return Ok(Vec::new());
        }
        let mut call = self.call_complete(owner);
        call.arg(u8::from(has_distinct_ids(completions)));
        for group in groups(completions) {
            write(&mut call, group);
        }
        let (answers, mut is_full) = self.run_complete(&call, completions.len()).await?;
        while is_full {
            is_full = self.deliver_ready(owner).await?;
        }
        Ok(answers)
    }

    /// Delivers what is ready, as much of it as goes into one step. Whether there is more. If that fails for now it does no
    /// harm: what is left ready goes out with the next complete or renewal of anybody.
    pub(super) async fn deliver_ready(&self, owner: &OwnerId) -> Result<bool> {
        let mut call = self.call_complete(owner);
        call.arg(1);
        match self.run_complete(&call, 0).await {
            Ok((_, is_full)) => Ok(is_full),
            Err(error) if error.is_passing() => {
                tracing::debug!(%error, "could not deliver what is ready; somebody will");
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    fn call_complete(&self, owner: &OwnerId) -> Cmd {
        let keys = &self.keys;
        let mut call = script::COMPLETE.call(&[
            &keys.flight,
            &keys.free,
            &keys.delayed,
            &keys.record,
            &keys.processed,
            &keys.dead,
            &keys.input,
            &keys.meta,
            keys.wake(Topic::Processed),
            keys.wake(Topic::Input),
            &keys.owners,
            &keys.lock,
            &keys.numbers,
            &keys.output,
            keys.wake(Topic::Output),
            keys.wake(Topic::Window),
            &keys.kept,
            &keys.keys,
            &keys.keyed,
            &keys.strikes,
            &keys.halted,
        ]);
        let delivers = self.delivery == Delivery::Store;
        call.arg(self.time()).arg(owner.as_str()).arg(u8::from(delivers));
        call
    }

    /// The answers, and whether more is to be delivered than went into this step.
    async fn run_complete(&self, call: &Cmd, count: usize) -> Result<(Vec<Completed>, bool)> {
        let mut reply = Items::of(self.run(&script::COMPLETE, call).await?)?;
        let is_full = reply.number::<u8>()? == 1;
        let answers = reply.bytes()?;
        let gone = reply.text()?;
        if !gone.is_empty() {
            return Err(StoreError::Broken(format!(
                "{gone}. Put it back, or the line can not go on"
            )));
        }
        if answers.len() != count {
            return Err(StoreError::Broken(format!(
                "Redis answered {} completions, {count} were asked for",
                answers.len()
            )));
        }
        let read = |answer: &u8| match answer {
            b'1' => Completed::Accepted,
            _ => Completed::Stale,
        };
        Ok((answers.iter().map(read).collect(), is_full))
    }
}

/// Results of neighbours that were claimed together go together; everything else goes by itself.
fn groups(completions: &[Completion]) -> impl Iterator<Item = &[Completion]> {
    let together = completions.chunk_by(|one, next| match (one, next) {
        (Completion::Done(one), Completion::Done(next)) => {
            next.position == one.position.next()
                && (next.attempts, next.processing) == (one.attempts, one.processing)
                && is_position(&next.id, next.position) == is_position(&one.id, one.position)
        }
        _ => false,
    });
    together.flat_map(|group| group.chunks(LONGEST))
}

/// Whether the id stands for the position, which nothing else can have.
fn is_position(id: &Id, position: Position) -> bool {
    // Only as it is written: a producer may give `@+7` for an id.
    let digits = id.as_str().strip_prefix('@').unwrap_or_default();
    digits.starts_with(|first: char| first.is_ascii_digit() && first != '0') && digits.parse() == Ok(position.0)
}

fn has_distinct_ids(completions: &[Completion]) -> bool {
    let mut seen = HashSet::with_capacity(completions.len());
    completions.iter().all(|completion| match completion {
        Completion::Done(record) | Completion::Dead { tombstone: record, .. } => seen.insert(record.id.as_str()),
        Completion::Retry { .. } => true,
    })
}

/// One group: its kind, first position, length, attempt and when it was claimed, and what the script wants of each.
fn write(call: &mut Cmd, group: &[Completion]) {
    let Some(first) = group.first() else { return };
    let held = first.held();
    let kind = match first {
        Completion::Done(record) if is_position(&record.id, record.position) => "N",
        Completion::Done(_) => "D",
        Completion::Dead { on_dead, .. } => match on_dead {
            OnDead::Mark => "M",
            OnDead::Skip => "S",
            OnDead::Halt => "H",
        },
        Completion::Retry { .. } => "R",
    };
    call.arg(kind).arg(held.position.0).arg(group.len()).arg(held.attempt.0);
    match first {
        // A server that took over may not know of a claim and hand the position out again, as the same attempt, with
        // what stands there now: so when it was claimed belongs to the lease too.
        Completion::Done(record) | Completion::Dead { tombstone: record, .. } => call.arg(whole(record.processing.0)),
        Completion::Retry { .. } => call.arg(0),
    };
    match first {
        Completion::Done(_) => {
            let records = || {
                group.iter().filter_map(|completion| match completion {
                    Completion::Done(record) => Some(record),
                    _ => None,
                })
            };
            for record in records() {
                call.arg(record.id.as_str());
            }
            for record in records() {
                call.arg(write_open(record));
            }
        }
        Completion::Dead { tombstone, on_dead } => {
            call.arg(tombstone.id.as_str()).arg(reason(tombstone));
            if *on_dead != OnDead::Skip {
                call.arg(write_open(tombstone));
            }
        }
        Completion::Retry { delay_us, .. } => {
            call.arg(whole(*delay_us));
        }
    }
}

fn reason(tombstone: &Record) -> &str {
    match &tombstone.body {
        Body::Dead { reason } => reason,
        Body::Result(_) => "",
    }
}
