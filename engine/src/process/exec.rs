//! A handler in any language: long-lived children that get a message a line and answer with a line.
//!
//! A child is started when there is a message for it. It reads JSON objects from its standard input, one a line, and
//! writes one for each to its standard output; docs/guide/handlers.md has the protocol. What a child had when it ended, or
//! said something that is no answer, fails and is tried again by the processor's rules, and another child takes its place.
//!
//! A child ends when its standard input does. So none outlives its processor, even one that is killed by `kill -9`, unless it
//! does not look.

use std::fmt;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use conga_core::message::Payload;
use futures_util::future::BoxFuture;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::seat::{Job, Key, Seat};
use super::{HandlerError, Message};

mod group;
mod line;
mod seat;

/// Which children to start, and how they are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecOptions {
    /// What to run, as `sh -c` takes it.
    pub command: String,
    /// How many children there are at most.
    pub workers: usize,
    /// How many messages each of them has at once. With more than one it has to say which one it answers.
    pub at_once: usize,
    /// How long a child may have a message. Then it is killed with all that it has started. `None`: as long as it wants.
    pub timeout: Option<Duration>,
    /// How long a child that is told to end has to do so, before it is killed.
    pub grace: Duration,
}

impl ExecOptions {
    /// One child that does one message after the other.
    pub fn new(command: impl Into<String>) -> Self {
        Self {
            command: command.into(),
            workers: 1,
            at_once: 1,
            timeout: None,
            grace: Duration::from_secs(1),
        }
    }
}

/// The handler. Clones share the children.
///
/// # Cancellation
/// A message that is given up, as by a time-out layer, ends its child as if it were late: whatever the child does, it must not
/// go on for ever unseen.
#[derive(Clone)]
pub struct Exec(Arc<Pool>);

struct Pool {
    options: Arc<ExecOptions>,
    /// As many as can be with children at once.
    room: Arc<Semaphore>,
    seats: Mutex<Seats>,
    /// Told when all is over.
    closed: watch::Sender<bool>,
}

#[derive(Default)]
struct Seats {
    list: Vec<Taken>,
    /// What keeps each of them. Dropped with the last handle, and all children with it.
    keepers: JoinSet<()>,
}

/// A seat as those see it who bring messages.
struct Taken {
    jobs: mpsc::UnboundedSender<Job>,
    given_up: mpsc::UnboundedSender<Key>,
    load: usize,
    /// Until when no child is started here: one is about to end, or the ones before died at once.
    rests: watch::Receiver<Instant>,
}

impl Exec {
    /// The handler that these options describe. Nothing is started yet.
    pub fn new(options: ExecOptions) -> Self {
        let (workers, at_once) = (options.workers.max(1), options.at_once.max(1));
        let room = workers.saturating_mul(at_once).min(Semaphore::MAX_PERMITS);
        let options = ExecOptions {
            workers,
            at_once,
            ..options
        };
        Self(Arc::new(Pool {
            options: Arc::new(options),
            room: Arc::new(Semaphore::new(room)),
            seats: Mutex::default(),
            closed: watch::Sender::new(false),
        }))
    }

    /// Ends the children gently: closes their standard input, waits for them, and kills those that take too long. What they
    /// still had has failed. Without it the children are killed when the last handle is dropped.
    ///
    /// # Cancellation
    /// The children are ended all the same.
    pub async fn close(&self) {
        self.0.room.close();
        self.0.closed.send_replace(true);
        let mut keepers = std::mem::take(&mut self.0.seats().keepers);
        while keepers.join_next().await.is_some() {}
    }

    async fn run(self, message: Message) -> Result<Payload, HandlerError> {
        let closed = || HandlerError::passing("the processor ends");
        let line = line::question(&message)?;
        let _room = self.0.room.acquire().await.map_err(|_| closed())?;
        let key = (message.position, message.attempt);
        let (reply, answer) = oneshot::channel();
        let mut turn = Turn {
            pool: &self.0,
            seat: self.0.pick(),
            key,
            is_open: true,
        };
        let job = Job {
            key,
            id: message.id,
            line,
            reply,
        };
        if !self.0.give(turn.seat, job) {
            return Err(closed());
        }
        let answer = answer.await;
        turn.is_open = false;
        answer.unwrap_or_else(|_| Err(closed()))
    }
}

impl Pool {
    fn seats(&self) -> MutexGuard<'_, Seats> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Which child gets the next message: one that has none; else a new one; else the one that has the fewest. There is room.
    fn pick(&self) -> usize {
        let now = Instant::now();
        let mut seats = self.seats();
        let with_room = seats.list.iter().enumerate();
        let with_room = with_room.filter(|(_, seat)| seat.load < self.options.at_once);
        let best = with_room.min_by_key(|(_, seat)| (*seat.rests.borrow() > now, seat.load));
        let idle = best.filter(|(_, seat)| seat.load == 0 && *seat.rests.borrow() <= now);
        let index = match (idle, best) {
            (Some((index, _)), _) => index,
            (None, Some((index, _))) if seats.list.len() >= self.options.workers => index,
            _ => {
                let (jobs, brought) = mpsc::unbounded_channel();
                let (given_up, lost) = mpsc::unbounded_channel();
                let (rest, rests) = watch::channel(now);
                let seat = Seat::new(self.options.clone(), brought, lost, rest);
                seats.keepers.spawn(seat.keep(self.closed.subscribe()));
                seats.list.push(Taken {
                    jobs,
                    given_up,
                    load: 0,
                    rests,
                });
                seats.list.len() - 1
            }
        };
        seats.list[index].load += 1;
        index
    }

    fn give(&self, seat: usize, job: Job) -> bool {
        self.seats().list[seat].jobs.send(job).is_ok()
    }
}

/// A message that is with a child.
struct Turn<'a> {
    pool: &'a Pool,
    seat: usize,
    key: Key,
    /// Nobody has heard of its end.
    is_open: bool,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let seat = &mut self.pool.seats().list[self.seat];
        seat.load -= 1;
        if self.is_open {
            // A keeper that is gone has killed its child.
            let _ = seat.given_up.send(self.key);
        }
    }
}

impl fmt::Debug for Exec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Exec").field(&self.0.options).finish()
    }
}

impl tower::Service<Message> for Exec {
    type Response = Payload;
    type Error = HandlerError;
    type Future = BoxFuture<'static, Result<Payload, HandlerError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), HandlerError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, message: Message) -> Self::Future {
        Box::pin(self.clone().run(message))
    }
}

/// Never ends, unless told that all is over.
async fn is_over(closed: &mut watch::Receiver<bool>) {
    // Without a sender the pool is gone, and this task with it.
    if closed.wait_for(|closed| *closed).await.is_err() {
        poll_fn(|_| Poll::<()>::Pending).await;
    }
}
