//! The ledger: where the system of record is kept. Few verbs, each for a batch.
//!
//! The store has a record of its own, always: what it delivers from, and what makes an id count once in the line. Where
//! that is all, there is nothing to write besides ([`store::StoreLedger`]). With a ledger apart, as PostgreSQL
//! ([`postgres::PostgresLedger`]), that one is the system of record: it outlives what the store trims, and can be queried.
//!
//! # The laws
//! Every ledger keeps these; `tests/ledger` holds each of them to them.
//!
//! 1. **First here, then in the store.** A result is recorded before the store's complete is told of it. So whatever was
//!    delivered is recorded, whoever dies in between.
//! 2. **Once for each id.** The first result that is recorded under an id stays. Whoever comes later is told what is
//!    there, and completes with that: a zombie and its successor deliver the same.
//! 3. **What is kept comes back byte for byte**: a payload as its text was, and not as the database would write it.
//! 4. **Each verb can be repeated** after a lost answer and then changes nothing: the answer is the same. So a broken
//!    connection is UNKNOWN, never a failure, and asking again is the way out.
//! 5. A batch is recorded as a whole or not at all; nobody relies on it, since each answer stands for itself.
//!
//! Dead letters and retries are no results: they go to the store alone.
//!
//! # What is not here
//! A ledger does not know who holds a lease, and never refuses a zombie's result: it may be the first, and is as good as
//! its successor's. Whose lease counts is the store's to say.
//!
//! # Cancellation
//! A verb's future may be dropped at any time: the same as [`LedgerError::Unknown`].

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use conga_core::message::{Id, Record};
use conga_core::partition::Page;

mod error;
pub mod postgres;
pub mod store;
mod url;

pub use error::LedgerError;
pub use url::{BadLedgerUrl, LedgerUrl, erase, open};

/// What a verb answers.
pub type Result<T> = std::result::Result<T, LedgerError>;

/// A shared ledger.
pub type SharedLedger = Arc<dyn Ledger>;

/// What a ledger holds for an id, once it was asked to record a result under it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// The result that was given: recorded just now, or by the same call before.
    Given,
    /// Another, which was there before. Its position is where the message stood that it came from.
    Other(Record),
}

/// The system of record of one partition of a line.
#[async_trait]
pub trait Ledger: Debug + Send + Sync {
    /// Whether it is apart from the store: then results go there first, and who claims a message again looks there before.
    fn is_apart(&self) -> bool;

    /// Records results. One answer for each, in their order: what is held for its id now (laws 2 and 3).
    async fn record(&self, results: &[Record]) -> Result<Vec<Kept>>;

    /// What is held for these ids, one answer for each. Changes nothing.
    async fn look(&self, ids: &[Id]) -> Result<Vec<Option<Record>>>;

    /// A page of the record: the first one, or the one that [`Page::next`] named. Changes nothing.
    async fn browse(&self, from: Option<&str>) -> Result<Page>;
}
