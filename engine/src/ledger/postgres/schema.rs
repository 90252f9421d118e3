//! What Conga keeps in the database, brought up to date by whichever process comes first.

use deadpool_postgres::{Client, GenericClient};
use tokio_postgres::Error;

use super::connect::{Pool, patiently};
use crate::ledger::{LedgerError, Result};

/// Each brings the schema from one version to the next; the first from none.
const MIGRATIONS: [&str; 1] = [include_str!("schema/1.sql")];
/// The advisory lock under which that is done: "conga" in letters.
const LOCK: i64 = 0x63_6F_6E_67_61;

/// Does what is missing; nothing, and without a lock, where nothing is.
pub(super) async fn bring_up_to_date(pool: &Pool) -> Result<()> {
    let mut connection = pool.take().await?;
    let client = connection.client();
    let asking = async {
        if version(client).await? == Some(newest()) {
            return Ok(Found::Right);
        }
        let encoding: String = client.query_one("SHOW server_encoding", &[]).await?.get(0);
        if encoding != "UTF8" {
            return Ok(Found::Encoding(encoding));
        }
        // Dropped on the way, it is rolled back, and the lock is free.
        let transaction = client.transaction().await?;
        transaction
            .execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK])
            .await?;
        // Not asked for by its name: in the midst of a transaction that may still be answered as it was at its beginning.
        transaction.batch_execute(TABLE).await?;
        let found = applied(&transaction).await?.unwrap_or(0);
        if found > newest() {
            return Ok(Found::Newer(found));
        }
        let done = usize::try_from(found).unwrap_or_default();
        for (migration, version) in MIGRATIONS.iter().zip(1_i32..).skip(done) {
            transaction.batch_execute(migration).await?;
            transaction
                .execute("INSERT INTO conga_schema (version) VALUES ($1)", &[&version])
                .await?;
        }
        transaction.commit().await?;
        Ok(Found::Right)
    };
    let answer = patiently(asking).await;
    match connection.settle(pool, answer)? {
        Found::Right => Ok(()),
        Found::Newer(found) => Err(LedgerError::Broken(format!(
            "{pool:?}: the schema has version {found}, and this program knows {} at most: use a newer conga, or another \
             database",
            newest()
        ))),
        Found::Encoding(encoding) => Err(LedgerError::Broken(format!(
            "{pool:?}: the database's encoding is {encoding}, and ids and results need UTF8: CREATE DATABASE … ENCODING 'UTF8'"
        ))),
    }
}

const TABLE: &str =
    "CREATE TABLE IF NOT EXISTS conga_schema (version integer PRIMARY KEY, applied timestamptz NOT NULL DEFAULT now())";

enum Found {
    Right,
    Newer(i32),
    Encoding(String),
}

fn newest() -> i32 {
    i32::try_from(MIGRATIONS.len()).unwrap_or(i32::MAX)
}

/// Which version is there; nothing, where there is none.
async fn version(client: &Client) -> std::result::Result<Option<i32>, Error> {
    let there = client
        .query_one("SELECT to_regclass('conga_schema') IS NOT NULL", &[])
        .await?;
    if there.get(0) { applied(client).await } else { Ok(None) }
}

async fn applied(client: &impl GenericClient) -> std::result::Result<Option<i32>, Error> {
    let version = client.query_one("SELECT max(version) FROM conga_schema", &[]).await?;
    Ok(version.get(0))
}
