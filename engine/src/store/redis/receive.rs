//! Receive: the call of `receive.lua` for what is acknowledged, and a plain read of what comes next.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use conga_core::message::Position;
use conga_core::partition::ReceiveRequest;

use super::reply::Items;
use super::{RedisStore, script, whole};
use crate::deliver::position_of;
use crate::store::Result;

impl RedisStore {
    /// Two steps rather than one, so that no output has to pass through Lua. Between them another consumer may take
    /// something; what is read is the oldest there is then.
    ///
    /// Where replicas are waited for, they have to have what is handed out, and what was taken off. The wait is for a
    /// write that comes after the reading, so it covers all that was read.
    pub(super) async fn read_outputs(&self, request: &ReceiveRequest) -> Result<Vec<Bytes>> {
        let max = whole(request.max as u64);
        let mut taken = None;
        if let Some(written) = request.acknowledge {
            let mut call = script::RECEIVE.call(&[&self.keys.output]);
            call.arg(self.time()).arg(written.0).arg(self.handed.beginning(written));
            // Even if it takes off nothing: an earlier one, whose answer was lost, may have.
            taken = self.run_traced(&script::RECEIVE, &call).await?.1;
        }
        let mut outputs = Vec::new();
        if max > 0 {
            let mut range = ::redis::cmd("LRANGE");
            range.arg(&self.keys.output).arg(format!("-{max}")).arg(-1);
            let (reply, node) = self.ask_traced(&range).await?;
            let mut reply = Items::of(reply)?;
            while !reply.is_empty() {
                outputs.push(reply.bytes()?);
            }
            // The list has the newest first.
            outputs.reverse();
            self.handed.note(&outputs);
            let read = node.filter(|_| !outputs.is_empty());
            if taken.as_ref().map(|node| node.number) == read.as_ref().map(|node| node.number) {
                taken = None;
            }
            self.settle(read).await?;
        }
        self.settle(taken).await?;
        Ok(outputs)
    }
}

/// So much of an output tells it from others: all of it, unless it is large.
const BEGINNING: usize = 4_096;
/// So many batches may be out at once: one for each consumer of this store.
const BATCHES: usize = 8;

/// How the last outputs of the latest batches began: an acknowledgement means those, and not what came to stand at their
/// positions when another server took over.
#[derive(Debug, Default)]
pub(super) struct Handed(Mutex<VecDeque<(Position, Bytes)>>);

impl Handed {
    fn note(&self, outputs: &[Bytes]) {
        let Some(last) = outputs.last() else { return };
        let Some(position) = position_of(last) else { return };
        let mut batches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        batches.retain(|(at, _)| *at != position);
        // A copy, so that it does not keep all of a large answer.
        let beginning = Bytes::copy_from_slice(&last[..last.len().min(BEGINNING)]);
        batches.push_back((position, beginning));
        let surplus = batches.len().saturating_sub(BATCHES);
        batches.drain(..surplus);
    }

    /// Nothing, if it was not handed out here.
    fn beginning(&self, position: Position) -> Vec<u8> {
        let batches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let batch = batches.iter().rfind(|(at, _)| *at == position);
        batch.map_or_else(Vec::new, |(_, beginning)| beginning.to_vec())
    }
}
