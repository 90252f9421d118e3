//! Generated messages, at once or at a rate.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use conga::clock::Clock;
use conga::core::message::Payload;
use conga::core::time::Micros;
use conga::send::Outgoing;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

mod goal;

pub(crate) use goal::Goal;

/// At most so many messages in one step.
const BATCH: u64 = 1_000;
/// How often a load with a rate looks whether something is due.
const TICK: Duration = Duration::from_millis(1);
/// How the payload of a poison begins.
pub(crate) const POISON: &str = "poison";

/// When a load ends.
#[derive(Debug, Clone)]
pub(crate) enum Until {
    Count(u64),
    Elapsed(Duration),
    /// Until it is told to, or so much time has passed.
    Told(CancellationToken, Duration),
}

/// A stream of messages with identities of their own: another run's are others.
#[derive(Debug)]
pub(crate) struct Load {
    until: Until,
    /// Messages per second.
    rate: Option<f64>,
    size: usize,
    run: String,
    /// Those of the first messages, where they were made before.
    payloads: Vec<Payload>,
    /// How many may be on their way, and how many are through.
    bound: Option<(u64, Arc<AtomicU64>)>,
    /// How many keys, and how many percent of the messages have the first of them besides its share.
    keys: (u64, u8),
    /// The sequence of the first message, where they have sequences, which then are their ids too.
    first_sequence: Option<u64>,
    /// Which are poison, by their numbers.
    poison: BTreeSet<u64>,
}

impl Load {
    pub(crate) fn new(until: Until, rate: Option<f64>, size: usize) -> Self {
        Self {
            until,
            rate,
            size,
            run: Self::name(),
            payloads: Vec::new(),
            bound: None,
            keys: (0, 0),
            first_sequence: None,
            poison: BTreeSet::new(),
        }
    }

    /// A name for a run.
    pub(crate) fn name() -> String {
        let mut run = Uuid::new_v4().simple().to_string();
        run.truncate(8);
        run
    }

    /// The messages of the run of this name: in every process the same.
    pub(crate) fn of_run(self, run: &str) -> Self {
        Self {
            run: run.to_owned(),
            ..self
        }
    }

    /// With the payloads of the first `count` messages made now: making them is no part of what is measured.
    pub(crate) fn prepared(mut self, count: u64) -> Self {
        self.payloads = (1..=count).map(|number| self.make_payload(number)).collect();
        self
    }

    /// With so many keys, and a first one that so many percent of the messages have besides.
    pub(crate) fn keyed(self, keys: (u64, u8)) -> Self {
        Self { keys, ..self }
    }

    /// With sequences from this one on.
    pub(crate) fn numbered(self, first_sequence: Option<u64>) -> Self {
        Self { first_sequence, ..self }
    }

    /// The messages of these numbers are poison: their payloads begin with [`POISON`].
    pub(crate) fn poisoned(self, poison: BTreeSet<u64>) -> Self {
        Self { poison, ..self }
    }

    /// The key of the message of this number: the same in every run.
    pub(crate) fn key(&self, number: u64) -> Option<String> {
        let (count, hot) = self.keys;
        let mixed = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20;
        let key = if (mixed >> 20) % 100 < u64::from(hot) {
            0
        } else {
            mixed.checked_rem(count)?
        };
        (count > 0).then(|| format!("k{key}"))
    }

    /// Waits while `bound` messages more than are `through` were sent.
    pub(crate) fn bounded(self, bound: u64, through: Arc<AtomicU64>) -> Self {
        Self {
            bound: Some((bound, through)),
            ..self
        }
    }

    /// Sends it all, and tells of each batch that was accepted by its ids.
    pub(crate) async fn run(&self, producer: &impl Goal, mut accepted: impl FnMut(&[String])) -> anyhow::Result<u64> {
        let (started, began) = (Instant::now(), Clock::Store.now());
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let (mut sent, mut is_through) = (0, false);
        loop {
            let last = match &self.until {
                Until::Count(count) => *count,
                Until::Elapsed(limit) if started.elapsed() < *limit => u64::MAX,
                Until::Told(told, limit) if started.elapsed() < *limit && !told.is_cancelled() => u64::MAX,
                Until::Elapsed(_) | Until::Told(..) => sent,
            };
            if sent >= last {
                return Ok(sent);
            }
            // With a rate what is due goes out at each look, unless there is more than fits into one step: so the load does
            // not depend on how soon the store answers.
            if is_through {
                ticks.tick().await;
            }
            let due = self.due(started.elapsed()).min(last).min(self.room());
            is_through = due <= if self.rate.is_some() { sent + BATCH } else { sent };
            if due <= sent {
                continue;
            }
            let now = Clock::Store.now();
            let batch: Vec<Outgoing> = (sent + 1..=due.min(sent + BATCH))
                .map(|number| self.message(number, self.created(number, began, now)))
                .collect();
            producer.insist(&batch).await?;
            let before = sent;
            sent += batch.len() as u64;
            let ids: Vec<String> = (before + 1..=sent).map(|number| self.id(number)).collect();
            accepted(&ids);
        }
    }

    /// How many may be sent by now.
    fn room(&self) -> u64 {
        self.bound.as_ref().map_or(u64::MAX, |(bound, through)| {
            bound.saturating_add(through.load(Ordering::SeqCst))
        })
    }

    /// The payload that was sent under `id`; none, if that is none of this load's.
    pub(crate) fn payload(&self, id: &str) -> Option<Payload> {
        self.number(id).map(|number| self.payload_of(number))
    }

    /// The number of the message with this id; none, if that is none of this load's.
    pub(crate) fn number(&self, id: &str) -> Option<u64> {
        if let Some(first) = self.first_sequence {
            return id.parse::<u64>().ok()?.checked_sub(first).map(|before| before + 1);
        }
        id.strip_prefix(&self.run)?.strip_prefix('-')?.parse().ok()
    }

    /// Whether the message with this id kills its processor.
    pub(crate) fn is_poison(&self, id: &str) -> bool {
        self.number(id).is_some_and(|number| self.poison.contains(&number))
    }

    /// When a message counts as made: with a rate no later than one look after it was due, so that a store which
    /// holds up the producer does not make its own delay look shorter.
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a time that a rate and a count give"
    )]
    fn created(&self, number: u64, began: Micros, now: Micros) -> Micros {
        self.rate.map_or(now, |rate| {
            let due = began + (number as f64 / rate * 1e6) as u64;
            now.min(due + TICK.as_micros() as u64)
        })
    }

    /// How many are to be sent after so much time.
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a count that a rate and a time give"
    )]
    fn due(&self, elapsed: Duration) -> u64 {
        self.rate.map_or(u64::MAX, |rate| (rate * elapsed.as_secs_f64()) as u64)
    }

    /// The id of the message of this number.
    pub(crate) fn id(&self, number: u64) -> String {
        match self.sequence(number) {
            Some(sequence) => sequence.to_string(),
            None => format!("{}-{number}", self.run),
        }
    }

    fn sequence(&self, number: u64) -> Option<u64> {
        self.first_sequence.map(|first| first + (number - 1))
    }

    /// The message of this number.
    pub(crate) fn message(&self, number: u64, created: Micros) -> Outgoing {
        let sequence = self.sequence(number);
        Outgoing {
            id: sequence.is_none().then(|| self.id(number)),
            sequence,
            created: Some(created),
            key: self.key(number),
            ..Outgoing::new(self.payload_of(number))
        }
    }

    /// The payload of the message of this number.
    pub(crate) fn payload_of(&self, number: u64) -> Payload {
        let prepared = usize::try_from(number - 1)
            .ok()
            .and_then(|index| self.payloads.get(index));
        prepared.map_or_else(|| self.make_payload(number), Payload::clone)
    }

    fn make_payload(&self, number: u64) -> Payload {
        let what = if self.poison.contains(&number) {
            POISON
        } else {
            "message"
        };
        let mut text = format!("{what} {number} ");
        // Its quotes count.
        text.truncate(self.size.saturating_sub(2).max(1));
        let padding = noise(number, self.size.saturating_sub(text.len() + 2));
        Payload::string(&(text + &padding))
    }
}

/// Letters without a pattern, others for each number: real payloads don't repeat themselves either.
fn noise(number: u64, size: usize) -> String {
    let mut random = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut text = String::with_capacity(size);
    while text.len() < size {
        // Source: G. Marsaglia, "Xorshift RNGs", Journal of Statistical Software 8(14), 2003.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let room = size - text.len();
        let letters = random.to_le_bytes().into_iter().take(room);
        text.extend(letters.map(|byte| char::from(b'a' + byte % 26)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_has_the_size_asked_for() {
        let load = Load::new(Until::Count(1), None, 200);
        assert_eq!(load.payload_of(17).text().len(), 200);
        let small = Load::new(Until::Count(1), None, 10);
        assert_eq!(small.payload_of(1_000_000).text().len(), 10);
    }

    #[test]
    fn a_payload_is_known_by_its_id() {
        let load = Load::new(Until::Count(1), None, 50);
        let message = load.message(3, Micros(0));
        assert_eq!(load.payload(&message.id.unwrap()), Some(message.payload));
        assert_eq!(load.payload("another-3"), None);
        let run = load.run.clone();
        let same = Load::new(Until::Count(9), Some(1.0), 50).of_run(&run).prepared(4);
        for number in 1..=5 {
            assert_eq!(
                same.message(number, Micros(0)).to_entry(),
                load.message(number, Micros(0)).to_entry()
            );
        }
    }

    #[test]
    fn some_messages_may_be_poison() {
        let load = Load::new(Until::Count(9), None, 50).poisoned([3].into());
        assert!(load.payload_of(3).text().starts_with("\"poison 3 "));
        assert!(load.payload_of(4).text().starts_with("\"message 4 "));
        assert!(load.is_poison(&load.id(3)) && !load.is_poison(&load.id(4)));
    }

    #[test]
    fn a_producer_that_was_held_up_says_when_the_message_was_due() {
        let load = Load::new(Until::Count(1), Some(1_000.0), 50);
        let created = |now| load.created(10, Micros(5_000), Micros(now)).0;
        assert_eq!(created(15_500), 15_500);
        assert_eq!(created(400_000), 16_000);
    }

    #[test]
    fn no_more_is_sent_than_may_be_on_its_way() {
        let through = Arc::new(AtomicU64::new(0));
        let load = Load::new(Until::Count(100), None, 1).bounded(10, through.clone());
        assert_eq!(load.room(), 10);
        through.store(7, Ordering::SeqCst);
        assert_eq!(load.room(), 17);
    }

    #[test]
    fn a_rate_spreads_the_messages() {
        let load = Load::new(Until::Count(1), Some(100.0), 1);
        assert_eq!(load.due(Duration::from_millis(505)), 50);
    }
}
