//! A leader of a merged line that acknowledges in a partition what is not merged yet, and then is gone. For that there has to be
//! something that waits to be merged: so the producer's first messages are kept back until that has happened.

use bytes::Bytes;
use conga::core::lease::OwnerId;
use conga::core::message::{Output, Position};
use conga::core::partition::{ReceiveRequest, Received};
use conga::core::term::Reign;
use conga::shards::Shards;
use conga::store::{Result, SharedStore};
use tokio::sync::Mutex;

#[derive(Debug)]
pub(super) struct Early {
    base: SharedStore,
    partitions: Vec<SharedStore>,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    Begin,
    /// These of a partition were kept back.
    Waits(usize, Vec<Bytes>),
    /// An output of another was acknowledged in the name of this leader, who may have it in hand.
    Acknowledged(usize, Vec<Bytes>, OwnerId),
    Over,
}

impl Early {
    pub(super) fn new(shards: &Shards) -> Self {
        Self {
            base: shards.base().clone(),
            partitions: shards.partitions().to_vec(),
            state: Mutex::new(State::Begin),
        }
    }

    /// Whether these are kept back. With each of the others it goes on, as far as it can.
    pub(super) async fn keeps_back(&self, partition: usize, entries: &[Bytes]) -> Result<bool> {
        let mut state = self.state.lock().await;
        match &mut *state {
            State::Begin => {
                *state = State::Waits(partition, entries.to_vec());
                return Ok(true);
            }
            State::Waits(home, first) => {
                let (home, first) = (*home, first.clone());
                let status = self.base.status().await?;
                for (partition, store) in self.partitions.iter().enumerate() {
                    if partition == home {
                        continue;
                    }
                    if let Some(leader) = acknowledge(store, status.head).await? {
                        *state = State::Acknowledged(home, first, leader);
                        break;
                    }
                }
            }
            State::Acknowledged(home, first, leader) => {
                // Another has nothing in hand that it has not read.
                if self.base.status().await?.leader.is_some_and(|now| now != *leader) {
                    self.partitions[*home].send(first, None).await?;
                    *state = State::Over;
                }
            }
            State::Over => {}
        }
        Ok(false)
    }
}

/// Acknowledges the oldest output, if it is not merged, in the name of who reads this partition, and says who that is. None if
/// there was no such output.
async fn acknowledge(store: &SharedStore, head: Position) -> Result<Option<OwnerId>> {
    let status = store.status().await?;
    let Some(owner) = status.consumer else { return Ok(None) };
    let mut request = ReceiveRequest {
        reign: Some(Reign {
            owner: owner.clone(),
            term: status.consumer_term,
        }),
        max: 1,
        ..ReceiveRequest::default()
    };
    let outputs = store.receive(&request).await?.outputs();
    let oldest = outputs.first().and_then(|line| Output::parse(line).ok());
    let Some(record) = oldest.map(|output| output.record) else {
        return Ok(None);
    };
    if record.sequence.is_none_or(|sequence| sequence < head.0) {
        return Ok(None);
    }
    (request.acknowledge, request.max) = (Some(record.position), 0);
    let counts = matches!(store.receive(&request).await?, Received::Outputs(_));
    Ok(counts.then_some(owner))
}
