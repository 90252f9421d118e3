//! One attempt at a message: the handler runs, and what it comes to is how the lease ends.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use conga_core::lease::{Attempt, Held};
use conga_core::message::{Body, Input, Payload, Record, Reject, identify};
use conga_core::partition::{Claim, Completion, OnDead};
use conga_core::retry::Backoff;
use tokio::time::Instant;

use super::away::Away;
use super::{BATCH_BYTES, Handled, Handler, HandlerError, Message, apart};
use crate::ledger::SharedLedger;
use crate::random::Random;

/// How a lease ends, before the store is told.
pub(super) struct Ended {
    pub(super) completion: Completion,
    /// The ledger holds this result: it is not to be recorded there once more.
    pub(super) recorded: bool,
    /// The how manieth attempt that counts this was: by it a failure that is still to come is judged.
    pub(super) tries: Attempt,
}

impl From<Completion> for Ended {
    fn from(completion: Completion) -> Self {
        Self {
            tries: completion.held().attempt,
            completion,
            recorded: false,
        }
    }
}

/// What came of trying to do something at once.
pub(super) enum Tried<F> {
    Done(Ended),
    Panicked,
    Waits(F),
}

/// Does what needs to wait for nothing, as long as there is time. What waits is polled again where somebody hears of it.
pub(super) fn at_once<F: Future<Output = Ended> + Unpin>(mut work: F, until: Instant) -> Tried<F> {
    if Instant::now() >= until {
        return Tried::Waits(work);
    }
    let tried = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        match Pin::new(&mut work).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(ended) => {
                drop(work);
                Tried::Done(ended)
            }
            Poll::Pending => Tried::Waits(work),
        }
    }));
    tried.unwrap_or(Tried::Panicked)
}

pub(super) fn held(claim: &Claim) -> Held {
    Held {
        position: claim.position,
        attempt: claim.attempt,
    }
}

/// What becomes of a failure.
#[derive(Clone)]
pub(super) struct Policy {
    pub(super) backoff: Backoff,
    pub(super) on_dead: OnDead,
    pub(super) random: Random,
}

/// Runs the handler and says how the lease ends. A panic in it is a failure like any other. What is recorded `before`
/// spares it.
pub(super) async fn handle<H: Handler>(
    handler: H,
    claim: Claim,
    input: Input,
    policy: Policy,
    (before, away): (SharedLedger, Away),
) -> Ended {
    let mut record = record_of(&claim, &input);
    if let Some(payload) = apart::recall(&before, &away, &policy.random, &claim, &record.id).await {
        record.body = Body::Result(payload);
        return Completion::Done(record).into();
    }
    let message = Message {
        position: claim.position,
        id: input.id,
        sequence: record.sequence,
        key: input.key,
        payload: input.payload,
        attempt: claim.attempt,
        created: record.created,
        processing: record.processing,
    };
    // The call itself is inside too: it may panic before there is a future.
    let handled = std::panic::AssertUnwindSafe(async move { handler.process(message).await });
    let error = match futures_util::FutureExt::catch_unwind(handled).await {
        Ok(Ok(Handled::Recorded(held))) => {
            apart::suspect(&record, &held);
            return Ended {
                completion: Completion::Done(apart::at(&record, held)),
                recorded: true,
                tries: claim.tries,
            };
        }
        Ok(Ok(Handled::InStep(payload))) => {
            record.body = Body::Result(payload);
            return Ended {
                completion: Completion::Done(record),
                recorded: false,
                tries: claim.tries,
            };
        }
        Ok(Ok(Handled::Result(payload))) => {
            if let Some(error) = too_large(&payload) {
                error
            } else {
                record.body = Body::Result(payload);
                return Completion::Done(record).into();
            }
        }
        Ok(Err(error)) => error,
        Err(_) => HandlerError::passing("the handler panicked"),
    };
    fail(held(&claim), claim.tries, record, error, &policy).into()
}

/// A result that does not fit into a batch will not the next time either.
pub(crate) fn too_large(result: &Payload) -> Option<HandlerError> {
    let size = result.size();
    (size > BATCH_BYTES)
        .then(|| HandlerError::permanent(format!("the result has {size} bytes, the limit is {BATCH_BYTES}")))
}

/// What becomes of a failure: another attempt, or the end.
/// `tries` is the how manieth attempt that counts this was.
pub(super) fn fail(at: Held, tries: Attempt, mut record: Record, error: HandlerError, policy: &Policy) -> Completion {
    let delay = (!error.permanent)
        .then(|| {
            policy
                .backoff
                .delay_asked_us(tries, policy.random.draw(), error.retry_after)
        })
        .flatten();
    if let Some(delay_us) = delay {
        // Without any it would have been given back, and not have failed.
        let delay_us = delay_us.max(1);
        tracing::debug!(position = %at.position, attempt = %at.attempt, delay_us, %error, "failed, will be tried again");
        return Completion::Retry { held: at, delay_us };
    }
    tracing::warn!(position = %at.position, attempts = %at.attempt, %error, "failed for good");
    record.body = Body::Dead { reason: error.reason };
    Completion::Dead {
        tombstone: record,
        on_dead: policy.on_dead,
    }
}

/// What is recorded of a message, as long as it has no result.
pub(super) fn record_of(claim: &Claim, input: &Input) -> Record {
    Record {
        id: input.id.clone(),
        sequence: input.sequence,
        key: input.key.clone(),
        created: input.created.unwrap_or(claim.claimed),
        ..claim.record(Body::Dead { reason: String::new() })
    }
}

/// The tombstone of an entry that is no message, under the id that it has all the same.
pub(super) fn unreadable(claim: &Claim, reject: &Reject) -> Record {
    tracing::warn!(position = %claim.position, reason = %reject, "not a message; kept as a dead letter");
    let reason = reject.to_string();
    Record {
        id: identify(&claim.entry, claim.position),
        ..claim.record(Body::Dead { reason })
    }
}
