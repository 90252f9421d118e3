//! Trim: the call of `trim.lua`, with a renewal.

use conga_core::partition::Keep;

use super::{RedisStore, reply, script, whole};
use crate::store::Result;

impl RedisStore {
    /// Lets go of what is over, as much as goes into one step. Whether there is more. If that fails for now it does no
    /// harm: the next renewal of anybody goes on with it.
    pub(super) async fn trim(&self, keep: &Keep) -> Result<bool> {
        let keys = &self.keys;
        let mut call = script::TRIM.call(&[
            &keys.meta,
            &keys.record,
            &keys.kept,
            &keys.dead,
            &keys.output,
            &keys.halted,
        ]);
        call.arg(self.time()).arg(keep.to_text());
        for number in keep.numbers() {
            call.arg(number.map_or_else(String::new, |number| whole(number).to_string()));
        }
        match self.run(&script::TRIM, &call).await {
            Ok(more) => Ok(reply::number::<u8>(&more)? == 1),
            Err(error) if error.is_passing() => {
                tracing::debug!(%error, "could not trim what is over; somebody will");
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}
