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
        let mut commands = ::redis::pipe();
        // One command for all of them: all or none.
        commands.cmd("LPUSH").arg(&self.keys.input);
        for entry in entries {
            commands.arg(&entry[..]);
        }
        commands.cmd("PUBLISH").arg(self.keys.wake(Topic::Input)).arg("");
        self.ask_all(&commands).await.map(drop)
    }
}
