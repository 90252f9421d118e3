//! A handler in any language: long-lived children that get a message a line and answer with a line.
//!
//! A child is started when there is a message for it, or ahead of all messages. It reads JSON objects from its standard input, one a line, and
//! writes one for each to its standard output; docs/guide/handlers.md has the protocol. What a child had when it ended, or
//! said something that is no answer, fails and is tried again by the processor's rules, and another child takes its place.
//!
//! A child ends when its standard input does. One that does not look is killed with all that it has started, also when the
//! processor was killed by `kill -9`.

use std::fmt;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use conga_core::message::Payload;
use futures_util::future::{BoxFuture, join_all};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::seat::{Job, Key, Seat};
use self::warden::Warden;
use super::{HandlerError, Message};

mod group;
mod line;
mod seat;
mod warden;

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
    /// Children say `{"ready":true}` before they get messages, and have so long to do it. `None`: they get messages at once.
    pub ready: Option<Duration>,
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
            ready: None,
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
    warden: Warden,
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
            warden: Warden::default(),
            room: Arc::new(Semaphore::new(room)),
            seats: Mutex::default(),
            closed: watch::Sender::new(false),
        }))
    }

    /// Starts all children now, rather than each when there is a message for it. Where they say when they are ready, it waits
    /// until each of them has said so or has ended.
    ///
    /// # Cancellation
    /// What is started stays.
    pub async fn start(&self) {
        let starting = self.0.start();
        if self.0.options.ready.is_some() {
            // Without its sender a child is gone.
            join_all(starting).await;
        }
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
                self.open(&mut seats, None);
                seats.list.len() - 1
            }
        };
        seats.list[index].load += 1;
        index
    }

    /// Starts as many children as there may be. Each tells when it is ready.
    fn start(&self) -> Vec<oneshot::Receiver<()>> {
        let mut seats = self.seats();
        let missing = self.options.workers - seats.list.len().min(self.options.workers);
        let starting = (0..missing).map(|_| {
            let (ready, is_ready) = oneshot::channel();
            self.open(&mut seats, Some(ready));
            is_ready
        });
        starting.collect()
    }

    /// Another seat; with someone to tell when it is ready, its child is started at once.
    fn open(&self, seats: &mut Seats, ahead: Option<oneshot::Sender<()>>) {
        let (jobs, brought) = mpsc::unbounded_channel();
        let (given_up, lost) = mpsc::unbounded_channel();
        let (rest, rests) = watch::channel(Instant::now());
        let seat = Seat::new(self.options.clone(), self.warden.clone(), brought, lost, rest);
        seats.keepers.spawn(seat.keep(ahead, self.closed.subscribe()));
        seats.list.push(Taken {
            jobs,
            given_up,
            load: 0,
            rests,
        });
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
