//! The one way to the primary: a shared connection that is replaced when it breaks, goes silent, or leads to a server
//! that is the primary no more.
//!
//! Not the crate's `ConnectionManager`, for two reasons. It can't say whether a command that failed was ever sent,
//! and that is the difference between "nothing was done" and "unknown". And it keeps a connection whose replies time
//! out, so that after a black hole the line would wait for TCP's retransmission, which by then backs off for seconds.
//! Nor its clients for sentinels and clusters: see `resolver.rs`.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{Cmd, Pipeline, RedisResult, Value};
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, sleep};

use super::failure::{self, Failure};
use super::node::{self, Limits, Node};
use super::patience::Patience;
use super::resolver::{self, Resolver};
use super::script::{self, Script};
use super::target::Address;
use crate::store::StoreError;

/// A connection to the primary. All commands share it.
pub(super) struct Connection {
    resolver: Resolver,
    limits: Limits,
    /// How long it may take to find out whether a server that should be the primary is.
    patience: Patience,
    slot: Mutex<Slot>,
    /// Where the commands go; nothing, while there is no connection.
    node: watch::Sender<Option<Arc<Node>>>,
    /// The last look for a primary elsewhere, and what it found.
    looked: Mutex<Option<(Instant, Option<Address>)>>,
    /// A connection to the node that gets the line's slot, as long as it is on its way there.
    aside: Mutex<Option<(Address, MultiplexedConnection)>>,
}

#[derive(Default)]
struct Slot {
    live: Option<Live>,
    made: u64,
    /// Where the last connection led.
    led: Option<Address>,
    /// The last attempt to connect that failed, for those who waited for it.
    failed: Option<(Instant, StoreError)>,
}

#[derive(Clone)]
struct Live {
    node: Arc<Node>,
    connection: MultiplexedConnection,
}

/// How often a script is loaded again when the server keeps forgetting it.
const LOADS: usize = 3;
/// How often a command follows a slot that has moved before it is left to the caller to try again.
const MOVES: usize = 2;
/// So many of the places where the primary may be are tried.
const PLACES: usize = 3;
/// After this long without a reply it is looked whether the primary is another one by now.
const LATE: Duration = Duration::from_millis(250);

impl Connection {
    pub(super) fn new(resolver: Resolver, limits: Limits) -> Self {
        Self {
            resolver,
            limits,
            patience: Patience::new(limits.connection + limits.response),
            slot: Mutex::default(),
            node: watch::Sender::default(),
            looked: Mutex::default(),
            aside: Mutex::default(),
        }
    }

    /// Whether it is a cluster's.
    pub(super) fn is_cluster(&self) -> bool {
        self.resolver.is_cluster()
    }

    /// Where the commands go. Tells of each change.
    pub(super) fn node(&self) -> watch::Receiver<Option<Arc<Node>>> {
        self.node.subscribe()
    }

    /// The server to which the next command would go.
    pub(super) async fn current(&self) -> Result<Arc<Node>, StoreError> {
        self.live().await.map(|live| live.node)
    }

    /// Sends one command.
    pub(super) async fn send(&self, command: &Cmd) -> Result<Value, Failure> {
        let reply = self.send_to_primary(command).await;
        match reply {
            Err(Failure::Ask(Some(address))) if self.resolver.is_cluster() => self.send_aside(&address, command).await,
            reply => reply.map(|(value, _)| value),
        }
    }

    /// Sends one command to the primary and to nobody else; says who answered.
    pub(super) async fn send_to_primary(&self, command: &Cmd) -> Result<(Value, Arc<Node>), Failure> {
        let mut moves = 0;
        loop {
            let live = self.live().await?;
            let mut connection = live.connection.clone();
            match self.reply(&live, command.query_async(&mut connection)).await {
                // Nothing was done, and where it has to be done is known.
                Err(Failure::Moved(Some(_))) if self.resolver.is_cluster() && moves < MOVES => moves += 1,
                reply => return reply.map(|value| (value, live.node)),
            }
        }
    }

    /// Sends commands together, in a transaction if the pipeline is one; says who answered.
    pub(super) async fn send_all(&self, commands: &Pipeline) -> Result<(Vec<Value>, Arc<Node>), Failure> {
        let live = self.live().await?;
        let mut connection = live.connection.clone();
        let replies = self.reply(&live, commands.query_async(&mut connection)).await;
        replies.map(|replies| (replies, live.node))
    }

    /// Sends a script's call. Where the server does not know the script, loads it and sends the call again.
    pub(super) async fn run(&self, script: &Script, call: &Cmd) -> Result<Value, Failure> {
        match self.run_on_primary(script, call).await {
            Err(Failure::Ask(Some(address))) if self.resolver.is_cluster() => {
                match self.send_aside(&address, call).await {
                    Err(Failure::NoScript) => self.send_aside(&address, &script.load()).await?,
                    answer => return answer,
                };
                self.send_aside(&address, call).await
            }
            reply => reply.map(|(value, _)| value),
        }
    }

    /// As [`Connection::run`], on the primary and nowhere else; says who answered.
    pub(super) async fn run_on_primary(&self, script: &Script, call: &Cmd) -> Result<(Value, Arc<Node>), Failure> {
        for _ in 0..LOADS {
            match self.send_to_primary(call).await {
                Err(Failure::NoScript) => self.send_to_primary(&script.load()).await?,
                answer => return answer,
            };
        }
        self.send_to_primary(call).await
    }

    /// As [`Connection::send_all`], with a call of `script` among the commands. Where the server does not know it, or is
    /// not the one, nothing but reading has been done: it is loaded, or followed, and all are sent again.
    pub(super) async fn run_all(
        &self,
        script: &Script,
        commands: &Pipeline,
    ) -> Result<(Vec<Value>, Arc<Node>), Failure> {
        let (mut loads, mut moves) = (0, 0);
        loop {
            match self.send_all(commands).await {
                Err(Failure::NoScript) if loads < LOADS => {
                    loads += 1;
                    self.send_to_primary(&script.load()).await?;
                }
                Err(Failure::Moved(Some(_))) if self.resolver.is_cluster() && moves < MOVES => moves += 1,
                answer => return answer,
            }
        }
    }

    /// Loads all scripts.
    pub(super) async fn load_scripts(&self) -> Result<(), Failure> {
        // Whoever lacks a password is told so only in answer to what is short: a script would end the connection.
        self.send(&::redis::cmd("PING")).await?;
        self.send_all(&script::load_all()).await.map(drop)
    }

    /// Gives up the connection that led to `node`, if it is still the one.
    pub(super) async fn abandon(&self, node: &Node) {
        let mut slot = self.slot.lock().await;
        if slot.live.as_ref().is_some_and(|live| live.node.number == node.number) {
            slot.live = None;
            self.node.send_replace(None);
        }
    }

    /// The connection, made if there is none. Whoever waits for another's attempt shares what comes of it.
    async fn live(&self) -> Result<Live, StoreError> {
        let asked = Instant::now();
        let mut slot = self.slot.lock().await;
        if let Some(live) = &slot.live {
            return Ok(live.clone());
        }
        if let Some((_, error)) = slot.failed.as_ref().filter(|(at, _)| *at >= asked) {
            return Err(error.clone());
        }
        match self.connect(slot.made + 1).await {
            Ok((node, connection)) => {
                slot.made = node.number;
                if let Some(from) = slot
                    .led
                    .replace(node.address.clone())
                    .filter(|from| *from != node.address)
                {
                    tracing::info!(to = %node.address, %from, "the primary is another one now");
                }
                let live = Live { node, connection };
                slot.live = Some(live.clone());
                self.node.send_replace(Some(live.node.clone()));
                Ok(live)
            }
            Err(error) => {
                slot.failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    /// Looks for the primary and connects to it.
    async fn connect(&self, number: u64) -> Result<(Arc<Node>, MultiplexedConnection), StoreError> {
        let mut trouble = None;
        for address in self.resolver.places().await?.into_iter().take(PLACES) {
            let found = (self.resolver.client(&address)?, &address);
            if !self.resolver.is_movable() {
                return node::connect(found, number, self.limits, false).await;
            }
            let started = Instant::now();
            match node::connect_within(self.patience.limit(), found, number, self.limits).await {
                Ok(connected) => {
                    self.patience.took(started.elapsed());
                    self.resolver.found();
                    return Ok(connected);
                }
                Err(error) => {
                    if started.elapsed() >= self.patience.limit() {
                        self.patience.was_too_short();
                    }
                    trouble.get_or_insert(error);
                }
            }
        }
        Err(trouble.unwrap_or_else(|| StoreError::Unavailable("nobody knows where the primary is".to_owned())))
    }

    /// Waits for a reply, as long as one can come.
    async fn reply<T>(&self, live: &Live, reply: impl Future<Output = RedisResult<T>>) -> Result<T, Failure> {
        let reply = tokio::select! {
            biased;
            reply = reply => reply,
            () = live.node.gone.cancelled() => return Err(elsewhere()),
            () = self.moved_away(&live.node) => {
                self.leave(&live.node).await;
                return Err(elsewhere());
            }
        };
        let error = match reply {
            Ok(reply) => return Ok(reply),
            Err(error) => error,
        };
        let mut failure = failure::of_command(&error);
        if let Failure::Moved(address) | Failure::Ask(address) = &mut failure {
            // Redis leaves out the host where it is the same.
            if let Some(address) = address.as_mut().filter(|address| address.host.is_empty()) {
                address.host.clone_from(&live.node.address.host);
            }
        }
        if let Failure::Moved(address) = &failure
            && self.resolver.is_cluster()
        {
            if let Some(address) = address {
                self.resolver.moved(address.clone());
            }
            self.abandon(&live.node).await;
        } else if failure::is_unanswered(&error) || failure::is_elsewhere(&error, self.resolver.is_movable()) {
            self.abandon(&live.node).await;
        }
        Err(failure)
    }

    /// Gives up the connection if another server than `node` is the primary by now, although `node` may still answer as
    /// if it were: one that was stopped for a while does not know that it was replaced.
    pub(super) async fn look(&self, node: &Node) {
        if self.resolver.is_movable() && self.is_elsewhere(node).await {
            self.leave(node).await;
        }
    }

    /// As [`Connection::look`], but takes one's word that all is well: for those who look again and again.
    pub(super) async fn glance(&self, node: &Node) {
        if self.resolver.is_movable() && self.resolver.suspects(&node.address).await {
            self.look(node).await;
        }
    }

    /// Gives up the connection, and what waits for answers on it.
    async fn leave(&self, node: &Node) {
        node.gone.cancel();
        self.abandon(node).await;
    }

    /// Whether another server is said to be the primary. Whoever waits for another's look shares what it found.
    async fn is_elsewhere(&self, node: &Node) -> bool {
        let wanted = Instant::now();
        let mut looked = self.looked.lock().await;
        if looked.as_ref().is_none_or(|(at, _)| *at < wanted) {
            let place = self.resolver.places().await.ok();
            let place = place.and_then(|places| places.into_iter().next());
            *looked = Some((Instant::now(), place));
        }
        let place = looked.as_ref().and_then(|(_, place)| place.as_ref());
        place.is_some_and(|place| *place != node.address)
    }

    /// Returns when another server than `node` is said to be the primary. Only asks when a reply is late: a server
    /// that is gone without a word would be waited for until the limit otherwise, although it was replaced long before.
    async fn moved_away(&self, node: &Node) {
        if !self.resolver.is_movable() {
            return std::future::pending().await;
        }
        loop {
            sleep(LATE).await;
            if self.is_elsewhere(node).await {
                return;
            }
        }
    }

    /// Sends one command to the node that gets the slot. What is there already is there only for those who ask.
    async fn send_aside(&self, address: &Address, command: &Cmd) -> Result<Value, Failure> {
        let mut aside = self.aside.lock().await;
        let mut connection = match aside.take() {
            Some((led, connection)) if led == *address => connection,
            _ => node::open(&self.resolver.client(address)?, self.limits).await?,
        };
        let reply: RedisResult<(Value,)> = resolver::asking(command).query_async(&mut connection).await;
        match reply {
            Ok((value,)) => {
                *aside = Some((address.clone(), connection));
                Ok(value)
            }
            Err(error) => {
                if !failure::is_unanswered(&error) {
                    *aside = Some((address.clone(), connection));
                }
                Err(failure::of_command(&error))
            }
        }
    }
}

fn elsewhere() -> Failure {
    StoreError::Unknown("the primary did not answer, and is another one by now".to_owned()).into()
}
