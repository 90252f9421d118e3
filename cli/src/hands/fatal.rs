//! A handler with poison: some messages kill the process that has them.

use std::sync::Arc;

use conga::core::message::Payload;
use conga::ledger::SharedLedger;
use conga::process::{Handled, Handler, HandlerError, Message, SharedEffects};

/// Another handler, after whose work the process aborts where the payload is a text that begins as told.
#[derive(Clone)]
pub(super) struct Fatal<H> {
    pub(super) inner: H,
    pub(super) at: Option<Arc<str>>,
}

impl<H> Fatal<H> {
    fn is_fatal(&self, message: &Message) -> bool {
        let text = message.payload.text();
        self.at
            .as_deref()
            .is_some_and(|at| text.strip_prefix('"').is_some_and(|text| text.starts_with(at)))
    }
}

impl<H: Handler> Handler for Fatal<H> {
    async fn handle(self, message: Message) -> Result<Payload, HandlerError> {
        self.inner.handle(message).await
    }

    async fn process(self, message: Message) -> Result<Handled, HandlerError> {
        let is_fatal = self.is_fatal(&message);
        let handled = self.inner.process(message).await;
        if is_fatal {
            std::process::abort();
        }
        handled
    }

    fn ledger(&self) -> Option<SharedLedger> {
        self.inner.ledger()
    }

    fn effects(&self) -> Option<SharedEffects> {
        self.inner.effects()
    }
}
