//! The Redis store: one partition behind one hash tag, every verb one Lua script or one plain command.
//!
//! Redis 6.2 or newer, or Valkey. A foreign client takes part without a library: `LPUSH {orders}:in` makes it a
//! producer, `RPOP {orders}:out` a consumer. The keys are in `keys.rs`, the scripts beside it, one file a verb.
//!
//! # What it promises
//! Each step is atomic. What a crash or a failover of the server can lose is as its persistence and replication are
//! set; see the table in the README.
//!
//! # When memory is short (OOM at `maxmemory` with `noeviction`)
//! Sends and claims are refused and change nothing. What was claimed can be completed, renewed and delivered: those
//! scripts take away before they add, which Redis lets pass. The window bounds how much that is.

use std::fmt;
use std::time::Duration;

use ::redis::{Client, Cmd, Pipeline, Value};
use async_trait::async_trait;
use bytes::Bytes;
use conga_core::lease::OwnerId;
use conga_core::partition::{
    CampaignRequest, Claim, ClaimRequest, Completed, Completion, Cursor, EmitRequest, Emitted, Followed, Page,
    ReceiveRequest, RenewRequest, Renewed, Shelf, Status,
};
use conga_core::term::Campaign;

use self::connection::Connection;
use self::failure::Failure;
use self::hints::Hints;
use self::keys::Keys;
use self::script::Script;
use super::{Result, Store, StoreError};
use crate::clock::Clock;
use crate::line::Line;
use crate::wake::Wakes;

mod browse;
mod campaign;
mod claim;
mod complete;
mod connection;
mod emit;
mod failure;
mod follow;
mod hints;
mod keys;
mod receive;
mod renew;
mod reply;
mod script;
mod send;
mod status;

/// How to connect.
#[derive(Debug, Clone)]
pub struct RedisOptions {
    /// How long making a connection may take.
    pub connection_timeout: Duration,
    /// How long a reply may take. After it the step's outcome is unknown and the connection is replaced.
    pub response_timeout: Duration,
    /// Whose clock. Anything but the server's is for tests.
    pub clock: Clock,
}

impl Default for RedisOptions {
    fn default() -> Self {
        Self {
            connection_timeout: Duration::from_secs(1),
            response_timeout: Duration::from_millis(1_500),
            clock: Clock::Store,
        }
    }
}

/// A partition in Redis. It has two connections: one for the verbs, which all share it, and one for the hints.
pub struct RedisStore {
    connection: Connection,
    keys: Keys,
    clock: Clock,
    wakes: Wakes,
    /// Ends with the store.
    hints: Hints,
}

impl fmt::Debug for RedisStore {
    /// Without the URL: it may have a password in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore")
            .field("input", &self.keys.input)
            .finish_non_exhaustive()
    }
}

impl RedisStore {
    /// Connects to `redis://[user:password@]host[:port][/database]` and loads the scripts.
    ///
    /// Needs a tokio runtime with I/O and time, and starts one task on it: the subscriber to the hints, which ends
    /// when the store is dropped. Cancel-safe.
    ///
    /// # Errors
    /// [`StoreError::Broken`] for a URL that can't be used and for what the server won't ever allow,
    /// [`StoreError::Unavailable`] if there is no connection within the timeouts.
    pub async fn connect(url: &str, line: &Line, options: RedisOptions) -> Result<Self> {
        let client = open(url)?;
        let keys = Keys::of(line);
        let connection = Connection::new(client.clone(), options.connection_timeout, options.response_timeout);
        match connection.load_scripts().await {
            Ok(()) => {}
            Err(failure) => return Err(explain(&connection, &keys, failure).await),
        }
        let wakes = Wakes::default();
        let limit = options.connection_timeout + options.response_timeout;
        let life = keys.life(&uuid::Uuid::new_v4().simple().to_string());
        let hints = Hints::start(client, &keys, life, wakes.clone(), limit).await;
        Ok(Self {
            connection,
            keys,
            clock: options.clock,
            wakes,
            hints,
        })
    }

    /// Removes the line and all that is of it from the server. Not for a line at which anybody works.
    ///
    /// # Errors
    /// As any step.
    pub async fn erase(self) -> Result<()> {
        let mut unlink = Cmd::new();
        unlink.arg("UNLINK");
        for (key, _) in self.keys.types() {
            unlink.arg(key);
        }
        self.ask(&unlink).await.map(drop)
    }

    /// The channel by which the server can tell that this process is alive; none, while there is no subscription to it,
    /// and under a manual clock, where nothing may depend on what time it is.
    fn presence(&self) -> &str {
        match self.clock {
            Clock::Store => self.hints.life(),
            Clock::Manual(_) => "",
        }
    }

    /// The first argument of every script: nothing for the server's own clock.
    fn time(&self) -> String {
        match &self.clock {
            Clock::Store => String::new(),
            Clock::Manual(clock) => clock.now().0.to_string(),
        }
    }

    async fn run(&self, script: &Script, call: &Cmd) -> Result<Value> {
        match self.connection.run(script, call).await {
            Ok(reply) => Ok(reply),
            Err(failure) => Err(self.explain(failure).await),
        }
    }

    async fn ask(&self, command: &Cmd) -> Result<Value> {
        match self.connection.send(command).await {
            Ok(reply) => Ok(reply),
            Err(failure) => Err(self.explain(failure).await),
        }
    }

    async fn ask_all(&self, commands: &Pipeline) -> Result<Vec<Value>> {
        match self.connection.send_all(commands).await {
            Ok(replies) => Ok(replies),
            Err(failure) => Err(self.explain(failure).await),
        }
    }

    async fn explain(&self, failure: Failure) -> StoreError {
        explain(&self.connection, &self.keys, failure).await
    }
}

/// Reads the URL. The crate would take more kinds than have been tried here.
fn open(url: &str) -> Result<Client> {
    let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
    match scheme {
        "redis" => {
            Client::open(url).map_err(|error| StoreError::Broken(format!("the Redis URL can't be used: {error}")))
        }
        "rediss" => Err(StoreError::Broken(
            "rediss:// (TLS) is not built in yet: use redis:// through a tunnel".to_owned(),
        )),
        _ => Err(StoreError::Broken(format!(
            "`{scheme}://` is not built in: a Redis URL looks like redis://user:password@host:6379/0"
        ))),
    }
}

/// What to tell the caller. Where a key is of a wrong type, looks which one.
async fn explain(connection: &Connection, keys: &Keys, failure: Failure) -> StoreError {
    match failure {
        Failure::Store(error) => error,
        Failure::NoScript => StoreError::Unavailable("the server keeps forgetting the scripts".to_owned()),
        Failure::WrongType => {
            let mut types = ::redis::pipe();
            for (key, _) in keys.types() {
                types.cmd("TYPE").arg(key);
            }
            let found = connection.send_all(&types).await.unwrap_or_default();
            let wrong = keys.types().into_iter().zip(found).find_map(|((key, wanted), found)| {
                let found = reply::text(found).ok()?;
                (found != wanted && found != "none").then(|| format!("`{key}` is a {found}, not a {wanted}"))
            });
            let wrong = wrong.unwrap_or_else(|| format!("one of the keys at `{}` has a wrong type", keys.input));
            StoreError::Broken(format!(
                "{wrong}: something else uses this name. Rename or delete that key, or give the line another name"
            ))
        }
    }
}

/// A number that Lua counts with. Its numbers are doubles, so beyond this (143 years in microseconds) it would only
/// count roughly; nobody can tell.
fn whole(number: u64) -> u64 {
    number.min(1 << 52)
}

#[async_trait]
impl Store for RedisStore {
    async fn send(&self, entries: &[Bytes]) -> Result<()> {
        self.push_entries(entries).await
    }

    async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Claim>> {
        self.claim_entries(request).await
    }

    async fn complete(&self, owner: &OwnerId, completions: &[Completion]) -> Result<Vec<Completed>> {
        self.end_leases(owner, completions).await
    }

    async fn renew(&self, request: &RenewRequest) -> Result<Renewed> {
        self.renew_leases(request).await
    }

    async fn campaign(&self, request: &CampaignRequest) -> Result<Campaign> {
        self.ask_for_lock(request).await
    }

    async fn follow(&self, cursor: Cursor, max: usize) -> Result<Followed> {
        self.read_processed(cursor, max).await
    }

    async fn emit(&self, request: &EmitRequest) -> Result<Emitted> {
        self.deliver(request).await
    }

    async fn receive(&self, request: &ReceiveRequest) -> Result<Vec<Bytes>> {
        self.read_outputs(request).await
    }

    async fn status(&self) -> Result<Status> {
        self.count().await
    }

    #[expect(clippy::similar_names, reason = "the trait's names")]
    async fn browse(&self, shelf: Shelf, from: Option<&str>) -> Result<Page> {
        self.read_page(shelf, from).await
    }

    fn wakes(&self) -> &Wakes {
        &self.wakes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_url_that_was_tried_is_taken() {
        assert!(open("redis://127.0.0.1:6379").is_ok());
        for url in ["rediss://host", "redis+sentinel://host", "/tmp/socket", "", "redis://"] {
            assert!(matches!(open(url), Err(StoreError::Broken(_))), "{url}");
        }
    }
}
