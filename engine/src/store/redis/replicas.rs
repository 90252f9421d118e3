//! What has to survive the primary: waiting until enough replicas have it.
//!
//! Replication is a stream, so whoever has a later write has the earlier ones. A task of the store's does a small write
//! on a connection of its own and lets WAIT wait for that, and so for all that was done before; while one wait runs the
//! next ones gather. No step of anybody is held up but of those who wait, for WAIT blocks its connection.
//!
//! A write that was done on one server and a WAIT on another, or on the same after it had been a replica meanwhile, prove
//! nothing. Each time a server becomes a primary its history gets a new name; the wait counts only under the name under
//! which the write was done.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ::redis::Value;
use ::redis::aio::MultiplexedConnection;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::connection::Connection;
use super::failure::Failure;
use super::node::{self, Limits, Node};
use super::reply::{self, Items};
use super::{failure, script};
use crate::store::StoreError;

/// How many may wait; more wait until they may.
const WAITING: usize = 1_024;

/// Why it is not known that enough replicas have something.
#[derive(Debug, Clone)]
pub(super) enum Doubt {
    /// They may have it in a moment, if this server is still the primary.
    TooFew(String),
    /// The server on which it was done does not answer, or is not the one any more that it was.
    Lost(String),
}

impl From<Doubt> for StoreError {
    fn from(doubt: Doubt) -> Self {
        match doubt {
            Doubt::TooFew(why) | Doubt::Lost(why) => Self::Unknown(why),
        }
    }
}

type Answer = Result<(), Doubt>;

/// The running task. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Replicas {
    task: JoinHandle<()>,
    ask: mpsc::Sender<(Arc<Node>, oneshot::Sender<Answer>)>,
    /// The last wait was in vain.
    short: AtomicBool,
}

impl Drop for Replicas {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Replicas {
    /// To wait for `wanted` replicas, of the line with the key `key` for the small write.
    pub(super) fn start(wanted: usize, key: String, limits: Limits) -> Self {
        let (ask, asked) = mpsc::channel(WAITING);
        let waiter = Waiter {
            wanted,
            key,
            limits,
            // The answer that there are too few has to come before it is no longer waited for.
            limit: Duration::from_secs(1).min(limits.response * 2 / 3),
            connection: None,
        };
        Self {
            task: tokio::spawn(waiter.run(asked)),
            ask,
            short: AtomicBool::new(false),
        }
    }

    /// Whether replicas were missing when it was last looked.
    pub(super) fn are_short(&self) -> bool {
        self.short.load(Ordering::Relaxed)
    }

    /// Returns when all that was done on `node` is where it has to be.
    pub(super) async fn have(&self, node: &Arc<Node>) -> Answer {
        let (tell, told) = oneshot::channel();
        let ended = || Doubt::Lost("the wait for the replicas has ended".to_owned());
        let answer = async {
            self.ask.send((node.clone(), tell)).await.map_err(|_| ended())?;
            tokio::select! {
                answer = told => answer.map_err(|_| ended())?,
                () = node.gone.cancelled() => Err(elsewhere()),
            }
        };
        let answer = answer.await;
        self.short.store(answer.is_err(), Ordering::Relaxed);
        answer
    }
}

/// Refuses a server with which no wait can ever succeed: each would end in doubt, for ever. Whether there are replicas
/// is not asked; they may come.
pub(super) async fn check(connection: &Connection, key: &str) -> Result<(), StoreError> {
    let mut write = script::SYNC.call(&[key]);
    write.arg("");
    let (history, node) = match connection.run_on_primary(&script::SYNC, &write).await {
        Ok((answer, node)) => (reply::text(answer)?, node),
        Err(failure) => return refused(failure, "the script that writes before WAIT"),
    };
    if history.is_empty() || node.history.is_empty() {
        return Err(StoreError::Broken(
            "Redis hides the name of its history (master_replid in INFO replication), without which it can't be known \
             what replicas have: allow the Redis user INFO (ACL SETUSER name +info), or do not wait for replicas (leave \
             out --replicas)"
                .to_owned(),
        ));
    }
    let mut wait = ::redis::cmd("WAIT");
    wait.arg(0).arg(1);
    match connection.send_to_primary(&wait).await {
        Ok(_) => Ok(()),
        Err(failure) => refused(failure, "WAIT"),
    }
}

/// What is refused for good is an error that says what to do; what is refused for now may work when it is needed.
fn refused(failure: Failure, what: &str) -> Result<(), StoreError> {
    match failure {
        Failure::Store(StoreError::Broken(why)) => Err(StoreError::Broken(format!(
            "Redis refuses {what}, without which replicas can't be waited for: allow it to the Redis user (ACL SETUSER \
             name +wait +info), use a server that has it, or do not wait for replicas (leave out --replicas): {why}"
        ))),
        Failure::Store(_) | Failure::NoScript | Failure::WrongType | Failure::Moved(_) | Failure::Ask(_) => Ok(()),
    }
}

struct Waiter {
    wanted: usize,
    key: String,
    limits: Limits,
    limit: Duration,
    connection: Option<(u64, MultiplexedConnection)>,
}

impl Waiter {
    async fn run(mut self, mut asked: mpsc::Receiver<(Arc<Node>, oneshot::Sender<Answer>)>) {
        let mut batch = Vec::new();
        while asked.recv_many(&mut batch, WAITING).await > 0 {
            // The newest is where the primary is now. What was done elsewhere counts if it was in the same history.
            let Some(newest) = batch
                .iter()
                .map(|(node, _)| node)
                .max_by_key(|node| node.number)
                .cloned()
            else {
                continue;
            };
            let waited = tokio::select! {
                waited = self.wait(&newest) => waited,
                () = newest.gone.cancelled() => Err(elsewhere()),
            };
            for (node, tell) in batch.drain(..) {
                let answer = match &waited {
                    Ok(history) if *history == node.history => Ok(()),
                    Ok(_) => Err(Doubt::Lost(
                        "the primary was another one for a while, which may not have had it".to_owned(),
                    )),
                    Err(doubt) => Err(doubt.clone()),
                };
                // Whoever has given up does not hear it.
                let _ = tell.send(answer);
            }
        }
    }

    /// The history of which all up to now is on enough replicas.
    async fn wait(&mut self, node: &Node) -> Result<String, Doubt> {
        if node.history.is_empty() {
            return Err(Doubt::Lost(
                "Redis does not tell the name of its history (INFO replication), without which it can't be known what \
                 replicas have"
                    .to_owned(),
            ));
        }
        // Taken, so that one that fails, or is waited for no longer, is not used again.
        let mut connection = match self.connection.take() {
            Some((number, connection)) if number == node.number => connection,
            _ => self.connect(node).await?,
        };
        let mut both = ::redis::pipe();
        let mut write = script::SYNC.call(&[&self.key]);
        write.arg("");
        both.add_command(write);
        both.cmd("WAIT")
            .arg(self.wanted)
            .arg(self.limit.as_millis().to_string());
        let replies: Vec<Value> = both
            .query_async(&mut connection)
            .await
            .map_err(|error| Doubt::Lost(error.to_string()))?;
        self.connection = Some((node.number, connection));
        let (history, had) = read(replies).map_err(|error| Doubt::Lost(error.to_string()))?;
        if had < self.wanted {
            return Err(Doubt::TooFew(format!(
                "only {had} of {} replicas had it after {} ms",
                self.wanted,
                self.limit.as_millis()
            )));
        }
        Ok(history)
    }

    async fn connect(&self, node: &Node) -> Result<MultiplexedConnection, Doubt> {
        let connect = async {
            let mut connection = node::open(&node.client, self.limits).await?;
            let loaded = script::load_all().query_async::<Value>(&mut connection).await;
            loaded
                .map(|_| connection)
                .map_err(|error| failure::of_connecting(&error))
        };
        match timeout(self.limits.connection, connect).await {
            Ok(connected) => connected.map_err(|error| Doubt::Lost(error.to_string())),
            Err(_) => Err(Doubt::Lost(format!("{} does not answer", node.address))),
        }
    }
}

/// The name of the history, and how many replicas had it.
fn read(replies: Vec<Value>) -> crate::store::Result<(String, usize)> {
    let mut replies = Items::of(Value::Array(replies))?;
    Ok((replies.text()?, replies.number()?))
}

fn elsewhere() -> Doubt {
    Doubt::Lost("the primary is another one by now".to_owned())
}
