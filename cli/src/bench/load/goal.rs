//! Where a load goes: into one partition, or into those of a whole line.

use conga::send::{Outgoing, Producer};
use conga::shards::{Lines, Producers, Refused};
use conga::store::{Result, StoreError};
use tokio::sync::Mutex;

/// Takes messages until all of them are in the line.
pub(crate) trait Goal {
    fn insist(&self, batch: &[Outgoing]) -> impl Future<Output = Result<()>> + Send;
}

impl Goal for Producer {
    async fn insist(&self, batch: &[Outgoing]) -> Result<()> {
        Self::insist(self, batch).await
    }
}

impl Goal for Producers {
    async fn insist(&self, batch: &[Outgoing]) -> Result<()> {
        Self::insist(self, batch).await
    }
}

impl Goal for Mutex<Lines> {
    async fn insist(&self, batch: &[Outgoing]) -> Result<()> {
        let mut lines = self.lock().await;
        let refused = |refused| match refused {
            Refused::Store(error) => error,
            other => StoreError::Broken(other.to_string()),
        };
        for message in batch {
            let entry = message.to_entry();
            lines.give(&entry, || entry.clone()).await.map_err(refused)?;
        }
        lines.flush().await.map(drop).map_err(refused)
    }
}
