//! The served Redis, and what can be done to it.

use std::time::Duration;

use anyhow::Context as _;
use redis::{Client, Cmd, Value};
use rustix::process::{Pid, Signal, kill_process};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep, timeout};

use super::group::Group;
use super::schedule::Lot;
use crate::args::{Fault, Fsync, Serve};
use crate::bench::redis_server::RedisServer;

/// How long the server may take to answer again.
const PATIENCE: Duration = Duration::from_secs(10);
/// After so long a looping script makes the server say BUSY. The default is 5 seconds.
const BUSY_AFTER_MS: &str = "200";

/// What is there for this run alone.
#[derive(Debug)]
pub(super) enum Served {
    One(Server),
    Group(Group),
}

impl Served {
    pub(super) async fn start(serve: Serve, fsync: Fsync) -> anyhow::Result<Self> {
        Ok(match serve {
            Serve::Redis => Self::One(Server::start(fsync)?),
            Serve::Sentinel | Serve::Cluster => Self::Group(Group::start(serve, fsync).await?),
        })
    }

    pub(super) fn url(&self) -> &str {
        match self {
            Self::One(server) => &server.url,
            Self::Group(group) => group.url(),
        }
    }
}

/// A Redis server of this run.
#[derive(Debug)]
pub(super) struct Server {
    /// Away only while it is started again.
    server: Option<RedisServer>,
    url: String,
    pid: u32,
}

/// With its log on the disk.
pub(super) fn durability(fsync: Fsync) -> [&'static str; 4] {
    let when = match fsync {
        Fsync::Always => "always",
        Fsync::Everysec => "everysec",
        Fsync::No => "no",
    };
    ["--appendonly", "yes", "--appendfsync", when]
}

/// Whose connections are killed, and their types.
pub(super) fn clients(lot: Lot) -> (&'static str, &'static [&'static str]) {
    [
        ("all", &["normal", "pubsub"][..]),
        ("commands", &["normal"]),
        ("hints", &["pubsub"]),
    ][lot.one_of(0, 3)]
}

/// What ends a fault.
#[derive(Debug)]
pub(super) enum Undo {
    Nothing,
    Start,
    Continue,
    Answer,
    KillScript(JoinHandle<()>),
    Memory,
    Primary,
}

impl Server {
    fn start(fsync: Fsync) -> anyhow::Result<Self> {
        let mut arguments = durability(fsync).to_vec();
        arguments.extend(["--lua-time-limit", BUSY_AFTER_MS]);
        let server = RedisServer::start(&arguments).context("--serve redis")?;
        Ok(Self {
            url: server.url(),
            pid: server.pid(),
            server: Some(server),
        })
    }

    /// Does it; says in which form.
    pub(super) async fn inject(&mut self, fault: Fault, lot: Lot) -> anyhow::Result<(&'static str, Undo)> {
        Ok(match fault {
            Fault::KillRedis => {
                self.server.as_mut().context("the server is away")?.kill()?;
                ("", Undo::Start)
            }
            Fault::FreezeRedis => {
                self.signal(Signal::STOP)?;
                ("", Undo::Continue)
            }
            Fault::ScriptFlush => {
                self.ask(redis::cmd("SCRIPT").arg("FLUSH")).await?;
                ("", Undo::Nothing)
            }
            Fault::ClientKill => {
                let (form, kinds) = clients(lot);
                for kind in kinds {
                    self.ask(redis::cmd("CLIENT").arg(&["KILL", "TYPE", kind, "SKIPME", "yes"]))
                        .await?;
                }
                (form, Undo::Nothing)
            }
            Fault::ClientPause => {
                let (form, mode) = [("everything", "ALL"), ("writes", "WRITE")][lot.one_of(0, 2)];
                let time = fault.lasts().as_millis().to_string();
                self.ask(redis::cmd("CLIENT").arg(&["PAUSE", &time, mode])).await?;
                (form, Undo::Answer)
            }
            Fault::Busy => ("", Undo::KillScript(self.busy()?)),
            Fault::Oom => {
                self.configure("maxmemory", "1").await?;
                ("", Undo::Memory)
            }
            Fault::ReadOnly => {
                // Nobody is there.
                self.ask(redis::cmd("REPLICAOF").arg(&["127.0.0.1", "1"])).await?;
                ("", Undo::Primary)
            }
            _ => anyhow::bail!("{} is nothing that is done to a server", fault.name()),
        })
    }

    /// Ends it. When this returns the server answers as it did before.
    pub(super) async fn undo(&mut self, undo: Undo, lot: Lot) -> anyhow::Result<()> {
        match undo {
            Undo::Nothing => {}
            Undo::Start => {
                sleep(Duration::from_millis(lot.one_of(0, 1_000) as u64)).await;
                let mut server = self.server.take().context("the server is away")?;
                let (server, started) = spawn_blocking(move || {
                    let started = server.start_again();
                    (server, started)
                })
                .await?;
                self.pid = server.pid();
                self.server = Some(server);
                started.context("the killed server does not come back")?;
            }
            Undo::Continue => {
                self.signal(Signal::CONT)?;
                self.answers().await?;
            }
            Undo::Answer => self.answers().await?,
            Undo::KillScript(script) => {
                // Before it is busy it does not listen to anybody.
                let start = Instant::now();
                while !script.is_finished() {
                    let killed = self.ask(redis::cmd("SCRIPT").arg("KILL")).await;
                    if start.elapsed() > PATIENCE {
                        killed.context("the looping script can't be killed")?;
                    }
                    sleep(Duration::from_millis(5)).await;
                }
            }
            Undo::Memory => self.configure("maxmemory", "0").await?,
            Undo::Primary => drop(self.ask(redis::cmd("REPLICAOF").arg(&["NO", "ONE"])).await?),
        }
        Ok(())
    }

    fn busy(&self) -> anyhow::Result<JoinHandle<()>> {
        let client = Client::open(self.url.as_str())?;
        Ok(tokio::spawn(async move {
            // It ends by an error: that it was killed.
            if let Ok(mut connection) = client.get_multiplexed_async_connection().await {
                let mut script = redis::cmd("EVAL");
                script.arg("while true do end").arg(0);
                connection.set_response_timeout(2 * PATIENCE);
                let _ = script.query_async::<Value>(&mut connection).await;
            }
        }))
    }

    async fn configure(&self, name: &str, value: &str) -> anyhow::Result<()> {
        self.ask(redis::cmd("CONFIG").arg(&["SET", name, value]))
            .await
            .map(drop)
    }

    async fn answers(&self) -> anyhow::Result<()> {
        // A write, since reads may answer earlier.
        self.ask(redis::cmd("DEL").arg("conga-bench-chaos")).await.map(drop)
    }

    /// Asks on a connection of its own, which nothing that is done can have broken.
    async fn ask(&self, command: &Cmd) -> anyhow::Result<Value> {
        let client = Client::open(self.url.as_str())?;
        let asking = async {
            let mut connection = client.get_multiplexed_async_connection().await?;
            connection.set_response_timeout(PATIENCE);
            command.query_async::<Value>(&mut connection).await
        };
        Ok(timeout(PATIENCE, asking)
            .await
            .context("the served Redis does not answer")??)
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = i32::try_from(self.pid)
            .ok()
            .and_then(Pid::from_raw)
            .context("a server without a process")?;
        Ok(kill_process(pid, signal)?)
    }
}
