//! Where the stores under test come from.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use conga::clock::{Clock, ManualClock};
use conga::store::memory::MemoryStore;
use conga::store::redis::{RedisOptions, RedisStore};
use conga::store::sqlite::{SqliteOptions, SqliteStore};
use conga::store::{Delivery, SharedStore};

use crate::redis_server::RedisServer;

/// Makes stores of one kind.
#[async_trait]
pub(crate) trait Fixture {
    /// A fresh, empty store with this clock.
    async fn open(clock: ManualClock) -> Opened;
}

/// A store, seen in both ways of delivering, and what has to live as long as it does: its directory, its server.
pub(crate) struct Opened {
    pub(crate) led: SharedStore,
    pub(crate) delivering: SharedStore,
    pub(crate) keep: Box<dyn Any + Send + Sync>,
}

/// The reference itself: what holds for it is what the cases say outright.
pub(crate) struct MemoryFixture;

#[async_trait]
impl Fixture for MemoryFixture {
    async fn open(clock: ManualClock) -> Opened {
        let led = MemoryStore::new(Clock::Manual(clock)).delivering(Delivery::Leader);
        Opened {
            delivering: Arc::new(led.delivering(Delivery::Store)),
            led: Arc::new(led),
            keep: Box::new(()),
        }
    }
}

/// A file of its own for each store.
pub(crate) struct SqliteFixture;

#[async_trait]
impl Fixture for SqliteFixture {
    async fn open(clock: ManualClock) -> Opened {
        let directory = tempfile::tempdir().expect("a directory");
        let options = |delivery| SqliteOptions {
            clock: Clock::Manual(clock.clone()),
            delivery,
            // To the microsecond, as the reference.
            owner_slack_percent: 0,
            ..SqliteOptions::default()
        };
        let (line, path) = ("contract".parse().expect("a name"), directory.path().join("conga.db"));
        let led = SqliteStore::open(&path, &line, options(Delivery::Leader)).await;
        let delivering = SqliteStore::open(&path, &line, options(Delivery::Store)).await;
        Opened {
            led: Arc::new(led.expect("a store")),
            delivering: Arc::new(delivering.expect("a store")),
            keep: Box::new(directory),
        }
    }
}

/// A server of its own for each store.
pub(crate) struct RedisFixture;

#[async_trait]
impl Fixture for RedisFixture {
    async fn open(clock: ManualClock) -> Opened {
        let server = RedisServer::start(&[]).expect("a Redis server");
        let options = |delivery| RedisOptions {
            clock: Clock::Manual(clock.clone()),
            delivery,
            // The server answers at once, but the machine may be busy.
            response_timeout: Duration::from_secs(20),
            ..RedisOptions::default()
        };
        let line = "contract".parse().expect("a name");
        let led = RedisStore::connect(&server.url(), &line, options(Delivery::Leader)).await;
        let delivering = RedisStore::connect(&server.url(), &line, options(Delivery::Store)).await;
        Opened {
            led: Arc::new(led.expect("a store")),
            delivering: Arc::new(delivering.expect("a store")),
            keep: Box::new(server),
        }
    }
}
