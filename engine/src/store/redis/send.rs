//! Send: a plain LPUSH, as any producer does it, and a hint.

use bytes::Bytes;

use super::RedisStore;
use crate::store::Result;
use crate::wake::Topic;

impl RedisStore {
    pub(super) async fn push_entries(&self, entries: &[Bytes]) -> Result<()> {
        if entries.is_empty() {
            return Ok(());
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
        let (pushed, _) = tokio::join!(self.ask(&push), self.ask(&hint));
        pushed.map(drop)
    }
}
