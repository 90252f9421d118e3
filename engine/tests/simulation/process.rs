//! A process that can be killed between any two of its turns, and stopped and continued as by SIGSTOP and SIGCONT.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use futures_util::future::BoxFuture;
use tokio::time::{Instant, Sleep, sleep_until};

/// What is to happen to one process. Clones are of the same process.
#[derive(Debug, Clone, Default)]
pub(crate) struct Control(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    stands_until: Option<Instant>,
    turns_left: Option<u64>,
    /// A part of it has ended it.
    killed: bool,
    /// Who is to see that.
    watcher: Option<Waker>,
}

impl Control {
    /// It stands still until then.
    pub(crate) fn pause(&self, until: Instant) {
        let stands_until = &mut self.0.lock().unwrap().stands_until;
        *stands_until = (*stands_until).max(Some(until));
    }

    /// It is gone after so many more turns.
    pub(crate) fn crash(&self, turns: u64) {
        self.0.lock().unwrap().turns_left = Some(turns);
    }

    /// It is gone, by its own doing.
    pub(crate) fn kill(&self) {
        let mut state = self.0.lock().unwrap();
        state.killed = true;
        if let Some(watcher) = state.watcher.take() {
            watcher.wake();
        }
    }

    pub(crate) fn is_killed(&self) -> bool {
        self.0.lock().unwrap().killed
    }

    /// A crash that has not come yet never does.
    pub(crate) fn spare(&self) {
        self.0.lock().unwrap().turns_left = None;
    }

    /// Until when it stands still, if it does.
    pub(crate) fn stands_until(&self) -> Option<Instant> {
        let now = Instant::now();
        self.0.lock().unwrap().stands_until.filter(|until| now < *until)
    }

    fn is_gone(&self) -> bool {
        let state = self.0.lock().unwrap();
        state.killed || state.turns_left == Some(0)
    }

    fn watch(&self, watcher: &Waker) {
        self.0.lock().unwrap().watcher = Some(watcher.clone());
    }

    fn took_a_turn(&self) {
        if let Some(turns) = &mut self.0.lock().unwrap().turns_left {
            *turns = turns.saturating_sub(1);
        }
    }
}

/// A part of a process: it takes no turn while the process stands still. Its timers fire late then, as they do.
pub(crate) struct Part<T> {
    control: Control,
    inner: BoxFuture<'static, T>,
    standing: Option<Pin<Box<Sleep>>>,
}

impl<T> Part<T> {
    pub(crate) fn new(control: Control, inner: impl Future<Output = T> + Send + 'static) -> Self {
        Self {
            control,
            inner: Box::pin(inner),
            standing: None,
        }
    }
}

impl<T> Future for Part<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        while let Some(until) = self.control.stands_until() {
            let standing = self.standing.insert(Box::pin(sleep_until(until)));
            if standing.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
        self.standing = None;
        // What is gone takes no turn; it is about to be dropped.
        if self.control.is_gone() {
            return Poll::Pending;
        }
        self.inner.as_mut().poll(cx)
    }
}

/// How a process ended.
#[derive(Debug)]
pub(crate) enum End<T> {
    Returned(T),
    Crashed,
    Panicked,
}

/// A process as a whole: what it was doing is dropped where it crashes.
pub(crate) struct Process<T>(Option<Part<T>>);

impl<T> Process<T> {
    pub(crate) fn new(control: Control, inner: impl Future<Output = T> + Send + 'static) -> Self {
        Self(Some(Part::new(control, inner)))
    }
}

impl<T> Future for Process<T> {
    type Output = End<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<End<T>> {
        let Some(part) = &mut self.0 else {
            return Poll::Pending;
        };
        let control = part.control.clone();
        control.watch(cx.waker());
        if !control.is_gone() {
            if control.stands_until().is_none() {
                control.took_a_turn();
            }
            let end = match catch_unwind(AssertUnwindSafe(|| Pin::new(part).poll(cx))) {
                Ok(Poll::Ready(value)) => Some(End::Returned(value)),
                Ok(Poll::Pending) => None,
                Err(_) => Some(End::Panicked),
            };
            if let Some(end) = end {
                self.0 = None;
                return Poll::Ready(end);
            }
        }
        if control.is_gone() {
            self.0 = None;
            return Poll::Ready(End::Crashed);
        }
        Poll::Pending
    }
}
