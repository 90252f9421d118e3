//! A child process with all that it starts: one process group.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use bytes::BytesMut;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::warden::Warden;

/// A line of its standard error is cut here.
const SAID_BYTES: usize = 4 << 10;

/// A running child. Dropped, it and all of its group are killed at once; so are they when it has ended by itself. If this
/// process is killed, its warden sees to that.
pub(super) struct Group {
    child: Child,
    warden: Warden,
    leader: Option<Pid>,
    /// Reads its standard error; ends with this.
    _said: JoinSet<()>,
}

impl Group {
    /// Starts `sh -c command` as the leader of a group of its own: what a terminal sends to the processor, as by Ctrl-C, does
    /// not end it in the midst of a message.
    pub(super) fn start(command: &str, warden: &Warden) -> std::io::Result<(Self, ChildStdin, ChildStdout)> {
        let mut child = Command::new("sh")
            .args(["-c", command])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let id = child.id();
        let leader = id.and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let ends = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let mut said = JoinSet::new();
        if let Some(leader) = leader {
            warden.watch(leader.as_raw_nonzero());
        }
        let group = |said| Self {
            child,
            warden: warden.clone(),
            leader,
            _said: said,
        };
        match ends {
            (Some(stdin), Some(stdout), Some(stderr)) => {
                said.spawn(log(stderr, id.unwrap_or(0)));
                Ok((group(said), stdin, stdout))
            }
            _ => Err(std::io::Error::other("a child without its pipes")),
        }
    }

    /// Its process id, for the log.
    pub(super) fn id(&self) -> i32 {
        self.leader.map_or(0, |leader| leader.as_raw_nonzero().get())
    }

    /// Waits for the end of the child that was started; others of its group may still be there.
    ///
    /// # Cancellation
    /// Safe.
    pub(super) async fn wait(&mut self) -> std::io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Waits so long for it to end, then asks it to by SIGTERM and waits again; in the end all of the group is killed.
    pub(super) async fn end(mut self, by_itself: Duration, grace: Duration) {
        if timeout(by_itself, self.child.wait()).await.is_err() {
            self.signal(Signal::TERM);
            // Whether it heard or not: dropping kills what is left.
            let _ = timeout(grace, self.child.wait()).await;
        }
        self.kill().await;
    }

    /// Kills all of the group, and takes its exit status, so that no zombie stays.
    pub(super) async fn kill(&mut self) {
        self.signal(Signal::KILL);
        if let Err(error) = self.child.wait().await {
            tracing::debug!(%error, "can't wait for a handler's end");
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some(leader) = self.leader {
            // An error says that nobody is left. The group lives as long as anybody is in it, so its number is not
            // another's, but for one that gets the number in the moment since the last of this group ended.
            let _ = kill_process_group(leader, signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        if let Some(leader) = self.leader {
            self.warden.forget(leader.as_raw_nonzero());
        }
    }
}

/// Passes on what a child says on its standard error.
async fn log(mut from: impl AsyncRead + Unpin, id: u32) {
    let mut heard = BytesMut::new();
    // In the midst of a line whose beginning was told.
    let mut is_cut = false;
    loop {
        let read = from.read_buf(&mut heard).await.unwrap_or(0);
        while let Some(end) = heard.iter().position(|byte| *byte == b'\n') {
            let line = heard.split_to(end + 1);
            if !std::mem::take(&mut is_cut) {
                say(&line[..end], id);
            }
        }
        if heard.len() > SAID_BYTES || (read == 0 && !heard.is_empty()) {
            if !std::mem::replace(&mut is_cut, true) {
                say(&heard[..heard.len().min(SAID_BYTES)], id);
            }
            heard.clear();
        }
        if read == 0 {
            return;
        }
    }
}

fn say(line: &[u8], id: u32) {
    let cut = &line[..line.len().min(SAID_BYTES)];
    tracing::info!(pid = id, "handler: {}", String::from_utf8_lossy(cut).trim_end());
}
