//! PostgreSQL as the system of record: one table for all lines, a row for each id.

use std::fmt;

use async_trait::async_trait;
use conga_core::message::{Id, Record};
use conga_core::partition::Page;

use self::connect::Pool;
use super::{Kept, Ledger, Result};
use crate::line::Line;

mod browse;
mod connect;
mod failure;
mod record;
mod result;
mod row;
mod schema;
mod tls;

/// The record of one partition of a line, in a PostgreSQL database.
pub struct PostgresLedger {
    pool: Pool,
    /// The line's tag, as it stands in each row.
    line: String,
}

impl fmt::Debug for PostgresLedger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresLedger")
            .field("pool", &self.pool)
            .field("line", &self.line)
            .finish()
    }
}

impl PostgresLedger {
    /// Connects to the database of a URL as libpq knows it, and makes or brings up to date what Conga keeps there.
    ///
    /// # Errors
    /// [`super::LedgerError::Broken`] for a URL that can't be meant, a login that is refused, a schema that is newer than
    /// this program; [`super::LedgerError::Unavailable`] if nobody answers.
    ///
    /// # Cancellation
    /// Safe; a new table may or may not have been made.
    pub async fn open(url: &str, line: &Line) -> Result<Self> {
        let pool = Pool::to(url)?;
        schema::bring_up_to_date(&pool).await?;
        Ok(Self { pool, line: line.tag() })
    }

    /// Removes the line's rows. Not for a line at which anybody works.
    ///
    /// # Errors
    /// As [`PostgresLedger::open`].
    ///
    /// # Cancellation
    /// The rows are then all there, or all gone.
    pub async fn erase(&self) -> Result<()> {
        record::erase(&self.pool, &self.line).await
    }
}

#[async_trait]
impl Ledger for PostgresLedger {
    fn is_apart(&self) -> bool {
        true
    }

    async fn record(&self, results: &[Record]) -> Result<Vec<Kept>> {
        record::record(&self.pool, &self.line, results).await
    }

    async fn look(&self, ids: &[Id]) -> Result<Vec<Option<Record>>> {
        browse::look(&self.pool, &self.line, ids).await
    }

    async fn browse(&self, from: Option<&str>) -> Result<Page> {
        browse::browse(&self.pool, &self.line, from).await
    }
}
