//! The yardstick on SQLite: three processes on one file with a write-ahead log, a transaction each batch. What was
//! sent, and what is received, is on the disk before it counts (`synchronous = FULL`).

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use rusqlite::{Connection, TransactionBehavior};

use super::{Received, id_of};
use crate::bench::usage::Moment;

/// So many messages in each step, where nothing else was said: each costs a sync.
const BATCH: u16 = 1_000;
/// How long one who finds nothing, or too little for a whole batch, waits before looking again.
const PAUSE: Duration = Duration::from_micros(500);
/// How long one waits for the others' transactions before giving up.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long between two tries.
const RETRY: Duration = Duration::from_micros(100);

/// Makes the file.
pub(super) fn set_up(path: &Path) -> anyhow::Result<()> {
    let connection = connect(path)?;
    connection
        .execute_batch(include_str!("schema.sql"))
        .with_context(|| format!("can't set up {}", path.display()))
}

fn connect(path: &Path) -> anyhow::Result<Connection> {
    let mut connection = Connection::open(path).with_context(|| format!("can't open {}", path.display()))?;
    // SQLite's own handler sleeps up to 100 ms at a time, in which the others would long have made room.
    let mut since = Instant::now();
    connection.busy_handler(Some(move |count| {
        if count == 0 {
            since = Instant::now();
        }
        std::thread::sleep(RETRY);
        since.elapsed() < PATIENCE
    }))?;
    connection.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 4000; \
         PRAGMA cache_size = -16384; PRAGMA temp_store = MEMORY;",
    )?;
    connection.set_prepared_statement_cache_capacity(16);
    Ok(connection)
}

/// A connection of one process.
pub(crate) struct Hand {
    connection: Connection,
    batch: u16,
}

impl Hand {
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        Ok(Self {
            connection: connect(path)?,
            batch: BATCH,
        })
    }

    pub(super) fn taking(self, batch: Option<u16>) -> Self {
        Self {
            batch: batch.unwrap_or(BATCH),
            ..self
        }
    }

    pub(super) fn records(&mut self) -> anyhow::Result<u64> {
        let count = self
            .connection
            .query_row("SELECT count(*) FROM record", [], |row| row.get::<_, i64>(0))?;
        Ok(u64::try_from(count)?)
    }

    pub(super) fn produce(&mut self, entries: &[Bytes]) -> anyhow::Result<()> {
        for batch in entries.chunks(usize::from(self.batch)) {
            let transaction = self
                .connection
                .transaction_with_behavior(TransactionBehavior::Immediate)?;
            {
                let mut insert = transaction.prepare_cached("INSERT INTO input (body) VALUES (?1)")?;
                for entry in batch {
                    insert.execute([entry.as_ref()])?;
                }
            }
            transaction.commit()?;
        }
        Ok(())
    }

    pub(super) fn work(&mut self, messages: u64) -> anyhow::Result<()> {
        // Nobody relies on this step until its output is received, and that is synced, and with it all before it.
        self.connection.execute_batch("PRAGMA synchronous = NORMAL")?;
        let mut left = messages;
        while left > 0 {
            self.wait_for("SELECT count(*) FROM (SELECT 1 FROM input LIMIT ?1)", left)?;
            let transaction = self
                .connection
                .transaction_with_behavior(TransactionBehavior::Immediate)?;
            let taken = {
                let mut take =
                    transaction.prepare_cached("SELECT position, body FROM input ORDER BY position LIMIT ?1")?;
                let mut record = transaction.prepare_cached("INSERT INTO record (id, body) VALUES (?1, ?2)")?;
                let mut put = transaction.prepare_cached("INSERT INTO output (body) VALUES (?1)")?;
                let mut forget = transaction.prepare_cached("DELETE FROM input WHERE position <= ?1")?;
                let mut rows = take.query([self.batch])?;
                let (mut taken, mut last) = (0, 0);
                while let Some(row) = rows.next()? {
                    last = row.get::<_, i64>(0)?;
                    let body = row.get_ref(1)?.as_blob()?;
                    let id = std::str::from_utf8(id_of(body)?)?;
                    record.execute((id, body))?;
                    put.execute([body])?;
                    taken += 1;
                }
                forget.execute([last])?;
                taken
            };
            transaction.commit()?;
            left -= taken;
        }
        Ok(())
    }

    pub(super) fn consume(&mut self, messages: u64) -> anyhow::Result<Received> {
        let mut lines = Vec::with_capacity(usize::try_from(messages)?);
        while (lines.len() as u64) < messages {
            self.wait_for(
                "SELECT count(*) FROM (SELECT 1 FROM output LIMIT ?1)",
                messages - lines.len() as u64,
            )?;
            let transaction = self
                .connection
                .transaction_with_behavior(TransactionBehavior::Immediate)?;
            {
                let mut take =
                    transaction.prepare_cached("SELECT position, body FROM output ORDER BY position LIMIT ?1")?;
                let mut forget = transaction.prepare_cached("DELETE FROM output WHERE position <= ?1")?;
                let mut rows = take.query([self.batch])?;
                let mut last = 0;
                while let Some(row) = rows.next()? {
                    last = row.get::<_, i64>(0)?;
                    lines.push(Bytes::copy_from_slice(row.get_ref(1)?.as_blob()?));
                }
                forget.execute([last])?;
            }
            transaction.commit()?;
        }
        Ok(Received {
            at: Some(Moment::now()),
            lines,
        })
    }

    /// Waits until there is a whole batch, or all that is left: a small transaction costs as many syncs as a large one.
    /// Looking takes no lock.
    fn wait_for(&self, count: &str, left: u64) -> anyhow::Result<()> {
        let wanted = i64::try_from(left)?.min(i64::from(self.batch));
        let mut count = self.connection.prepare_cached(count)?;
        while count.query_row([wanted], |row| row.get::<_, i64>(0))? < wanted {
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }
}
