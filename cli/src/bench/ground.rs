//! Where measurements take place: each run on a line, a file or a server of its own.

use std::time::Duration;

use anyhow::Context as _;
use conga::store::{OpenOptions, StoreUrl};
use redis::aio::MultiplexedConnection;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::place::Place;
use super::redis_server::RedisServer;
use super::usage::Usage;
use crate::args::{self, Fsync};
use crate::settings::{Settings, wrong};

/// How long a server may take to free what was unlinked.
const FREEING: Duration = Duration::from_secs(10);

/// What was asked for.
#[derive(Debug, Clone)]
pub(crate) enum Ground {
    /// A Redis server for each run.
    Served(Fsync, OpenOptions),
    Given(StoreUrl, OpenOptions),
    /// A file for each run.
    Folder(OpenOptions),
}

impl Ground {
    pub(crate) fn of(settings: &Settings, asked: &args::Ground) -> anyhow::Result<Self> {
        let options = settings.options().clone();
        match (settings.given_store(), asked.serve) {
            (Some(_), Some(_)) => Err(wrong(
                "--serve starts a store of its own: leave out --store, CONGA_STORE and `store` in the settings file",
            )),
            (None, Some(args::ServeRedis::Redis)) => Ok(Self::Served(asked.fsync, options)),
            (Some(url), None) => Ok(Self::Given(url.clone(), options)),
            (None, None) => Ok(Self::Folder(options)),
        }
    }

    /// The kind of store, and what it has on the disk.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Served(Fsync::No, _) => "redis, without persistence".to_owned(),
            Self::Served(Fsync::Everysec, _) => "redis, appendfsync everysec".to_owned(),
            Self::Served(Fsync::Always, _) => "redis, appendfsync always".to_owned(),
            Self::Given(url, _) => url.to_string(),
            Self::Folder(_) => "sqlite, each acknowledged batch on the disk".to_owned(),
        }
    }

    pub(crate) fn is_redis(&self) -> bool {
        !matches!(self, Self::Folder(_) | Self::Given(StoreUrl::Sqlite(_), _))
    }

    /// A line of its own, for a run of Conga.
    pub(crate) async fn site(&self) -> anyhow::Result<Site> {
        match self {
            Self::Served(fsync, options) => {
                let server = RedisServer::start(persistence(*fsync)).context("--serve redis")?;
                let place = Place::on(server.url().parse()?, options.clone(), "bench")?;
                Site::at(place, Some(server)).await
            }
            Self::Given(url, options) => Site::at(Place::on(url.clone(), options.clone(), "bench")?, None).await,
            Self::Folder(options) => Site::at(Place::in_a_folder(options.clone(), "bench")?, None).await,
        }
    }

    /// The same for the yardstick, which has a file of its own on the same disk.
    pub(crate) async fn site_of_yardstick(&self) -> anyhow::Result<Site> {
        let Self::Given(StoreUrl::Sqlite(path), options) = self else {
            return self.site().await;
        };
        let beside = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => std::path::Path::new("."),
        };
        let folder = tempfile::Builder::new()
            .prefix("conga-limit-")
            .tempdir_in(beside)
            .with_context(|| format!("can't make a folder beside {}", path.display()))?;
        let url = StoreUrl::Sqlite(folder.path().join("limit.db"));
        let mut site = Site::at(Place::on(url, options.clone(), "bench")?, None).await?;
        site.folder = Some(folder);
        Ok(site)
    }
}

fn persistence(fsync: Fsync) -> &'static [&'static str] {
    match fsync {
        Fsync::No => &[],
        Fsync::Everysec => &["--appendonly", "yes", "--appendfsync", "everysec"],
        Fsync::Always => &["--appendonly", "yes", "--appendfsync", "always"],
    }
}

/// Where one run takes place.
pub(crate) struct Site {
    pub(crate) place: Place,
    /// Ends with the run.
    server: Option<RedisServer>,
    connection: Option<MultiplexedConnection>,
    folder: Option<TempDir>,
}

impl Site {
    async fn at(place: Place, server: Option<RedisServer>) -> anyhow::Result<Self> {
        let connection = match &place.url {
            // Of a group of servers nobody is asked: which one has the line may change.
            StoreUrl::Redis(url) if url.starts_with("redis://") => {
                let client = redis::Client::open(url.as_str())?;
                let connecting = client.get_multiplexed_async_connection();
                Some(connecting.await.with_context(|| format!("can't connect to {url}"))?)
            }
            _ => None,
        };
        Ok(Self {
            place,
            server,
            connection,
            folder: None,
        })
    }

    /// What the server has used so far; nothing where there is none, or more than one.
    pub(crate) async fn server_usage(&self) -> anyhow::Result<Option<Usage>> {
        let Some(connection) = &self.connection else {
            return Ok(None);
        };
        let info: String = redis::cmd("INFO")
            .query_async(&mut connection.clone())
            .await
            .context("can't ask the server what it uses")?;
        let number = |name: &str| -> f64 {
            let value = info
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.trim().parse().ok());
            value.unwrap_or(0.0)
        };
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a number of bytes"
        )]
        let peak = number("used_memory_peak") as u64;
        let own = self.server.as_ref().and_then(|server| Usage::of(server.pid()));
        Ok(Some(Usage {
            // More exact than what the system tells: to the microsecond.
            cpu: Duration::from_secs_f64((number("used_cpu_user") + number("used_cpu_sys")).max(0.0)),
            peak_bytes: own.map_or(peak, |own| own.peak_bytes),
        }))
    }

    /// What the server's data take now, in bytes. What was unlinked before is freed in the background; that is waited for.
    pub(crate) async fn used_memory(&self) -> anyhow::Result<Option<u64>> {
        let Some(connection) = &self.connection else {
            return Ok(None);
        };
        let patience = Instant::now() + FREEING;
        loop {
            let info: String = redis::cmd("INFO")
                .arg("memory")
                .query_async(&mut connection.clone())
                .await?;
            let number = |name: &str| -> Option<u64> {
                info.lines()
                    .find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.trim().parse().ok())
            };
            if number("lazyfree_pending_objects").unwrap_or(0) == 0 || Instant::now() > patience {
                return Ok(number("used_memory"));
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Leaves nothing behind.
    pub(crate) async fn clear(self) -> anyhow::Result<()> {
        if self.server.is_none() && self.folder.is_none() {
            self.place.clear().await?;
        }
        Ok(())
    }
}
