//! Transactional handlers: the effect of a message runs in the step that completes it. First its lease is checked (law 2), then
//! its effect runs in a savepoint of its own, and then its result is recorded; one commit is all of it. So no lease can be lost
//! in the midst, and what is repeated after a lost answer is stale and runs nothing.
//!
//! An effect that fails takes its savepoint back, and nothing else of the batch with it. Some failures take the whole transaction
//! back (an `OR ROLLBACK`, a write that was interrupted, what is only checked at the commit). Then the step begins anew without
//! the one that did it.

use std::collections::HashMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use conga_core::lease::OwnerId;
use conga_core::message::{Body, Payload, Record};
use conga_core::partition::{Completed, Completion};
use rusqlite::ErrorCode;

use super::complete::{Ends, tell};
use super::database::{Commit, Database};
use super::guard::{Guard, Refused};
use super::leases::Leases;
use super::sql::sql;
use super::step::Step;
use super::transaction::Transaction;
use super::worker::Worker;
use crate::process::{Effects, Fail, Handled, Handler, HandlerError, Message, SharedEffects, too_large};
use crate::store::{Result, StoreError};

/// A step begins with no further effect after so long, or with so many bytes of results: others wait for the file.
const LONG: Duration = Duration::from_millis(50);
const MANY_BYTES: usize = 8 << 20;

/// A handler's own writes. An ordinary closure is one: `|transaction, message| { … Ok(result) }`.
pub trait Effect: Send + Sync + 'static {
    /// Does what the message asks for, and says what its result is. It may run again, after whatever it did was rolled back. The
    /// file is locked for all others meanwhile: it is to be short, and to wait for nothing.
    ///
    /// # Errors
    /// Then all that it did is rolled back.
    fn apply(&self, transaction: &Transaction<'_>, message: &Message) -> std::result::Result<Payload, EffectError>;
}

impl<F> Effect for F
where
    F: Fn(&Transaction<'_>, &Message) -> std::result::Result<Payload, EffectError> + Send + Sync + 'static,
{
    fn apply(&self, transaction: &Transaction<'_>, message: &Message) -> std::result::Result<Payload, EffectError> {
        self(transaction, message)
    }
}

/// Why there is no result. Either way all that was done is rolled back.
#[derive(Debug, thiserror::Error)]
pub enum EffectError {
    /// What SQLite said. A file that is locked, full or failing is waited for; what an effect may not do, data of the wrong type
    /// and `conga_refuse(…)` fail for good; all else is tried again as the processor's backoff says.
    #[error(transparent)]
    Database(#[from] rusqlite::Error),
    /// As of any handler.
    #[error(transparent)]
    Handler(#[from] HandlerError),
}

/// How effects are run.
#[derive(Debug, Clone, Copy)]
pub struct EffectOptions {
    /// How long the statements of one may take; then they are interrupted, and that is a failure. Nobody else can write
    /// meanwhile, not even to stay alive: so it is half of a lease.
    pub limit: Duration,
}

impl Default for EffectOptions {
    fn default() -> Self {
        Self {
            limit: Duration::from_millis(500),
        }
    }
}

/// A handler whose own writes commit with its record, or not at all.
#[derive(Clone)]
pub struct Transactional(Arc<Desk>);

struct Desk {
    worker: Arc<Worker>,
    options: EffectOptions,
    effect: Arc<dyn Effect>,
}

impl fmt::Debug for Transactional {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Transactional").field(&self.0.options).finish()
    }
}

impl Transactional {
    pub(super) fn new(worker: Arc<Worker>, options: EffectOptions, effect: Arc<dyn Effect>) -> Self {
        Self(Arc::new(Desk {
            worker,
            options,
            effect,
        }))
    }
}

impl Handler for Transactional {
    async fn handle(self, _: Message) -> std::result::Result<Payload, HandlerError> {
        Err(HandlerError::permanent(
            "only a processor can run this handler: its work is done where the message is completed",
        ))
    }

    async fn process(self, message: Message) -> std::result::Result<Handled, HandlerError> {
        Ok(Handled::InStep(message.payload))
    }

    fn effects(&self) -> Option<SharedEffects> {
        Some(Arc::new(self.clone()))
    }
}

#[async_trait]
impl Effects for Transactional {
    async fn complete(
        &self,
        owner: &OwnerId,
        completions: &[Completion],
        fail: &Fail,
    ) -> Result<Vec<(Completion, Completed)>> {
        let (desk, owner, completions, fail) = (self.0.clone(), owner.clone(), completions.to_vec(), fail.clone());
        self.0
            .worker
            .call(move |database| {
                if !database.read(|step| Ok(step.load()?.is_total()))? {
                    return Err(StoreError::Broken(
                        "a handler whose SQL runs in the step that completes needs a line of total order: give another line with \
                         --line NAME, or another handler"
                            .to_owned(),
                    ));
                }
                let guard = database.guard()?;
                let batch = Batch {
                    effect: &*desk.effect,
                    limit: desk.options.limit,
                    guard,
                    owner: &owner,
                    completions: &completions,
                    fail: &fail,
                };
                batch.complete(database)
            })
            .await
    }
}

/// Completions, and how their effects run.
struct Batch<'a> {
    effect: &'a dyn Effect,
    limit: Duration,
    guard: Guard,
    owner: &'a OwnerId,
    completions: &'a [Completion],
    fail: &'a Fail,
}

/// What became of an effect.
enum Outcome {
    Result(Payload),
    Failed(HandlerError),
    /// So, and the transaction with all of the batch is gone.
    Gone(HandlerError),
}

/// How far a step has come.
#[derive(Default)]
struct Progress {
    /// Which of them took the transaction with it, and why.
    gone: Option<(usize, HandlerError)>,
    /// So many have been through, and only the commit was left.
    through: usize,
}

type Told = Vec<(Completion, Completed)>;

impl Batch<'_> {
    /// One step over the first of them.
    fn complete(&self, database: &mut Database) -> Result<Told> {
        let mut failed = HashMap::new();
        let mut most = self.completions.len();
        let (told, delivered, full) = loop {
            let delivers = database.delivers();
            let mut progress = Progress::default();
            let done = database.write(Commit::Synced, |step| {
                progress = Progress::default();
                self.step(step, delivers, &self.completions[..most], &failed, &mut progress)
            });
            match (done, progress) {
                (Ok(done), _) => break done,
                (
                    Err(_),
                    Progress {
                        gone: Some((index, error)),
                        ..
                    },
                ) => {
                    failed.insert(index, error);
                }
                // The commit was refused, as by a deferred constraint. Whose fault it is shows when it is alone.
                (Err(StoreError::Broken(_)), Progress { through, .. }) if through > 1 => most = through / 2,
                (Err(StoreError::Broken(why)), Progress { through: 1, .. }) if !failed.contains_key(&0) => {
                    failed.insert(0, HandlerError::passing(format!("at the commit: {why}")));
                }
                (Err(error), _) => return Err(error),
            }
        };
        let (became, answers): (Vec<_>, Vec<_>) = told.into_iter().unzip();
        tell(database, &became, &answers, delivered, full);
        Ok(became.into_iter().zip(answers).collect())
    }

    fn step(
        &self,
        step: &Step<'_>,
        delivers: bool,
        completions: &[Completion],
        failed: &HashMap<usize, HandlerError>,
        progress: &mut Progress,
    ) -> rusqlite::Result<(Told, bool, bool)> {
        let began = Instant::now();
        let mut ends = Ends::new(step, Leases::read(step, self.owner, completions)?, delivers)?;
        let mut told = Told::new();
        let mut bytes = 0;
        for (index, completion) in completions.iter().enumerate() {
            let became = match completion {
                Completion::Done(record) if ends.wants_result(record)? => {
                    let outcome = match failed.get(&index) {
                        Some(error) => Outcome::Failed(error.clone()),
                        None => self.run(step, record)?,
                    };
                    match outcome {
                        Outcome::Result(payload) => {
                            bytes += payload.size();
                            Completion::Done(Record {
                                body: Body::Result(payload),
                                ..record.clone()
                            })
                        }
                        Outcome::Failed(error) => (self.fail)(record.clone(), error),
                        Outcome::Gone(error) => {
                            progress.gone = Some((index, error));
                            return Err(rusqlite::Error::QueryReturnedNoRows);
                        }
                    }
                }
                other => other.clone(),
            };
            let answer = ends.end(index as u64, &became)?;
            told.push((became, answer));
            if began.elapsed() >= LONG || bytes >= MANY_BYTES {
                break;
            }
        }
        let (delivered, full) = ends.finish(told.len() as u64)?;
        progress.through = told.len();
        Ok((told, delivered, full))
    }

    /// Runs the effect of a message in a savepoint. An error is the store's: nothing of the step counts then, and nobody is at fault.
    fn run(&self, step: &Step<'_>, record: &Record) -> rusqlite::Result<Outcome> {
        let Some(message) = message_of(record) else {
            return Ok(Outcome::Failed(HandlerError::permanent("it has no payload")));
        };
        step.prepare(sql!("effect.sql", "begin"))?.execute([])?;
        let connection = step.connection();
        let transaction = Transaction::on(connection);
        let work = AssertUnwindSafe(|| self.effect.apply(&transaction, &message));
        let done = self.guard.within(self.limit, || catch_unwind(work));
        let error = match done {
            Ok(Ok(payload)) => match too_large(&payload) {
                None if !connection.is_autocommit() => {
                    step.prepare(sql!("effect.sql", "keep"))?.execute([])?;
                    return Ok(Outcome::Result(payload));
                }
                None => HandlerError::passing("the effect went on after its transaction was rolled back"),
                Some(error) => error,
            },
            Ok(Err(EffectError::Handler(error))) => error,
            Ok(Err(EffectError::Database(error))) if is_of_store(&error) => return Err(error),
            Ok(Err(EffectError::Database(error))) => self.told(&error),
            Err(_) => HandlerError::passing("the handler panicked"),
        };
        if connection.is_autocommit() {
            return Ok(Outcome::Gone(error));
        }
        step.prepare(sql!("effect.sql", "undo"))?.execute([])?;
        step.prepare(sql!("effect.sql", "keep"))?.execute([])?;
        Ok(Outcome::Failed(error))
    }

    /// What SQLite said to the effect, as its failure.
    fn told(&self, error: &rusqlite::Error) -> HandlerError {
        if let Some(why) = refused(error) {
            return HandlerError::permanent(why);
        }
        match error.sqlite_error_code() {
            Some(ErrorCode::OperationInterrupted) => {
                HandlerError::passing(format!("the effect did not end in {:?}", self.limit))
            }
            Some(ErrorCode::AuthorizationForStatementDenied) => HandlerError::permanent(format!(
                "{error}: an effect reads, and writes rows of tables that are not Conga's own, and nothing else"
            )),
            Some(ErrorCode::TypeMismatch | ErrorCode::TooBig | ErrorCode::ParameterOutOfRange) => {
                HandlerError::permanent(error)
            }
            _ => HandlerError::passing(error),
        }
    }
}

/// What a statement gave for refusing its message. SQLite hands on only the text, so that is where it is found again.
fn refused(error: &rusqlite::Error) -> Option<String> {
    match error {
        rusqlite::Error::UserFunctionError(error) => error.downcast_ref::<Refused>().map(|refused| refused.0.clone()),
        rusqlite::Error::SqliteFailure(_, Some(text)) => text.strip_prefix(Refused::MARK).map(str::to_owned),
        _ => None,
    }
}

/// Whether it is the file, the disk or the machine, and no message.
fn is_of_store(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::FileLockingProtocolFailed
                | ErrorCode::DiskFull
                | ErrorCode::SystemIoFailure
                | ErrorCode::OutOfMemory
                | ErrorCode::ReadOnly
                | ErrorCode::CannotOpen
                | ErrorCode::DatabaseCorrupt
                | ErrorCode::NotADatabase
                | ErrorCode::SchemaChanged
        )
    )
}

fn message_of(record: &Record) -> Option<Message> {
    let Body::Result(payload) = &record.body else {
        return None;
    };
    Some(Message {
        position: record.position,
        id: record.id.clone(),
        sequence: record.sequence,
        key: record.key.clone(),
        payload: payload.clone(),
        attempt: record.attempts,
        created: record.created,
        processing: record.processing,
    })
}
