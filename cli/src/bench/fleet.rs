//! Real processes: this same program, started as services.

use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use conga::core::shape::{Order, Shape};
use conga::ledger::LedgerUrl;
use conga::line::Line;
use conga::store::{OpenOptions, StoreUrl};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use super::network::Network;
use super::place::Place;
use super::proxy::Proxy;
use crate::args::Delivery;

/// How long a service may take to start, or to end when it is told to.
const PATIENCE: Duration = Duration::from_mins(1);

/// What a member of the fleet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Processor,
    Sequencer,
}

/// One process.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) role: Role,
    /// Its name towards the store.
    pub(crate) owner: String,
    /// Its way to the store, where the network is part of the run.
    pub(crate) proxy: Option<Arc<Proxy>>,
    child: Child,
    /// Open as long as this program lives: its end tells the service to end.
    _tie: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
}

/// The processes of one run. Dropped, they are killed.
#[derive(Debug, Default)]
pub(crate) struct Fleet {
    pub(crate) members: Vec<Member>,
}

/// How processors are started.
#[derive(Debug, Clone)]
pub(crate) struct Work {
    /// How every process opens the store.
    pub(crate) options: OpenOptions,
    pub(crate) handler: String,
    /// How it is asked, as it is typed.
    pub(crate) handling: Vec<String>,
    pub(crate) concurrency: usize,
    pub(crate) window: u64,
    /// Where they record.
    pub(crate) record: LedgerUrl,
    /// Each process reaches the store through a proxy of its own.
    pub(crate) network: Option<Arc<Network>>,
}

impl Fleet {
    /// Starts services of both kinds and waits until all of them work.
    pub(crate) async fn start(
        place: &Place,
        work: &Work,
        processors: usize,
        sequencers: usize,
    ) -> anyhow::Result<Self> {
        let mut fleet = Self::default();
        let roles =
            std::iter::repeat_n(Role::Sequencer, sequencers).chain(std::iter::repeat_n(Role::Processor, processors));
        let mut starting = Vec::new();
        for role in roles {
            starting.push(Member::spawn(&place.url, &place.line, work, role).await?);
        }
        for member in starting {
            fleet.members.push(member.ready().await?);
        }
        Ok(fleet)
    }

    /// Kills the first member that `which` names, with SIGKILL, and waits until it is gone. Its name, if there was one.
    pub(crate) async fn kill(&mut self, which: impl Fn(&Member) -> bool) -> anyhow::Result<Option<String>> {
        let Some(index) = self.members.iter().position(which) else {
            return Ok(None);
        };
        let mut member = self.members.swap_remove(index);
        member.child.kill().await.context("can't kill a service")?;
        Ok(Some(member.owner))
    }

    /// Tells one member to end, and gives it away: [`Member::ended`] requires that it does so cleanly.
    pub(crate) fn dismiss(&mut self, owner: &str) -> anyhow::Result<Option<Member>> {
        let Some(index) = self.members.iter().position(|member| member.owner == owner) else {
            return Ok(None);
        };
        let member = self.members.swap_remove(index);
        member.signal(Signal::TERM)?;
        Ok(Some(member))
    }

    /// Stops a member where it stands, or lets it go on. Whether there is such a member.
    pub(crate) fn pause(&self, owner: &str, paused: bool) -> anyhow::Result<bool> {
        let signal = if paused { Signal::STOP } else { Signal::CONT };
        match self.members.iter().find(|member| member.owner == owner) {
            Some(member) => member.signal(signal).map(|()| true),
            None => Ok(false),
        }
    }

    /// Tells all to end, and requires that they do so cleanly.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        for member in &self.members {
            member.signal(Signal::TERM)?;
        }
        for member in &mut self.members {
            member.ended().await?;
        }
        Ok(())
    }
}

impl Member {
    /// Starts a service; [`Member::ready`] waits until it works.
    pub(crate) async fn spawn(url: &StoreUrl, line: &Line, work: &Work, role: Role) -> anyhow::Result<Self> {
        let (proxy, url) = match &work.network {
            Some(network) => {
                let (proxy, url) = network.join().await?;
                (Some(proxy), url)
            }
            None => (None, url.clone()),
        };
        let program = std::env::current_exe().context("can't find this program to start it as a service")?;
        let mut command = Command::new(program);
        match role {
            Role::Processor => command
                .arg("process")
                .args(["--handler", &work.handler])
                .args(&work.handling)
                .args(["--concurrency", &work.concurrency.to_string()])
                // What came out is compared with it.
                .args(["--keep-records", "all", "--keep-dead", "all"]),
            Role::Sequencer => command.arg("sequence"),
        };
        command
            .args(["--window", &work.window.to_string()])
            .args(["--store", &url.to_string()])
            .args(["--replicas", &work.options.replicas.to_string()])
            .args(["--delivery", Delivery::of(work.options.delivery).name()])
            .args(["--line", line.name()])
            .args(ordering(work.options.shape))
            .args(partitions(work.options.shape))
            .args(["--json", "--tied"])
            // Not as an argument, which everybody can see: it may hold a password.
            .env("CONGA_RECORD", work.record.exposed())
            .env(
                "CONGA_LOG",
                std::env::var("CONGA_LOG").unwrap_or_else(|_| "error".to_owned()),
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().context("can't start a service")?;
        let stdout = child.stdout.take().context("a service without standard output")?;
        Ok(Self {
            role,
            owner: String::new(),
            proxy,
            _tie: child.stdin.take(),
            child,
            lines: BufReader::new(stdout).lines(),
        })
    }

    /// Its process, as long as that was not waited for.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Whether it is gone, and how it ended.
    pub(crate) fn gone(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        self.child.try_wait().context("can't tell whether a service is there")
    }

    pub(crate) async fn ready(mut self) -> anyhow::Result<Self> {
        let Ok(line) = timeout(PATIENCE, self.lines.next_line()).await else {
            bail!("a service did not start in {} s", PATIENCE.as_secs());
        };
        let Some(line) = line? else {
            bail!("a service ended at its start; what it says is above");
        };
        let ready: serde_json::Value = serde_json::from_str(&line).with_context(|| format!("a service said {line}"))?;
        ready["owner"]
            .as_str()
            .context("a service without a name")?
            .clone_into(&mut self.owner);
        Ok(self)
    }

    /// Waits for its end, which must be a clean one.
    pub(crate) async fn ended(&mut self) -> anyhow::Result<()> {
        match self.end().await? {
            status if status.success() => Ok(()),
            status => bail!("{} ended with {status}", self.owner),
        }
    }

    /// Waits for its end, whatever that is.
    pub(crate) async fn end(&mut self) -> anyhow::Result<ExitStatus> {
        match timeout(PATIENCE, self.child.wait()).await {
            Ok(status) => Ok(status?),
            Err(_) => bail!("{} did not end in {} s", self.owner, PATIENCE.as_secs()),
        }
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let id = self
            .child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(Pid::from_raw);
        match id {
            Some(id) => Ok(kill_process(id, signal)?),
            None => bail!("{} had ended before it was told to", self.owner),
        }
    }
}

/// How a service is told in how many partitions the line is.
fn partitions(shape: Option<Shape>) -> Vec<String> {
    let several = shape.filter(|shape| shape.partitions.get() > 1);
    several.map_or_else(Vec::new, |shape| {
        vec!["--partitions".to_owned(), shape.partitions.to_string()]
    })
}

/// How a service is told what the line is.
fn ordering(shape: Option<Shape>) -> &'static [&'static str] {
    match shape.map(|shape| shape.order) {
        None => &[],
        Some(Order::Total) => &["--order", "total"],
        Some(Order::None) => &["--order", "none"],
        Some(Order::Key { serial: false }) => &["--order", "key"],
        Some(Order::Key { serial: true }) => &["--order", "key", "--per-key", "serial"],
    }
}
