//! A cluster of primaries, each with a replica or without, on the loopback. It ends when the value is dropped.
//!
//! As `redis_server.rs`, which it builds on: the standard library only, blocking, taken by all tests through `#[path]`.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::time::{Duration, Instant};

use super::redis_ask::{Answer, ask, wait_until};
use super::redis_server::RedisServer;

/// How long it may take until all know each other, or until a failover.
const PATIENCE: Duration = Duration::from_secs(30);
const SLOTS: usize = 16_384;

/// A cluster: the first nodes are the primaries, at first, and those that follow their replicas.
#[derive(Debug)]
pub(crate) struct RedisCluster {
    nodes: Vec<Node>,
}

#[derive(Debug)]
struct Node {
    server: RedisServer,
    /// The port on which the nodes talk to each other.
    bus: u16,
    id: String,
}

#[allow(dead_code, reason = "not everybody who includes this uses all of it")]
impl RedisCluster {
    /// Starts so many primaries with a replica each that take a node for down after `timeout`, and waits until all
    /// slots are served and all replicas follow. Each node gets `arguments` too.
    ///
    /// # Errors
    /// If `redis-server` is not installed, or the cluster does not come together.
    pub(crate) fn start(primaries: usize, timeout: Duration, arguments: &[&str]) -> io::Result<Self> {
        Self::of(primaries, 2 * primaries, timeout, arguments)
    }

    /// The same without replicas.
    ///
    /// # Errors
    /// As [`RedisCluster::start`].
    pub(crate) fn alone(primaries: usize, timeout: Duration, arguments: &[&str]) -> io::Result<Self> {
        Self::of(primaries, primaries, timeout, arguments)
    }

    fn of(primaries: usize, count: usize, timeout: Duration, arguments: &[&str]) -> io::Result<Self> {
        let mut nodes = Vec::new();
        for _ in 0..count {
            nodes.push(Node::start(timeout, arguments)?);
        }
        let cluster = Self { nodes };
        for (index, node) in cluster.nodes.iter().enumerate() {
            node.ask(&["CLUSTER", "SET-CONFIG-EPOCH", &(index + 1).to_string()])?;
            if index < primaries {
                let (first, last) = (index * SLOTS / primaries, (index + 1) * SLOTS / primaries - 1);
                node.ask(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()])?;
            }
            let (port, bus) = (node.server.port().to_string(), node.bus.to_string());
            cluster.nodes[0].ask(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus])?;
        }
        for node in &cluster.nodes {
            wait_until("a node knows the others", PATIENCE, || {
                node.known().is_some_and(|known| known == count)
            })?;
        }
        for (index, node) in cluster.nodes.iter().enumerate().skip(primaries) {
            node.ask(&["CLUSTER", "REPLICATE", &cluster.nodes[index - primaries].id])?;
        }
        for node in &cluster.nodes {
            wait_until("the cluster serves all slots", PATIENCE, || node.is_ok())?;
        }
        for (index, node) in cluster.nodes.iter().enumerate().skip(primaries) {
            wait_until("a replica follows", PATIENCE, || node.is_following())?;
            cluster.has_replica(index - primaries)?;
        }
        Ok(cluster)
    }

    /// The URL with some of the nodes.
    pub(crate) fn url(&self, nodes: &[usize]) -> String {
        let host = |node: &usize| format!("127.0.0.1:{}", self.nodes[*node].server.port());
        let hosts: Vec<String> = nodes.iter().map(host).collect();
        format!("redis+cluster://{}", hosts.join(","))
    }

    /// Which node serves the slot of the keys with this hash tag, as most nodes see it.
    ///
    /// # Errors
    /// If no node does.
    pub(crate) fn primary_of(&self, tag: &str) -> io::Result<usize> {
        let slot = self.slot_of(tag)?;
        let mut votes = vec![0; self.nodes.len()];
        for node in &self.nodes {
            let owner = node
                .ask(&["CLUSTER", "SLOTS"])
                .ok()
                .and_then(|slots| owner_of(&slots, slot));
            if let Some(index) = self.nodes.iter().position(|node| Some(node.server.port()) == owner) {
                votes[index] += 1;
            }
        }
        let most = (0..votes.len())
            .max_by_key(|node| votes[*node])
            .filter(|node| votes[*node] > 0);
        most.ok_or_else(|| io::Error::other(format!("no node of the cluster serves slot {slot}")))
    }

    /// The nodes that are primaries, as they say themselves.
    pub(crate) fn primaries(&self) -> Vec<usize> {
        let is_primary = |node: &Node| {
            let role = node.ask(&["ROLE"]).ok();
            role.is_some_and(|role| role.items().first().is_some_and(|role| role.text() == "master"))
        };
        (0..self.nodes.len())
            .filter(|node| is_primary(&self.nodes[*node]))
            .collect()
    }

    /// Waits until all nodes say that this one serves the slot of this tag.
    ///
    /// # Errors
    /// If they do not in time.
    pub(crate) fn all_see(&self, tag: &str, node: usize) -> io::Result<()> {
        let (slot, port) = (self.slot_of(tag)?, self.nodes[node].server.port());
        wait_until("all nodes know who serves the slot", PATIENCE, || {
            self.nodes.iter().all(|node| {
                let slots = node.ask(&["CLUSTER", "SLOTS"]).ok();
                slots.and_then(|slots| owner_of(&slots, slot)) == Some(port)
            })
        })
    }

    /// Waits until another node than `old` serves the slot of this tag and says so; says which, and when that was seen.
    ///
    /// # Errors
    /// If none does in time.
    pub(crate) fn promoted(&self, tag: &str, old: usize) -> io::Result<(usize, Instant)> {
        let mut found = None;
        let slot = self.slot_of(tag)?;
        wait_until("another node is promoted", PATIENCE, || {
            found = (0..self.nodes.len()).filter(|node| *node != old).find(|index| {
                let node = &self.nodes[*index];
                let slots = node.ask(&["CLUSTER", "SLOTS"]).ok();
                node.is_ok() && slots.and_then(|slots| owner_of(&slots, slot)) == Some(node.server.port())
            });
            found.is_some()
        })?;
        found
            .map(|node| (node, Instant::now()))
            .ok_or_else(|| io::Error::other("no node was promoted"))
    }

    /// Waits until a replica follows the node.
    ///
    /// # Errors
    /// If none does in time.
    pub(crate) fn has_replica(&self, node: usize) -> io::Result<()> {
        wait_until("a replica follows the node", PATIENCE, || {
            let role = self.nodes[node].ask(&["ROLE"]).ok();
            role.is_some_and(|role| role.items().get(2).is_some_and(|replicas| !replicas.items().is_empty()))
        })
    }

    /// A node's port on the loopback.
    pub(crate) fn port(&self, node: usize) -> u16 {
        self.nodes[node].server.port()
    }

    /// A node's server.
    pub(crate) fn server(&mut self, node: usize) -> &mut RedisServer {
        &mut self.nodes[node].server
    }

    /// Moves the slot of this tag from one node to another, its keys one by one with a pause after each.
    ///
    /// # Errors
    /// If one of the nodes refuses.
    pub(crate) fn move_slot(&self, tag: &str, from: usize, to: usize, pause: Duration) -> io::Result<()> {
        self.begin_move(tag, from, to)?;
        self.move_keys(tag, from, to, pause)?;
        self.end_move(tag, from, to)
    }

    /// From now on the slot is on its way.
    ///
    /// # Errors
    /// If one of the nodes refuses.
    pub(crate) fn begin_move(&self, tag: &str, from: usize, to: usize) -> io::Result<()> {
        let (slot, source, target) = (self.slot_of(tag)?.to_string(), &self.nodes[from], &self.nodes[to]);
        target.ask(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &source.id])?;
        source
            .ask(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &target.id])
            .map(drop)
    }

    /// Moves the keys that are still there; says how many.
    ///
    /// # Errors
    /// If one of the nodes refuses.
    pub(crate) fn move_keys(&self, tag: &str, from: usize, to: usize, pause: Duration) -> io::Result<usize> {
        let (slot, source) = (self.slot_of(tag)?.to_string(), &self.nodes[from]);
        let port = self.nodes[to].server.port().to_string();
        let mut count = 0;
        loop {
            let keys = source.ask(&["CLUSTER", "GETKEYSINSLOT", &slot, "1"])?;
            let Some(key) = keys.items().first().map(Answer::text) else {
                return Ok(count);
            };
            source.ask(&["MIGRATE", "127.0.0.1", &port, &key, "0", "10000"])?;
            count += 1;
            std::thread::sleep(pause);
        }
    }

    /// The slot has arrived.
    ///
    /// # Errors
    /// If one of the nodes refuses.
    pub(crate) fn end_move(&self, tag: &str, from: usize, to: usize) -> io::Result<()> {
        let (slot, target) = (self.slot_of(tag)?.to_string(), &self.nodes[to]);
        target.ask(&["CLUSTER", "SETSLOT", &slot, "NODE", &target.id])?;
        self.nodes[from]
            .ask(&["CLUSTER", "SETSLOT", &slot, "NODE", &target.id])
            .map(drop)
    }

    fn slot_of(&self, tag: &str) -> io::Result<i64> {
        let mut trouble = io::Error::other("there is no node to ask");
        for node in &self.nodes {
            match node.ask(&["CLUSTER", "KEYSLOT", tag]) {
                Ok(Answer::Number(slot)) => return Ok(slot),
                Ok(other) => trouble = io::Error::other(format!("{other:?} is no slot")),
                Err(error) => trouble = error,
            }
        }
        Err(trouble)
    }
}

impl Node {
    fn start(timeout: Duration, arguments: &[&str]) -> io::Result<Self> {
        let timeout = timeout.as_millis().to_string();
        let mut last = io::Error::other("redis-server was not started");
        // Between finding a port free and the server's bind somebody else may take it.
        for _ in 0..5 {
            let bus = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
            let port = bus.to_string();
            let mut all = vec!["--cluster-enabled", "yes", "--cluster-port", &port];
            all.extend([
                "--cluster-node-timeout",
                &timeout,
                "--cluster-replica-validity-factor",
                "0",
            ]);
            all.extend(["--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1"]);
            all.extend(arguments);
            match RedisServer::start(&all) {
                Ok(server) => {
                    let id = ask(server.port(), &["CLUSTER", "MYID"])?.text();
                    return Ok(Self { server, bus, id });
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(error),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn ask(&self, words: &[&str]) -> io::Result<Answer> {
        ask(self.server.port(), words)
    }

    fn known(&self) -> Option<usize> {
        let nodes = self.ask(&["CLUSTER", "NODES"]).ok()?.text();
        Some(nodes.lines().filter(|line| !line.contains("handshake")).count())
    }

    fn is_ok(&self) -> bool {
        let info = self.ask(&["CLUSTER", "INFO"]).map(|info| info.text());
        info.is_ok_and(|info| info.contains("cluster_state:ok"))
    }

    fn is_following(&self) -> bool {
        let role = self.ask(&["ROLE"]).ok();
        role.is_some_and(|role| role.items().get(3).is_some_and(|state| state.text() == "connected"))
    }
}

/// The port of the primary of a slot in the answer to CLUSTER SLOTS.
fn owner_of(slots: &Answer, slot: i64) -> Option<u16> {
    let mut ranges = slots.items().iter();
    let range = ranges.find(|range| match range.items() {
        [Answer::Number(first), Answer::Number(last), ..] => (*first..=*last).contains(&slot),
        _ => false,
    })?;
    range.items().get(2)?.items().get(1)?.text().parse().ok()
}
