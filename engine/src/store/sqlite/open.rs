//! Opening a file: only what is ours, or empty, is ever written.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::fault::fault;
use crate::store::{Result, StoreError};

/// "cong": says in the file's header whose it is.
const APPLICATION: i32 = 0x636f_6e67;
const VERSION: i32 = 1;

/// How long another process may take to make a new file ours.
const SETUP_LIMIT: Duration = Duration::from_secs(5);

/// Whose a file is.
enum Found {
    Ours,
    Empty,
}

/// Opens `path`, and makes it ours if it is new or empty.
pub(super) fn open(path: &Path, busy: impl FnMut(i32) -> bool + Send + 'static) -> Result<Connection> {
    let failed = |error: rusqlite::Error| fault(path, &error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    connection.busy_handler(Some(busy)).map_err(failed)?;
    connection.set_prepared_statement_cache_capacity(64);
    let found = inspect(&connection, path)?;
    log_ahead(&connection, path)?;
    if let Found::Empty = found {
        let transaction = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(failed)?;
        // Another process may have been faster.
        if let Found::Empty = inspect(&transaction, path)? {
            transaction.execute_batch(include_str!("schema.sql")).map_err(failed)?;
            transaction
                .execute_batch(&format!(
                    "PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {VERSION};"
                ))
                .map_err(failed)?;
        }
        transaction.commit().map_err(failed)?;
    }
    // A commit does not sync; the thread of `syncer.rs` does. A copy back into the file still syncs both.
    // The log is copied back into the file every 4,000 pages (16 MiB): ids come in no order, so that many pages are
    // written again and again, and SQLite's own 1,000 cost large batches up to half of their speed. A log that grew
    // beyond 64 MiB is cut afterwards.
    connection
        .execute_batch(
            "PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = 4000; PRAGMA journal_size_limit = 67108864; PRAGMA cache_size = -16384; \
             PRAGMA temp_store = MEMORY;",
        )
        .map_err(failed)?;
    Ok(connection)
}

/// Looks whose the file is. Reads only.
fn inspect(connection: &Connection, path: &Path) -> Result<Found> {
    let number = |sql: &str| -> Result<i32> {
        connection
            .query_row(sql, [], |row| row.get(0))
            .map_err(|error| fault(path, &error))
    };
    let tables = number("SELECT count(*) FROM sqlite_schema")?;
    match number("PRAGMA application_id")? {
        APPLICATION => match number("PRAGMA user_version")? {
            version if version > VERSION => Err(StoreError::Broken(format!(
                "{} was written by a newer conga (schema {version}, this one knows {VERSION}); use that version, or \
                 choose another file with --store sqlite:PATH; it was left untouched",
                path.display()
            ))),
            _ => Ok(Found::Ours),
        },
        0 if tables == 0 => Ok(Found::Empty),
        _ => Err(StoreError::Broken(format!(
            "{} is the database of another program; choose another file with --store sqlite:PATH; it was left untouched",
            path.display()
        ))),
    }
}

/// Switches to the write-ahead log. SQLite does not wait here where two processes do it at once, so we do.
fn log_ahead(connection: &Connection, path: &Path) -> Result<()> {
    let start = Instant::now();
    loop {
        let mode = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get::<_, String>(0));
        match mode.map_err(|error| fault(path, &error)) {
            Ok(mode) if mode == "wal" => return Ok(()),
            Ok(mode) => {
                return Err(StoreError::Broken(format!(
                    "{} can't have a write-ahead log (its journal mode stays `{mode}`); put it on a local disk",
                    path.display()
                )));
            }
            Err(StoreError::Unavailable(_)) if start.elapsed() < SETUP_LIMIT => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(error) => return Err(error),
        }
    }
}
