//! A store by its URL.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Where a line lives: `sqlite:PATH`, `redis://…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// A file.
    Sqlite(PathBuf),
    /// A Redis or Valkey server.
    Redis(String),
}

/// A URL that names no store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadStoreUrl {
    /// No store is known by that scheme.
    #[error("`{0}` names no store: use sqlite:PATH or redis://HOST:PORT")]
    UnknownScheme(String),
    /// Known, and not there yet.
    #[error("`{0}` is not supported yet: use sqlite:PATH or redis://HOST:PORT")]
    NotYet(String),
    /// `sqlite:` and nothing behind it.
    #[error("`sqlite:` needs a path behind it, as in sqlite:conga.db")]
    NoPath,
}

impl FromStr for StoreUrl {
    type Err = BadStoreUrl;

    fn from_str(url: &str) -> Result<Self, Self::Err> {
        let (scheme, rest) = url.split_once(':').unwrap_or((url, ""));
        match scheme {
            "sqlite" if rest.is_empty() => Err(BadStoreUrl::NoPath),
            "sqlite" => Ok(Self::Sqlite(PathBuf::from(rest))),
            "redis" => Ok(Self::Redis(url.to_owned())),
            "rediss" | "redis+sentinel" | "redis+cluster" | "postgres" => Err(BadStoreUrl::NotYet(scheme.to_owned())),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_read_and_written() {
        for url in ["sqlite:conga.db", "sqlite:/a b/c", "redis://127.0.0.1:6379/0"] {
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
