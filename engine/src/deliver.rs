//! Deliver: the outputs, in their order, to whoever consumes the line.

use std::cell::Cell;

use bytes::Bytes;
use conga_core::message::Position;
use conga_core::partition::ReceiveRequest;
use tokio::time::sleep_until;

use crate::pace::Pace;
use crate::persist::persist;
use crate::store::{Result, SharedStore};
use crate::wake::{Listener, Topic};

/// Some outputs, oldest first. They stay in the line until they are acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Batch {
    /// Each one line of JSON.
    pub outputs: Vec<Bytes>,
    /// The position of the last one.
    last: Option<Position>,
}

/// Reads a line's output.
#[derive(Debug)]
pub struct Consumer {
    store: SharedStore,
    hints: Listener,
    written: Option<Position>,
    /// How many outputs are asked for at once: as many as their sizes so far let fit into [`BATCH_BYTES`].
    fits: usize,
    pace: Pace,
}

/// About so many bytes in one batch.
const BATCH_BYTES: usize = 8 << 20;
/// At first, and at most.
const FIRST: usize = 250;
const MOST: usize = 1_000;

/// The position at the beginning of an output.
pub fn position_of(output: &[u8]) -> Option<Position> {
    let digits = output.strip_prefix(b"{\"position\":")?;
    let end = digits.iter().position(|byte| !byte.is_ascii_digit())?;
    std::str::from_utf8(&digits[..end]).ok()?.parse().ok().map(Position)
}

impl Consumer {
    /// A consumer of the line that `store` was opened for.
    pub fn new(store: SharedStore) -> Self {
        Self {
            hints: store.wakes().listen(&[Topic::Output]),
            store,
            written: None,
            fits: FIRST,
            pace: Pace::new(),
        }
    }

    /// The next outputs, at most `max`: at once if there are any, else as soon as there are. What
    /// [`Consumer::acknowledge`] was told is taken off in the same step.
    ///
    /// # Errors
    /// Only what no repetition can help; while the store is away it goes on trying.
    ///
    /// # Cancellation
    /// Safe: what was not acknowledged is handed out again.
    pub async fn next(&mut self, max: usize) -> Result<Batch> {
        loop {
            sleep_until(self.pace.due()).await;
            self.pace.asked();
            let batch = self.try_next(max).await?;
            self.pace.answered(!batch.outputs.is_empty());
            if batch.outputs.len() >= max.min(self.fits) {
                self.pace.hurry();
            }
            if !batch.outputs.is_empty() {
                return Ok(batch);
            }
            self.hints.heard().await;
        }
    }

    /// As [`Consumer::next`], but with nothing to receive the batch is empty.
    ///
    /// # Errors
    /// As [`Consumer::next`].
    pub async fn try_next(&mut self, max: usize) -> Result<Batch> {
        let (store, acknowledge) = (self.store.clone(), self.written);
        let fits = Cell::new(self.fits);
        let ask = || {
            let request = ReceiveRequest {
                acknowledge,
                max: fits.get().min(max).max(1),
            };
            let store = store.clone();
            async move { store.receive(&request).await }
        };
        // An answer that does not get through may be too large to.
        let outputs = persist("receive", ask, |_| fits.set(fits.get().div_ceil(2))).await?;
        let largest = outputs.iter().map(Bytes::len).max();
        self.fits = largest.map_or(fits.get(), |bytes| (BATCH_BYTES / bytes.max(1)).clamp(1, MOST));
        let last = outputs.last().and_then(|output| position_of(output));
        Ok(Batch { outputs, last })
    }

    /// Says that a batch is written down. The store hears of it with the next call of [`Consumer::next`], or by
    /// [`Consumer::finish`].
    pub fn acknowledge(&mut self, batch: &Batch) {
        self.written = self.written.max(batch.last);
    }

    /// Takes off the output what is acknowledged.
    ///
    /// # Errors
    /// As [`Consumer::next`].
    pub async fn finish(self) -> Result<()> {
        let request = ReceiveRequest {
            acknowledge: self.written,
            max: 0,
        };
        persist("receive", || self.store.receive(&request), |_| ())
            .await
            .map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_begins_with_its_position() {
        assert_eq!(position_of(b"{\"position\":12,\"id\":\"x\"}"), Some(Position(12)));
        assert_eq!(position_of(b"{\"position\":}"), None);
        assert_eq!(position_of(b"garbage"), None);
    }
}
