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

/// A URL that names no system of record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` names no system of record: use postgres://USER@HOST/DATABASE, or `store` for the store itself")]
pub struct BadLedgerUrl(String);

impl FromStr for LedgerUrl {
    type Err = BadLedgerUrl;

    fn from_str(url: &str) -> std::result::Result<Self, Self::Err> {
        match url.split_once("://") {
            None if url == "store" => Ok(Self::Store),
            Some(("postgres" | "postgresql", _)) => Ok(Self::Postgres(url.to_owned())),
            // Whatever stands behind the scheme may hold a password.
            Some((scheme, _)) => Err(BadLedgerUrl(format!("{scheme}://…"))),
            None => Err(BadLedgerUrl(url.to_owned())),
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
        let url = self.exposed();
        let (address, query) = url
            .split_once('?')
            .map_or((url, None), |(url, query)| (url, Some(query)));
        match address.split_once("://") {
            Some((scheme, rest)) => {
                // A password may itself hold an @ or a /, though it should not.
                let shown = rest.rsplit_once('@').map_or(rest.to_owned(), |(login, host)| {
                    let user = login.split_once(':').map_or(login, |(user, _)| user);
                    format!("{user}@{host}")
                });
                write!(f, "{scheme}://{shown}")?;
            }
            None => f.write_str(address)?,
        }
        let shown = query.iter().flat_map(|query| query.split('&'));
        for (index, pair) in shown.filter(|pair| !pair.starts_with("password=")).enumerate() {
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
        ] {
            let read: LedgerUrl = url.parse().unwrap();
            assert_eq!(read.to_string(), shown);
            assert_eq!(format!("{read:?}"), shown);
            assert_eq!(read.exposed(), url);
        }
    }

    #[test]
    fn what_is_none_says_what_would_be() {
        let error = "mysql://u:secret@h/db".parse::<LedgerUrl>().unwrap_err().to_string();
        assert!(
            error.contains("postgres://USER@HOST") && !error.contains("secret"),
            "{error}"
        );
        assert!("db".parse::<LedgerUrl>().is_err());
    }
}
