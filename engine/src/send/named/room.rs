//! Room in the line: how many messages may wait there after a send.

use std::time::Duration;

use super::NamedProducer;
use crate::wake::FALLBACK;

/// How soon a producer looks whether there is room: later each time, in the end every [`FALLBACK`].
const SHORTEST_LOOK: Duration = Duration::from_millis(5);

/// What becomes of messages for which there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhenFull {
    /// The producer waits until processors have taken some.
    #[default]
    Wait,
    /// They are refused: [`StoreError::Full`](crate::store::StoreError::Full).
    Refuse,
}

impl NamedProducer {
    /// The same, but sends only what leaves no more than `most` messages waiting to be claimed, whoever sent them; at least
    /// one. The store counts and appends in one step. With [`WhenFull::Wait`] a batch goes in parts as there is room. With
    /// [`WhenFull::Refuse`] it goes as a whole, or not; one of more than `most` in parts of so many, until one is refused:
    /// [`NamedProducer::last`] tells what is in the line.
    #[must_use]
    pub fn with_max_waiting(self, most: u64, when_full: WhenFull) -> Self {
        Self {
            most: Some((most.max(1), when_full)),
            ..self
        }
    }

    /// Waits until fewer wait in the line than may; how many more fit then.
    pub(super) async fn wait_for_room(&self, waiting: u64) -> u64 {
        let most = self.most.map_or(u64::MAX, |(most, _)| most);
        if waiting < most {
            return most - waiting;
        }
        tracing::debug!(producer = %self.name, waiting, "the line is full; waiting until processors have taken some");
        let mut pause = SHORTEST_LOOK;
        loop {
            // Those that wait for room do not all come at once.
            let jitter = self.random.draw() % 1_000;
            let least = pause / 2;
            tokio::time::sleep(least + least * u32::try_from(jitter).unwrap_or(0) / 1_000).await;
            pause = (2 * pause).min(FALLBACK);
            match self.store.status().await {
                Ok(status) if status.waiting >= most => {}
                Ok(status) => return most - status.waiting,
                // The send finds out what is wrong, and how long to be patient.
                Err(_) => return most,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use conga_core::lease::OwnerId;
    use conga_core::partition::{ClaimRequest, Limits};
    use tokio::time::timeout;

    use super::super::checksum;
    use super::*;
    use crate::clock::Clock;
    use crate::send::Producer;
    use crate::store::memory::MemoryStore;
    use crate::store::{Store as _, StoreError};

    fn entries(numbers: std::ops::Range<u32>) -> Vec<Bytes> {
        numbers.map(|number| Bytes::from(number.to_string())).collect()
    }

    async fn take(store: &MemoryStore, max: usize) -> usize {
        let request = ClaimRequest {
            owner: OwnerId::new("p"),
            max,
            lease_us: 3_600_000_000,
            window: 1_000,
            below: None,
            limits: Limits::default(),
        };
        store.claim(&request).await.unwrap().len()
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_room_sends_in_parts_all_in_their_order() {
        let store = Arc::new(MemoryStore::new(Clock::Store));
        let producers = ["a", "b"].map(|name| {
            let mut producer = Producer::named(store.clone(), name).with_max_waiting(3, WhenFull::Wait);
            tokio::spawn(async move {
                producer.send_entries(&entries(0..50)).await.unwrap();
                producer
            })
        });
        let mut taken = 0;
        while taken < 100 {
            tokio::time::sleep(Duration::from_millis(30)).await;
            assert!(store.status().await.unwrap().waiting <= 3);
            taken += take(&store, 2).await;
        }
        for producer in producers {
            let mut producer = producer.await.unwrap();
            assert_eq!(producer.last().await, Ok(50));
            // The mark says that these were sent, in this order.
            let mark = entries(0..50).iter().fold(0, |mark, entry| checksum(mark, entry));
            assert_eq!(producer.mark().await, Ok(mark));
        }
        assert_eq!(store.status().await.unwrap().waiting, 0);
    }

    #[tokio::test]
    async fn who_does_not_wait_is_refused_as_a_whole_and_may_go_on() {
        let store = Arc::new(MemoryStore::new(Clock::Store));
        let mut producer = Producer::named(store.clone(), "a").with_max_waiting(3, WhenFull::Refuse);
        producer.send_entries(&entries(0..2)).await.unwrap();
        let refused = producer.send_entries(&entries(2..4)).await;
        assert_eq!(refused, Err(StoreError::Full { waiting: 2, most: 3 }));
        assert_eq!(producer.last().await, Ok(2));
        producer.send_entries(&entries(2..3)).await.unwrap();
        take(&store, 3).await;
        producer.send_entries(&entries(3..6)).await.unwrap();
        assert_eq!(producer.last().await, Ok(6));
        assert_eq!(store.status().await.unwrap().waiting, 3);
        // More than may wait goes in parts.
        take(&store, 3).await;
        let refused = producer.send_entries(&entries(6..10)).await;
        assert_eq!(refused, Err(StoreError::Full { waiting: 3, most: 3 }));
        assert_eq!(producer.last().await, Ok(9));
    }

    /// Whatever of the batch was there when it was given up: none is doubled or left out.
    #[tokio::test(start_paused = true)]
    async fn what_was_given_up_while_it_waited_is_sent_first() {
        for done in [0, 1, 2] {
            let store = Arc::new(MemoryStore::new(Clock::Store));
            let mut producer = Producer::named(store.clone(), "a").with_max_waiting(2, WhenFull::Wait);
            timeout(Duration::from_secs(1), producer.send_entries(&entries(0..6)))
                .await
                .unwrap_err();
            assert_eq!(store.status().await.unwrap().waiting, 2);
            // The send that was on its way when it was given up.
            take(&store, 2).await;
            let open = producer.open.unwrap();
            let (sent, marks) = producer.marked(open.mark, u64::MAX);
            let mark = marks[..done].last().copied().unwrap_or(open.mark);
            let numbered = producer.numbered(open.session, 3, mark);
            store.send(&sent[..done], Some(&numbered)).await.unwrap();
            let sending = tokio::spawn(async move {
                producer.send_entries(&entries(6..7)).await.unwrap();
                producer.last().await
            });
            let mut taken = 2;
            while taken < 7 {
                tokio::time::sleep(Duration::from_millis(30)).await;
                taken += take(&store, 1).await;
            }
            assert_eq!(sending.await.unwrap(), Ok(7));
            assert_eq!(store.status().await.unwrap().next.0, 8, "{done}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_waited_for_long_looks_as_often() {
        let store = Arc::new(MemoryStore::new(Clock::Store));
        let mut producer = Producer::named(store.clone(), "a").with_max_waiting(1, WhenFull::Wait);
        producer.send_entries(&entries(0..1)).await.unwrap();
        let sending = tokio::spawn(async move { producer.send_entries(&entries(1..2)).await });
        tokio::time::sleep(Duration::from_secs(70)).await;
        take(&store, 1).await;
        timeout(2 * FALLBACK, sending)
            .await
            .expect("it looks")
            .unwrap()
            .unwrap();
    }

    /// Found by a review: a store came back older, full, and what it had lost was thrown away with what it refused.
    #[tokio::test]
    async fn what_a_store_has_lost_is_not_refused_with_what_comes_next() {
        let (old, new) = (Arc::new(MemoryStore::default()), Arc::new(MemoryStore::default()));
        let mut producer = Producer::named(old, "a").with_max_waiting(3, WhenFull::Refuse);
        producer.send_entries(&entries(0..3)).await.unwrap();
        new.send(&entries(10..12), None).await.unwrap();
        producer.store = new.clone();
        let refused = producer.send_entries(&entries(3..4)).await;
        assert_eq!(refused, Err(StoreError::Full { waiting: 5, most: 3 }));
        assert_eq!(producer.last().await, Ok(3));
        take(&new, 5).await;
        producer.send_entries(&entries(3..4)).await.unwrap();
        assert_eq!(producer.last().await, Ok(4));
        assert_eq!(new.status().await.unwrap().waiting, 1);
    }

    #[tokio::test]
    async fn at_least_one_may_wait() {
        let store = Arc::new(MemoryStore::new(Clock::Store));
        let mut producer = Producer::named(store, "a").with_max_waiting(0, WhenFull::Refuse);
        producer.send_entries(&entries(0..1)).await.unwrap();
        let refused = producer.send_entries(&entries(1..2)).await;
        assert_eq!(refused, Err(StoreError::Full { waiting: 1, most: 1 }));
    }
}
