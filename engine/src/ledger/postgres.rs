//! PostgreSQL as the system of record: one table for all lines, a row for each id.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use conga_core::message::{Id, Payload, Record};
use conga_core::partition::Page;
use futures_util::future::BoxFuture;

use self::connect::Pool;
use super::{Kept, Ledger, Result};
use crate::line::Line;
use crate::process::Message;

mod browse;
mod connect;
mod effect;
mod failure;
mod record;
mod result;
mod row;
mod schema;
mod script;
mod scripted;
mod tls;
mod transaction;

pub use deadpool_postgres::Transaction;
pub use effect::{Effect, EffectError, TransactionOptions};
pub use scripted::Script;
pub use tokio_postgres;
pub use transaction::Transactional;

/// The record of one partition of a line, in a PostgreSQL database.
pub struct PostgresLedger {
    pool: Pool,
    /// For further connections; with the password.
    url: String,
    /// The line's tag, as it stands in each row.
    line: String,
}

/// Without the URL, which may hold a password.
impl fmt::Debug for PostgresLedger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresLedger")
            .field("pool", &self.pool)
            .field("line", &self.line)
            .finish_non_exhaustive()
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
        Ok(Self {
            pool,
            url: url.to_owned(),
            line: line.tag(),
        })
    }

    /// A handler whose own SQL commits together with its record here, or not at all: exactly once altogether. What it does by
    /// its transaction happens once, whoever dies, hangs, or comes back; what it does elsewhere does not.
    ///
    /// A processor that is given this handler records in this ledger.
    ///
    /// ```no_run
    /// # use std::sync::Arc;
    /// # use conga::core::message::Payload;
    /// # use conga::ledger::postgres::{PostgresLedger, TransactionOptions};
    /// # use conga::process::{Processor, ProcessorOptions};
    /// # async fn pay(store: conga::store::SharedStore) -> Result<(), Box<dyn std::error::Error>> {
    /// let ledger = Arc::new(PostgresLedger::open("postgres://localhost/payments", &"payments".parse()?).await?);
    /// let handler = ledger.transactional(TransactionOptions::default(), |transaction, message| {
    ///     Box::pin(async move {
    ///         let sql = "UPDATE account SET balance = balance - ($2::text::jsonb->>'amount')::numeric
    ///                    WHERE name = $1 RETURNING balance::text";
    ///         let row = transaction.query_one(sql, &[&message.key, &message.payload.text()]).await?;
    ///         Ok(Payload::string(row.get(0)))
    ///     })
    /// })?;
    /// let shutdown = tokio_util::sync::CancellationToken::new();
    /// Processor::new(store, handler, ProcessorOptions::default()).run(shutdown).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`super::LedgerError::Broken`] for a URL that can't be meant.
    ///
    /// # Cancellation
    /// A handler's future that is dropped rolls back; or, in its commit, it is not known whether it does.
    pub fn transactional<F>(self: &Arc<Self>, options: TransactionOptions, effect: F) -> Result<Transactional<F>>
    where
        F: for<'a> Fn(&'a mut Transaction<'_>, &'a Message) -> BoxFuture<'a, std::result::Result<Payload, EffectError>>
            + Send
            + Sync
            + 'static,
    {
        self.with_effect(options, effect)
    }

    /// The same, with SQL as text: one or several statements, run for each message. They can name `:id`, `:position`,
    /// `:sequence`, `:key` and `:payload` (`jsonb`). The result is what the last of them that answers rows answers: a row of
    /// one column is that value, a row of several is an object, several rows are an array, none is null.
    ///
    /// # Errors
    /// [`super::LedgerError::Broken`] for what the server does not take, with the line; the statements are prepared, not run.
    /// [`super::LedgerError::Unavailable`] if nobody answers.
    ///
    /// # Cancellation
    /// Safe.
    pub async fn script(self: &Arc<Self>, options: TransactionOptions, text: &str) -> Result<Transactional<Script>> {
        let script = Script::prepare(&self.pool, text).await?;
        self.with_effect(options, script)
    }

    fn with_effect<E: Effect>(self: &Arc<Self>, options: TransactionOptions, effect: E) -> Result<Transactional<E>> {
        // Whoever has one gives it back in time, and before that a message has to wait its turn.
        let pool = Pool::of(&self.url, options.connections.max(1), None)?;
        Ok(Transactional::new(
            pool,
            self.line.clone(),
            self.clone(),
            options,
            effect,
        ))
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
