//! The served PostgreSQL, and what can be done to it.

use std::time::Duration;

use anyhow::Context as _;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep};
use tokio_postgres::NoTls;

use super::schedule::Lot;
use crate::args::Fault;
use crate::bench::postgres_server::PostgresServer;
use crate::bench::recorder::Recorder;

/// How far apart connections are ended: so that new ones have begun something meanwhile.
const AGAIN: Duration = Duration::from_millis(20);

/// Where is recorded.
pub(super) struct Record(pub(super) Recorder);

/// What ends a fault.
pub(super) enum Undo {
    /// Within a second.
    Start,
    /// At once.
    StartNow,
    /// It ends by itself.
    Wait(JoinHandle<anyhow::Result<()>>),
}

impl Record {
    pub(super) async fn inject(&mut self, fault: Fault) -> anyhow::Result<Undo> {
        Ok(match fault {
            Fault::KillPostgres => {
                self.change(PostgresServer::kill).await?;
                Undo::Start
            }
            Fault::StopPostgres => {
                self.change(PostgresServer::stop).await?;
                Undo::StartNow
            }
            _ => {
                let url = self.0.url.exposed().to_owned();
                Undo::Wait(tokio::spawn(end_connections(url, fault.lasts())))
            }
        })
    }

    /// When this returns the server answers.
    pub(super) async fn undo(&mut self, undo: Undo, lot: Lot) -> anyhow::Result<()> {
        match undo {
            Undo::Wait(ending) => return ending.await?,
            Undo::Start => sleep(Duration::from_millis(lot.one_of(0, 1_000) as u64)).await,
            Undo::StartNow => {}
        }
        self.change(PostgresServer::start_again).await
    }

    async fn change(
        &mut self,
        how: impl FnOnce(&mut PostgresServer) -> std::io::Result<()> + Send + 'static,
    ) -> anyhow::Result<()> {
        let mut server = self.0.server.take().context("no PostgreSQL of our own")?;
        let (server, done) = spawn_blocking(move || {
            let done = how(&mut server);
            (server, done)
        })
        .await?;
        self.0.server = Some(server);
        done.context("the served PostgreSQL")
    }
}

async fn end_connections(url: String, time: Duration) -> anyhow::Result<()> {
    let (client, connection) = tokio_postgres::connect(&url, NoTls).await?;
    let driving = tokio::spawn(connection);
    let start = Instant::now();
    while start.elapsed() < time {
        client
            .execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                 WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'",
                &[],
            )
            .await
            .context("can't end connections")?;
        sleep(AGAIN).await;
    }
    drop(client);
    Ok(driving.await??)
}
