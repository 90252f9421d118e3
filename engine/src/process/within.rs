//! A limit of time for any handler.

use std::time::Duration;

use conga_core::message::Payload;
use tokio::time::timeout;

use super::{Handled, Handler, HandlerError, Message, SharedEffects};
use crate::ledger::SharedLedger;

/// A handler that has so much time; see [`within`].
#[derive(Debug, Clone)]
pub struct Within<H> {
    handler: H,
    limit: Option<Duration>,
}

/// The same handler, given up if it has no result within `limit`: then the attempt has failed, and it may succeed next
/// time. `None`: no limit. A `tower::timeout::Timeout` layer does the same for a handler that is a tower service.
///
/// What the handler does is dropped where it waits; what it has begun elsewhere may go on.
pub fn within<H: Handler>(handler: H, limit: Option<Duration>) -> Within<H> {
    Within { handler, limit }
}

/// The failure of what took longer than `limit`.
pub(super) fn late(limit: Duration) -> HandlerError {
    HandlerError::passing(format!("no result within {limit:?}"))
}

impl<H: Handler> Handler for Within<H> {
    async fn handle(self, message: Message) -> Result<Payload, HandlerError> {
        let work = self.handler.handle(message);
        match self.limit {
            Some(limit) => timeout(limit, work).await.unwrap_or_else(|_| Err(late(limit))),
            None => work.await,
        }
    }

    async fn process(self, message: Message) -> Result<Handled, HandlerError> {
        let work = self.handler.process(message);
        match self.limit {
            Some(limit) => timeout(limit, work).await.unwrap_or_else(|_| Err(late(limit))),
            None => work.await,
        }
    }

    fn ledger(&self) -> Option<SharedLedger> {
        self.handler.ledger()
    }

    fn effects(&self) -> Option<SharedEffects> {
        self.handler.effects()
    }
}

#[cfg(test)]
mod tests {
    use conga_core::lease::Attempt;
    use conga_core::message::{Id, Position};
    use conga_core::time::Micros;
    use tokio::time::Instant;

    use super::*;
    use crate::process::sleep;

    fn message() -> Message {
        Message {
            position: Position(1),
            id: Id::given("a"),
            sequence: None,
            key: None,
            payload: Payload::string("x"),
            attempt: Attempt(1),
            created: Micros(1),
            processing: Micros(2),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_takes_too_long_has_failed_for_now_and_nothing_else_has() {
        let second = Duration::from_secs(1);
        let slow = || sleep(second, second);
        let limit = second / 2;
        let began = Instant::now();
        let late = within(slow(), Some(limit)).handle(message()).await;
        assert_eq!(late, Err(HandlerError::passing("no result within 500ms")));
        let late = within(slow(), Some(limit)).process(message()).await;
        assert!(late.is_err_and(|error| !error.permanent));
        assert_eq!(began.elapsed(), 2 * limit, "it is not waited for any longer");
        for limit in [Some(2 * second), None] {
            let result = within(slow(), limit).handle(message()).await;
            assert_eq!(result.unwrap().text(), "\"x\"");
        }
    }
}
