//! Where a benchmark records: in the store, in a database that was asked for, or in a server of its own.

use anyhow::Context as _;
use conga::ledger::LedgerUrl;
use tokio::task::spawn_blocking;

use super::postgres_server::PostgresServer;
use super::yardstick::postgres::connect;
use crate::settings::Settings;

/// A system of record for one run, or several.
#[derive(Debug)]
pub(crate) struct Recorder {
    pub(crate) url: LedgerUrl,
    /// Away only while it is started again.
    pub(crate) server: Option<PostgresServer>,
}

impl Recorder {
    /// What was asked for, started if it is to be served.
    pub(crate) async fn of(settings: &Settings) -> anyhow::Result<Self> {
        if !settings.serves_record() {
            return Ok(Self {
                url: settings.record()?,
                server: None,
            });
        }
        let server = spawn_blocking(|| PostgresServer::start(&[]))
            .await?
            .context("--record serve")?;
        Ok(Self {
            url: server.url().parse()?,
            server: Some(server),
        })
    }

    /// Of a server of its own: what earlier runs have left there is gone and on the disk, so that each run begins alike.
    pub(crate) async fn fresh(&self) -> anyhow::Result<()> {
        let Some(server) = &self.server else { return Ok(()) };
        let client = connect(&server.url()).await?;
        let is_there = "SELECT to_regclass('conga_record') IS NOT NULL";
        if client.query_one(is_there, &[]).await?.get(0) {
            client.batch_execute("TRUNCATE conga_record").await?;
        }
        client.batch_execute("CHECKPOINT").await?;
        Ok(())
    }

    /// For people: where results go.
    pub(crate) fn name(&self) -> String {
        match (&self.server, &self.url) {
            (Some(_), _) => "PostgreSQL, a server of its own".to_owned(),
            (None, url) => url.to_string(),
        }
    }
}
