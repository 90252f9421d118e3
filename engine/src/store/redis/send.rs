//! Send: a plain LPUSH, as any producer does it, and a hint; and where replicas are waited for, that.

use bytes::Bytes;

use super::RedisStore;
use crate::store::{Result, StoreError};
use crate::wake::Topic;

impl RedisStore {
    pub(super) async fn push_entries(&self, entries: &[Bytes]) -> Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        if self.lacks_replicas() {
            // What is sent again and again while replicas are missing would be there again and again.
            let node = self.connection.current().await?;
            let there = self.settle(Some(node)).await;
            there.map_err(|error| StoreError::Unavailable(error.to_string()))?;
        }
        // One command for all of them: all or none.
        let mut push = ::redis::cmd("LPUSH");
        push.arg(&self.keys.input);
        for entry in entries {
            push.arg(&entry[..]);
        }
        let mut hint = ::redis::cmd("PUBLISH");
        hint.arg(self.keys.wake(Topic::Input)).arg("");
        // Both go at once. What becomes of the hint is not what became of the messages.
        let (pushed, _) = tokio::join!(self.ask_traced(&push), self.ask(&hint));
        self.settle(pushed?.1).await
    }
}
