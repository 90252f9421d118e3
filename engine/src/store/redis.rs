//! The Redis store: one partition behind one hash tag, every verb one Lua script or one plain command.
//!
//! Redis 6.2 or newer, or Valkey. A foreign client takes part without a library: `LPUSH {orders}:in` makes it a
//! producer, `RPOP {orders}:out` a consumer. The keys are in `keys.rs`, the scripts beside it, one file a verb.
//!
//! # Where it is
//! One server (`redis://`), the primary that sentinels name (`redis+sentinel://`), or the primary of the line's slot in
//! a cluster (`redis+cluster://`). All keys of a partition are in one slot, so either way there is one server at a time
//! to talk to; `resolver.rs` says which, and is asked anew whenever that server is lost or refuses.
//!
//! # What it promises
//! Each step is atomic. What a crash or a failover of the server can lose is as its persistence and replication are
//! set; see the table in the README. With [`RedisOptions::replicas`] nothing is lost that anybody outside was told of:
//! a send is acknowledged, an output handed out and its acknowledgement taken only when so many replicas have it.
//! A lease, a lock or a result that a failover takes back costs repetition, no more.
//!
//! # When memory is short (OOM at `maxmemory` with `noeviction`)
//! Sends are refused, and so are claims of new messages. What was claimed can be completed, renewed and delivered, and
//! what is free again, of a processor that died or after a failure, can be claimed: those scripts take away before they
//! add, which Redis lets pass. The window bounds how much that is. A claim that finds nothing free is refused.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ::redis::{Cmd, Pipeline, Value};
use async_trait::async_trait;
use bytes::Bytes;
use conga_core::lease::OwnerId;
use conga_core::partition::{
    CampaignRequest, Claim, ClaimRequest, Completed, Completion, Control, ControlRequest, Cursor, DeadRequest,
    EmitRequest, Emitted, Followed, Judged, Keep, Limit, MergeRequest, Merged, Numbered, Page, ReceiveRequest,
    Received, RenewRequest, Renewed, Sent, Shelf, Status,
};
use conga_core::shape::Shape;
use conga_core::term::Campaign;

use self::connection::Connection;
use self::failure::Failure;
use self::hints::Hints;
use self::keys::Keys;
use self::node::{Limits, Node};
use self::receive::Handed;
use self::replicas::{Doubt, Replicas};
use self::resolver::Resolver;
use self::script::Script;
use self::subscription::Channels;
use self::target::Target;
use self::witness::Witness;
use super::{Delivery, Result, Store, StoreError};
use crate::clock::Clock;
use crate::line::Line;
use crate::wake::Wakes;

mod browse;
mod campaign;
mod claim;
mod complete;
mod connection;
mod control;
mod cursor;
mod dead;
mod emit;
mod failure;
mod follow;
mod hints;
mod keys;
mod merge;
mod node;
mod patience;
mod receive;
mod renew;
mod replicas;
mod reply;
mod resolver;
mod script;
mod send;
mod shape;
mod slot;
mod status;
mod subscription;
mod target;
mod trim;
mod witness;

/// What stays where nobody says otherwise: memory is dear, so that a line of any age has to fit in. Of messages of 200
/// bytes these are about 600 MB of records.
pub(super) const KEEPS: Keep = Keep {
    records: Limit::last(1_000_000),
    dead: Limit::last(1_000_000),
    outputs: Limit::NONE,
};

/// How to connect.
#[derive(Debug, Clone)]
pub struct RedisOptions {
    /// How long making a connection may take.
    pub connection_timeout: Duration,
    /// How long a reply may take. After it the step's outcome is unknown and the connection is replaced.
    pub response_timeout: Duration,
    /// How many replicas must have what is acknowledged or handed out. Zero waits for none: then a failover loses what
    /// had not got to the replica that takes over.
    pub replicas: usize,
    /// Whose clock. Anything but the server's is for tests.
    pub clock: Clock,
    /// Who delivers.
    pub delivery: Delivery,
}

impl Default for RedisOptions {
    fn default() -> Self {
        Self {
            connection_timeout: Duration::from_secs(1),
            response_timeout: Duration::from_millis(1_500),
            replicas: 0,
            clock: Clock::Store,
            delivery: Delivery::default(),
        }
    }
}

/// A partition in Redis. It has two connections: one for the verbs, which all share it, and one for the hints; and with
/// replicas to wait for a third one, on which it waits.
pub struct RedisStore {
    connection: Arc<Connection>,
    keys: Keys,
    clock: Clock,
    delivery: Delivery,
    wakes: Wakes,
    /// Ends with the store.
    hints: Hints,
    /// Likewise; nothing, where no replica is waited for.
    replicas: Option<Replicas>,
    witness: Witness,
    handed: Handed,
}

/// An answer, and where replicas have to have what led to it, who gave it.
type Traced = (Value, Option<Arc<Node>>);

impl fmt::Debug for RedisStore {
    /// Without the URL: it may have a password in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore")
            .field("input", &self.keys.input)
            .finish_non_exhaustive()
    }
}

impl RedisStore {
    /// Connects to `redis://[user:password@]host[:port][/database]`,
    /// `redis+sentinel://[user:password@]host[:port],…/NAME[/database]` with the name of the primary that the sentinels
    /// watch, or `redis+cluster://[user:password@]host[:port],…` with some nodes of the cluster, and loads the scripts.
    ///
    /// Needs a tokio runtime with I/O and time, and starts one task on it, or two: the subscriber to the hints and what
    /// waits for replicas, which end when the store is dropped. Cancel-safe.
    ///
    /// # Errors
    /// [`StoreError::Broken`] for a URL that can't be used and for what the server won't ever allow, such as waiting for
    /// replicas that were asked for,
    /// [`StoreError::Unavailable`] if there is no connection within the timeouts.
    pub async fn connect(url: &str, line: &Line, options: RedisOptions) -> Result<Self> {
        let target = Target::read(url)?;
        let keys = Keys::of(line);
        let limits = Limits {
            connection: options.connection_timeout,
            response: options.response_timeout,
        };
        let connection = Arc::new(Connection::new(Resolver::new(target, &line.tag(), limits), limits));
        match connection.load_scripts().await {
            Ok(()) => {}
            Err(failure) => return Err(explain(&connection, &keys, failure).await),
        }
        if options.replicas > 0 {
            replicas::check(&connection, &keys.synced).await?;
        }
        let wakes = Wakes::default();
        let limit = options.connection_timeout + options.response_timeout;
        let process = uuid::Uuid::new_v4().simple().to_string();
        let hints = Hints::start(connection.clone(), &keys, process, wakes.clone(), limit).await;
        let replicas = (options.replicas > 0).then(|| Replicas::start(options.replicas, keys.synced.clone(), limits));
        Ok(Self {
            connection,
            keys,
            clock: options.clock,
            delivery: options.delivery,
            wakes,
            hints,
            replicas,
            witness: Witness::default(),
            handed: Handed::default(),
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
    fn presence(&self) -> String {
        match self.clock {
            Clock::Store => self.hints.life(),
            Clock::Manual(_) => String::new(),
        }
    }

    /// The first argument of every script: by which channels to give hints, and the time, nothing for the server's own
    /// clock.
    fn time(&self) -> String {
        let channels = match self.hints.channels() {
            Channels::Plain => "",
            Channels::Sharded => "s",
        };
        match &self.clock {
            Clock::Store => channels.to_owned(),
            Clock::Manual(clock) => format!("{channels}{}", clock.now().0),
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

    async fn ask_all(&self, commands: &Pipeline) -> Result<(Vec<Value>, Arc<Node>)> {
        match self.connection.send_all(commands).await {
            Ok(answered) => Ok(answered),
            Err(failure) => Err(self.explain(failure).await),
        }
    }

    async fn run_all(&self, script: &Script, commands: &Pipeline) -> Result<(Vec<Value>, Arc<Node>)> {
        match self.connection.run_all(script, commands).await {
            Ok(answered) => Ok(answered),
            Err(failure) => Err(self.explain(failure).await),
        }
    }

    /// As [`RedisStore::ask`]; for what replicas have to have.
    async fn ask_traced(&self, command: &Cmd) -> Result<Traced> {
        if self.replicas.is_none() {
            return self.ask(command).await.map(|reply| (reply, None));
        }
        match self.connection.send_to_primary(command).await {
            Ok((reply, node)) => Ok((reply, Some(node))),
            Err(failure) => Err(self.explain(failure).await),
        }
    }

    /// As [`RedisStore::run`]; for what replicas have to have.
    async fn run_traced(&self, script: &Script, call: &Cmd) -> Result<Traced> {
        if self.replicas.is_none() {
            return self.run(script, call).await.map(|reply| (reply, None));
        }
        let (reply, node) = self.run_on_primary(script, call).await?;
        Ok((reply, Some(node)))
    }

    async fn run_on_primary(&self, script: &Script, call: &Cmd) -> Result<(Value, Arc<Node>)> {
        match self.connection.run_on_primary(script, call).await {
            Ok(answered) => Ok(answered),
            Err(failure) => Err(self.explain(failure).await),
        }
    }

    /// Returns when what was done up to now on `node` is on as many replicas as were asked for.
    async fn settle(&self, node: Option<Arc<Node>>) -> Result<()> {
        let (Some(replicas), Some(node)) = (&self.replicas, node) else {
            return Ok(());
        };
        let doubt = match replicas.have(&node).await {
            Ok(()) => return Ok(()),
            Err(doubt) => doubt,
        };
        match doubt {
            // Whether replicas have left it for a new primary.
            Doubt::TooFew(_) => self.connection.look(&node).await,
            // Who it is, and which history it writes, has to be asked anew.
            Doubt::Lost(_) => self.connection.abandon(&node).await,
        }
        Err(doubt.into())
    }

    /// Whether replicas were missing when they were last waited for.
    fn lacks_replicas(&self) -> bool {
        self.replicas.as_ref().is_some_and(Replicas::are_short)
    }

    async fn explain(&self, failure: Failure) -> StoreError {
        explain(&self.connection, &self.keys, failure).await
    }
}

/// What to tell the caller. Where a key is of a wrong type, looks which one.
async fn explain(connection: &Connection, keys: &Keys, failure: Failure) -> StoreError {
    match failure {
        Failure::Store(error) => error,
        Failure::NoScript => StoreError::Unavailable("the server keeps forgetting the scripts".to_owned()),
        Failure::Moved(address) | Failure::Ask(address) => {
            failure::of_redirection(address.as_ref(), connection.is_cluster())
        }
        Failure::WrongType => {
            let mut types = ::redis::pipe();
            for (key, _) in keys.types() {
                types.cmd("TYPE").arg(key);
            }
            let found = connection
                .send_all(&types)
                .await
                .map(|(found, _)| found)
                .unwrap_or_default();
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
    async fn send(&self, entries: &[Bytes], numbered: Option<&Numbered>) -> Result<Sent> {
        match numbered {
            Some(numbered) => self.push_numbered(numbered, entries).await,
            None => self.push_entries(entries).await,
        }
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

    async fn merge(&self, request: &MergeRequest) -> Result<Merged> {
        self.merge_outputs(request).await
    }

    async fn receive(&self, request: &ReceiveRequest) -> Result<Received> {
        self.read_outputs(request).await
    }

    async fn control(&self, request: &ControlRequest) -> Result<Control> {
        self.set_control(request).await
    }

    async fn status(&self) -> Result<Status> {
        self.count().await
    }

    #[expect(clippy::similar_names, reason = "the trait's names")]
    async fn browse(&self, shelf: Shelf, from: Option<&str>) -> Result<Page> {
        self.read_page(shelf, from).await
    }

    async fn shape(&self, wanted: Option<Shape>) -> Result<Option<Shape>> {
        self.read_shape(wanted).await
    }

    async fn dead(&self, request: &DeadRequest) -> Result<Vec<Judged>> {
        self.judge_letters(request).await
    }

    fn keeps(&self) -> Keep {
        KEEPS
    }

    fn wakes(&self) -> &Wakes {
        &self.wakes
    }
}
