//! What keeps a handler's effect within its bounds, on the connection that is the store's: what its statements may do, and how
//! long they may take.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use rusqlite::functions::FunctionFlags;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};

/// SQLite looks at the time after so many of its instructions: some 10 µs.
const INSTRUCTIONS: i32 = 1_000;
const SCHEMA: &str = include_str!("schema.sql");

/// By this function a statement refuses its message for good.
pub(super) const REFUSE: &str = "conga_refuse";

/// The bounds of a connection; clones are of the same.
#[derive(Debug, Clone)]
pub(super) struct Guard {
    is_on: Arc<AtomicBool>,
    /// When the effect that runs has to be over, in microseconds from `start` on. 0: none runs.
    until_us: Arc<AtomicU64>,
    start: Instant,
}

/// Why a message was refused.
#[derive(Debug, thiserror::Error)]
#[error("refused: {0}")]
pub(super) struct Refused(pub(super) String);

impl Refused {
    /// By which the text of one begins.
    pub(super) const MARK: &'static str = "refused: ";
}

impl Guard {
    /// Puts bounds on a connection, which stay off until an effect runs. It costs all its statements a second preparation.
    pub(super) fn over(connection: &mut Connection) -> rusqlite::Result<Self> {
        let guard = Self {
            is_on: Arc::default(),
            until_us: Arc::default(),
            start: Instant::now(),
        };
        let is_on = guard.is_on.clone();
        let own: Vec<&str> = own_tables().collect();
        connection.authorizer(Some(move |context: AuthContext<'_>| {
            if !is_on.load(Ordering::Relaxed) || is_allowed(&context.action, &own) {
                Authorization::Allow
            } else {
                Authorization::Deny
            }
        }))?;
        let (until_us, start) = (guard.until_us.clone(), guard.start);
        connection.progress_handler(
            INSTRUCTIONS,
            Some(move || {
                let until_us = until_us.load(Ordering::Relaxed);
                until_us > 0 && micros(start.elapsed()) > until_us
            }),
        )?;
        connection.create_scalar_function(REFUSE, 1, FunctionFlags::SQLITE_UTF8, |context| {
            let why: String = context.get(0)?;
            Err::<bool, _>(rusqlite::Error::UserFunctionError(Box::new(Refused(why))))
        })?;
        // What effects prepare is kept beside what the store does.
        connection.set_prepared_statement_cache_capacity(128);
        Ok(guard)
    }

    /// Runs something within the bounds.
    pub(super) fn within<T>(&self, limit: Duration, work: impl FnOnce() -> T) -> T {
        let until = micros(self.start.elapsed() + limit).max(1);
        self.until_us.store(until, Ordering::Relaxed);
        self.is_on.store(true, Ordering::Relaxed);
        let lift = Lift(self);
        let done = work();
        drop(lift);
        done
    }
}

/// Also when the work panics.
struct Lift<'a>(&'a Guard);

impl Drop for Lift<'_> {
    fn drop(&mut self) {
        self.0.is_on.store(false, Ordering::Relaxed);
        self.0.until_us.store(0, Ordering::Relaxed);
    }
}

/// Reads, and writes to rows of tables that are not the store's. All else would end the transaction, or outlive it, or change
/// what the store relies on.
fn is_allowed(action: &AuthAction<'_>, own: &[&str]) -> bool {
    match action {
        AuthAction::Select | AuthAction::Read { .. } | AuthAction::Function { .. } | AuthAction::Recursive => true,
        AuthAction::Insert { table_name }
        | AuthAction::Delete { table_name }
        | AuthAction::Update { table_name, .. } => !own.iter().any(|own| own.eq_ignore_ascii_case(table_name)),
        _ => false,
    }
}

/// The tables of the store.
fn own_tables() -> impl Iterator<Item = &'static str> {
    SCHEMA
        .lines()
        .filter_map(|line| line.strip_prefix("CREATE TABLE ")?.split([' ', '(']).next())
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_of_the_store_is_its_own() {
        let own: Vec<&str> = own_tables().collect();
        for table in [
            "line",
            "input",
            "producer",
            "owner",
            "flight",
            "record",
            "processed",
            "output",
            "dead",
        ] {
            assert!(own.contains(&table), "{table}");
        }
        assert_eq!(own.len(), SCHEMA.matches("CREATE TABLE").count());
    }
}
