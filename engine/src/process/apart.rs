//! With a ledger apart from the store: what is recorded there goes first, and is what gets delivered.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use conga_core::lease::Attempt;
use conga_core::message::{Body, Entry, Id, Input, Payload, Record};
use conga_core::partition::{Claim, Completion};
use sha2::{Digest as _, Sha256};

use super::attempt::Ended;
use super::away::Away;
use crate::ledger::{Kept, SharedLedger};
use crate::persist::persist;
use crate::random::Random;
use crate::store::Result;

/// A suspicion is told so often at most.
const SUSPECT: Duration = Duration::from_secs(10);
static SAID: Mutex<Option<Instant>> = Mutex::new(None);
/// So many bytes of a digest tell two messages at one position apart.
const DIGEST: usize = 8;

/// Gives a message without an id one that outlives its store. A position alone does not: in a line that is made anew, or
/// has come back older than it was, another message has it, and would be given the result of the first. So it is the position
/// and what came in, as in `@17-9f86d081884c7d65`.
pub(super) fn identify(input: &mut Input, claim: &Claim) {
    let Entry::Whole(entry) = &claim.entry else { return };
    if input.id.is_of_position() {
        let digest = Sha256::digest(entry);
        let digest = digest[..DIGEST].iter().map(|byte| format!("{byte:02x}"));
        input.id = Id::given(format!("{}-{}", input.id, digest.collect::<String>()));
    }
}

/// What another attempt has recorded, and did not live to tell the store of. Not asked for at a first attempt.
pub(super) async fn recall(
    ledger: &SharedLedger,
    away: &Away,
    random: &Random,
    claim: &Claim,
    id: &Id,
) -> Option<Payload> {
    if claim.attempt <= Attempt(1) || !ledger.is_apart() {
        return None;
    }
    let ids = [id.clone()];
    let _looking = away.look();
    let held = persist("look", random, || ledger.look(&ids), |_| away.gives_trouble()).await;
    away.answers();
    match held {
        Ok(held) => match held.into_iter().flatten().next()?.body {
            Body::Result(payload) => Some(payload),
            Body::Dead { .. } => None,
        },
        Err(error) => {
            // Whoever records next is told the same, and ends by it.
            tracing::debug!(%error, "can't look into the system of record");
            None
        }
    }
}

/// Records the results of a batch, and puts in their place what the ledger holds. Repeated until it answers.
pub(super) async fn record(
    ledger: &SharedLedger,
    away: &Away,
    random: &Random,
    mut batch: Vec<Ended>,
) -> Result<Vec<Completion>> {
    if ledger.is_apart() {
        spare(ledger, away, random, &mut batch).await?;
        let results: Vec<Record> = batch
            .iter_mut()
            .filter_map(unrecorded)
            .map(|record| record.clone())
            .collect();
        if !results.is_empty() {
            let kept = persist("record", random, || ledger.record(&results), |_| away.gives_trouble()).await?;
            away.answers();
            for (record, kept) in batch.iter_mut().filter_map(unrecorded).zip(kept) {
                if let Kept::Other(held) = kept {
                    suspect(record, &held);
                    *record = at(record, held);
                }
            }
        }
    }
    Ok(batch.into_iter().map(|ended| ended.completion).collect())
}

/// A message that failed for good may have a result: of an earlier attempt, recorded meanwhile; of another message with its id; or
/// from before its store came back older than it was, and then this is a first attempt. That stands. Dead letters are rare.
async fn spare(ledger: &SharedLedger, away: &Away, random: &Random, batch: &mut [Ended]) -> Result<()> {
    let completions = batch.iter_mut().map(|ended| &mut ended.completion);
    let doubtful: Vec<&mut Completion> = completions
        .filter(|completion| matches!(completion, Completion::Dead { .. }))
        .collect();
    let ids: Vec<Id> = doubtful
        .iter()
        .filter_map(|completion| id(completion))
        .cloned()
        .collect();
    if ids.is_empty() {
        return Ok(());
    }
    let held = persist("look", random, || ledger.look(&ids), |_| away.gives_trouble()).await?;
    away.answers();
    for (completion, held) in doubtful.into_iter().zip(held) {
        if let (Completion::Dead { tombstone, .. }, Some(held)) = (&*completion, held) {
            *completion = Completion::Done(at(tombstone, held));
        }
    }
    Ok(())
}

/// At a first attempt another's result is the one of another message: with the same id, and well so, or of another line of the
/// same name. Only a person can tell.
pub(super) fn suspect(record: &Record, held: &Record) {
    if record.attempts > Attempt(1) || record.created == held.created {
        return;
    }
    let now = Instant::now();
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    if said.is_none_or(|said| now.duration_since(said) >= SUSPECT) {
        *said = Some(now);
        tracing::warn!(
            id = %record.id,
            created = %record.created,
            recorded = %held.created,
            "another message with this id is recorded already, and its result is delivered; if none was sent twice, and the \
             store did not come back older than it was, then another line of the same name records in this database: give each a \
             name of its own"
        );
    }
}

/// What was held, as the result of this message: its place and its lease are its own, and to a store the time of the claim is a
/// part of the lease.
pub(super) fn at(here: &Record, held: Record) -> Record {
    Record {
        position: here.position,
        attempts: here.attempts,
        processing: here.processing,
        ..held
    }
}

/// A result that the ledger has to be told of.
fn unrecorded(ended: &mut Ended) -> Option<&mut Record> {
    match &mut ended.completion {
        Completion::Done(record) if !ended.recorded => Some(record),
        _ => None,
    }
}

fn id(completion: &Completion) -> Option<&Id> {
    match completion {
        Completion::Done(record) | Completion::Dead { tombstone: record, .. } => Some(&record.id),
        Completion::Retry { .. } => None,
    }
}
