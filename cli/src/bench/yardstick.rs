//! The yardstick of `conga bench limit`: the least that is still safe, by hand, for each kind of store. One process
//! sends, one works, one receives.

use std::sync::Arc;

use anyhow::bail;
use bytes::Bytes;
use conga::clock::Clock;
use conga::line::Line;
use conga::store::StoreUrl;

use super::load::Load;
use super::usage::Moment;

pub(crate) mod postgres;
pub(crate) mod redis;
pub(crate) mod sqlite;
pub(crate) mod trial;

/// The producer's messages, as entries: byte for byte what Conga's producer sends.
pub(crate) fn entries(load: &Load, messages: u64) -> Vec<Bytes> {
    (1..=messages)
        .map(|number| load.message(number, Clock::Store.now()).to_entry())
        .collect()
}

/// The id of an entry. Whoever makes the entries knows how they begin.
fn id_of(entry: &[u8]) -> anyhow::Result<&[u8]> {
    let id = entry.strip_prefix(b"{\"id\":\"").and_then(|rest| {
        let end = rest.iter().position(|byte| *byte == b'"')?;
        Some(&rest[..end])
    });
    match id {
        Some(id) => Ok(id),
        None => bail!("an entry without an id came to the yardstick: somebody else uses its keys"),
    }
}

/// What came out, and when the last of it did.
#[derive(Debug, Default)]
pub(crate) struct Received {
    pub(crate) at: Option<Moment>,
    pub(crate) lines: Vec<Bytes>,
}

/// Where a yardstick's run takes place. Its work blocks.
#[derive(Debug, Clone)]
pub(crate) enum Yardstick {
    Redis { url: String, keys: Arc<redis::Keys> },
    Sqlite(Arc<std::path::Path>),
}

impl Yardstick {
    /// At the keys of a line of a Redis server, or in a file of its own.
    pub(crate) fn at(url: &StoreUrl, line: &Line) -> Self {
        match url {
            StoreUrl::Redis(url) => Self::Redis {
                url: url.clone(),
                keys: Arc::new(redis::Keys::of(line)),
            },
            StoreUrl::Sqlite(path) => Self::Sqlite(path.as_path().into()),
        }
    }

    /// Makes it ready for a run.
    pub(crate) fn set_up(&self) -> anyhow::Result<()> {
        match self {
            Self::Redis { url, keys } => redis::Hand::connect(url, keys)?.set_up(),
            Self::Sqlite(path) => sqlite::set_up(path),
        }
    }

    /// How many records there are.
    pub(crate) fn records(&self) -> anyhow::Result<u64> {
        match self {
            Self::Redis { url, keys } => redis::Hand::connect(url, keys)?.records(),
            Self::Sqlite(path) => sqlite::Hand::open(path)?.records(),
        }
    }

    /// Leaves nothing behind in a server.
    pub(crate) fn clear(&self) -> anyhow::Result<()> {
        match self {
            Self::Redis { url, keys } => redis::Hand::connect(url, keys)?.clear(),
            // Its folder goes.
            Self::Sqlite(_) => Ok(()),
        }
    }

    /// One process's hand, warm, that takes so many messages in a step.
    pub(crate) fn hand(&self, batch: Option<u16>) -> anyhow::Result<Hand> {
        Ok(match self {
            Self::Redis { url, keys } => Hand::Redis(redis::Hand::connect(url, keys)?.taking(batch)),
            Self::Sqlite(path) => Hand::Sqlite(sqlite::Hand::open(path)?.taking(batch)),
        })
    }
}

/// What one process of a yardstick works with.
pub(crate) enum Hand {
    Redis(redis::Hand),
    Sqlite(sqlite::Hand),
}

impl Hand {
    /// Sends all.
    pub(crate) fn produce(&mut self, entries: &[Bytes]) -> anyhow::Result<()> {
        match self {
            Self::Redis(hand) => hand.produce(entries),
            Self::Sqlite(hand) => hand.produce(entries),
        }
    }

    /// Takes, records and puts out so many.
    pub(crate) fn work(&mut self, messages: u64) -> anyhow::Result<()> {
        match self {
            Self::Redis(hand) => hand.work(messages),
            Self::Sqlite(hand) => hand.work(messages),
        }
    }

    /// Receives so many.
    pub(crate) fn consume(&mut self, messages: u64) -> anyhow::Result<Received> {
        match self {
            Self::Redis(hand) => hand.consume(messages),
            Self::Sqlite(hand) => hand.consume(messages),
        }
    }
}
