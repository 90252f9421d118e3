//! The one way to the server: a shared connection that is replaced when it breaks, or goes silent.
//!
//! Not the crate's `ConnectionManager`, for two reasons. It can't say whether a command that failed was ever sent,
//! and that is the difference between "nothing was done" and "unknown". And it keeps a connection whose replies time
//! out, so that after a black hole the line would wait for TCP's retransmission, which by then backs off for seconds.

use std::time::{Duration, Instant};

use ::redis::aio::MultiplexedConnection;
use ::redis::{AsyncConnectionConfig, Client, Cmd, Pipeline, RedisError, Value};
use tokio::sync::Mutex;

use super::failure::{self, Failure};
use super::script::{self, Script};
use crate::store::StoreError;

/// A connection to one server. All commands share it.
pub(super) struct Connection {
    client: Client,
    config: AsyncConnectionConfig,
    slot: Mutex<Slot>,
}

#[derive(Default)]
struct Slot {
    live: Option<Live>,
    made: u64,
    /// The last attempt to connect that failed, for those who waited for it.
    failed: Option<(Instant, StoreError)>,
}

#[derive(Clone)]
struct Live {
    number: u64,
    connection: MultiplexedConnection,
}

/// How often a script is loaded again when the server keeps forgetting it.
const LOADS: usize = 3;

impl Connection {
    pub(super) fn new(client: Client, connection_timeout: Duration, response_timeout: Duration) -> Self {
        Self {
            client,
            config: AsyncConnectionConfig::new()
                .set_connection_timeout(Some(connection_timeout))
                .set_response_timeout(Some(response_timeout)),
            slot: Mutex::default(),
        }
    }

    /// Sends one command.
    pub(super) async fn send(&self, command: &Cmd) -> Result<Value, Failure> {
        let mut live = self.live().await?;
        let reply = command.query_async(&mut live.connection).await;
        self.judge(live.number, reply).await
    }

    /// Sends commands together; in a transaction if the pipeline is one.
    pub(super) async fn send_all(&self, commands: &Pipeline) -> Result<Vec<Value>, Failure> {
        let mut live = self.live().await?;
        let reply = commands.query_async(&mut live.connection).await;
        self.judge(live.number, reply).await
    }

    /// Sends a script's call. Where the server does not know the script, loads it and sends the call again.
    pub(super) async fn run(&self, script: &Script, call: &Cmd) -> Result<Value, Failure> {
        for _ in 0..LOADS {
            match self.send(call).await {
                Err(Failure::NoScript) => self.send(&script.load()).await?,
                answer => return answer,
            };
        }
        self.send(call).await
    }

    /// Loads all scripts.
    pub(super) async fn load_scripts(&self) -> Result<(), Failure> {
        let mut loads = ::redis::pipe();
        for script in script::ALL {
            loads.add_command(script.load());
        }
        self.send_all(&loads).await.map(drop)
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
        match self
            .client
            .get_multiplexed_async_connection_with_config(&self.config)
            .await
        {
            Ok(connection) => {
                slot.made += 1;
                let live = Live {
                    number: slot.made,
                    connection,
                };
                slot.live = Some(live.clone());
                Ok(live)
            }
            Err(error) => {
                let error = failure::of_connecting(&error);
                slot.failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    /// Gives up the connection after an error that it, rather than the command, is to blame for.
    async fn judge<T>(&self, number: u64, reply: Result<T, RedisError>) -> Result<T, Failure> {
        let error = match reply {
            Ok(reply) => return Ok(reply),
            Err(error) => error,
        };
        if failure::is_lost(&error) || failure::is_elsewhere(&error) {
            let mut slot = self.slot.lock().await;
            if slot.live.as_ref().is_some_and(|live| live.number == number) {
                slot.live = None;
            }
        }
        Err(failure::of_command(&error))
    }
}
