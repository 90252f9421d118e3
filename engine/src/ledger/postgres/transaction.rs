//! Transactional handlers: one transaction a message, in which first its id is taken, then the handler's own SQL runs, and then
//! its result is recorded. So all of it happens once, or none of it has.
//!
//! The id is taken first because of zombies. A second transaction with the same id waits at its first statement until the first
//! has ended; then it finds the row, and its SQL is never run.
//!
//! A commit without an answer is UNKNOWN. The way out is to begin anew: whoever takes the id waits for that commit to end, if it
//! is still on its way, and then finds the row or does not.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use conga_core::message::{Body, Payload, Record};
use deadpool_postgres::{Client, Transaction};
use tokio::time::timeout;
use tokio_postgres::Error;

use super::connect::{PATIENCE, Pool, millis};
use super::effect::{Effect, EffectError, TransactionOptions};
use super::failure::{self, Amidst, Why};
use super::result::{Form, bytes_of, form_of};
use super::row::{datetime, held, written};
use crate::ledger::{LedgerError, SharedLedger};
use crate::process::{Handled, Handler, HandlerError, Message, too_large};
use crate::random::Random;

const TAKE: &str = include_str!("take.sql");
const KEEP: &str = include_str!("keep.sql");
const LOOK: &str = include_str!("look.sql");
/// So often a connection may be lost in the midst of a handler, before that is taken for its doing.
const LOSSES: u32 = 20;
/// Pauses while the server is away: the first, doubled so often.
const PAUSE: Duration = Duration::from_millis(10);
const DOUBLED: u32 = 4;

/// A handler whose own SQL commits with its record, or not at all. Clones share their connections.
pub struct Transactional<E>(Arc<Desk<E>>);

impl<E> Clone for Transactional<E> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<E> fmt::Debug for Transactional<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Transactional").field(&self.0.ledger).finish()
    }
}

/// What all messages share.
struct Desk<E> {
    pool: Pool,
    line: String,
    ledger: SharedLedger,
    options: TransactionOptions,
    effect: E,
    /// Somebody has been told that the server is away.
    away: AtomicBool,
}

impl<E: Effect> Transactional<E> {
    pub(super) fn new(pool: Pool, line: String, ledger: SharedLedger, options: TransactionOptions, effect: E) -> Self {
        Self(Arc::new(Desk {
            pool,
            line,
            ledger,
            options,
            effect,
            away: AtomicBool::new(false),
        }))
    }
}

impl<E: Effect> Handler for Transactional<E> {
    async fn handle(self, message: Message) -> Result<Payload, HandlerError> {
        match self.0.run(&message).await?.body {
            Body::Result(payload) => Ok(payload),
            Body::Dead { reason } => Err(HandlerError::permanent(reason)),
        }
    }

    async fn process(self, message: Message) -> Result<Handled, HandlerError> {
        self.0.run(&message).await.map(Handled::Recorded)
    }

    fn ledger(&self) -> Option<SharedLedger> {
        Some(self.0.ledger.clone())
    }
}

/// Why a transaction came to nothing.
enum Failure {
    /// It met another. Run again, it may not.
    Conflict(String),
    /// The server is away, or can't now; or nobody knows what became of it. Not the message's fault; unless it is always
    /// `amidst` its handler.
    Server { error: LedgerError, amidst: bool },
    /// The result is not what the server calls JSON: it has to be kept as text.
    NoJson,
    /// The handler's own failure.
    Handler(HandlerError),
    /// It is not heard of any longer, and so is its connection.
    Hangs(HandlerError),
}

impl<E: Effect> Desk<E> {
    /// Runs transactions until one comes to an end: the row that the ledger has then.
    async fn run(&self, message: &Message) -> Result<Record, HandlerError> {
        let (mut conflicts, mut losses, mut pauses, mut plain) = (0, 0, 0, false);
        loop {
            let failure = match self.once(message, plain).await {
                Ok(record) => {
                    if self.away.swap(false, Ordering::Relaxed) {
                        tracing::info!(server = ?self.pool, "the system of record answers again");
                    }
                    return Ok(record);
                }
                Err(failure) => failure,
            };
            match failure {
                Failure::Handler(error) | Failure::Hangs(error) => return Err(error),
                Failure::NoJson => plain = true,
                Failure::Conflict(_) if conflicts < self.options.conflicts => conflicts += 1,
                Failure::Conflict(why) => return Err(HandlerError::passing(why)),
                Failure::Server { error, amidst } => {
                    losses += u32::from(amidst);
                    if losses > LOSSES {
                        return Err(HandlerError::passing(error));
                    }
                    self.say(&error);
                    let longest = PAUSE * (1 << pauses);
                    pauses = DOUBLED.min(pauses + 1);
                    // Each at a time of its own.
                    let part = u32::try_from(Random::System.draw() >> 32).unwrap_or(0);
                    tokio::time::sleep(longest.mul_f64(0.5 + f64::from(part) / f64::from(u32::MAX) / 2.0)).await;
                }
            }
        }
    }

    fn say(&self, error: &LedgerError) {
        if self.away.swap(true, Ordering::Relaxed) {
            return;
        }
        if error.is_passing() {
            tracing::warn!(%error, "the system of record does not answer; trying again until it does");
        } else {
            tracing::error!(%error, "the system of record can't be used; trying again until somebody has seen to it");
        }
    }

    async fn once(&self, message: &Message, plain: bool) -> Result<Record, Failure> {
        let mut connection = self.pool.take().await.map_err(Failure::server)?;
        let done = self.transact(connection.client(), message, plain).await;
        if matches!(done, Err(Failure::Server { .. } | Failure::Hangs(_))) {
            connection.leave();
        }
        done
    }

    async fn transact(&self, client: &mut Client, message: &Message, plain: bool) -> Result<Record, Failure> {
        let mut row = record_of(message);
        let id = written(row.id.as_str());
        let mut transaction = match self.wait(self.take(client, &row, &id)).await? {
            Taken::Free(transaction) => transaction,
            Taken::Held(held) => return Ok(held),
        };
        let work = timeout(self.options.limit, self.effect.apply(&mut transaction, message));
        let payload = match work.await {
            Ok(Ok(payload)) => payload,
            Ok(Err(error)) => return Err(self.amidst(&transaction, error)),
            Err(_) => {
                let limit = self.options.limit;
                return Err(Failure::Hangs(HandlerError::passing(format!(
                    "the handler did not end in {limit:?}"
                ))));
            }
        };
        if let Some(error) = too_large(&payload) {
            return Err(Failure::Handler(error));
        }
        self.wait(self.keep(transaction, &id, &payload, plain)).await?;
        row.body = Body::Result(payload);
        Ok(row)
    }

    /// Takes the id; waits for whoever has it.
    async fn take<'a>(&self, client: &'a mut Client, row: &Record, id: &str) -> Result<Taken<'a>, Failure> {
        let failed = |error: Error| match failure::amidst(&error) {
            Amidst::Conflict => Failure::Conflict(error.to_string()),
            _ => Failure::server(self.pool.failed(&error)),
        };
        let take = client.prepare_cached(TAKE).await.map_err(failed)?;
        let look = client.prepare_cached(LOOK).await.map_err(failed)?;
        let builder = client.build_transaction().isolation_level(self.options.isolation);
        let transaction = builder.start().await.map_err(failed)?;
        let position = i64::try_from(row.position.0).unwrap_or(i64::MAX);
        let attempts = i32::try_from(row.attempts.0).unwrap_or(i32::MAX);
        let sequence = row.sequence.map(|sequence| sequence.to_string());
        let key = row.key.as_deref().map(written);
        let (created, processing) = (datetime(row.created), datetime(row.processing));
        let (idle, limit) = (millis(self.options.idle), millis(self.options.limit));
        let taken = transaction
            .query_opt(
                &take,
                &[
                    &self.line,
                    &id,
                    &position,
                    &attempts,
                    &sequence,
                    &key,
                    &created,
                    &processing,
                    &idle,
                    &limit,
                ],
            )
            .await
            .map_err(failed)?;
        if taken.is_some() {
            return Ok(Taken::Free(transaction));
        }
        // A statement sees what was committed before it began, and that one was waited for.
        let found = transaction
            .query_opt(&look, &[&self.line, &vec![id]])
            .await
            .map_err(failed)?;
        match found {
            Some(found) => match held(&found) {
                Ok(held) => Ok(Taken::Held(held.record)),
                Err(error) => Err(Failure::Handler(HandlerError::permanent(error))),
            },
            None => Err(Failure::server(LedgerError::Unavailable(format!(
                "{:?}: rows are removed from conga_record as fast as they are written",
                self.pool
            )))),
        }
    }

    /// Records the result, and commits.
    async fn keep(
        &self,
        transaction: Transaction<'_>,
        id: &str,
        payload: &Payload,
        plain: bool,
    ) -> Result<(), Failure> {
        let form = match form_of(payload) {
            Form::Bytes => Form::Bytes,
            _ if plain => Form::Text,
            form => form,
        };
        let text = (form != Form::Bytes).then(|| payload.text());
        let bytes = (form == Form::Bytes).then(|| bytes_of(payload));
        let failed = |error: Error| match failure::amidst(&error) {
            Amidst::Conflict => Failure::Conflict(error.to_string()),
            _ if Why::of(&error) == Why::Data && !plain => Failure::NoJson,
            _ if failure::is_of_failed_transaction(&error) => Failure::Handler(HandlerError::passing(
                "the handler went on after one of its statements had failed, so nothing can be committed",
            )),
            _ => Failure::server(self.pool.failed(&error)),
        };
        let keep = transaction.prepare_cached(KEEP).await.map_err(failed)?;
        let kept = transaction
            .execute(&keep, &[&self.line, &id, &(form as i16), &text, &bytes])
            .await
            .map_err(failed)?;
        if kept != 1 {
            return Err(Failure::Handler(HandlerError::permanent(
                "the handler ended the transaction or removed its row: what it did by itself may stand, without a record",
            )));
        }
        transaction
            .commit()
            .await
            .map_err(|error| match failure::amidst(&error) {
                // What is checked at the end, as a deferred constraint, was not fulfilled.
                Amidst::Handler { permanent } => Failure::Handler(HandlerError {
                    reason: failure::told(&error),
                    permanent,
                    retry_after: None,
                }),
                _ => failed(error),
            })
    }

    /// What the handler's own SQL ran into.
    fn amidst(&self, transaction: &Transaction<'_>, error: EffectError) -> Failure {
        match error {
            EffectError::Database(error) => match failure::amidst(&error) {
                Amidst::Conflict => Failure::Conflict(failure::told(&error)),
                Amidst::Server => Failure::Server {
                    error: self.pool.failed(&error),
                    amidst: true,
                },
                Amidst::Handler { permanent } => Failure::Handler(HandlerError {
                    reason: failure::told(&error),
                    permanent,
                    retry_after: None,
                }),
            },
            // Whatever it made of that, it was not its fault.
            EffectError::Handler(error) if transaction.client().is_closed() => Failure::Server {
                error: LedgerError::Unknown(error.reason),
                amidst: true,
            },
            EffectError::Handler(error) => Failure::Handler(error),
        }
    }

    /// What the server should do at once.
    async fn wait<T>(&self, asking: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        match timeout(PATIENCE, asking).await {
            Ok(answer) => answer,
            Err(_) => Err(Failure::server(LedgerError::Unknown(format!(
                "{:?} did not answer in {} s",
                self.pool,
                PATIENCE.as_secs()
            )))),
        }
    }
}

enum Taken<'a> {
    /// It is this transaction's.
    Free(Transaction<'a>),
    /// It has a result.
    Held(Record),
}

impl Failure {
    fn server(error: LedgerError) -> Self {
        Self::Server { error, amidst: false }
    }
}

/// The row of a message that has no result yet.
fn record_of(message: &Message) -> Record {
    Record {
        position: message.position,
        id: message.id.clone(),
        sequence: message.sequence,
        key: message.key.clone(),
        body: Body::Dead { reason: String::new() },
        attempts: message.attempt,
        created: message.created,
        processing: message.processing,
    }
}
