//! Where a benchmark runs: a line of its own, on the store that was asked for or on a file that goes away.

use anyhow::Context as _;
use conga::line::Line;
use conga::store::{SharedStore, StoreUrl};
use tempfile::TempDir;
use uuid::Uuid;

use crate::settings::Settings;

/// A line that is there for one run.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) url: StoreUrl,
    pub(crate) line: Line,
    /// Removed when this is dropped.
    folder: Option<TempDir>,
}

impl Place {
    /// A new line `NAME-…` on the store of the settings; where none was given, in a file of its own.
    pub(crate) fn new(settings: &Settings, name: &str) -> anyhow::Result<Self> {
        let id = Uuid::new_v4().simple().to_string();
        let line = format!("{name}-{}", &id[..8]).parse()?;
        if let Some(url) = settings.given_store() {
            Ok(Self {
                url: url.clone(),
                line,
                folder: None,
            })
        } else {
            let folder = tempfile::Builder::new()
                .prefix("conga-")
                .tempdir()
                .context("can't make a folder for the embedded store; set TMPDIR or give --store")?;
            let url = StoreUrl::Sqlite(folder.path().join("conga.db"));
            Ok(Self {
                url,
                line,
                folder: Some(folder),
            })
        }
    }

    pub(crate) async fn open(&self) -> anyhow::Result<SharedStore> {
        Ok(conga::store::open(&self.url, &self.line).await?)
    }

    /// Leaves nothing behind.
    pub(crate) async fn clear(self) -> anyhow::Result<()> {
        if self.folder.is_none() {
            conga::store::erase(&self.url, &self.line).await?;
        }
        Ok(())
    }
}
