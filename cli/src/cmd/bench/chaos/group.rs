//! Redis servers that follow one another, under sentinels or in a cluster, and what can be done to them.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use super::schedule::Lot;
use super::server::{clients, durability};
use crate::args::{Fault, Fsync, Serve};
use crate::bench::redis_ask::ask;
use crate::bench::redis_cluster::RedisCluster;
use crate::bench::redis_sentinel::RedisSentinel;

/// After so long without an answer a server is taken for down. Sentinels try to connect once a second: with no more than
/// that they take a server that they have just promoted for down, and the one that they then promote has no replica until
/// they make the other follow it, ten seconds later.
const DOWN_AFTER: Duration = Duration::from_secs(2);
/// How many primaries a cluster has.
const PRIMARIES: usize = 3;
/// How long a moving slot pauses after each key, so that it moves under load.
const PAUSE: Duration = Duration::from_millis(20);

impl Serve {
    /// How many replicas each primary has: as many as are waited for. With more of them another one could be promoted than
    /// those that have what was acknowledged.
    pub(super) fn replicas(self) -> usize {
        match self {
            Self::Redis => 0,
            Self::Sentinel | Self::Cluster => 1,
        }
    }

    /// What the URL of its store begins with.
    pub(super) fn scheme(self) -> &'static str {
        match self {
            Self::Redis => "redis://",
            Self::Sentinel => "redis+sentinel://",
            Self::Cluster => "redis+cluster://",
        }
    }
}

/// The servers of this run.
#[derive(Debug)]
pub(super) struct Group {
    topology: Arc<Mutex<Topology>>,
    url: String,
}

#[derive(Debug)]
enum Topology {
    Sentinel(RedisSentinel),
    Cluster(RedisCluster),
}

/// What was done, and since when it is over.
#[derive(Debug)]
pub(super) struct Over {
    pub(super) form: String,
    pub(super) at: Instant,
}

impl Group {
    pub(super) async fn start(serve: Serve, fsync: Fsync) -> anyhow::Result<Self> {
        let start = move || -> io::Result<(Topology, String)> {
            let arguments = durability(fsync);
            if serve == Serve::Cluster {
                let cluster = RedisCluster::start(PRIMARIES, DOWN_AFTER, &arguments)?;
                let url = cluster.url(&(0..PRIMARIES).collect::<Vec<_>>());
                return Ok((Topology::Cluster(cluster), url));
            }
            let group = RedisSentinel::start(serve.replicas(), DOWN_AFTER, &arguments)?;
            let url = group.url();
            Ok((Topology::Sentinel(group), url))
        };
        let (topology, url) = spawn_blocking(start)
            .await?
            .with_context(|| format!("--serve {}", serve.name()))?;
        Ok(Self {
            topology: Arc::new(Mutex::new(topology)),
            url,
        })
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Does it to the servers that keep this line. When this returns replicas follow, as they did before.
    pub(super) async fn inject(&self, fault: Fault, lot: Lot, line: &str) -> anyhow::Result<Over> {
        let (topology, line) = (self.topology.clone(), line.to_owned());
        let done = spawn_blocking(move || {
            let mut topology = topology.lock().unwrap_or_else(PoisonError::into_inner);
            topology.inject(fault, lot, &line)
        });
        done.await?
            .with_context(|| format!("{} of the served servers", fault.name()))
    }
}

impl Topology {
    fn inject(&mut self, fault: Fault, lot: Lot, line: &str) -> io::Result<Over> {
        let form = match fault {
            Fault::KillPrimary => return self.kill_primary(line),
            Fault::MoveSlot => return self.move_slot(lot, line),
            Fault::ScriptFlush => {
                ask(self.primary(line)?, &["SCRIPT", "FLUSH"])?;
                ""
            }
            Fault::ClientKill => {
                let (form, kinds) = clients(lot);
                let primary = self.primary(line)?;
                for kind in kinds {
                    ask(primary, &["CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes"])?;
                }
                form
            }
            _ => {
                let what = format!("{} is nothing that is done to several servers", fault.name());
                return Err(io::Error::other(what));
            }
        };
        Ok(Over {
            form: form.to_owned(),
            at: Instant::now(),
        })
    }

    /// The port of the primary.
    fn primary(&self, line: &str) -> io::Result<u16> {
        Ok(match self {
            Self::Sentinel(group) => group.port(group.settled(1)?.0),
            Self::Cluster(cluster) => cluster.port(cluster.primary_of(line)?),
        })
    }

    /// Over with the promotion. The killed server is started again after that, and follows the new primary.
    fn kill_primary(&mut self, line: &str) -> io::Result<Over> {
        let killed;
        let promoted = match self {
            Self::Sentinel(group) => {
                let (old, _) = group.settled(1)?;
                killed = Instant::now();
                group.server(old).kill()?;
                let (primary, promoted) = group.promoted(old)?;
                // It is the only one that can follow: the line stands still without it.
                group.start_again(old, primary)?;
                group.settled(Serve::Sentinel.replicas())?;
                promoted
            }
            Self::Cluster(cluster) => {
                let old = cluster.primary_of(line)?;
                cluster.has_replica(old)?;
                killed = Instant::now();
                cluster.server(old).kill()?;
                let (primary, promoted) = cluster.promoted(line, old)?;
                // It is the only one that can follow: the line stands still without it.
                cluster.server(old).start_again()?;
                cluster.has_replica(primary)?;
                cluster.all_see(line, primary)?;
                promoted
            }
        };
        let at = Instant::from_std(promoted);
        let late = (at - killed).as_millis();
        let followed = at.elapsed().as_millis();
        Ok(Over {
            form: format!("promotion after {late} ms; the killed one followed {followed} ms later"),
            at,
        })
    }

    /// Over when it has arrived.
    fn move_slot(&self, lot: Lot, line: &str) -> io::Result<Over> {
        let Self::Cluster(cluster) = self else {
            return Err(io::Error::other("there are no slots"));
        };
        let from = cluster.primary_of(line)?;
        let others: Vec<usize> = cluster.primaries().into_iter().filter(|node| *node != from).collect();
        let Some(&to) = others.get(lot.one_of(0, others.len())) else {
            return Err(io::Error::other("there is no other primary"));
        };
        cluster.has_replica(to)?;
        let began = Instant::now();
        cluster.move_slot(line, from, to, PAUSE)?;
        let at = Instant::now();
        cluster.all_see(line, to)?;
        Ok(Over {
            form: format!("in {} ms", (at - began).as_millis()),
            at,
        })
    }
}
