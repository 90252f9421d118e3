//! A seat: one child at a time, the messages that it has, and what happens when it does not behave.

use std::collections::{BTreeMap, VecDeque};
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use conga_core::lease::Attempt;
use conga_core::message::{Id, Payload, Position};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{ChildStdin, ChildStdout};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::group::Group;
use super::line::{Answer, Lines, answer, is_ready, quote};
use super::warden::Warden;
use super::{ExecOptions, is_over};
use crate::process::within::late;
use crate::process::{BATCH_BYTES, HandlerError};

/// The longest line that is read: the largest result, and what stands around it.
const LINE_BYTES: usize = BATCH_BYTES + (1 << 20);
/// No more messages are written for a child that has so many bytes unread.
const UNREAD_BYTES: usize = 64 << 10;
/// Where children die without an answer one after the other, the second waits so long, the next ones longer.
const REST: Duration = Duration::from_millis(100);
const REST_MOST: Duration = Duration::from_secs(10);
/// What a child has said before it ended is there at once.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// One attempt at one message.
pub(super) type Key = (Position, Attempt);

/// A message for a child.
pub(super) struct Job {
    pub(super) key: Key,
    pub(super) id: Id,
    pub(super) line: Vec<u8>,
    pub(super) reply: oneshot::Sender<Result<Payload, HandlerError>>,
}

/// A message that a child has.
struct Held {
    id: Id,
    reply: oneshot::Sender<Result<Payload, HandlerError>>,
}

pub(super) struct Seat {
    options: Arc<ExecOptions>,
    warden: Warden,
    jobs: mpsc::UnboundedReceiver<Job>,
    given_up: mpsc::UnboundedReceiver<Key>,
    rest: watch::Sender<Instant>,
    held: BTreeMap<Key, Held>,
    /// When each is late; in this order.
    late: VecDeque<(Instant, Key)>,
    /// What is not written yet.
    unread: BytesMut,
    /// So many children in a row have ended without an answer.
    fruitless: u32,
    /// The child has said nothing yet.
    is_silent: bool,
    /// Until when it has to say that it is ready. `None`: it gets messages.
    ready_until: Option<Instant>,
    /// Who waits until the first child is ready.
    ahead: Option<oneshot::Sender<()>>,
    /// The message for which a child is started that is not ready.
    first: Option<Job>,
}

/// Why a child is not kept.
enum Fault {
    /// It has ended.
    Ended,
    /// It has closed the one or the other.
    Output,
    Input,
    /// It has said what is no answer.
    Nonsense(String),
    /// It was not ready in time.
    Unready,
    /// It has this for too long.
    Late(Key),
    /// Nobody waits for this any more.
    GivenUp(Key),
    /// No more messages will come.
    Over,
}

impl Seat {
    pub(super) fn new(
        options: Arc<ExecOptions>,
        warden: Warden,
        jobs: mpsc::UnboundedReceiver<Job>,
        given_up: mpsc::UnboundedReceiver<Key>,
        rest: watch::Sender<Instant>,
    ) -> Self {
        Self {
            options,
            warden,
            jobs,
            given_up,
            rest,
            held: BTreeMap::new(),
            late: VecDeque::new(),
            unread: BytesMut::new(),
            fruitless: 0,
            is_silent: true,
            ready_until: None,
            ahead: None,
            first: None,
        }
    }

    /// Keeps one child after the other, as long as there are messages; the first one ahead of all messages, if someone waits
    /// until it is ready.
    pub(super) async fn keep(mut self, ahead: Option<oneshot::Sender<()>>, mut closed: watch::Receiver<bool>) {
        self.ahead = ahead;
        loop {
            if self.ahead.is_none() {
                let job = tokio::select! {
                    biased;
                    () = is_over(&mut closed) => return,
                    job = self.jobs.recv() => job,
                };
                let Some(job) = job else { return };
                let rested = *self.rest.borrow();
                tokio::select! {
                    biased;
                    () = is_over(&mut closed) => return,
                    () = sleep_until(rested) => {}
                }
                if job.reply.is_closed() {
                    continue;
                }
                self.first = Some(job);
            }
            match Group::start(&self.options.command, &self.warden) {
                Ok((group, stdin, stdout)) => {
                    tracing::debug!(pid = group.id(), "started a handler");
                    if self.serve(group, stdin, stdout, &mut closed).await {
                        return;
                    }
                }
                Err(error) => {
                    self.fruitless = self.fruitless.saturating_add(1);
                    self.fail_all(&format!("can't start the handler: {error}"));
                }
            }
            // Whoever waits for it need not wait for another.
            self.ahead = None;
            let rest = rest_after(self.fruitless).unwrap_or_default();
            self.rest.send_replace(Instant::now() + rest);
        }
    }

    /// Until this child is no good any more. Whether all is over.
    async fn serve(
        &mut self,
        mut group: Group,
        stdin: ChildStdin,
        mut stdout: ChildStdout,
        closed: &mut watch::Receiver<bool>,
    ) -> bool {
        self.fruitless = self.fruitless.saturating_add(1);
        self.is_silent = true;
        self.ready_until = self.options.ready.map(|limit| Instant::now() + limit);
        if self.ready_until.is_none() {
            self.begin();
        }
        let mut heard = Lines::default();
        let mut stdin = Some(stdin);
        let fault = self.work(&mut group, &mut stdin, &mut stdout, &mut heard, closed).await;
        self.unread = BytesMut::new();
        drop(stdin);
        // Others, if there are any, are quicker than the next one here.
        self.rest.send_replace(Instant::now() + self.options.grace);
        let pid = group.id();
        match fault {
            Fault::Over => {
                self.fail_all("the processor ends");
                group.end(self.options.grace, self.options.grace).await;
                return true;
            }
            Fault::Ended => {
                // Others of its group may hold its standard output open.
                let status = group.wait().await;
                group.kill().await;
                let _ = timeout(LAST_WORDS, self.hear_out(&mut stdout, &mut heard)).await;
                let how = status.map_or_else(|error| error.to_string(), |status| status.to_string());
                if self.ready_until.is_some() {
                    tracing::warn!(pid, "the handler ended ({how}) before it was ready");
                } else if !self.held.is_empty() {
                    tracing::warn!(
                        pid,
                        messages = self.held.len(),
                        "the handler ended ({how}) with messages in its hands"
                    );
                }
                self.fail_all(&format!("the handler ended before it answered ({how})"));
            }
            Fault::Output => {
                // It may be about to end: how, is worth knowing.
                let status = timeout(self.options.grace, group.wait()).await;
                let how = match status {
                    Ok(Ok(status)) => format!("the handler ended before it answered ({status})"),
                    _ => "the handler closed its standard output".to_owned(),
                };
                if !self.held.is_empty() || self.ready_until.is_some() {
                    tracing::warn!(pid, messages = self.held.len(), "{how}");
                }
                self.fail_all(&how);
                group.end(Duration::ZERO, self.options.grace).await;
            }
            Fault::Input => {
                // What it has read it may still answer.
                let told = timeout(self.options.grace, self.hear_out(&mut stdout, &mut heard)).await;
                let status = match told {
                    Ok(()) => timeout(LAST_WORDS, group.wait()).await.ok().and_then(Result::ok),
                    Err(_) => None,
                };
                let how = match status {
                    Some(status) => format!("the handler ended before it answered ({status})"),
                    None => "the handler closed its standard input".to_owned(),
                };
                self.fail_all(&how);
                group.end(Duration::ZERO, self.options.grace).await;
            }
            Fault::Nonsense(what) => {
                tracing::warn!(
                    pid,
                    "{what}; ending it, since what it says next may belong to another message"
                );
                self.fail_all(&what);
                group.end(Duration::ZERO, self.options.grace).await;
            }
            Fault::Unready => {
                let limit = self.options.ready.unwrap_or_default();
                tracing::warn!(pid, "the handler was not ready within {limit:?}; ending it");
                self.fail_all(&format!("the handler was not ready within {limit:?}"));
                group.end(Duration::ZERO, self.options.grace).await;
            }
            Fault::Late(key) => {
                tracing::warn!(pid, position = %key.0, "the handler has no result in time; ending it");
                let limit = self.options.timeout.unwrap_or_default();
                self.reply(key, Err(late(limit)));
                self.fail_all("the handler was ended: it was late with another message");
                group.end(Duration::ZERO, self.options.grace).await;
            }
            Fault::GivenUp(key) => {
                tracing::debug!(pid, position = %key.0, "a message is given up; ending its handler");
                self.held.remove(&key);
                self.fail_all("the handler was ended: another message that it had was given up");
                group.end(Duration::ZERO, self.options.grace).await;
            }
        }
        false
    }

    async fn work(
        &mut self,
        group: &mut Group,
        stdin: &mut Option<ChildStdin>,
        stdout: &mut ChildStdout,
        heard: &mut Lines,
        closed: &mut watch::Receiver<bool>,
    ) -> Fault {
        loop {
            while self.late.front().is_some_and(|(_, key)| !self.held.contains_key(key)) {
                self.late.pop_front();
            }
            let (late_at, late) = self.late.front().copied().unzip();
            tokio::select! {
                biased;
                () = is_over(closed) => return Fault::Over,
                read = stdout.read_buf(heard.room()) => match read {
                    Ok(0) | Err(_) => return Fault::Output,
                    Ok(_) => if let Err(what) = self.hear(heard) {
                        return Fault::Nonsense(what);
                    }
                },
                _ = group.wait() => return Fault::Ended,
                () = until(self.ready_until) => return Fault::Unready,
                () = until(late_at) => if let Some(key) = late {
                    return Fault::Late(key);
                },
                key = self.given_up.recv() => match key {
                    Some(key) if self.held.contains_key(&key) => return Fault::GivenUp(key),
                    Some(_) => {}
                    None => return Fault::Over,
                },
                written = write(stdin, &self.unread), if !self.unread.is_empty() => match written {
                    Ok(count) => {
                        let _ = self.unread.split_to(count);
                    }
                    Err(_) => return Fault::Input,
                },
                job = self.jobs.recv(), if self.ready_until.is_none() && self.unread.len() < UNREAD_BYTES => match job {
                    Some(job) => self.take(job),
                    None => return Fault::Over,
                },
            }
        }
    }

    /// The child gets messages from now on.
    fn begin(&mut self) {
        self.ready_until = None;
        // Nobody need wait for it.
        if let Some(ready) = self.ahead.take() {
            let _ = ready.send(());
        }
        if let Some(job) = self.first.take() {
            self.take(job);
        }
    }

    /// Hands a message to the child.
    fn take(&mut self, job: Job) {
        if job.reply.is_closed() {
            return;
        }
        self.unread.extend_from_slice(&job.line);
        if let Some(limit) = self.options.timeout {
            self.late.push_back((Instant::now() + limit, job.key));
        }
        let held = Held {
            id: job.id,
            reply: job.reply,
        };
        self.held.insert(job.key, held);
    }

    /// Takes the answers out of what was heard.
    fn hear(&mut self, heard: &mut Lines) -> Result<(), String> {
        while let Some(line) = heard.next() {
            self.answered(&line)?;
        }
        if heard.rest().len() > LINE_BYTES {
            let quoted = quote(heard.rest());
            return Err(format!(
                "the handler answered with a line of more than {LINE_BYTES} bytes: {quoted}"
            ));
        }
        Ok(())
    }

    /// Hears all that the child still says.
    async fn hear_out(&mut self, stdout: &mut ChildStdout, heard: &mut Lines) {
        while let Ok(1..) = stdout.read_buf(heard.room()).await {
            if self.hear(heard).is_err() {
                return;
            }
        }
    }

    fn answered(&mut self, line: &Bytes) -> Result<(), String> {
        if std::mem::take(&mut self.is_silent) && is_ready(line) {
            self.begin();
            return Ok(());
        }
        let nonsense = |why: &str| format!("the handler answered with what is no answer ({why}): {}", quote(line));
        let answer = answer(line).map_err(|why| nonsense(&why))?;
        let key = self.meant(&answer).map_err(nonsense)?;
        self.fruitless = 0;
        self.reply(key, answer.result);
        Ok(())
    }

    /// Which message is answered.
    fn meant(&self, answer: &Answer) -> Result<Key, &'static str> {
        let mut held = self.held.iter();
        let found = match (answer.position, &answer.id) {
            // Two attempts at one message get the same result.
            (Some(position), _) => held.find(|((at, _), _)| *at == position),
            (None, Some(id)) => held.find(|(_, held)| held.id.as_str() == id),
            (None, None) if self.options.at_once == 1 => held.next(),
            (None, None) => return Err("with more than one message at once it has to name `position` or `id`"),
        };
        found.map(|(key, _)| *key).ok_or("it has no such message")
    }

    fn reply(&mut self, key: Key, result: Result<Payload, HandlerError>) {
        if let Some(held) = self.held.remove(&key) {
            // Whoever gave it up meanwhile needs no answer.
            let _ = held.reply.send(result);
        }
    }

    fn fail_all(&mut self, why: &str) {
        self.late.clear();
        if let Some(first) = self.first.take() {
            let _ = first.reply.send(Err(HandlerError::passing(why)));
        }
        for held in std::mem::take(&mut self.held).into_values() {
            let _ = held.reply.send(Err(HandlerError::passing(why)));
        }
    }
}

/// How long to wait before the next child, after so many that died without an answer.
fn rest_after(fruitless: u32) -> Option<Duration> {
    let doublings = fruitless.checked_sub(2)?;
    Some(REST.saturating_mul(1 << doublings.min(16)).min(REST_MOST))
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => pending().await,
    }
}

/// # Cancellation
/// Then nothing was written.
async fn write(stdin: &mut Option<ChildStdin>, bytes: &[u8]) -> std::io::Result<usize> {
    match stdin {
        Some(stdin) => stdin.write(bytes).await,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_that_die_at_once_are_started_more_and_more_slowly() {
        let rests: Vec<Option<Duration>> = (0..5).map(rest_after).collect();
        let ms = |ms| Some(Duration::from_millis(ms));
        assert_eq!(rests, [None, None, ms(100), ms(200), ms(400)]);
        assert_eq!(rest_after(u32::MAX), Some(REST_MOST));
    }
}
