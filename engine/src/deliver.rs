//! Deliver: the outputs, in their order, to whoever consumes the line: one consumer at a time, with others standing by.

use std::collections::{HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use bytes::Bytes;
use conga_core::lease::OwnerId;
use conga_core::message::Position;
use conga_core::partition::{ReceiveRequest, Received};
use conga_core::term::Reign;
use tokio::time::sleep_until;

use self::seat::Seat;

use crate::fits::Portions;
use crate::pace::Pace;
use crate::persist::persist;
use crate::random::Random;
use crate::store::{Result, SharedStore, StoreError};
use crate::wake::{Listener, Topic};

pub(crate) mod seat;
mod stream;

pub use stream::Batches;

/// Some outputs, oldest first. They stay in the line until they are acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Batch {
    /// Each one line of JSON.
    pub outputs: Vec<Bytes>,
    /// How many more there were that had been acknowledged before: the store has come back older than it was. They are
    /// left out, and taken off again.
    pub repeated: usize,
    /// The position of the last one.
    last: Option<Position>,
    /// What tells each of them from all others.
    identities: Vec<Option<u64>>,
    /// Batches are numbered as they are handed out: the positions of outputs need not ascend.
    number: u64,
}

impl Batch {
    /// Leaves only the first `count` outputs: the others are handed out again once these are acknowledged.
    pub fn truncate(&mut self, count: usize) {
        if count < self.outputs.len() {
            self.outputs.truncate(count);
            self.identities.truncate(count);
            self.last = self.outputs.last().and_then(|output| position_of(output));
        }
    }
}

/// Reads a line's output. Of all consumers of a line one is active at a time, and the others stand by: when it ends, dies
/// or hangs, another is active and is handed out what the first has not acknowledged.
///
/// The store is asked for that from the first call of [`Consumer::next`] on, and from then until the consumer is dropped
/// or finished, by a task on the tokio runtime: also while the caller writes down what it was handed out.
#[derive(Debug)]
pub struct Consumer {
    store: SharedStore,
    owner: OwnerId,
    seat: Option<Seat>,
    hints: Listener,
    /// Acknowledged here, and not known to be so in the store: the last output of a batch, and the batch's number.
    written: Option<Written>,
    /// The number of the last batch.
    number: u64,
    acknowledged: Acknowledged,
    portions: Portions,
    pace: Pace,
    random: Random,
}

/// The position at the beginning of an output.
pub fn position_of(output: &[u8]) -> Option<Position> {
    let digits = output.strip_prefix(b"{\"position\":")?;
    let end = digits.iter().position(|byte| !byte.is_ascii_digit())?;
    std::str::from_utf8(&digits[..end]).ok()?.parse().ok().map(Position)
}

/// What was acknowledged last. Of two the later one counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Written {
    number: u64,
    last: Position,
}

impl Batch {
    fn written(&self) -> Option<Written> {
        let number = self.number;
        self.last.map(|last| Written { number, last })
    }
}

impl Consumer {
    /// A consumer of the line that `store` was opened for.
    pub fn new(store: SharedStore) -> Self {
        let random = Random::default();
        Self {
            hints: store.wakes().listen(&[Topic::Output]),
            store,
            owner: OwnerId::new(random.name("consumer")),
            seat: None,
            written: None,
            number: 0,
            acknowledged: Acknowledged::default(),
            portions: Portions::new(),
            pace: Pace::new(),
            random,
        }
    }

    /// The same, with its name and its jitter drawn from `random`.
    pub fn with_random(self, random: Random) -> Self {
        let owner = OwnerId::new(random.name("consumer"));
        Self { owner, random, ..self }
    }

    /// Its name towards the store.
    pub fn owner(&self) -> &OwnerId {
        &self.owner
    }

    /// Who is the active consumer, if this one stands by.
    pub fn stands_by_for(&self) -> Option<OwnerId> {
        self.seat.as_ref().and_then(Seat::other)
    }

    /// The next outputs, at most `max`: at once if there are any, else as soon as there are, and as soon as this is the
    /// active consumer. What
    /// [`Consumer::acknowledge`] was told is taken off in the same step.
    ///
    /// # Errors
    /// Only what no repetition can help; while the store is away it goes on trying.
    ///
    /// # Cancellation
    /// Safe: what was not acknowledged is handed out again.
    pub async fn next(&mut self, max: usize) -> Result<Batch> {
        loop {
            sleep_until(self.pace.due()).await;
            let reign = self.seat().reign().await?;
            self.pace.asked();
            let asked = self.portions.count();
            let Some(batch) = self.receive(&reign, max).await? else {
                continue;
            };
            self.pace.answered(!batch.outputs.is_empty());
            if batch.outputs.len() >= max.min(asked) {
                self.pace.hurry();
            }
            if !batch.outputs.is_empty() {
                return Ok(batch);
            }
            self.hints.heard().await;
        }
    }

    /// As [`Consumer::next`], but with nothing to receive the batch is empty, and so it is if another consumer stays the
    /// active one: then [`Consumer::stands_by_for`] says who. One that is gone is waited for a second at most.
    ///
    /// # Errors
    /// As [`Consumer::next`].
    pub async fn try_next(&mut self, max: usize) -> Result<Batch> {
        while let Some(reign) = self.seat().reign_soon().await? {
            if let Some(batch) = self.receive(&reign, max).await? {
                return Ok(batch);
            }
        }
        Ok(Batch::default())
    }

    fn seat(&mut self) -> &mut Seat {
        self.seat
            .get_or_insert_with(|| Seat::ask(self.store.clone(), self.owner.clone()))
    }

    /// What there is, without what was acknowledged before; nothing, if the store calls the reign outdated.
    async fn receive(&mut self, reign: &Reign, max: usize) -> Result<Option<Batch>> {
        let mut repeated = 0;
        loop {
            let Some(mut batch) = self.ask(reign, max).await? else {
                self.seat().lost(reign).await;
                return Ok(None);
            };
            let count = batch.outputs.len();
            batch.identities = batch.outputs.iter().map(|output| identity_of(output)).collect();
            if batch
                .identities
                .iter()
                .flatten()
                .any(|known| self.acknowledged.has(*known))
            {
                let pairs = batch.outputs.drain(..).zip(batch.identities.drain(..));
                let is_news = |identity: &Option<u64>| identity.is_none_or(|identity| !self.acknowledged.has(identity));
                (batch.outputs, batch.identities) = pairs.filter(|(_, identity)| is_news(identity)).unzip();
            }
            let again = count - batch.outputs.len();
            repeated += again;
            if count == 0 || !batch.outputs.is_empty() {
                batch.repeated = repeated;
                return Ok(Some(batch));
            }
            tracing::warn!(
                again,
                "what was acknowledged is there still: the store has come back older than it was, or another consumer was \
                 the active one before it was told; it is taken off again"
            );
            self.written = batch.written();
        }
    }

    async fn ask(&mut self, reign: &Reign, max: usize) -> Result<Option<Batch>> {
        let (store, acknowledge) = (self.store.clone(), self.written.map(|written| written.last));
        let portions = &self.portions;
        let ask = || {
            let request = ReceiveRequest {
                reign: Some(reign.clone()),
                acknowledge,
                skip: 0,
                max: portions.count().min(max).max(1),
            };
            let store = store.clone();
            async move { store.receive(&request).await }
        };
        let failed = |error: &StoreError| portions.failed(error);
        let Received::Outputs(outputs) = persist("receive", &self.random, ask, failed).await? else {
            // What is written and not acknowledged is said again when this is the active consumer again.
            return Ok(None);
        };
        // Said again to a store that went back it might mean what nobody has seen.
        self.written = None;
        self.portions.came(&outputs);
        let last = outputs.last().and_then(|output| position_of(output));
        self.number += 1;
        Ok(Some(Batch {
            outputs,
            last,
            number: self.number,
            ..Batch::default()
        }))
    }

    /// Says that a batch is written down. The store hears of it with the next call of [`Consumer::next`], or by
    /// [`Consumer::finish`].
    pub fn acknowledge(&mut self, batch: &Batch) {
        self.written = self.written.max(batch.written());
        self.acknowledged.add(&batch.identities);
    }

    /// Takes off the output what is acknowledged, and lets another be the active consumer. If it has lost its place
    /// meanwhile, as after some seconds without the store, it waits until it has it again.
    ///
    /// # Errors
    /// As [`Consumer::next`]; and if another consumer stays the active one: then what is acknowledged is handed out again.
    pub async fn finish(mut self) -> Result<()> {
        let Some(mut seat) = self.seat.take() else {
            return Ok(());
        };
        while let Some(Written { last: written, .. }) = self.written {
            let Some(reign) = seat.reign_soon().await? else {
                let other = seat
                    .other()
                    .map_or_else(|| "another".to_owned(), |other| other.to_string());
                seat.leave().await;
                return Err(StoreError::Broken(format!(
                    "{other} receives this line by now, so what was written last could not be acknowledged: up to \
                     position {written} it is handed out again"
                )));
            };
            let request = ReceiveRequest {
                reign: Some(reign.clone()),
                acknowledge: Some(written),
                skip: 0,
                max: 0,
            };
            match persist("receive", &self.random, || self.store.receive(&request), |_| ()).await? {
                Received::Outputs(_) => self.written = None,
                Received::Fenced { .. } => seat.lost(&reign).await,
            }
        }
        seat.leave().await;
        Ok(())
    }
}

/// What was acknowledged lately: a store that comes back older than it was hands it out again, maybe at other positions.
#[derive(Debug, Default)]
struct Acknowledged {
    known: HashSet<u64>,
    /// The same, in the order in which it was acknowledged.
    order: VecDeque<u64>,
}

/// So many are remembered; what goes back further comes out again.
const REMEMBERED: usize = 10_000;

impl Acknowledged {
    fn add(&mut self, identities: &[Option<u64>]) {
        for identity in identities.iter().flatten() {
            if self.known.insert(*identity) {
                self.order.push_back(*identity);
            }
        }
        while self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    fn has(&self, identity: u64) -> bool {
        self.known.contains(&identity)
    }
}

/// What tells an output from all others. A result: the id that its message was given, for there is one result an id. A
/// tombstone may be followed by a result of the same id; and who was given no id has its position for one, at which
/// another may come to stand. Both are told by all that they say, the times among it. What may be another rather comes
/// twice than never.
fn identity_of(output: &[u8]) -> Option<u64> {
    let position = output.strip_prefix(b"{\"position\":")?;
    let digits = position.iter().position(|byte| !byte.is_ascii_digit())?;
    let start = output.len() - position[digits..].strip_prefix(b",\"id\":\"")?.len();
    let mut escaped = false;
    let length = output[start..].iter().position(|byte| {
        let ends = *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        ends
    })?;
    let mut hasher = DefaultHasher::new();
    let (id, rest) = output[start..].split_at(length);
    // The first of these is none of a payload's, nor inside of a key: there the quotes have a backslash before them.
    let body = rest
        .windows(8)
        .find(|part| [&b",\"payloa"[..], b",\"dead\":"].contains(part));
    if id.starts_with(b"@") || body != Some(b",\"payloa") {
        // Without the times of its delivery, which it may get anew.
        let delivery = b",\"sequencing\":";
        let end = output.windows(delivery.len()).rposition(|part| part == delivery)?;
        output[..end].hash(&mut hasher);
    } else {
        id.hash(&mut hasher);
    }
    Some(hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(position: u64, id: &str, processed: u32, sequenced: u32) -> Bytes {
        format!(
            "{{\"position\":{position},\"id\":\"{id}\",\"payload\":\",\\\"sequencing\\\":\",\"processed\":{processed},\
             \"sequencing\":{sequenced},\"sequenced\":{sequenced}}}"
        )
        .into()
    }

    /// By their outputs.
    impl Acknowledged {
        fn add_all(&mut self, outputs: &[Bytes]) {
            let identities: Vec<_> = outputs.iter().map(|output| identity_of(output)).collect();
            self.add(&identities);
        }

        fn knows(&self, output: &[u8]) -> bool {
            identity_of(output).is_some_and(|identity| self.has(identity))
        }
    }

    #[test]
    fn what_was_acknowledged_is_known_again_and_nothing_else() {
        let mut acknowledged = Acknowledged::default();
        acknowledged.add_all(&[output(1, "a", 5, 6), output(2, "b\\\"", 5, 6)]);
        assert!(acknowledged.knows(&output(2, "b\\\"", 5, 6)));
        assert!(
            acknowledged.knows(&output(3, "a", 7, 8)),
            "sent again, it came to stand elsewhere"
        );
        assert!(!acknowledged.knows(&output(2, "b", 5, 6)));
    }

    /// Found by a review: by position and id alone, what a plain LPUSH puts in the place of what the store has lost was
    /// taken for what had stood there, and nobody ever saw it.
    #[test]
    fn without_a_given_id_another_message_at_the_same_position_is_another() {
        let mut acknowledged = Acknowledged::default();
        acknowledged.add_all(&[output(1, "@1", 5, 6)]);
        assert!(acknowledged.knows(&output(1, "@1", 5, 9)), "delivered again");
        assert!(
            !acknowledged.knows(&output(1, "@1", 7, 9)),
            "processed later: another, or the same once more"
        );
    }

    /// Found by the simulation (seed 23 of that time).
    #[test]
    fn a_result_that_follows_a_tombstone_of_the_same_id_is_another() {
        let mut acknowledged = Acknowledged::default();
        let tombstone = |position: u64| -> Bytes {
            format!(
                "{{\"position\":{position},\"id\":\"a\",\"key\":\"\\\",\\\"payload\",\"dead\":{{\"reason\":\"no\"}},\"processed\":1,\
                 \"sequencing\":1}}"
            )
            .into()
        };
        acknowledged.add_all(&[tombstone(1)]);
        assert!(acknowledged.knows(&tombstone(1)));
        assert!(!acknowledged.knows(&tombstone(2)) && !acknowledged.knows(&output(2, "a", 5, 6)));
        let payload = b"{\"position\":3,\"id\":\"b\",\"payload\":{\"x\":1,\"dead\":{\"reason\":\"\"}},\"processed\":1,\"sequencing\":1}";
        let again = b"{\"position\":4,\"id\":\"b\",\"payload\":2,\"processed\":2,\"sequencing\":2}";
        acknowledged.add_all(&[Bytes::from_static(payload)]);
        assert!(
            acknowledged.knows(again),
            "a payload that looks like a tombstone is none"
        );
    }

    #[test]
    fn so_many_are_remembered_and_no_more() {
        let mut acknowledged = Acknowledged::default();
        let all: Vec<Bytes> = (0..=REMEMBERED as u64)
            .map(|at| output(at, &format!("m{at}"), 1, 1))
            .collect();
        acknowledged.add_all(&all);
        assert_eq!(
            (acknowledged.known.len(), acknowledged.order.len()),
            (REMEMBERED, REMEMBERED)
        );
        assert!(!acknowledged.knows(&all[0]) && acknowledged.knows(&all[1]));
    }

    #[test]
    fn an_output_begins_with_its_position() {
        assert_eq!(position_of(b"{\"position\":12,\"id\":\"x\"}"), Some(Position(12)));
        assert_eq!(position_of(b"{\"position\":}"), None);
        assert_eq!(position_of(b"garbage"), None);
    }
}
