//! What a URL asks for: one server, or a primary that somebody else names.

use std::fmt;

use ::redis::{Client, ConnectionAddr, IntoConnectionInfo as _, RedisConnectionInfo};

use crate::store::{Result, StoreError};

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Address {
    pub(super) host: String,
    pub(super) port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl Address {
    /// Reads `host:port`, `[::1]:port` and, as Redis writes it, `::1:port`. The host may be missing.
    pub(super) fn read(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let host = host.strip_prefix('[').map_or(host, |host| host.trim_end_matches(']'));
        Some(Self {
            host: host.to_owned(),
            port: port.parse().ok()?,
        })
    }
}

/// How the primary is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// `redis://`: it is this one server, whatever stands behind its name.
    Server(Address),
    /// `redis+sentinel://`: these or those that they know say which one it is.
    Sentinel { seeds: Vec<Address>, name: String },
    /// `redis+cluster://`: any node of the cluster says who serves the line's slot.
    Cluster { seeds: Vec<Address> },
}

/// A URL as it is meant.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) kind: Kind,
    /// User, password and database.
    login: RedisConnectionInfo,
}

impl fmt::Debug for Target {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)
    }
}

/// What the URLs look like.
const SERVER: &str = "redis://user:password@host:6379/0";
const SENTINEL: &str = "redis+sentinel://user:password@host1:26379,host2:26379/MASTERNAME/0";
const CLUSTER: &str = "redis+cluster://user:password@host1:6379,host2:6379";

impl Target {
    /// Reads the URL. The crate would take more kinds than have been tried here.
    pub(super) fn read(url: &str) -> Result<Self> {
        let (scheme, rest) = url.split_once("://").unwrap_or((url, ""));
        match scheme {
            "redis" => {
                let (address, login) = one(url, SERVER)?;
                Ok(Self {
                    kind: Kind::Server(address),
                    login,
                })
            }
            "redis+sentinel" => {
                let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
                let (name, database) = path.split_once('/').unwrap_or((path, ""));
                if name.is_empty() {
                    return Err(bad("which primary to ask the sentinels for is missing", SENTINEL));
                }
                let (seeds, login) = several(hosts, 26_379, database, SENTINEL)?;
                let name = name.to_owned();
                Ok(Self {
                    kind: Kind::Sentinel { seeds, name },
                    login,
                })
            }
            "redis+cluster" => {
                let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
                if !matches!(path, "" | "0") {
                    return Err(bad("a cluster has no databases but the first", CLUSTER));
                }
                let (seeds, login) = several(hosts, 6_379, "", CLUSTER)?;
                Ok(Self {
                    kind: Kind::Cluster { seeds },
                    login,
                })
            }
            "rediss" => Err(StoreError::Broken(
                "rediss:// (TLS) is not built in yet: use redis:// through a tunnel".to_owned(),
            )),
            _ => Err(StoreError::Broken(format!(
                "`{scheme}://` is not built in: a Redis URL looks like {SERVER}, {SENTINEL} or {CLUSTER}"
            ))),
        }
    }

    /// A client of a server that holds data.
    pub(super) fn client(&self, address: &Address) -> Result<Client> {
        open(address, self.login.clone())
    }

    /// A client of a sentinel: nobody logs in there, unless it is asked for.
    pub(super) fn sentinel(&self, address: &Address, login: bool) -> Result<Client> {
        let login = if login {
            self.login.clone().set_db(0)
        } else {
            RedisConnectionInfo::default()
        };
        open(address, login)
    }
}

fn bad(why: impl fmt::Display, example: &str) -> StoreError {
    StoreError::Broken(format!("the Redis URL can't be used: {why}. It looks like {example}"))
}

fn open(address: &Address, login: RedisConnectionInfo) -> Result<Client> {
    let addr = ConnectionAddr::Tcp(address.host.clone(), address.port);
    let info = addr.into_connection_info().map(|info| info.set_redis_settings(login));
    info.and_then(Client::open)
        .map_err(|error| StoreError::Broken(format!("there can't be a Redis server at {address}: {error}")))
}

/// A URL with one host, as the crate reads it: with what is escaped in user and password.
fn one(url: &str, example: &str) -> Result<(Address, RedisConnectionInfo)> {
    let info = url.into_connection_info().map_err(|error| bad(error, example))?;
    let ConnectionAddr::Tcp(host, port) = info.addr() else {
        return Err(bad("it names no host", example));
    };
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    Ok((Address { host, port: *port }, info.redis_settings().clone()))
}

/// Hosts with commas between them, and before them who logs in.
fn several(hosts: &str, port: u16, database: &str, example: &str) -> Result<(Vec<Address>, RedisConnectionInfo)> {
    let (login, hosts) = hosts.rsplit_once('@').unwrap_or(("", hosts));
    let mut seeds = Vec::new();
    let mut settings = None;
    for host in hosts.split(',') {
        let ported = host.rsplit(']').next().is_some_and(|end| end.contains(':'));
        let host = if ported {
            host.to_owned()
        } else {
            format!("{host}:{port}")
        };
        let at = if login.is_empty() { "" } else { "@" };
        let (address, login) = one(&format!("redis://{login}{at}{host}/{database}"), example)?;
        if !seeds.contains(&address) {
            seeds.push(address);
        }
        settings = Some(login);
    }
    settings
        .map(|settings| (seeds, settings))
        .ok_or_else(|| bad("it names no host", example))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(host: &str, port: u16) -> Address {
        let host = host.to_owned();
        Address { host, port }
    }

    #[test]
    fn only_a_url_that_was_tried_is_taken() {
        let server = Target::read("redis://127.0.0.1:6379").expect("a target");
        assert_eq!(server.kind, Kind::Server(at("127.0.0.1", 6379)));
        for url in [
            "rediss://host",
            "/tmp/socket",
            "",
            "redis://",
            "redis+unix:///tmp/socket",
            "redis+sentinel://host",
            "redis+sentinel://host/",
            "redis+sentinel:///mymaster",
            "redis+sentinel://host/mymaster/x",
            "redis+cluster://",
            "redis+cluster://host/3",
            "redis+cluster://a:x",
            "redis+cluster://a,,b",
        ] {
            let read = Target::read(url);
            assert!(matches!(read, Err(StoreError::Broken(_))), "{url}: {read:?}");
        }
    }

    #[test]
    fn all_that_a_url_says_is_meant() {
        let target = Target::read("redis+sentinel://me:p%40ss@a:1,b,[::1]:2/mymaster/3").expect("a target");
        let seeds = vec![at("a", 1), at("b", 26_379), at("::1", 2)];
        let name = "mymaster".to_owned();
        assert_eq!(target.kind, Kind::Sentinel { seeds, name });
        assert_eq!(target.login.username(), Some("me"));
        assert_eq!(target.login.password(), Some("p@ss"));
        assert_eq!(target.login.db(), 3);
        assert!(!format!("{target:?}").contains("ss\""), "{target:?}");

        let target = Target::read("redis+cluster://:secret@a:7000,b").expect("a target");
        let seeds = vec![at("a", 7000), at("b", 6379)];
        assert_eq!(target.kind, Kind::Cluster { seeds });
        assert_eq!(target.login.password(), Some("secret"));
    }

    #[test]
    fn an_address_is_read_as_redis_writes_it() {
        assert_eq!(Address::read("10.0.0.1:6381"), Some(at("10.0.0.1", 6381)));
        assert_eq!(Address::read("::1:6381"), Some(at("::1", 6381)));
        assert_eq!(Address::read(":6381"), Some(at("", 6381)));
        assert_eq!(Address::read("nothing"), None);
        assert_eq!(at("::1", 7).to_string(), "[::1]:7");
    }
}
