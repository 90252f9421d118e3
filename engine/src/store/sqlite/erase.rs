//! Erase: a line goes, and all that is of it.

use super::database::{Commit, Database};
use crate::store::Result;

/// One statement a table, the line's own row last.
const STATEMENTS: [&str; 10] = [
    "DELETE FROM input WHERE place >> 48 = ?1",
    "DELETE FROM producer WHERE line = ?1",
    "DELETE FROM owner WHERE line = ?1",
    "DELETE FROM flight WHERE line = ?1",
    "DELETE FROM record WHERE line = ?1",
    "DELETE FROM processed WHERE line = ?1",
    "DELETE FROM output WHERE place >> 48 = ?1",
    "DELETE FROM dead WHERE line = ?1",
    "DELETE FROM passed WHERE line = ?1",
    "DELETE FROM line WHERE line = ?1",
];

pub(super) fn erase(database: &mut Database) -> Result<()> {
    database.write(Commit::Synced, |step| {
        for statement in STATEMENTS {
            step.prepare(statement)?.execute([step.line])?;
        }
        Ok(())
    })
}
