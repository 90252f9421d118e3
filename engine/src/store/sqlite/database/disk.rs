//! A disk that is full, or that could not take what was written.

use std::time::{Duration, Instant};

use super::{Database, busy_handler};
use crate::store::sqlite::fault::fault;
use crate::store::sqlite::syncer::Syncer;
use crate::store::{Result, StoreError};

/// On a full disk, how long those who read the log are waited for, to use it again from its beginning.
const ROOM_LIMIT: Duration = Duration::from_millis(100);
/// A log that is in doubt is written again so often, until the disk takes it.
const MEND_EVERY: Duration = Duration::from_millis(100);

impl Database {
    /// Copies the log back into the file, so that it is written from its beginning again and needs no more space, as far
    /// as the file needs none either. It holds a page again for each time that was changed, and would be copied back by
    /// itself only when it is long. Whether it worked. The log is not cut: what it has on a full disk is a reserve.
    pub(super) fn make_room(&mut self) -> bool {
        let limited = self.connection.busy_handler(Some(busy_handler(ROOM_LIMIT)));
        let empty = |()| {
            self.connection
                .query_row("PRAGMA wal_checkpoint(RESTART)", [], |row| row.get::<_, i64>(0))
        };
        let emptied = limited.and_then(empty);
        let restored = self
            .connection
            .busy_handler(Some(busy_handler(self.options.busy_limit)));
        tracing::debug!(path = %self.path.display(), ?emptied, "no space; tried to use the log again from its beginning");
        matches!((emptied, restored), (Ok(0), Ok(())))
    }

    /// Writes the log again if a sync of it has failed. Without that no step is taken: what one built on it and
    /// synced would be as doubtful.
    pub(in crate::store::sqlite) fn mend(&mut self, syncer: &Syncer) -> Result<()> {
        if !syncer.is_in_doubt() {
            return Ok(());
        }
        if let Some((at, error)) = &self.mended
            && at.elapsed() < MEND_EVERY
        {
            return Err(error.clone());
        }
        let locked = self.begin("BEGIN IMMEDIATE").map_err(|error| fault(&self.path, &error));
        // Nothing is changed by a step that is not taken.
        let again = |()| syncer.write_again().map_err(StoreError::Unavailable);
        let mended = locked.and_then(again);
        self.roll_back();
        self.mended = mended.as_ref().err().map(|error| (Instant::now(), error.clone()));
        if mended.is_ok() {
            tracing::info!(path = %self.path.display(), "the disk takes the log again; wrote all of it anew");
        }
        mended
    }
}
