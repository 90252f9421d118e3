//! The SQLite store: lines in one file, shared by the processes of one machine. The default.
//!
//! Each store has a thread that owns its connection; a verb is one transaction on it. What a verb acknowledges or hands
//! out is on the disk: a second thread syncs the write-ahead log before the answer goes out, once for all steps that
//! wait for it. Only leases, deadlines and the lock are not synced by themselves, for they end with the machine anyway.
//! The file has to be on a local disk.
//!
//! Time is the machine's clock, which all processes share. A clock that is set back keeps a deadline that was written
//! before for that much longer.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use conga_core::lease::OwnerId;
use conga_core::message::Payload;
use conga_core::partition::{
    CampaignRequest, Claim, ClaimRequest, Completed, Completion, Control, ControlRequest, Cursor, DeadRequest,
    EmitRequest, Emitted, Followed, Judged, MergeRequest, Merged, Numbered, Page, ReceiveRequest, Received,
    RenewRequest, Renewed, Sent, Shelf, Status,
};
use conga_core::shape::Shape;
use conga_core::term::Campaign;

use self::database::Database;
use self::worker::Worker;
use super::{Delivery, Result, Store};
use crate::clock::Clock;
use crate::line::Line;
use crate::process::Message;
use crate::wake::Wakes;

mod alive;
mod bell;
mod browse;
mod campaign;
mod claim;
mod complete;
mod control;
mod convert;
mod database;
mod dead;
mod deliver;
mod effect;
mod emit;
mod erase;
mod fault;
mod follow;
mod guard;
mod in_place;
mod leases;
mod merge;
mod open;
mod outlet;
mod receive;
mod renew;
mod script;
mod send;
mod shape;
mod sql;
mod status;
mod step;
mod syncer;
#[cfg(test)]
mod tests;
mod transaction;
mod trim;
mod waiting;
mod worker;

pub use effect::{Effect, EffectError, EffectOptions, Transactional};
pub use rusqlite;
pub use script::Script;
pub use transaction::Transaction;

/// How a store on SQLite works.
#[derive(Debug, Clone)]
pub struct SqliteOptions {
    /// Whose clock tells the time.
    pub clock: Clock,
    /// Who delivers.
    pub delivery: Delivery,
    /// How long a step waits while another process, or another tool, has the file locked. After that it answers
    /// [`super::StoreError::Unavailable`].
    pub busy_limit: Duration,
    /// A claim that finds nothing, and a renewal, spare themselves the write of the owner's deadline as long as that
    /// would move by no more than this part of the lease: so an idle process that claims every 100 ms does not write
    /// every 100 ms. The price is that an owner may be taken for gone by so much earlier. In percent; with 0 each
    /// call moves the deadline.
    pub owner_slack_percent: u64,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self {
            clock: Clock::Store,
            delivery: Delivery::default(),
            busy_limit: Duration::from_secs(5),
            owner_slack_percent: 25,
        }
    }
}

/// A partition in a file. Dropping it waits for the step that runs, closes the file and ends the thread.
#[derive(Debug)]
pub struct SqliteStore {
    worker: Arc<Worker>,
    wakes: Wakes,
}

impl SqliteStore {
    /// Opens `line` in the file at `path`; makes the file, or the line in it, if it is new.
    ///
    /// # Errors
    /// [`super::StoreError::Broken`] if the file can't be used: it is no database, or another program's, or of a newer
    /// version (all left untouched), or can't be opened or written. [`super::StoreError::Unavailable`] if it stays
    /// locked, or the disk is full.
    ///
    /// # Cancellation
    /// May be dropped at any time; then a new file may or may not have been set up.
    pub async fn open(path: &Path, line: &Line, options: SqliteOptions) -> Result<Self> {
        let wakes = Wakes::default();
        let (path, line, bells) = (path.to_owned(), line.clone(), wakes.clone());
        let worker = Worker::start(move || Database::open(&path, &line, options, bells)).await?;
        Ok(Self {
            worker: Arc::new(worker),
            wakes,
        })
    }

    /// A handler whose own SQL commits together with its record, or not at all: exactly once altogether. It works on tables of its
    /// own in the same file, in the step of this store that completes the message: after the lease has been checked, and before
    /// anybody else can. Its processor has to be over this very line, and has no ledger apart.
    ///
    /// ```no_run
    /// # use std::sync::Arc;
    /// # use conga::core::message::Payload;
    /// # use conga::process::{Processor, ProcessorOptions};
    /// # use conga::store::sqlite::{EffectOptions, SqliteOptions, SqliteStore};
    /// # async fn pay() -> Result<(), Box<dyn std::error::Error>> {
    /// let store = Arc::new(SqliteStore::open("conga.db".as_ref(), &"payments".parse()?, SqliteOptions::default()).await?);
    /// let handler = store.transactional(EffectOptions::default(), |transaction, message| {
    ///     let sql = "UPDATE account SET balance = balance - (?2->>'amount') WHERE name = ?1 RETURNING balance";
    ///     let left: i64 = transaction.query_one(sql, (&message.key, message.payload.text()), |row| row.get(0))?;
    ///     Ok(Payload::string(&left.to_string()))
    /// });
    /// let shutdown = tokio_util::sync::CancellationToken::new();
    /// Processor::new(store, handler, ProcessorOptions::default()).run(shutdown).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn transactional<F>(&self, options: EffectOptions, effect: F) -> Transactional
    where
        F: Fn(&Transaction<'_>, &Message) -> std::result::Result<Payload, EffectError> + Send + Sync + 'static,
    {
        Transactional::new(self.worker.clone(), options, Arc::new(effect))
    }

    /// The same, with SQL as text: one or several statements, run for each message. They can name `:id`, `:position`,
    /// `:sequence`, `:key` and `:payload` (JSON text). The result is what the last of them that answers rows answers.
    ///
    /// # Errors
    /// [`super::StoreError::Broken`] for what SQLite does not take, with the line; the statements are prepared, not run.
    ///
    /// # Cancellation
    /// Safe.
    pub async fn script(&self, options: EffectOptions, text: &str) -> Result<Transactional> {
        let text = text.to_owned();
        let script = self
            .worker
            .call(move |database| Script::prepare(database, &text))
            .await?;
        Ok(Transactional::new(self.worker.clone(), options, Arc::new(script)))
    }

    /// Removes the line and all that is of it from the file. Not for a line at which anybody works.
    ///
    /// # Errors
    /// As any step.
    pub async fn erase(self) -> Result<()> {
        self.worker.call(erase::erase).await
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn send(&self, entries: &[Bytes], numbered: Option<&Numbered>) -> Result<Sent> {
        let (entries, numbered) = (entries.to_vec(), numbered.cloned());
        self.worker
            .call(move |database| match numbered {
                Some(numbered) => send::send_numbered(database, &numbered, &entries),
                None => send::send(database, &entries),
            })
            .await
    }

    async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Claim>> {
        let request = request.clone();
        self.worker.call(move |database| claim::claim(database, &request)).await
    }

    async fn complete(&self, owner: &OwnerId, completions: &[Completion]) -> Result<Vec<Completed>> {
        let (owner, completions) = (owner.clone(), completions.to_vec());
        self.worker
            .call(move |database| complete::complete(database, &owner, &completions))
            .await
    }

    async fn renew(&self, request: &RenewRequest) -> Result<Renewed> {
        let request = request.clone();
        self.worker.call(move |database| renew::renew(database, &request)).await
    }

    async fn campaign(&self, request: &CampaignRequest) -> Result<Campaign> {
        let request = request.clone();
        self.worker
            .call(move |database| campaign::campaign(database, &request))
            .await
    }

    async fn follow(&self, cursor: Cursor, max: usize) -> Result<Followed> {
        self.worker
            .call(move |database| follow::follow(database, cursor, max))
            .await
    }

    async fn emit(&self, request: &EmitRequest) -> Result<Emitted> {
        let request = request.clone();
        self.worker.call(move |database| emit::emit(database, &request)).await
    }

    async fn merge(&self, request: &MergeRequest) -> Result<Merged> {
        let request = request.clone();
        self.worker.call(move |database| merge::merge(database, &request)).await
    }

    async fn receive(&self, request: &ReceiveRequest) -> Result<Received> {
        let request = request.clone();
        self.worker
            .call(move |database| receive::receive(database, &request))
            .await
    }

    async fn control(&self, request: &ControlRequest) -> Result<Control> {
        let request = *request;
        self.worker
            .call(move |database| control::control(database, &request))
            .await
    }

    async fn status(&self) -> Result<Status> {
        self.worker.call(|database| status::status(database)).await
    }

    async fn browse(&self, which: Shelf, from: Option<&str>) -> Result<Page> {
        let from = from.unwrap_or_default().to_owned();
        Ok(match which {
            Shelf::Record => {
                let sheet = self
                    .worker
                    .call(move |database| browse::records(database, &from))
                    .await?;
                sheet.write(browse::write_record)
            }
            Shelf::Dead => {
                let sheet = self.worker.call(move |database| browse::dead(database, &from)).await?;
                sheet.write(browse::write_dead)
            }
        })
    }

    fn as_sqlite(&self) -> Option<&SqliteStore> {
        Some(self)
    }

    async fn shape(&self, wanted: Option<Shape>) -> Result<Option<Shape>> {
        self.worker.call(move |database| shape::shape(database, wanted)).await
    }

    async fn dead(&self, request: &DeadRequest) -> Result<Vec<Judged>> {
        let request = request.clone();
        self.worker.call(move |database| dead::dead(database, &request)).await
    }

    fn wakes(&self) -> &Wakes {
        &self.wakes
    }
}
