//! The yardstick on Redis: blocking, as one client that has nothing else to do.

use std::collections::VecDeque;
use std::time::Duration;

use ::redis::{Cmd, Connection, Value, cmd};
use anyhow::{Context as _, bail};
use bytes::Bytes;
use conga::line::Line;

use super::{Received, id_of};
use crate::bench::usage::Moment;

/// So many messages in each step, where nothing else was said.
const BATCH: u16 = 100;
/// So many requests are on their way at once, so that the server does not wait for the client. The answers come in
/// the order of the requests, and the fence is looked at in each, so a later one can't count without an earlier one.
const AHEAD: usize = 10;
/// How long one who finds nothing waits: asking all the while would take the server's time from those who work.
const PAUSE: Duration = Duration::from_micros(300);
/// The fence's value.
const FENCE: &str = "1";

/// The keys of a run, all behind the tag of its line.
#[derive(Debug)]
pub(crate) struct Keys {
    input: String,
    flight: String,
    record: String,
    out: String,
    fence: String,
}

impl Keys {
    pub(super) fn of(line: &Line) -> Self {
        let key = |name: &str| format!("{{{}}}:limit:{name}", line.tag());
        Self {
            input: key("in"),
            flight: key("flight"),
            record: key("record"),
            out: key("out"),
            fence: key("fence"),
        }
    }

    fn all(&self) -> [&str; 5] {
        [&self.input, &self.flight, &self.record, &self.out, &self.fence]
    }
}

/// A connection with the scripts loaded.
pub(crate) struct Hand {
    connection: Connection,
    keys: std::sync::Arc<Keys>,
    claim: String,
    commit: String,
    packed: Vec<u8>,
    batch: usize,
}

/// What an answer belongs to.
#[derive(Debug, Clone, Copy)]
enum Asked {
    Claim,
    Commit(usize),
}

impl Hand {
    pub(super) fn connect(url: &str, keys: &std::sync::Arc<Keys>) -> anyhow::Result<Self> {
        let client = ::redis::Client::open(url)
            .with_context(|| format!("the yardstick needs a single server, as in redis://HOST:PORT; {url} is none"))?;
        let mut connection = client
            .get_connection()
            .with_context(|| format!("can't connect to {url}"))?;
        let mut load = |script: &str| {
            cmd("SCRIPT")
                .arg("LOAD")
                .arg(script)
                .query::<String>(&mut connection)
                .context("can't load the yardstick's script")
        };
        Ok(Self {
            claim: load(include_str!("claim.lua"))?,
            commit: load(include_str!("commit.lua"))?,
            connection,
            keys: keys.clone(),
            packed: Vec::new(),
            batch: usize::from(BATCH),
        })
    }

    pub(super) fn taking(self, batch: Option<u16>) -> Self {
        Self {
            batch: usize::from(batch.unwrap_or(BATCH)),
            ..self
        }
    }

    pub(super) fn set_up(&mut self) -> anyhow::Result<()> {
        self.clear()?;
        cmd("SET")
            .arg(&self.keys.fence)
            .arg(FENCE)
            .exec(&mut self.connection)
            .context("can't write to the server")
    }

    pub(super) fn records(&mut self) -> anyhow::Result<u64> {
        Ok(cmd("HLEN").arg(&self.keys.record).query(&mut self.connection)?)
    }

    pub(super) fn clear(&mut self) -> anyhow::Result<()> {
        let keys = self.keys.clone();
        Ok(cmd("UNLINK").arg(&keys.all()).exec(&mut self.connection)?)
    }

    pub(super) fn produce(&mut self, entries: &[Bytes]) -> anyhow::Result<()> {
        let mut asked = 0;
        for batch in entries.chunks(self.batch) {
            let mut push = cmd("LPUSH");
            push.arg(&self.keys.input);
            for entry in batch {
                push.arg(entry.as_ref());
            }
            self.pack(&push);
            self.send()?;
            asked += 1;
            if asked == AHEAD {
                self.answer()?;
                asked -= 1;
            }
        }
        for _ in 0..asked {
            self.answer()?;
        }
        Ok(())
    }

    pub(super) fn work(&mut self, messages: u64) -> anyhow::Result<()> {
        let mut asked = VecDeque::new();
        for _ in 0..AHEAD {
            self.pack_claim(&mut asked);
        }
        self.send()?;
        let mut committed = 0;
        while let Some(what) = asked.pop_front() {
            let answer = self.answer()?;
            match (what, answer) {
                (Asked::Commit(count), Value::Int(1)) => committed += count as u64,
                (Asked::Commit(_), _) => bail!("the yardstick's fence was changed by somebody else"),
                (Asked::Claim, Value::Array(entries)) => {
                    self.pack_commit(&entries, &mut asked)?;
                    self.pack_claim(&mut asked);
                    self.send()?;
                }
                (Asked::Claim, _) if committed < messages => {
                    // What is on its way besides is looked at first.
                    if asked.iter().all(|asked| matches!(asked, Asked::Claim)) {
                        std::thread::sleep(PAUSE);
                    }
                    self.pack_claim(&mut asked);
                    self.send()?;
                }
                (Asked::Claim, _) => {}
            }
        }
        Ok(())
    }

    pub(super) fn consume(&mut self, messages: u64) -> anyhow::Result<Received> {
        let mut lines = Vec::with_capacity(usize::try_from(messages)?);
        let mut pop = cmd("RPOP");
        pop.arg(&self.keys.out).arg(self.batch);
        let pop = pop.get_packed_command();
        while (lines.len() as u64) < messages {
            self.packed.extend_from_slice(&pop);
            self.send()?;
            let popped = match self.answer()? {
                Value::Array(popped) => popped,
                _ => Vec::new(),
            };
            let count = popped.len();
            for line in popped {
                match line {
                    Value::BulkString(line) => lines.push(Bytes::from(line)),
                    other => bail!("the yardstick's output holds {other:?}"),
                }
            }
            if count < self.batch && (lines.len() as u64) < messages {
                std::thread::sleep(PAUSE);
            }
        }
        Ok(Received {
            at: Some(Moment::now()),
            lines,
        })
    }

    fn pack_claim(&mut self, asked: &mut VecDeque<Asked>) {
        let mut claim = cmd("EVALSHA");
        claim
            .arg(&self.claim)
            .arg(2)
            .arg(&self.keys.input)
            .arg(&self.keys.flight)
            .arg(self.batch);
        self.pack(&claim);
        asked.push_back(Asked::Claim);
    }

    /// The handler's work is none: the entry is its own result.
    fn pack_commit(&mut self, entries: &[Value], asked: &mut VecDeque<Asked>) -> anyhow::Result<()> {
        let keys = &self.keys;
        let mut commit = cmd("EVALSHA");
        commit
            .arg(&self.commit)
            .arg(4)
            .arg(&[&keys.fence, &keys.record, &keys.out, &keys.flight])
            .arg(FENCE);
        for entry in entries {
            let Value::BulkString(entry) = entry else {
                bail!("the yardstick's claim answered {entry:?}");
            };
            commit.arg(id_of(entry)?).arg(entry);
        }
        self.pack(&commit);
        asked.push_back(Asked::Commit(entries.len()));
        Ok(())
    }

    fn pack(&mut self, command: &Cmd) {
        command.write_packed_command(&mut self.packed);
    }

    fn send(&mut self) -> anyhow::Result<()> {
        self.connection.send_packed_command(&self.packed)?;
        self.packed.clear();
        Ok(())
    }

    fn answer(&mut self) -> anyhow::Result<Value> {
        match self.connection.recv_response()? {
            Value::ServerError(error) => bail!("the server refused a step of the yardstick: {error:?}"),
            answer => Ok(answer),
        }
    }
}
