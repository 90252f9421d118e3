//! The other processes of a measurement, which send and receive: this same program again. They get ready, begin at the
//! word, and say when they are done.

use std::fmt;
use std::process::Stdio;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use conga::line::Line;
use conga::store::StoreUrl;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use super::stages::Stages;
use super::usage::{Moment, Usage};
use super::witness::Testimony;
use crate::args::{Part as Arguments, PartRole};

/// How long a part may take to get ready, or to check what it received: it may be a million messages.
const PATIENCE: Duration = Duration::from_mins(5);

/// What is said to a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Word {
    /// Begin.
    Go,
    /// So many messages are delivered.
    Delivered(u64),
    /// The clock has stopped: check, and end.
    End,
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Go => f.write_str("go"),
            Self::Delivered(count) => write!(f, "delivered {count}"),
            Self::End => f.write_str("end"),
        }
    }
}

impl FromStr for Word {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(' ') {
            None if text == "go" => Ok(Self::Go),
            None if text == "end" => Ok(Self::End),
            Some(("delivered", count)) => count.parse().map(Self::Delivered).map_err(|_| text.to_owned()),
            _ => Err(text.to_owned()),
        }
    }
}

/// What a part says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub(crate) enum Said {
    /// It is connected and has prepared all that it can.
    Ready,
    /// Its work is done; a consumer's, when the last output was in its hands.
    Done { at: Moment },
    /// What it found in what it received.
    Checked { testimony: Testimony, stages: Box<Stages> },
}

/// A part at work. Dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) role: PartRole,
    child: Child,
    to: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Part {
    /// Starts a part and waits until it is ready.
    pub(crate) async fn start(url: &StoreUrl, replicas: usize, line: &Line, part: &Arguments) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("can't find this program to start it again")?;
        let mut command = Command::new(program);
        command
            .args(["bench", "part", &part.role.name(), "--run", &part.run])
            .args(["--messages", &part.messages.to_string()])
            .args(["--size", &part.size.to_string()])
            .args(["--keys", &part.keys.to_string()])
            .args(["--hot", &part.hot.to_string()])
            .args(["--store", &url.to_string()])
            .args(["--replicas", &replicas.to_string()])
            .args(["--line", line.name()]);
        let more = [
            ("--rate", part.rate.map(|rate| rate.to_string())),
            ("--batch", part.batch.map(|batch| batch.to_string())),
            ("--bound", part.bound.map(|bound| bound.to_string())),
        ];
        for (name, value) in more {
            if let Some(value) = value {
                command.args([name, &value]);
            }
        }
        let mut child = command
            .env(
                "CONGA_LOG",
                std::env::var("CONGA_LOG").unwrap_or_else(|_| "error".to_owned()),
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("can't start a part of the measurement")?;
        let stdout = child.stdout.take().context("a part without standard output")?;
        let mut part = Self {
            role: part.role,
            to: child.stdin.take().context("a part without standard input")?,
            child,
            lines: BufReader::new(stdout).lines(),
        };
        match timeout(PATIENCE, part.hears()).await {
            Ok(said) => match said? {
                Said::Ready => Ok(part),
                other => bail!("{} said {other:?} before it was ready", part.role.name()),
            },
            Err(_) => bail!("{} was not ready in {PATIENCE:?}", part.role.name()),
        }
    }

    pub(crate) async fn tell(&mut self, word: Word) -> anyhow::Result<()> {
        let name = self.role.name();
        self.to
            .write_all(format!("{word}\n").as_bytes())
            .await
            .with_context(|| format!("{name} has ended; what it says is above"))
    }

    /// The next thing that it says. Cancel-safe.
    pub(crate) async fn hears(&mut self) -> anyhow::Result<Said> {
        let Some(line) = self.lines.next_line().await? else {
            bail!(
                "{} has ended before its work was done; what it says is above",
                self.role.name()
            );
        };
        serde_json::from_str(&line).with_context(|| format!("{} said {line}", self.role.name()))
    }

    /// Waits until its work is done. Cancel-safe.
    pub(crate) async fn done(&mut self) -> anyhow::Result<Moment> {
        match self.hears().await? {
            Said::Done { at } => Ok(at),
            other => bail!("{} said {other:?} where it should be done", self.role.name()),
        }
    }

    pub(crate) fn usage(&self) -> Option<Usage> {
        self.child.id().and_then(Usage::of)
    }

    /// Ends it; a consumer tells what it found.
    pub(crate) async fn end(mut self) -> anyhow::Result<Option<(Testimony, Stages)>> {
        self.tell(Word::End).await?;
        let mut found = None;
        let ended = async {
            if matches!(self.role, PartRole::Consume | PartRole::LimitConsume) {
                match self.hears().await? {
                    Said::Checked { testimony, stages } => found = Some((testimony, *stages)),
                    other => bail!("{} said {other:?} where it should have checked", self.role.name()),
                }
            }
            let status = self.child.wait().await?;
            anyhow::ensure!(status.success(), "{} ended with {status}", self.role.name());
            Ok(())
        };
        match timeout(PATIENCE, ended).await {
            Ok(ended) => ended?,
            Err(_) => bail!("a part of the measurement did not end in {PATIENCE:?}"),
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_heard() {
        for word in [Word::Go, Word::Delivered(7), Word::End] {
            assert_eq!(word.to_string().parse(), Ok(word));
        }
        assert!("come".parse::<Word>().is_err());
    }
}
