//! Where a load goes: into one partition, or into those of a whole line.

use conga::send::{Outgoing, Producer};
use conga::shards::Producers;
use conga::store::Result;

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
