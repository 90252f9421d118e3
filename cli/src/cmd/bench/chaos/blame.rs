//! Whom deaths are blamed on meanwhile: no verb of a store tells that, so it is looked for where the stores keep it.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use conga::core::message::Position;
use conga::core::partition::Shelf;
use conga::deliver::position_of;
use conga::record::Rows;
use conga::shards::Shards;
use conga::store::StoreUrl;
use redis::Client;
use rusqlite::{Connection, OpenFlags};
use tokio::task::{AbortHandle, JoinHandle, spawn_blocking};
use tokio::time::{sleep, timeout};

/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_millis(500);

/// The most that each message was blamed, by its partition and its position there.
type Seen = HashMap<(usize, Position), u32>;

/// Looks at a store all the while. Dropped, it ends.
#[derive(Debug)]
pub(super) struct Blame {
    seen: Arc<Mutex<Seen>>,
    task: AbortHandle,
}

impl Drop for Blame {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Blame {
    /// On the partitions of these tags; nothing, on servers that follow one another.
    pub(super) fn watch(url: &StoreUrl, tags: Vec<String>) -> Option<Self> {
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let task: JoinHandle<()> = match url.clone() {
            StoreUrl::Sqlite(path) => {
                let seen = seen.clone();
                tokio::spawn(async move {
                    loop {
                        let (path, tags, seen) = (path.clone(), tags.clone(), seen.clone());
                        // A file that is locked is looked at the next time.
                        let _ = spawn_blocking(move || look_into(Path::new(&path), &tags, &seen)).await;
                        sleep(LOOK).await;
                    }
                })
            }
            StoreUrl::Redis(url) if !url.starts_with("redis+") => {
                let seen = seen.clone();
                tokio::spawn(async move {
                    loop {
                        // A server that is away is asked the next time.
                        let _ = timeout(PATIENCE, ask(&url, &tags, &seen)).await;
                        sleep(LOOK).await;
                    }
                })
            }
            StoreUrl::Redis(_) => return None,
        };
        Some(Self {
            seen,
            task: task.abort_handle(),
        })
    }

    /// The most that a message was blamed that has a record: it killed nobody.
    pub(super) async fn of_innocents(&self, shards: &Shards) -> anyhow::Result<u32> {
        let mut most = 0;
        for (partition, store) in shards.partitions().iter().enumerate() {
            let mut rows = Rows::new(store.clone(), Shelf::Record);
            while let Some(page) = rows.next().await? {
                let seen = locked(&self.seen);
                let places = page.iter().filter_map(|row| position_of(&row.json));
                let blamed = places.filter_map(|position| seen.get(&(partition, position)));
                most = most.max(blamed.max().copied().unwrap_or(0));
            }
        }
        Ok(most)
    }
}

fn locked(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

fn note(seen: &Mutex<Seen>, place: (usize, Position), crashes: u32) {
    let mut seen = locked(seen);
    let most = seen.entry(place).or_default();
    *most = crashes.max(*most);
}

fn look_into(path: &Path, tags: &[String], seen: &Mutex<Seen>) -> anyhow::Result<()> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.busy_timeout(PATIENCE)?;
    let mut query =
        connection.prepare("SELECT name, position, crashes FROM flight JOIN line USING (line) WHERE crashes > 0")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let (name, position, crashes): (String, i64, u32) = (row.get(0)?, row.get(1)?, row.get(2)?);
        if let Some(partition) = tags.iter().position(|tag| *tag == name) {
            note(seen, (partition, Position(position.try_into()?)), crashes);
        }
    }
    Ok(())
}

async fn ask(url: &str, tags: &[String], seen: &Mutex<Seen>) -> anyhow::Result<()> {
    let mut connection = Client::open(url)?.get_multiplexed_async_connection().await?;
    loop {
        for (partition, tag) in tags.iter().enumerate() {
            let strikes: HashMap<u64, String> = redis::cmd("HGETALL")
                .arg(format!("{{{tag}}}:strikes"))
                .query_async(&mut connection)
                .await?;
            for (position, strikes) in strikes {
                let (_, crashes) = strikes.split_once(' ').context("strikes of another form")?;
                note(seen, (partition, Position(position)), crashes.parse()?);
            }
        }
        sleep(LOOK).await;
    }
}
