//! What can be done to an SQLite file: another tool holds its lock.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use rusqlite::Connection;
use tokio::task::spawn_blocking;

/// How long the lock is waited for: the services hold it for moments only.
const PATIENCE: Duration = Duration::from_secs(10);

/// The write lock of a database, as held by somebody who has begun a transaction and does not end it.
#[derive(Debug)]
pub(super) struct Lock(Connection);

impl Lock {
    pub(super) async fn take(path: &Path) -> anyhow::Result<Self> {
        let path: PathBuf = path.to_owned();
        spawn_blocking(move || {
            let connection = Connection::open(&path)?;
            connection.busy_timeout(PATIENCE)?;
            connection.execute_batch("BEGIN IMMEDIATE")?;
            Ok(Self(connection))
        })
        .await?
        .map_err(|error: rusqlite::Error| error)
        .context("can't lock the database")
    }

    pub(super) async fn release(self) -> anyhow::Result<()> {
        spawn_blocking(move || self.0.execute_batch("ROLLBACK"))
            .await?
            .context("can't unlock the database")
    }
}
