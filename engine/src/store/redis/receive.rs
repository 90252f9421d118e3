//! Receive: the call of `receive.lua`, and a plain read of what comes next.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use conga_core::message::Position;
use conga_core::partition::{ReceiveRequest, Received};
use conga_core::term::Term;

use super::reply::Items;
use super::{RedisStore, script, whole};
use crate::deliver::position_of;
use crate::store::Result;

impl RedisStore {
    /// A plain read, so that no output has to pass through Lua, and between two looks whose the latest reign is: if it is the
    /// caller's before and after, it was at the reading. All go together. In a transaction the second look could be spared,
    /// but without memory Redis refuses transactions of any kind.
    ///
    /// Where replicas are waited for, they have to have what is handed out, and what was taken off. The wait is for a
    /// write that comes after the reading, so it covers all that was read.
    pub(super) async fn read_outputs(&self, request: &ReceiveRequest) -> Result<Received> {
        let (term, owner) = match &request.reign {
            Some(reign) => (reign.term.0, reign.owner.as_str()),
            None => (0, ""),
        };
        let look = || {
            let mut call = script::RECEIVE.call(&[&self.keys.output, &self.keys.meta]);
            call.arg(self.time()).arg(term).arg(owner);
            call
        };
        let mut call = look();
        match request.acknowledge {
            Some(written) => {
                let (beginning, count) = self.handed.of(owner, written);
                call.arg(written.0).arg(beginning).arg(count)
            }
            None => call.arg("").arg("").arg(0),
        };
        let mut all = ::redis::pipe();
        all.add_command(call);
        let (skip, max) = (whole(request.skip as u64), whole(request.max as u64));
        if max > 0 {
            all.cmd("LRANGE")
                .arg(&self.keys.output)
                .arg(format!("-{}", skip + max))
                .arg(format!("-{}", skip + 1));
            let mut again = look();
            again.arg("").arg("").arg(0);
            all.add_command(again);
        }
        let (replies, node) = self.run_all(&script::RECEIVE, &all).await?;
        let mut replies = replies.into_iter();
        let mut next = || replies.next().unwrap_or(::redis::Value::Nil);
        if let Some(term) = fenced(next())? {
            return Ok(Received::Fenced { term });
        }
        let mut outputs = Vec::new();
        if max > 0 {
            let range = next();
            if let Some(term) = fenced(next())? {
                return Ok(Received::Fenced { term });
            }
            let mut range = Items::of(range)?;
            outputs.reserve(range.len());
            while !range.is_empty() {
                outputs.push(range.bytes()?);
            }
            // The list has the newest first.
            outputs.reverse();
        }
        // Even if nothing was taken off: an earlier one, whose answer was lost, may have.
        if request.acknowledge.is_some() || !outputs.is_empty() {
            self.settle(Some(node)).await?;
        }
        // Only now: a receive that fails is repeated, and its acknowledgement means what was handed out before.
        self.handed.note(owner, &outputs);
        Ok(Received::Outputs(outputs))
    }
}

/// The latest term, where it is another's.
fn fenced(said: ::redis::Value) -> Result<Option<Term>> {
    let mut said = Items::of(said)?;
    match said.text()?.as_str() {
        "fenced" => said.number().map(Term).map(Some),
        _ => Ok(None),
    }
}

/// So much of an output tells it from others: all of it, unless it is large.
const BEGINNING: usize = 4_096;
/// So many batches may be out at once: one for each consumer of this store.
const BATCHES: usize = 8;

/// How the last outputs of the latest batches began: an acknowledgement means those, and not what came to stand at their
/// positions when another server took over. Each consumer means its own.
#[derive(Debug, Default)]
pub(super) struct Handed(Mutex<VecDeque<HandedOut>>);

#[derive(Debug)]
struct HandedOut {
    owner: String,
    last: Position,
    /// How many they were.
    count: usize,
    beginning: Bytes,
}

impl HandedOut {
    fn is(&self, owner: &str, last: Position) -> bool {
        self.owner == owner && self.last == last
    }
}

impl Handed {
    fn note(&self, owner: &str, outputs: &[Bytes]) {
        let Some(last) = outputs.last() else { return };
        let Some(position) = position_of(last) else { return };
        let mut batches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        batches.retain(|batch| !batch.is(owner, position));
        // A copy, so that it does not keep all of a large answer.
        let beginning = Bytes::copy_from_slice(&last[..last.len().min(BEGINNING)]);
        batches.push_back(HandedOut {
            owner: owner.to_owned(),
            last: position,
            count: outputs.len(),
            beginning,
        });
        let surplus = batches.len().saturating_sub(BATCHES);
        batches.drain(..surplus);
    }

    /// How the last output of a batch began and how many it had; nothing, if it was not handed out here.
    fn of(&self, owner: &str, position: Position) -> (Vec<u8>, usize) {
        let batches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let batch = batches.iter().rfind(|batch| batch.is(owner, position));
        batch.map_or_else(Default::default, |batch| (batch.beginning.to_vec(), batch.count))
    }
}
