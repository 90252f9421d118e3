//! Opening a file: only what is ours, or empty, is ever written.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::fault::{damaged, fault, is_locked, read_only};
use crate::store::{Result, StoreError};

/// "cong": says in the file's header whose it is.
const APPLICATION: i32 = 0x636f_6e67;
const VERSION: i32 = 10;

/// How long another process may take to make a new file ours.
const SETUP_LIMIT: Duration = Duration::from_secs(5);

/// What each version of the schema has beyond the one before it, from version 2 on.
const UPGRADES: [&str; 9] = [
    "ALTER TABLE line ADD COLUMN told INTEGER NOT NULL DEFAULT 0;",
    "ALTER TABLE processed RENAME TO processed_before;
     CREATE TABLE processed (line INTEGER NOT NULL, position INTEGER NOT NULL, cursor INTEGER NOT NULL, record INTEGER,
         open TEXT, died INTEGER, PRIMARY KEY (line, position)) STRICT, WITHOUT ROWID;
     CREATE UNIQUE INDEX processed_cursor ON processed (line, cursor);
     INSERT INTO processed SELECT line, position, cursor, record, open, died FROM processed_before;
     DROP TABLE processed_before;",
    "ALTER TABLE input RENAME TO input_before;
     CREATE TABLE input (place INTEGER PRIMARY KEY, body BLOB NOT NULL) STRICT;
     INSERT INTO input SELECT (line << 48) + position, body FROM input_before;
     DROP TABLE input_before;
     ALTER TABLE output RENAME TO output_before;
     CREATE TABLE output (place INTEGER PRIMARY KEY, body TEXT NOT NULL) STRICT;
     INSERT INTO output SELECT (line << 48) + position, body FROM output_before;
     DROP TABLE output_before;",
    "ALTER TABLE line ADD COLUMN consumer_term INTEGER NOT NULL DEFAULT 0;
     ALTER TABLE line ADD COLUMN consumer TEXT;
     ALTER TABLE line ADD COLUMN consumer_since INTEGER NOT NULL DEFAULT 0;
     ALTER TABLE line ADD COLUMN consumer_deadline INTEGER NOT NULL DEFAULT 0;
     CREATE TABLE producer (line INTEGER NOT NULL, producer TEXT NOT NULL, last INTEGER NOT NULL, mark INTEGER NOT NULL,
         session INTEGER NOT NULL, process INTEGER NOT NULL, heard INTEGER NOT NULL, PRIMARY KEY (line, producer)) STRICT,
         WITHOUT ROWID;
     CREATE INDEX producer_heard ON producer (line, heard, producer);",
    "ALTER TABLE line ADD COLUMN keep TEXT;
     ALTER TABLE line ADD COLUMN safe INTEGER NOT NULL DEFAULT 1;
     ALTER TABLE line ADD COLUMN below INTEGER NOT NULL DEFAULT 1;
     ALTER TABLE line ADD COLUMN until INTEGER NOT NULL DEFAULT 1;
     ALTER TABLE dead ADD COLUMN cursor INTEGER NOT NULL DEFAULT 0;
     CREATE INDEX dead_cursor ON dead (line, cursor);
     CREATE INDEX record_position ON record (line, position);",
    "ALTER TABLE line ADD COLUMN shape TEXT;
     ALTER TABLE line ADD COLUMN in_place INTEGER NOT NULL DEFAULT 0;
     ALTER TABLE flight ADD COLUMN key BLOB;
     ALTER TABLE processed ADD COLUMN key BLOB;
     CREATE INDEX flight_key ON flight (line, key, position) WHERE key IS NOT NULL;
     CREATE INDEX processed_key ON processed (line, key, position) WHERE key IS NOT NULL;",
    "ALTER TABLE line ADD COLUMN flow TEXT NOT NULL DEFAULT 'running';
     ALTER TABLE line ADD COLUMN flow_since INTEGER NOT NULL DEFAULT 0;
     ALTER TABLE line ADD COLUMN rate INTEGER;
     ALTER TABLE line ADD COLUMN credit INTEGER NOT NULL DEFAULT 0;
     ALTER TABLE line ADD COLUMN credit_at INTEGER NOT NULL DEFAULT 0;",
    "ALTER TABLE flight ADD COLUMN excused INTEGER NOT NULL DEFAULT 0;
     ALTER TABLE flight ADD COLUMN crashes INTEGER NOT NULL DEFAULT 0;
     CREATE INDEX flight_suspect ON flight (line, position) WHERE crashes > 1;
     ALTER TABLE dead ADD COLUMN open TEXT;
     CREATE INDEX dead_halted ON dead (line) WHERE open IS NOT NULL;",
    "ALTER TABLE line ADD COLUMN missing INTEGER;
     CREATE TABLE passed (line INTEGER NOT NULL, position INTEGER NOT NULL, PRIMARY KEY (line, position)) STRICT, WITHOUT ROWID;",
];

/// Whose a file is.
enum Found {
    Ours,
    /// Ours, with the schema of an older version.
    Older(usize),
    Empty,
}

/// Opens `path`, and makes it ours if it is new or empty.
pub(super) fn open(path: &Path, busy: impl FnMut(i32) -> bool + Send + 'static) -> Result<Connection> {
    let failed = |error: rusqlite::Error| fault(path, &error);
    let before = look_before(path)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    connection.busy_handler(Some(busy)).map_err(failed)?;
    connection.set_prepared_statement_cache_capacity(64);
    // SQLite makes do with reading, and would make a log that those who may write can't use.
    if connection.is_readonly("main").map_err(failed)? {
        return Err(read_only(path, "it may only be read"));
    }
    // Closing it would copy the log of a file that is not ours back into it.
    let leave_the_log = DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
    connection
        .set_db_config(leave_the_log, before.logged > 0)
        .map_err(failed)?;
    let found = inspect(&connection, path)?;
    connection.set_db_config(leave_the_log, false).map_err(failed)?;
    if let Found::Ours = found {
        whole_pages(&connection, path, &before)?;
    }
    log_ahead(&connection, path)?;
    if !matches!(found, Found::Ours) {
        let transaction = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(failed)?;
        // Another process may have been faster.
        let changes = match inspect(&transaction, path)? {
            Found::Ours => String::new(),
            Found::Older(version) => UPGRADES[version - 1..].concat(),
            Found::Empty => include_str!("schema.sql").to_owned(),
        };
        let marks = format!("PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {VERSION};");
        transaction.execute_batch(&(changes + &marks)).map_err(failed)?;
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

/// The write-ahead log of the database at `path`, which is the file itself and no link to it: SQLite too looks there.
pub(super) fn log_of(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push("-wal");
    name.into()
}

/// What was there before SQLite was asked, in bytes.
struct Before {
    logged: u64,
    filed: u64,
}

/// Refuses what SQLite would take for a new database although it is none.
fn look_before(path: &Path) -> Result<Before> {
    // The log is looked at first: it gets its first byte only after the file has.
    let file = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let log = log_of(&file);
    let logged = fs::metadata(&log).map_or(0, |log| log.len());
    let found = fs::metadata(&file);
    let filed = found.as_ref().map_or(0, fs::Metadata::len);
    let name = path.display();
    match found {
        Ok(found) if found.is_dir() => Err(StoreError::Broken(format!(
            "{name} is a directory; name a file in it, as in --store sqlite:{}",
            path.join("conga.db").display()
        ))),
        Ok(found) if !found.is_file() => Err(StoreError::Broken(format!(
            "{name} is no regular file; choose another file with --store sqlite:PATH"
        ))),
        _ if logged > 0 && filed == 0 => Err(StoreError::Broken(format!(
            "{name} is empty or gone, but its log {} is not, and SQLite would delete that; put the file back that \
             belongs to it, or move the log away; both were left untouched",
            log.display()
        ))),
        _ => Ok(Before { logged, filed }),
    }
}

/// Refuses a file that was cut within a page: SQLite reads zeros for what is missing. With a log it may be in the
/// middle of being written.
fn whole_pages(connection: &Connection, path: &Path, before: &Before) -> Result<()> {
    let page: u32 = connection
        .query_row("PRAGMA page_size", [], |row| row.get(0))
        .map_err(|error| fault(path, &error))?;
    if before.logged == 0 && !before.filed.is_multiple_of(u64::from(page)) {
        return Err(damaged(
            path,
            &format!("it ends within a page, at byte {}", before.filed),
        ));
    }
    Ok(())
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
            VERSION => Ok(Found::Ours),
            version => Ok(Found::Older(usize::try_from(version).unwrap_or(1).max(1))),
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
        match connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get::<_, String>(0)) {
            Ok(mode) if mode == "wal" => return Ok(()),
            Ok(mode) => {
                return Err(StoreError::Broken(format!(
                    "{} can't have a write-ahead log (its journal mode stays `{mode}`); put it on a local disk",
                    path.display()
                )));
            }
            Err(error) if is_locked(&error) && start.elapsed() < SETUP_LIMIT => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(error) => return Err(fault(path, &error)),
        }
    }
}
