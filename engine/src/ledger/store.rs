//! The store as its own ledger: its complete records, so nothing is left to do before.

use async_trait::async_trait;
use conga_core::message::{Id, Record};
use conga_core::partition::{Page, Shelf};

use super::{Kept, Ledger, Result};
use crate::store::SharedStore;

/// The record that a store has anyway.
#[derive(Debug)]
pub struct StoreLedger(SharedStore);

impl StoreLedger {
    /// The record of the line that `store` was opened for.
    pub fn new(store: SharedStore) -> Self {
        Self(store)
    }
}

#[async_trait]
impl Ledger for StoreLedger {
    fn is_apart(&self) -> bool {
        false
    }

    /// Nothing yet: the complete that follows records, and keeps what is there.
    async fn record(&self, results: &[Record]) -> Result<Vec<Kept>> {
        Ok(vec![Kept::Given; results.len()])
    }

    /// Nothing either: what this could find, the store's complete finds.
    async fn look(&self, ids: &[Id]) -> Result<Vec<Option<Record>>> {
        Ok(vec![None; ids.len()])
    }

    async fn browse(&self, from: Option<&str>) -> Result<Page> {
        Ok(self.0.browse(Shelf::Record, from).await?)
    }
}
