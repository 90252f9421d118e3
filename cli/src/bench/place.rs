//! Where a benchmark runs: a line of its own, on the store that was asked for or on a file that goes away.

use anyhow::Context as _;
use conga::ledger::{LedgerUrl, SharedLedger};
use conga::line::Line;
use conga::store::{OpenOptions, SharedStore, StoreUrl};
use tempfile::TempDir;
use uuid::Uuid;

use crate::settings::Settings;

/// A line that is there for one run.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) url: StoreUrl,
    pub(crate) options: OpenOptions,
    pub(crate) line: Line,
    /// Where it is recorded.
    pub(crate) record: LedgerUrl,
    /// Removed when this is dropped.
    folder: Option<TempDir>,
}

impl Place {
    /// A new line `NAME-…` on the store of the settings; where none was given, in a file of its own.
    pub(crate) fn new(settings: &Settings, name: &str) -> anyhow::Result<Self> {
        if let Some(url) = settings.given_store() {
            Self::on(url.clone(), settings.options().clone(), name)
        } else {
            Self::in_a_folder(settings.options().clone(), name)
        }
    }

    /// A new line `NAME-…` in a file that goes away.
    pub(crate) fn in_a_folder(options: OpenOptions, name: &str) -> anyhow::Result<Self> {
        let line = line(name)?;
        let folder = tempfile::Builder::new()
            .prefix("conga-")
            .tempdir()
            .context("can't make a folder for the embedded store; set TMPDIR or give --store")?;
        let url = StoreUrl::Sqlite(folder.path().join("conga.db"));
        Ok(Self {
            url,
            options,
            line,
            record: LedgerUrl::Store,
            folder: Some(folder),
        })
    }

    /// A new line `NAME-…` on this store.
    pub(crate) fn on(url: StoreUrl, options: OpenOptions, name: &str) -> anyhow::Result<Self> {
        Ok(Self {
            url,
            options,
            line: line(name)?,
            record: LedgerUrl::Store,
            folder: None,
        })
    }

    pub(crate) async fn open(&self) -> anyhow::Result<SharedStore> {
        Ok(conga::store::open_with(&self.url, &self.line, &self.options).await?)
    }

    /// The same, recorded elsewhere.
    pub(crate) fn recorded(self, record: &LedgerUrl) -> Self {
        Self {
            record: record.clone(),
            ..self
        }
    }

    pub(crate) async fn open_record(&self, store: &SharedStore) -> anyhow::Result<SharedLedger> {
        Ok(conga::ledger::open(&self.record, &self.line, store).await?)
    }

    /// Leaves nothing behind.
    pub(crate) async fn clear(self) -> anyhow::Result<()> {
        conga::ledger::erase(&self.record, &self.line).await?;
        if self.folder.is_none() {
            conga::shards::erase_all(&self.url, &self.line).await?;
        }
        Ok(())
    }
}

fn line(name: &str) -> anyhow::Result<Line> {
    let id = Uuid::new_v4().simple().to_string();
    Ok(format!("{name}-{}", &id[..8]).parse()?)
}
