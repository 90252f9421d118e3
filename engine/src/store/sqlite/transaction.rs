//! The transaction of a step, as a handler's effect sees it.

use rusqlite::{CachedStatement, Connection, OptionalExtension, Params, Row};

/// The transaction in which a message is completed. What is written by it commits with the message's record, or not at all. It can
/// read everything in the file, and write to all tables but Conga's own; it can neither be committed nor rolled back by its
/// user, and takes no `PRAGMA`, `ATTACH` or change of the schema.
#[derive(Debug)]
pub struct Transaction<'a>(&'a Connection);

impl<'a> Transaction<'a> {
    pub(super) fn on(connection: &'a Connection) -> Self {
        Self(connection)
    }

    /// A statement, kept for the next message.
    ///
    /// # Errors
    /// What SQLite says; also to what an effect may not do.
    pub fn prepare(&self, sql: &str) -> rusqlite::Result<CachedStatement<'_>> {
        // What the store has prepared for itself may do more: it is kept under another name.
        self.0.prepare_cached(&format!("/* effect */ {sql}"))
    }

    /// Runs a statement that answers no rows: how many rows it has changed.
    ///
    /// # Errors
    /// As [`Transaction::prepare`].
    pub fn execute(&self, sql: &str, parameters: impl Params) -> rusqlite::Result<usize> {
        self.prepare(sql)?.execute(parameters)
    }

    /// All rows that a statement answers.
    ///
    /// # Errors
    /// As [`Transaction::prepare`], and what `read` says.
    pub fn query<T>(
        &self,
        sql: &str,
        parameters: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Vec<T>> {
        // Read to the end: only then has all been done that the statement is to do.
        self.prepare(sql)?.query_map(parameters, read)?.collect()
    }

    /// The first row that a statement answers.
    ///
    /// # Errors
    /// As [`Transaction::query`]; [`rusqlite::Error::QueryReturnedNoRows`] if there is none.
    pub fn query_one<T>(
        &self,
        sql: &str,
        parameters: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        let rows = self.query(sql, parameters, read)?;
        rows.into_iter().next().ok_or(rusqlite::Error::QueryReturnedNoRows)
    }

    /// The same, where there may be none.
    ///
    /// # Errors
    /// As [`Transaction::query`].
    pub fn query_opt<T>(
        &self,
        sql: &str,
        parameters: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Option<T>> {
        self.query_one(sql, parameters, read).optional()
    }
}
