//! A line in which no more may wait, and sends whose answers are lost, or that are done late.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use conga::clock::Clock;
use conga::core::lease::OwnerId;
use conga::core::message::Entry;
use conga::core::partition::{ClaimRequest, Limits, Numbered, Sent};
use conga::random::{Random, SeededRandom};
use conga::send::{NamedProducer, Producer, WhenFull};
use conga::store::memory::MemoryStore;
use conga::store::redis::{RedisOptions, RedisStore};
use conga::store::sqlite::{SqliteOptions, SqliteStore};
use conga::store::{Result, SharedStore, StoreError};
use tokio::time::timeout;

use crate::redis_server::RedisServer;
use crate::store::Troubled;

/// What becomes of the sends of producers that number.
#[derive(Debug, Default)]
pub(crate) struct Producers(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// By what it is drawn; without it all goes well.
    dice: Option<SeededRandom>,
    /// The next sends get no answer and are not done yet.
    to_hold: usize,
    /// Sends without an answer, that may still be done.
    held: Vec<(Vec<Bytes>, Numbered)>,
    /// Of the next send whose first number is beyond this one: all that is held is done before, and the line empty.
    release_beyond: Option<u64>,
    /// What was taken from the line, in its order.
    taken: Vec<Bytes>,
    /// How many sends there were.
    sends: usize,
}

/// What becomes of one send.
enum Fate {
    Done,
    ReplyLost,
    Held,
}

impl State {
    fn one_in(&mut self, count: u64) -> bool {
        self.dice.as_mut().is_some_and(|dice| dice.draw() % count == 0)
    }

    fn fate(&mut self) -> Fate {
        if self.to_hold > 0 {
            self.to_hold -= 1;
            return Fate::Held;
        }
        if self.one_in(4) {
            Fate::Held
        } else if self.one_in(6) {
            Fate::ReplyLost
        } else {
            Fate::Done
        }
    }
}

impl Producers {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub(crate) async fn send(&self, store: &SharedStore, entries: &[Bytes], numbered: &Numbered) -> Result<Sent> {
        let (released, fate) = {
            let mut state = self.state();
            state.sends += 1;
            let released = state.release_beyond.is_some_and(|number| numbered.first > number);
            (released, state.fate())
        };
        if released {
            self.take(store, usize::MAX).await?;
            self.release(store, 1).await?;
        }
        self.take_some(store).await?;
        self.release(store, 3).await?;
        if matches!(fate, Fate::Held) {
            self.state().held.push((entries.to_owned(), numbered.clone()));
            return Err(StoreError::Unknown("it is on its way".to_owned()));
        }
        let sent = store.send(entries, Some(numbered)).await?;
        match fate {
            Fate::ReplyLost => Err(StoreError::Unknown("the reply was lost".to_owned())),
            _ => Ok(sent),
        }
    }

    /// One in so many of those that are held is done now; and may be once more.
    async fn release(&self, store: &SharedStore, one_in: u64) -> Result<()> {
        let held = self.state().held.clone();
        for (entries, numbered) in held {
            let now = one_in == 1 || self.state().one_in(one_in);
            if now {
                store.send(&entries, Some(&numbered)).await?;
            }
        }
        Ok(())
    }

    /// As processors would while time goes by.
    pub(crate) async fn take_some(&self, store: &SharedStore) -> Result<()> {
        let now = self.state().one_in(2);
        if now { self.take(store, 2).await } else { Ok(()) }
    }

    async fn take(&self, store: &SharedStore, max: usize) -> Result<()> {
        let request = ClaimRequest {
            owner: OwnerId::new("p"),
            max,
            lease_us: 3_600_000_000,
            window: 1_000_000,
            below: None,
            limits: Limits::default(),
        };
        for claim in store.claim(&request).await? {
            if let Entry::Whole(entry) = claim.entry {
                self.state().taken.push(entry);
            }
        }
        Ok(())
    }
}

fn entries(numbers: std::ops::Range<u32>) -> Vec<Bytes> {
    numbers.map(|number| Bytes::from(number.to_string())).collect()
}

/// A store of each kind, and what has to live as long.
async fn stores() -> Vec<(SharedStore, Box<dyn std::any::Any>)> {
    let line = "full".parse().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("conga.db");
    let sqlite = SqliteStore::open(&path, &line, SqliteOptions::default()).await.unwrap();
    let server = RedisServer::start(&[]).unwrap();
    let redis = RedisStore::connect(&server.url(), &line, RedisOptions::default())
        .await
        .unwrap();
    vec![
        (memory(), Box::new(())),
        (Arc::new(sqlite), Box::new(directory)),
        (Arc::new(redis), Box::new(server)),
    ]
}

fn memory() -> SharedStore {
    Arc::new(MemoryStore::new(Clock::Store))
}

fn producer(store: &Arc<Troubled>, most: u64, when_full: WhenFull) -> NamedProducer {
    Producer::named(store.clone(), "a").with_max_waiting(most, when_full)
}

/// All that was ever in the line.
async fn all(store: &Arc<Troubled>) -> Vec<Bytes> {
    store.producers.take(&store.inner, usize::MAX).await.unwrap();
    store.producers.state().taken.clone()
}

#[tokio::test]
async fn what_was_refused_after_an_attempt_in_doubt_never_comes_in() {
    for (store, _keep) in stores().await {
        let store = Troubled::over(store);
        store.inner.send(&entries(100..102), None).await.unwrap();
        let mut producer = producer(&store, 3, WhenFull::Refuse);
        assert_eq!(producer.last().await, Ok(0));
        store.producers.state().to_hold = 1;
        let refused = producer.send_entries(&entries(0..2)).await;
        assert_eq!(refused, Err(StoreError::Full { waiting: 2, most: 3 }), "{store:?}");
        // Now there is room, and it arrives.
        store.producers.take(&store.inner, 10).await.unwrap();
        store.producers.release(&store.inner, 1).await.unwrap();
        assert_eq!(producer.last().await, Ok(0), "{store:?}");
        producer.send_entries(&entries(2..4)).await.unwrap();
        let expected: Vec<_> = entries(100..102).into_iter().chain(entries(2..4)).collect();
        assert_eq!(all(&store).await, expected, "{store:?}");
    }
}

#[tokio::test]
async fn who_waits_is_not_taken_for_another_when_an_attempt_in_doubt_is_done_late() {
    for (store, _keep) in stores().await {
        let store = Troubled::over(store);
        store.inner.send(&entries(100..103), None).await.unwrap();
        let mut producer = producer(&store, 4, WhenFull::Wait);
        assert_eq!(producer.last().await, Ok(0));
        {
            let mut state = store.producers.state();
            state.to_hold = 1;
            state.release_beyond = Some(1);
        }
        producer.send_entries(&entries(0..4)).await.unwrap();
        assert_eq!(producer.last().await, Ok(4));
        let expected: Vec<_> = entries(100..103).into_iter().chain(entries(0..4)).collect();
        assert_eq!(all(&store).await, expected, "{store:?}");
    }
}

/// Sends 40 messages by any luck. What was refused is sent again, or left out.
async fn by_any_luck(inner: SharedStore, seed: u64) {
    let store = Troubled::over(inner);
    let dice = SeededRandom::new(seed);
    let most = 1 + dice.draw() % 6;
    let when_full = if dice.draw().is_multiple_of(2) {
        WhenFull::Wait
    } else {
        WhenFull::Refuse
    };
    let mut producer = producer(&store, most, when_full).with_random(Random::Seeded(SeededRandom::new(seed)));
    store.producers.state().dice = Some(SeededRandom::new(dice.draw()));
    let (mut next, mut accepted) = (0, Vec::new());
    while next < 40 {
        let end = next + 1 + u32::try_from(dice.draw() % 8).unwrap();
        let batch = entries(next..end);
        next = end;
        if when_full == WhenFull::Wait && dice.draw().is_multiple_of(3) {
            // Given up, and what was given is sent first by the next.
            let a_while = Duration::from_millis(dice.draw() % 40);
            let _ = timeout(a_while, producer.send_entries(&batch)).await;
            continue;
        }
        while let Err(error) = producer.send_entries(&batch).await {
            assert!(matches!(error, StoreError::Full { .. }), "seed {seed}: {error}");
            assert_eq!(when_full, WhenFull::Refuse, "seed {seed}");
            // Of a batch of more than may wait a part may be there.
            let there = usize::try_from(producer.last().await.unwrap()).unwrap() - accepted.len();
            assert!(
                there == 0 || batch.len() as u64 > most,
                "seed {seed}: {there} of {}",
                batch.len()
            );
            accepted.extend(batch[..there].iter().cloned());
            if there > 0 || dice.draw().is_multiple_of(2) {
                break;
            }
        }
        let there = usize::try_from(producer.last().await.unwrap()).unwrap() - accepted.len();
        if when_full == WhenFull::Refuse && there > 0 {
            assert_eq!(there, batch.len(), "seed {seed}");
            accepted.extend(batch);
        }
    }
    if when_full == WhenFull::Wait {
        producer.send_entries(&[]).await.unwrap();
        accepted = entries(0..next);
    }
    store.producers.release(&store.inner, 1).await.unwrap();
    assert_eq!(all(&store).await, accepted, "seed {seed}");
}

#[tokio::test(start_paused = true)]
async fn by_any_luck_what_is_accepted_is_what_comes_in() {
    for seed in 1..=2_000 {
        by_any_luck(memory(), seed).await;
    }
}

#[tokio::test]
async fn and_so_it_is_on_sqlite_and_redis() {
    for seed in 3..=5 {
        for (store, _keep) in stores().await {
            by_any_luck(store, seed).await;
        }
    }
}

/// One answer that there is hardly any room does not have the producer send by ones for ever.
#[tokio::test(start_paused = true)]
async fn who_had_hardly_any_room_sends_large_batches_again() {
    let store = Troubled::new();
    store.inner.send(&entries(0..999), None).await.unwrap();
    let mut producer = producer(&store, 1_000, WhenFull::Wait);
    store.producers.state().release_beyond = Some(1);
    producer.send_entries(&entries(0..10_000)).await.unwrap();
    let sends = store.producers.state().sends;
    assert!(sends <= 60, "{sends} calls for 10,000 messages");
    assert_eq!(all(&store).await.len(), 10_999);
}
