//! A primary, its replicas and the sentinels that watch them, on the loopback. They end when the value is dropped.
//!
//! As `redis_server.rs`, which it builds on: the standard library only, blocking, taken by all tests through `#[path]`.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::redis_ask::{ask, wait_until};
use super::redis_server::RedisServer;

/// How long it may take until all know each other, or until a failover.
const PATIENCE: Duration = Duration::from_secs(45);
/// What the sentinels call the primary.
const NAME: &str = "conga";
/// How many sentinels there are. Two of them decide.
const SENTINELS: usize = 3;

/// Servers under the eyes of sentinels.
#[derive(Debug)]
pub(crate) struct RedisSentinel {
    servers: Vec<RedisServer>,
    /// After the servers: they are ended first, so that nobody rewrites the configuration of the others meanwhile.
    sentinels: Vec<Sentinel>,
}

#[derive(Debug)]
struct Sentinel {
    child: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

#[allow(dead_code, reason = "not everybody who includes this uses all of it")]
impl RedisSentinel {
    /// Starts one primary, so many replicas and three sentinels that take a server for down after `down_after`, and
    /// waits until the replicas follow and all sentinels know each other. Each server gets `arguments` too.
    ///
    /// # Errors
    /// If `redis-server` is not installed, or the group does not come together.
    pub(crate) fn start(replicas: usize, down_after: Duration, arguments: &[&str]) -> io::Result<Self> {
        let mut all = vec!["--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1"];
        all.extend(arguments);
        let primary = RedisServer::start(&all)?;
        let port = primary.port().to_string();
        let mut servers = vec![primary];
        for _ in 0..replicas {
            let replica = RedisServer::start(&all)?;
            ask(replica.port(), &["REPLICAOF", "127.0.0.1", &port])?;
            servers.push(replica);
        }
        let mut group = Self {
            servers,
            sentinels: Vec::new(),
        };
        for replica in 1..=replicas {
            let port = group.servers[replica].port();
            wait_until("a replica follows", PATIENCE, || is_following(port))?;
        }
        for _ in 0..SENTINELS {
            group
                .sentinels
                .push(Sentinel::start(group.servers[0].port(), down_after)?);
        }
        let ports: Vec<u16> = group.sentinels.iter().map(|sentinel| sentinel.port).collect();
        for port in ports {
            wait_until("a sentinel knows the others", PATIENCE, || knows(port, replicas))?;
        }
        Ok(group)
    }

    /// The URL with the sentinels.
    pub(crate) fn url(&self) -> String {
        let hosts: Vec<String> = self
            .sentinels
            .iter()
            .map(|sentinel| format!("127.0.0.1:{}", sentinel.port))
            .collect();
        format!("redis+sentinel://{}/{NAME}", hosts.join(","))
    }

    /// Which of the servers most sentinels call the primary.
    ///
    /// # Errors
    /// If no server is called so by two of them.
    pub(crate) fn primary(&self) -> io::Result<usize> {
        let mut votes = vec![0; self.servers.len()];
        for sentinel in &self.sentinels {
            let place = ask(sentinel.port, &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME]);
            let port = place.ok().and_then(|place| Some(place.items().get(1)?.text()));
            let voted = self
                .servers
                .iter()
                .position(|server| Some(server.port().to_string()) == port);
            if let Some(server) = voted {
                votes[server] += 1;
            }
        }
        let found = votes.iter().position(|votes| *votes * 2 > SENTINELS);
        found.ok_or_else(|| io::Error::other("the sentinels do not agree about the primary"))
    }

    /// Waits until another server than `old` writes as the primary; says which, and when that was seen.
    ///
    /// # Errors
    /// If none does in time.
    pub(crate) fn promoted(&self, old: usize) -> io::Result<(usize, Instant)> {
        let mut found = None;
        wait_until("another server is promoted", PATIENCE, || {
            let mut others = (0..self.servers.len()).filter(|server| *server != old);
            found = others.find(|server| role(self.servers[*server].port()).is_some_and(|role| role == "master"));
            found.is_some()
        })?;
        found
            .map(|server| (server, Instant::now()))
            .ok_or_else(|| io::Error::other("no server was promoted"))
    }

    /// Waits until most sentinels call the same server the primary and so many replicas follow it; says which, and when
    /// that was seen. It need not be the one that was promoted first: sentinels may think better of it.
    ///
    /// # Errors
    /// If that does not come to be in time.
    pub(crate) fn settled(&self, replicas: usize) -> io::Result<(usize, Instant)> {
        let mut found = None;
        let settled = wait_until("replicas follow the primary", PATIENCE, || {
            found = self.primary().ok().filter(|primary| {
                let role = ask(self.port(*primary), &["ROLE"]).ok();
                role.is_some_and(|role| {
                    let followers = role.items().get(2).map_or(0, |followers| followers.items().len());
                    role.items().first().is_some_and(|role| role.text() == "master") && followers >= replicas
                })
            });
            found.is_some()
        });
        let roles = || -> Vec<_> {
            let ports = self.servers.iter().map(RedisServer::port);
            ports.map(|port| (port, ask(port, &["ROLE"]))).collect()
        };
        match (settled, found) {
            (Ok(()), Some(primary)) => Ok((primary, Instant::now())),
            (settled, _) => {
                let error = settled.err().unwrap_or_else(|| io::Error::other("there is no primary"));
                Err(io::Error::new(
                    error.kind(),
                    format!("{error}; the servers say {:?}", roles()),
                ))
            }
        }
    }

    /// Starts a server again and lets it follow another at once. Sentinels would take some ten seconds for that.
    ///
    /// # Errors
    /// If it does not come up, or refuses.
    pub(crate) fn start_again(&mut self, server: usize, primary: usize) -> io::Result<()> {
        let port = self.servers[primary].port().to_string();
        self.servers[server].start_again()?;
        ask(self.servers[server].port(), &["REPLICAOF", "127.0.0.1", &port]).map(drop)
    }

    /// A server's port on the loopback.
    pub(crate) fn port(&self, server: usize) -> u16 {
        self.servers[server].port()
    }

    /// A server.
    pub(crate) fn server(&mut self, server: usize) -> &mut RedisServer {
        &mut self.servers[server]
    }

    /// Ends one of the sentinels, by SIGKILL.
    ///
    /// # Errors
    /// If it can't be killed.
    pub(crate) fn kill_sentinel(&mut self, sentinel: usize) -> io::Result<()> {
        let child = &mut self.sentinels[sentinel].child;
        child.kill()?;
        child.wait().map(drop)
    }
}

impl Sentinel {
    fn start(primary: u16, down_after: Duration) -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("conga-sentinel-").tempdir()?;
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let file = folder.path().join("sentinel.conf");
        let down_after = down_after.as_millis();
        let text = format!(
            "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor {NAME} 127.0.0.1 {primary} 2\n\
             sentinel down-after-milliseconds {NAME} {down_after}\nsentinel failover-timeout {NAME} 10000\n\
             sentinel parallel-syncs {NAME} 2\n",
            folder.path().display()
        );
        std::fs::write(&file, text)?;
        let child = Command::new(super::redis_server::program())
            .arg(&file)
            .arg("--sentinel")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let sentinel = Self {
            child,
            port,
            _folder: folder,
        };
        wait_until("a sentinel answers", PATIENCE, || ask(port, &["PING"]).is_ok())?;
        Ok(sentinel)
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn role(port: u16) -> Option<String> {
    let role = ask(port, &["ROLE"]).ok()?;
    Some(role.items().first()?.text())
}

fn is_following(port: u16) -> bool {
    let role = ask(port, &["ROLE"]).ok();
    role.is_some_and(|role| role.items().get(3).is_some_and(|state| state.text() == "connected"))
}

/// Whether a sentinel knows the replicas and its fellows.
fn knows(port: u16, replicas: usize) -> bool {
    let count = |what: &str| ask(port, &["SENTINEL", what, NAME]).map_or(0, |list| list.items().len());
    count("REPLICAS") >= replicas && count("SENTINELS") >= SENTINELS - 1
}
