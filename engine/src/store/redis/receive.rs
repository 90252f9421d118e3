//! Receive: the call of `receive.lua` for what is acknowledged, and a plain read of what comes next.

use bytes::Bytes;
use conga_core::partition::ReceiveRequest;

use super::reply::Items;
use super::{RedisStore, script, whole};
use crate::store::Result;

impl RedisStore {
    /// Two steps rather than one, so that no output has to pass through Lua. Between them another consumer may take
    /// something; what is read is the oldest there is then.
    pub(super) async fn read_outputs(&self, request: &ReceiveRequest) -> Result<Vec<Bytes>> {
        if let Some(written) = request.acknowledge {
            let mut call = script::RECEIVE.call(&[&self.keys.output]);
            call.arg(self.time()).arg(written.0);
            self.run(&script::RECEIVE, &call).await?;
        }
        let max = whole(request.max as u64);
        if max == 0 {
            return Ok(Vec::new());
        }
        let mut range = ::redis::cmd("LRANGE");
        range.arg(&self.keys.output).arg(format!("-{max}")).arg(-1);
        let mut reply = Items::of(self.ask(&range).await?)?;
        let mut outputs = Vec::with_capacity(reply.len());
        while !reply.is_empty() {
            outputs.push(reply.bytes()?);
        }
        // The list has the newest first.
        outputs.reverse();
        Ok(outputs)
    }
}
