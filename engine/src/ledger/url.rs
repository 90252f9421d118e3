//! A ledger by its URL.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::postgres::PostgresLedger;
use super::store::StoreLedger;
use super::{Result, SharedLedger};
use crate::line::Line;
use crate::store::SharedStore;

/// Where the system of record is: `postgres://…`, or `store`: in the store itself.
#[derive(Clone, PartialEq, Eq, Default)]
pub enum LedgerUrl {
    /// In the store.
    #[default]
    Store,
    /// In a PostgreSQL database, by the URL as it was given.
    Postgres(String),
}

/// A URL that names no system of record. What was given is not told: any part of it may be a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("what is given names no system of record: use postgres://USER@HOST/DATABASE, or `store` for the store itself")]
pub struct BadLedgerUrl;

impl FromStr for LedgerUrl {
    type Err = BadLedgerUrl;

    fn from_str(url: &str) -> std::result::Result<Self, Self::Err> {
        match url.split_once("://") {
            None if url == "store" => Ok(Self::Store),
            Some(("postgres" | "postgresql", _)) => Ok(Self::Postgres(url.to_owned())),
            _ => Err(BadLedgerUrl),
        }
    }
}

impl LedgerUrl {
    /// As it was given, password and all: for the environment of a process that is started, never to be printed.
    pub fn exposed(&self) -> &str {
        match self {
            Self::Store => "store",
            Self::Postgres(url) => url,
        }
    }
}

/// Without the password.
impl fmt::Display for LedgerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((scheme, rest)) = self.exposed().split_once("://") else {
            return f.write_str(self.exposed());
        };
        // A password may itself hold an @, a / or a ?, though it should not: so the last @ ends it.
        let (user, rest) = match rest.rsplit_once('@') {
            Some((login, rest)) => (login.split(':').next(), rest),
            None => (None, rest),
        };
        let (address, query) = rest.split_once('?').unwrap_or((rest, ""));
        // An @ in the query, or a / or ? before the colon: what is what then, nobody knows.
        if user.is_some_and(|user| user.contains(['?', '/'])) || address.contains(['=', '&']) {
            return write!(f, "{scheme}://…");
        }
        write!(f, "{scheme}://")?;
        if let Some(user) = user {
            write!(f, "{user}@")?;
        }
        f.write_str(address)?;
        // A key can be written in more than one way, as in pass%77ord.
        let shown = query.split('&').filter(|pair| {
            let key = pair.split('=').next().unwrap_or_default();
            !pair.is_empty() && !key.contains("pass") && !key.contains('%')
        });
        for (index, pair) in shown.enumerate() {
            write!(f, "{}{pair}", if index == 0 { '?' } else { '&' })?;
        }
        Ok(())
    }
}

impl fmt::Debug for LedgerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Opens the system of record of `line`, which lives in `store`; makes its table, if it is new.
///
/// # Errors
/// [`super::LedgerError::Broken`] if it can't be used as it is, [`super::LedgerError::Unavailable`] if it does not answer.
///
/// # Cancellation
/// Safe; a new table may or may not have been made.
pub async fn open(url: &LedgerUrl, line: &Line, store: &SharedStore) -> Result<SharedLedger> {
    Ok(match url {
        LedgerUrl::Store => Arc::new(StoreLedger::new(store.clone())),
        LedgerUrl::Postgres(url) => Arc::new(PostgresLedger::open(url, line).await?),
    })
}

/// Removes what is recorded of `line`, where that is apart from the store. Not for a line at which anybody works.
///
/// # Errors
/// As [`open`].
///
/// # Cancellation
/// The rows are then all there, or all gone.
pub async fn erase(url: &LedgerUrl, line: &Line) -> Result<()> {
    match url {
        LedgerUrl::Store => Ok(()),
        LedgerUrl::Postgres(url) => PostgresLedger::open(url, line).await?.erase().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_read_and_written_without_its_password() {
        for (url, shown) in [
            ("store", "store"),
            ("postgres://h/db", "postgres://h/db"),
            (
                "postgresql://u@h:5433/db?sslmode=require",
                "postgresql://u@h:5433/db?sslmode=require",
            ),
            ("postgres://u:p:s@s/w@h,i/db", "postgres://u@h,i/db"),
            (
                "postgres://h/db?user=u&password=secret&sslmode=disable",
                "postgres://h/db?user=u&sslmode=disable",
            ),
            ("postgres://h/db?password=secret", "postgres://h/db"),
            ("postgres://h/db?pass%77ord=secret", "postgres://h/db"),
            ("postgres://u:secret?secret@h/db", "postgres://u@h/db"),
            (
                "postgres://u:secret?a=secret&b@h/db?sslmode=disable",
                "postgres://u@h/db?sslmode=disable",
            ),
            ("postgres://h/db?password=secret@secret", "postgres://…"),
            ("postgres://h/db?user=a@b&password=secret", "postgres://…"),
            ("postgres://u:secret@h/db?user=a@b&password=secret", "postgres://…"),
        ] {
            let read: LedgerUrl = url.parse().unwrap();
            assert_eq!(read.to_string(), shown);
            assert_eq!(format!("{read:?}"), shown);
            assert_eq!(read.exposed(), url);
        }
    }

    #[test]
    fn what_is_none_says_what_would_be() {
        for url in [
            "mysql://u:secret@h/db",
            "postgres:/u:secret@h/db",
            "u:secret@h/db",
            "u:secret://@h/db",
            "secret",
        ] {
            let error = url.parse::<LedgerUrl>().unwrap_err();
            let told = format!("{error} {error:?}");
            assert!(
                told.contains("postgres://USER@HOST") && !told.contains("secret"),
                "{told}"
            );
        }
    }
}
