//! What a handler does by its own SQL, in the transaction in which its result is recorded.

use std::time::Duration;

use conga_core::message::Payload;
use deadpool_postgres::Transaction;
use futures_util::future::BoxFuture;
use tokio_postgres::IsolationLevel;

use crate::process::{HandlerError, Message};

/// A handler's own SQL. An ordinary closure is one:
/// `|transaction, message| Box::pin(async move { … Ok(result) })`.
pub trait Effect: Send + Sync + 'static {
    /// Does what the message asks for, and says what its result is. It may run again, after whatever it did was rolled back.
    /// It must neither commit nor roll back; savepoints are its own affair.
    fn apply<'a>(
        &'a self,
        transaction: &'a mut Transaction<'_>,
        message: &'a Message,
    ) -> BoxFuture<'a, Result<Payload, EffectError>>;
}

impl<F> Effect for F
where
    F: for<'a> Fn(&'a mut Transaction<'_>, &'a Message) -> BoxFuture<'a, Result<Payload, EffectError>>
        + Send
        + Sync
        + 'static,
{
    fn apply<'a>(
        &'a self,
        transaction: &'a mut Transaction<'_>,
        message: &'a Message,
    ) -> BoxFuture<'a, Result<Payload, EffectError>> {
        self(transaction, message)
    }
}

/// Why there is no result. Either way all that was done is rolled back.
#[derive(Debug, thiserror::Error)]
pub enum EffectError {
    /// What the database said. A conflict with another transaction (SQLSTATE 40001, 40P01) is run again at once; where the
    /// server is away or ends the connection, it is waited for; data that it does not take (class 22) fail for good; all else
    /// is tried again as the processor's backoff says.
    #[error(transparent)]
    Database(#[from] tokio_postgres::Error),
    /// As of any handler.
    #[error(transparent)]
    Handler(#[from] HandlerError),
}

/// How transactions are run.
#[derive(Debug, Clone, Copy)]
pub struct TransactionOptions {
    /// So many at once: each has a connection of its own. What waits for one holds none.
    pub connections: usize,
    /// How much they see of each other.
    pub isolation: IsolationLevel,
    /// So often what met a conflict is run again at once, before that is a failure.
    pub conflicts: u32,
    /// How long a handler may take in all, and each of its statements on the server. Then its connection is given up, and that is
    /// a failure.
    pub limit: Duration,
    /// How long a handler may let its transaction stand idle between two statements; then the server ends it. Who claims the
    /// message of a process that hangs waits so long for the id.
    pub idle: Duration,
}

impl Default for TransactionOptions {
    fn default() -> Self {
        Self {
            connections: 8,
            isolation: IsolationLevel::ReadCommitted,
            conflicts: 10,
            limit: Duration::from_secs(30),
            idle: Duration::from_secs(5),
        }
    }
}
