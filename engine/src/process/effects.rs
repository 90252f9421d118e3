//! Effects that a store runs itself: a handler's own writes, in the step that completes its message.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use conga_core::lease::{Attempt, Held, OwnerId};
use conga_core::message::Record;
use conga_core::partition::{Completed, Completion};

use super::HandlerError;
use super::attempt::{Ended, Policy, fail};
use super::work::Told;
use crate::claim::Claimer;
use crate::persist::persist;
use crate::store::{Result, StoreError};

/// What a failure becomes by the processor's policy: another attempt, or the end.
pub type Fail = Arc<dyn Fn(Record, HandlerError) -> Completion + Send + Sync>;

/// Shared effects.
pub type SharedEffects = Arc<dyn Effects>;

/// What completes messages by doing their work, in one step of their store.
#[async_trait]
pub trait Effects: Debug + Send + Sync {
    /// Ends leases as [`crate::store::Store::complete`] does (law 2), of the first of `completions`, at least of one: a step is
    /// not to take long. A [`Completion::Done`] bears the message's own payload; where its lease still counts and its id has no
    /// result yet, its effect runs, and what that answers is its result, or its failure. Told is what each became, and the answer.
    ///
    /// # Errors
    /// As of any step; then nothing counts, and it may be repeated (law 4).
    ///
    /// # Cancellation
    /// As any step.
    async fn complete(
        &self,
        owner: &OwnerId,
        completions: &[Completion],
        fail: &Fail,
    ) -> Result<Vec<(Completion, Completed)>>;
}

/// Has the effects of a batch run, in as many steps as they take. Each is repeated until the store answers: what counted already
/// is stale then, and its effect does not run again.
pub(super) async fn complete(
    effects: &SharedEffects,
    policy: Policy,
    claimer: &Claimer,
    batch: Vec<Ended>,
) -> Result<Told> {
    let tries: HashMap<Held, Attempt> = (batch.iter())
        .map(|ended| (ended.completion.held(), ended.tries))
        .collect();
    let batch: Vec<Completion> = batch.into_iter().map(|ended| ended.completion).collect();
    let fail: Fail = Arc::new(move |record: Record, error| {
        let held = Held {
            position: record.position,
            attempt: record.attempts,
        };
        let tries = tries.get(&held).copied().unwrap_or(held.attempt);
        fail(held, tries, record, error, &policy)
    });
    let mut told = Told {
        completions: Vec::with_capacity(batch.len()),
        answers: Vec::with_capacity(batch.len()),
        failed: Vec::with_capacity(batch.len()),
    };
    while told.completions.len() < batch.len() {
        let rest = &batch[told.completions.len()..];
        let step = || effects.complete(&claimer.owner, rest, &fail);
        let some = persist("complete", &claimer.random, step, |_| ()).await?;
        for (given, (became, answer)) in rest.iter().zip(some) {
            let was_done = matches!(given, Completion::Done(_));
            told.failed.push(was_done && !matches!(became, Completion::Done(_)));
            told.completions.push(became);
            told.answers.push(answer);
        }
    }
    Ok(told)
}

/// Effects record in the store, in the same step.
pub(super) fn two_records() -> StoreError {
    StoreError::Broken(
        "this handler's effects commit with the store's own record: give its processor no other ledger, or use a handler of that ledger"
            .to_owned(),
    )
}
