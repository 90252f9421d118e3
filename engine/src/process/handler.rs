//! The handler: what a message is processed by.

use std::convert::Infallible;
use std::time::Duration;

use conga_core::lease::Attempt;
use conga_core::message::{Id, Payload, Position, Record};
use conga_core::time::Micros;

use super::effects::SharedEffects;
use crate::ledger::SharedLedger;

/// A message as a handler sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its place in the order.
    pub position: Position,
    /// Its identity. A handler with effects of its own uses it to make them idempotent (G5).
    pub id: Id,
    /// The producer's own number, if it gave one.
    pub sequence: Option<u64>,
    /// The key, if the producer gave one.
    pub key: Option<String>,
    /// What is to be processed.
    pub payload: Payload,
    /// The how manieth attempt this is.
    pub attempt: Attempt,
    /// When the producer made it; where it did not say, when it was claimed.
    pub created: Micros,
    /// When it was claimed.
    pub processing: Micros,
}

/// What a handler came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Handled {
    /// A result, to be recorded.
    Result(Payload),
    /// The system of record holds this already, as the result of this message: recorded by the handler itself, or there
    /// before.
    Recorded(Record),
    /// Nothing yet: the store runs the handler's effect in the step that completes the message, whose payload this is. Only for
    /// a handler that has [`Handler::effects`].
    InStep(Payload),
}

/// Why a handler has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct HandlerError {
    /// What to tell a person.
    pub reason: String,
    /// Whether trying again can't help.
    pub permanent: bool,
    /// It is not to be tried again sooner than after this, up to [`ASKED_MOST`](conga_core::retry::ASKED_MOST).
    pub retry_after: Option<Duration>,
}

impl HandlerError {
    /// It may succeed next time.
    pub fn passing(reason: impl ToString) -> Self {
        Self {
            reason: reason.to_string(),
            permanent: false,
            retry_after: None,
        }
    }

    /// It never will.
    pub fn permanent(reason: impl ToString) -> Self {
        Self {
            reason: reason.to_string(),
            permanent: true,
            retry_after: None,
        }
    }

    /// The same, and if it is tried again, not sooner than after `least`.
    pub fn after(self, least: Duration) -> Self {
        Self {
            retry_after: Some(least),
            ..self
        }
    }
}

impl From<Infallible> for HandlerError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// What a tower layer around a handler comes to, as `tower::timeout::Timeout`: it may succeed next time, unless the handler
/// itself says that it never will.
impl From<tower::BoxError> for HandlerError {
    fn from(error: tower::BoxError) -> Self {
        match error.downcast::<Self>() {
            Ok(error) => *error,
            Err(error) => Self::passing(error),
        }
    }
}

/// What any handler is: an ordinary tower service, cloned for each message. An async closure becomes one by
/// [`tower::service_fn`]; time-outs, limits and tracing are layers around it.
pub trait Handler: Clone + Send + 'static {
    /// Processes one message. May run more than once for the same message, never at the same time for the same
    /// attempt. It is first polled in the service's own task, and if it then waits, in a task of its own; one that works
    /// for long before it waits should do that by `tokio::task::spawn_blocking`.
    fn handle(self, message: Message) -> impl Future<Output = Result<Payload, HandlerError>> + Send;

    /// The same, for a handler that may have recorded its result itself. This is what a processor calls.
    fn process(self, message: Message) -> impl Future<Output = Result<Handled, HandlerError>> + Send {
        async move { self.handle(message).await.map(Handled::Result) }
    }

    /// The ledger in which it records, if it does: its processor uses the same.
    fn ledger(&self) -> Option<SharedLedger> {
        None
    }

    /// What completes its messages, where that is also what does their work. A handler around another passes this on.
    fn effects(&self) -> Option<SharedEffects> {
        None
    }
}

impl<S> Handler for S
where
    S: tower::Service<Message, Response = Payload> + Clone + Send + 'static,
    S::Error: Into<HandlerError>,
    S::Future: Send,
{
    async fn handle(self, message: Message) -> Result<Payload, HandlerError> {
        use tower::ServiceExt as _;
        self.oneshot(message).await.map_err(Into::into)
    }
}

/// Answers with the payload as it is, after a time between `least` and `most`; which, depends on the position. Zero is
/// `echo`. For benchmarks and tests.
pub fn sleep(
    least: Duration,
    most: Duration,
) -> impl tower::Service<Message, Response = Payload, Error = Infallible, Future: Send> + Clone + Send + 'static {
    let spread = most.saturating_sub(least);
    tower::service_fn(move |message: Message| async move {
        // Neighbours get times that lie far apart. Source: D. Knuth, The Art of Computer Programming 3, 6.4, on
        // multiplicative hashing by the golden ratio.
        let part = message.position.0.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 48;
        let time = least + spread.mul_f64(f64::from(u32::try_from(part).unwrap_or(0)) / 65_536.0);
        if !time.is_zero() {
            tokio::time::sleep(time).await;
        }
        Ok(message.payload)
    })
}
