//! Shape: the call of `shape.lua`.

use conga_core::shape::Shape;

use super::{RedisStore, reply, script};
use crate::store::{Result, StoreError};

impl RedisStore {
    pub(super) async fn read_shape(&self, wanted: Option<Shape>) -> Result<Option<Shape>> {
        let mut call = script::SHAPE.call(&[&self.keys.meta, &self.keys.input]);
        call.arg(self.time())
            .arg(wanted.map_or_else(String::new, |shape| shape.to_string()))
            .arg(wanted.map_or(1, |shape| shape.partitions.get()));
        let (shape, node) = self.run_traced(&script::SHAPE, &call).await?;
        // Others go by it from now on, so no failover may take it back.
        if wanted.is_some() {
            self.settle(node).await?;
        }
        let text = reply::text(shape)?;
        if text.is_empty() {
            return Ok(None);
        }
        let shape = text.parse().map_err(|_| {
            StoreError::Broken(format!(
                "the field `shape` of {} is `{text}`, which this version of conga does not know: use the version that wrote it",
                self.keys.meta
            ))
        })?;
        Ok(Some(shape))
    }
}
