//! The primaries of a cluster: what each has done so far, as it says itself.

use std::io;
use std::time::Duration;

use anyhow::Context as _;
use conga::core::shape::Shape;
use conga::line::Line;
use conga::shards::parts;
use conga::store::{OpenOptions, StoreUrl};
use tokio::task::spawn_blocking;

use super::place::Place;
use super::redis_ask::ask;
use super::redis_cluster::RedisCluster;

/// Nobody is taken for down on a machine that is busy.
const DOWN_AFTER: Duration = Duration::from_secs(30);
/// So many names are tried for a line whose partitions lie evenly. For some numbers there is none: a CRC-16 is linear, and
/// of the names of six partitions four always lie on the one of two halves.
const NAMES: usize = 60;

/// Primaries without replicas.
#[derive(Debug)]
pub(crate) struct Nodes {
    cluster: RedisCluster,
    count: usize,
}

/// What a server has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Done {
    /// User and system time.
    pub(crate) cpu: Duration,
    /// Scripts that were called: each is a step of the store.
    pub(crate) steps: u64,
    /// Connections that it has now.
    pub(crate) connections: u64,
}

impl Nodes {
    pub(crate) async fn start(count: usize) -> anyhow::Result<Self> {
        let starting = spawn_blocking(move || RedisCluster::alone(count, DOWN_AFTER, &[]));
        let cluster = starting.await?.context("can't start a cluster")?;
        Ok(Self { cluster, count })
    }

    /// A new line of this shape whose partitions lie as evenly on the primaries as they can, and on which each of them is.
    pub(crate) fn place(&self, shape: Shape) -> anyhow::Result<(Place, Vec<usize>)> {
        let url: StoreUrl = self.cluster.url(&(0..self.count).collect::<Vec<_>>()).parse()?;
        let options = OpenOptions {
            shape: Some(shape),
            ..OpenOptions::default()
        };
        let mut best: Option<(usize, Place, Vec<usize>)> = None;
        for _ in 0..NAMES {
            let place = Place::on(url.clone(), options.clone(), "shards")?;
            let owners = self.owners(&place.line, shape)?;
            let counts = (0..self.count).map(|node| owners.iter().filter(|owner| **owner == node).count());
            let uneven = counts.clone().max().unwrap_or(0) - counts.min().unwrap_or(0);
            if best.as_ref().is_none_or(|(least, ..)| uneven < *least) {
                best = Some((uneven, place, owners));
            }
            if uneven <= 1 {
                break;
            }
        }
        let (_, place, owners) = best.context("no name was tried")?;
        Ok((place, owners))
    }

    fn owners(&self, line: &Line, shape: Shape) -> io::Result<Vec<usize>> {
        let partitions = usize::from(shape.partitions.get());
        if self.count == 1 {
            return Ok(vec![0; partitions]);
        }
        // A single partition has the line's own name.
        let mut lines: Vec<Line> = parts(line, shape).collect();
        if lines.is_empty() {
            lines.push(line.clone());
        }
        lines.iter().map(|part| self.cluster.primary_of(&part.tag())).collect()
    }

    /// What each has done so far.
    pub(crate) fn look(&self) -> io::Result<Vec<Done>> {
        let look = |node| Ok(Done::of(&ask(self.cluster.port(node), &["INFO", "all"])?.text()));
        (0..self.count).map(look).collect()
    }
}

impl Done {
    fn of(info: &str) -> Self {
        let value = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let number = |name: &str| value(name).and_then(|value| value.trim().parse::<f64>().ok());
        let cpu = number("used_cpu_user").unwrap_or(0.0) + number("used_cpu_sys").unwrap_or(0.0);
        let calls = |name: &str| -> Option<u64> {
            let (calls, _) = value(name)?.strip_prefix("calls=")?.split_once(',')?;
            calls.parse().ok()
        };
        Self {
            cpu: Duration::from_secs_f64(cpu.max(0.0)),
            steps: calls("cmdstat_evalsha").unwrap_or(0) + calls("cmdstat_eval").unwrap_or(0),
            connections: value("connected_clients")
                .and_then(|value| value.trim().parse().ok())
                .unwrap_or(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_is_read() {
        let info = "# Clients\r\nconnected_clients:7\r\nused_cpu_sys:0.250000\r\nused_cpu_user:1.500000\r\n\
                    cmdstat_eval:calls=2,usec=9\r\ncmdstat_evalsha:calls=40,usec=1234,usec_per_call=3.0\r\n";
        let done = Done {
            cpu: Duration::from_millis(1_750),
            steps: 42,
            connections: 7,
        };
        assert_eq!(Done::of(info), done);
    }
}
