//! What an error of PostgreSQL means: by its SQLSTATE, where the server said one.
//! Source: the manual's appendix "PostgreSQL Error Codes".

use std::error::Error as _;
use std::io;

use deadpool_postgres::{PoolError, TimeoutType};
use tokio_postgres::Error;

use crate::ledger::LedgerError;

/// What can be done about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Unavailable,
    Unknown,
    Broken,
}

fn class(code: &str) -> Class {
    match code {
        // The connection broke or was ended: perhaps in the midst of a commit.
        "57P01" | "57P02" | "57P05" | "40003" => Class::Unknown,
        _ if code.starts_with("08") => Class::Unknown,
        // It is about to start, or to stop; a standby, until it is promoted; a plan that a migration has made stale; what it did
        // not expect itself.
        "57P03" | "57014" | "55P03" | "25006" | "0A000" | "XX000" => Class::Unavailable,
        // Serialization and deadlock; no room for now; the system below it.
        _ if code.starts_with("40") || code.starts_with("53") || code.starts_with("58") => Class::Unavailable,
        _ => Class::Broken,
    }
}

/// What an error means to who asked the server of this name.
pub(super) fn of(name: &str, error: &Error) -> LedgerError {
    if let Some(told) = error.as_db_error() {
        let text = format!("{name}: {} (SQLSTATE {})", told.message(), told.code().code());
        return match class(told.code().code()) {
            Class::Unavailable => LedgerError::Unavailable(text),
            Class::Unknown => LedgerError::Unknown(text),
            Class::Broken => LedgerError::Broken(format!("{text}{}", hint(told.code().code()))),
        };
    }
    let text = format!("{name}: {}", chain(error));
    match below(error) {
        Below::Connection => LedgerError::Unknown(text),
        Below::Nothing if text.contains("timeout") => LedgerError::Unavailable(text),
        Below::Nothing | Below::Certificate => LedgerError::Broken(text),
    }
}

pub(super) fn of_pool(name: &str, error: &PoolError) -> LedgerError {
    match error {
        PoolError::Backend(error) => match of(name, error) {
            // Nothing has been asked yet.
            LedgerError::Unknown(text) => LedgerError::Unavailable(text),
            other => other,
        },
        PoolError::Timeout(TimeoutType::Create) => {
            LedgerError::Unavailable(format!("{name} did not answer to a connection in time"))
        }
        PoolError::Timeout(TimeoutType::Wait) => {
            LedgerError::Unavailable(format!("{name}: no connection became free in time"))
        }
        other => LedgerError::Unavailable(format!("{name}: {other}")),
    }
}

/// Whether another connection may do better.
pub(super) fn spoils_the_connection(error: &Error) -> bool {
    match error.code().map(tokio_postgres::error::SqlState::code) {
        Some(code) => matches!(code, "25006" | "0A000") || code.starts_with("57P") || code.starts_with("08"),
        None => true,
    }
}

/// What lies in what was asked, and not in the server or the way to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// It can't take the data as they are: what it thinks of JSON, or of a text, is not what we think.
    Data,
    /// An id is there already.
    Conflict,
    Other,
}

impl Why {
    pub(super) fn of(error: &Error) -> Self {
        match error.code().map(tokio_postgres::error::SqlState::code) {
            Some("23505") => Self::Conflict,
            Some(code) if code.starts_with("22") || code.starts_with("54") => Self::Data,
            _ => Self::Other,
        }
    }
}

/// Whether an earlier statement of the transaction has failed.
pub(super) fn is_of_failed_transaction(error: &Error) -> bool {
    error.code() == Some(&tokio_postgres::error::SqlState::IN_FAILED_SQL_TRANSACTION)
}

/// What an error means amidst SQL that is not ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Amidst {
    /// Two transactions were in each other's way.
    Conflict,
    /// The server, or the way to it.
    Server,
    /// What was asked for; data that the server does not take, it never will.
    Handler { permanent: bool },
}

pub(super) fn amidst(error: &Error) -> Amidst {
    match error.code() {
        Some(code) => amidst_of(code.code()),
        None if matches!(below(error), Below::Connection) => Amidst::Server,
        // A value that is of another type than the statement's.
        None => Amidst::Handler { permanent: false },
    }
}

fn amidst_of(code: &str) -> Amidst {
    match code {
        "40001" | "40P01" => Amidst::Conflict,
        // A limit that somebody has set for statements, or for locks; a constraint that was not fulfilled at the end.
        "57014" | "55P03" | "40002" => Amidst::Handler { permanent: false },
        // The limit of a transaction that stands idle.
        "25P03" => Amidst::Server,
        _ if class(code) != Class::Broken => Amidst::Server,
        _ => Amidst::Handler {
            permanent: code.starts_with("22"),
        },
    }
}

/// What the server said, for the reason of a failure.
pub(super) fn told(error: &Error) -> String {
    match error.as_db_error() {
        Some(told) => {
            let detail = told.detail().map(|detail| format!(": {detail}")).unwrap_or_default();
            format!("{}{detail} (SQLSTATE {})", told.message(), told.code().code())
        }
        None => chain(error),
    }
}

/// What a person can do.
fn hint(code: &str) -> &'static str {
    match code {
        "28P01" | "28000" => ": the login is refused; look at the user and the password in the URL, and at pg_hba.conf",
        "3D000" => ": make the database first (createdb)",
        "42501" => ": the user needs CREATE in the schema, or a table made by another: see the guide on PostgreSQL",
        "42P01" | "42703" => {
            ": somebody has changed or dropped what Conga keeps there: bring it back; or, to begin without what was recorded, drop \
             conga_record and conga_schema, and a start makes both anew"
        }
        _ => "",
    }
}

enum Below {
    Connection,
    Certificate,
    Nothing,
}

/// What lies at the bottom of an error that the server did not tell.
fn below(error: &Error) -> Below {
    let mut source = error.source();
    let mut found = Below::Nothing;
    while let Some(error) = source {
        if error.is::<rustls::Error>() {
            return Below::Certificate;
        }
        if let Some(error) = error.downcast_ref::<io::Error>() {
            if error
                .get_ref()
                .is_some_and(<dyn std::error::Error + Send + Sync>::is::<rustls::Error>)
            {
                return Below::Certificate;
            }
            found = Below::Connection;
        }
        source = error.source();
    }
    if error.is_closed() {
        found = Below::Connection;
    }
    found
}

/// An error with what lies below it, for it names only itself.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_apart_by_what_the_caller_can_do() {
        for code in [
            "57P03", "53100", "53200", "53300", "40001", "40P01", "25006", "58030", "57014",
        ] {
            assert_eq!(class(code), Class::Unavailable, "{code}");
        }
        for code in ["57P01", "57P02", "08006", "08003", "40003"] {
            assert_eq!(class(code), Class::Unknown, "{code}");
        }
        for code in ["28P01", "28000", "3D000", "42501", "42P01", "22021", "23505"] {
            assert_eq!(class(code), Class::Broken, "{code}");
        }
    }

    #[test]
    fn what_a_handler_ran_into_is_its_own_fault_or_not() {
        for code in ["40001", "40P01"] {
            assert_eq!(amidst_of(code), Amidst::Conflict, "{code}");
        }
        for code in ["57P01", "08006", "53100", "25006", "57P03", "25P03"] {
            assert_eq!(amidst_of(code), Amidst::Server, "{code}");
        }
        for (code, permanent) in [
            ("23514", false),
            ("P0001", false),
            ("57014", false),
            ("22P02", true),
            ("22012", true),
        ] {
            assert_eq!(amidst_of(code), Amidst::Handler { permanent }, "{code}");
        }
    }
}
