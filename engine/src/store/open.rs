//! A store by its URL.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use conga_core::partition::Keep;
use conga_core::shape::Shape;

use super::redis::{self, RedisOptions, RedisStore};
use super::sqlite::{SqliteOptions, SqliteStore};
use super::{Delivery, Result, SharedStore, StoreError};
use crate::line::Line;

/// Where a line lives: `sqlite:PATH`, `redis://…`, `redis+sentinel://…`, `redis+cluster://…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// A file.
    Sqlite(PathBuf),
    /// Redis or Valkey: a server, or the primary that sentinels or the nodes of a cluster name.
    Redis(String),
}

/// A URL that names no store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadStoreUrl {
    /// No store is known by that scheme.
    #[error(
        "`{0}` names no store: use sqlite:PATH, redis://HOST:PORT, redis+sentinel://HOST:PORT,…/NAME or redis+cluster://HOST:PORT,…"
    )]
    UnknownScheme(String),
    /// Known, and not there yet.
    #[error(
        "`{0}` is not supported yet: use sqlite:PATH, redis://HOST:PORT, redis+sentinel://HOST:PORT,…/NAME or redis+cluster://HOST:PORT,…"
    )]
    NotYet(String),
    /// `sqlite:` and nothing behind it.
    #[error("`sqlite:` needs a path behind it, as in sqlite:conga.db")]
    NoPath,
}

impl FromStr for StoreUrl {
    type Err = BadStoreUrl;

    fn from_str(url: &str) -> std::result::Result<Self, Self::Err> {
        let (scheme, rest) = url.split_once(':').unwrap_or((url, ""));
        match scheme {
            "sqlite" if rest.is_empty() => Err(BadStoreUrl::NoPath),
            "sqlite" => Ok(Self::Sqlite(PathBuf::from(rest))),
            "redis" | "redis+sentinel" | "redis+cluster" => Ok(Self::Redis(url.to_owned())),
            "rediss" | "postgres" => Err(BadStoreUrl::NotYet(scheme.to_owned())),
            _ => Err(BadStoreUrl::UnknownScheme(url.to_owned())),
        }
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Self::Redis(url) => f.write_str(url),
        }
    }
}

impl StoreUrl {
    /// How much stays in such a store where nobody says otherwise.
    pub fn keeps(&self) -> Keep {
        match self {
            Self::Sqlite(_) => Keep::ALL,
            Self::Redis(_) => redis::KEEPS,
        }
    }
}

/// What a store is asked for beyond its URL.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpenOptions {
    /// How many replicas must have what is acknowledged or handed out. See [`RedisOptions::replicas`].
    pub replicas: usize,
    /// Who delivers.
    pub delivery: Delivery,
    /// What the line has to be. A new line becomes that; nothing: whatever it is.
    pub shape: Option<Shape>,
}

/// Opens `line` in the store at `url`; makes it, if it is new.
///
/// # Errors
/// [`super::StoreError::Broken`] if the store can't be used as it is, [`super::StoreError::Unavailable`] if it does not
/// answer.
///
/// # Cancellation
/// Safe; a new file may or may not have been set up.
pub async fn open(url: &StoreUrl, line: &Line) -> Result<SharedStore> {
    open_with(url, line, &OpenOptions::default()).await
}

/// As [`open`], with options.
///
/// # Errors
/// As [`open`]; [`super::StoreError::Broken`] also for an option that this kind of store can't keep, and for a line of
/// another shape.
///
/// # Cancellation
/// As [`open`].
pub async fn open_with(url: &StoreUrl, line: &Line, options: &OpenOptions) -> Result<SharedStore> {
    let store = open_any(url, line, options).await?;
    if let Some(wanted) = options.shape {
        settle(&store, line, wanted).await?;
    }
    Ok(store)
}

/// Makes a new line what is wanted, and refuses a line that is something else.
///
/// # Errors
/// [`super::StoreError::Broken`] for a line of another shape, else as [`super::Store::shape`].
///
/// # Cancellation
/// The line has the shape then, or not; it can be said again.
pub async fn settle(store: &SharedStore, line: &Line, wanted: Shape) -> Result<()> {
    let shape = store.shape(Some(wanted)).await?.unwrap_or_default();
    if shape == wanted {
        return Ok(());
    }
    Err(StoreError::Broken(format!(
        "the line {line} is `{shape}`, not `{wanted}`, and stays what it was first: say `{shape}` or nothing about it, or give \
         another line with --line NAME"
    )))
}

async fn open_any(url: &StoreUrl, line: &Line, options: &OpenOptions) -> Result<SharedStore> {
    Ok(match url {
        StoreUrl::Sqlite(_) if options.replicas > 0 => {
            return Err(StoreError::Broken(
                "an SQLite store has no replicas to wait for: leave `replicas` out".to_owned(),
            ));
        }
        StoreUrl::Sqlite(path) => {
            let options = SqliteOptions {
                delivery: options.delivery,
                ..SqliteOptions::default()
            };
            Arc::new(SqliteStore::open(path, line, options).await?)
        }
        StoreUrl::Redis(url) => {
            let options = RedisOptions {
                replicas: options.replicas,
                delivery: options.delivery,
                ..RedisOptions::default()
            };
            Arc::new(RedisStore::connect(url, line, options).await?)
        }
    })
}

/// Removes `line` and all that is of it from the store at `url`. Not for a line at which anybody works.
///
/// # Errors
/// As [`open`].
///
/// # Cancellation
/// The line is then there as a whole, or gone.
pub async fn erase(url: &StoreUrl, line: &Line) -> Result<()> {
    match url {
        StoreUrl::Sqlite(path) => {
            SqliteStore::open(path, line, SqliteOptions::default())
                .await?
                .erase()
                .await
        }
        StoreUrl::Redis(url) => {
            RedisStore::connect(url, line, RedisOptions::default())
                .await?
                .erase()
                .await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_read_and_written() {
        for url in [
            "sqlite:conga.db",
            "sqlite:/a b/c",
            "redis://127.0.0.1:6379/0",
            "redis+sentinel://a:26379,b/mymaster",
            "redis+cluster://a:7000,b",
        ] {
            assert_eq!(url.parse::<StoreUrl>().unwrap().to_string(), url);
        }
    }

    #[test]
    fn what_is_none_says_what_would_be() {
        assert_eq!("sqlite:".parse::<StoreUrl>(), Err(BadStoreUrl::NoPath));
        assert!(
            "conga.db"
                .parse::<StoreUrl>()
                .unwrap_err()
                .to_string()
                .contains("sqlite:PATH")
        );
        assert!(matches!("rediss://h".parse::<StoreUrl>(), Err(BadStoreUrl::NotYet(_))));
    }
}
