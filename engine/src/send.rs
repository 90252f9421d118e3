//! Send: messages into the line.

use std::fmt::Write as _;

use bytes::Bytes;
use conga_core::message::{Payload, write_string};
use conga_core::time::Micros;

use crate::persist::persist;
use crate::random::Random;
use crate::store::{Result, SharedStore, StoreError};

mod named;

pub use named::{NamedProducer, WhenFull, checksum};

/// A message as a producer gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// What is to be processed.
    pub payload: Payload,
    /// Its identity for idempotency. A message sent again under its id counts once.
    pub id: Option<String>,
    /// The producer's own number; its identity where there is no id.
    pub sequence: Option<u64>,
    /// What messages have in common that must keep their order among them.
    pub key: Option<String>,
    /// When it was made.
    pub created: Option<Micros>,
}

impl Outgoing {
    /// A message with nothing but a payload.
    pub fn new(payload: Payload) -> Self {
        Self {
            payload,
            id: None,
            sequence: None,
            key: None,
            created: None,
        }
    }

    /// The entry of the input that stands for it.
    pub fn to_entry(&self) -> Bytes {
        let payload = self.payload.text();
        let mut text = String::with_capacity(payload.len() + 128);
        text.push('{');
        // Writing to a String never fails.
        if let Some(id) = &self.id {
            text.push_str("\"id\":");
            write_string(&mut text, id);
            text.push(',');
        }
        if let Some(sequence) = self.sequence {
            let _ = write!(text, "\"sequence\":{sequence},");
        }
        if let Some(key) = &self.key {
            text.push_str("\"key\":");
            write_string(&mut text, key);
            text.push(',');
        }
        if let Some(created) = self.created {
            let _ = write!(text, "\"created\":\"{created}\",");
        }
        text.push('"');
        text.push_str(self.payload.field());
        text.push_str("\":");
        text.push_str(payload);
        text.push('}');
        text.into()
    }
}

/// Puts messages into a line.
#[derive(Debug, Clone)]
pub struct Producer {
    store: SharedStore,
    random: Random,
}

impl Producer {
    /// A producer for the line that `store` was opened for.
    pub fn new(store: SharedStore) -> Self {
        Self {
            store,
            random: Random::default(),
        }
    }

    /// The same, with its jitter drawn from `random`.
    pub fn with_random(self, random: Random) -> Self {
        Self { random, ..self }
    }

    /// Sends a batch: all of it or nothing, in its order.
    ///
    /// # Errors
    /// [`crate::store::StoreError::Unknown`]: it may be in the line or not. Sent again it may be there twice; messages
    /// with an id or a sequence count once all the same.
    pub async fn send(&self, batch: &[Outgoing]) -> Result<()> {
        let entries: Vec<Bytes> = batch.iter().map(Outgoing::to_entry).collect();
        self.send_entries(&entries).await
    }

    /// Sends a batch of messages that each have an id or a sequence, and goes on trying while the store is away. A part
    /// of the batch that gets there twice counts once.
    ///
    /// # Errors
    /// Only what no repetition can help. [`crate::store::StoreError::Broken`] for a batch with a message that has
    /// neither: nothing is sent then.
    pub async fn insist(&self, batch: &[Outgoing]) -> Result<()> {
        if batch
            .iter()
            .any(|message| message.id.is_none() && message.sequence.is_none())
        {
            return Err(StoreError::Broken(
                "only messages with an id or a sequence can be sent again without counting twice".to_owned(),
            ));
        }
        persist("send", &self.random, || self.send(batch), |_| ()).await
    }

    /// Sends a batch of entries as they are: envelopes, or any bytes, which then are payloads as a whole.
    ///
    /// # Errors
    /// As [`Producer::send`].
    pub async fn send_entries(&self, entries: &[Bytes]) -> Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        self.store.send(entries, None).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use conga_core::message::{Entry, Format, Position, parse};

    use super::*;

    #[test]
    fn what_is_sent_is_what_is_read() {
        let outgoing = Outgoing {
            payload: Payload::bytes(b"\xff"),
            id: Some("a\"b\n".to_owned()),
            sequence: Some(u64::MAX),
            key: Some("k".to_owned()),
            created: Some(Micros(1_767_323_045_000_006)),
        };
        let entry = Entry::Whole(outgoing.to_entry());
        let input = parse(&entry, Position(1), Format::Envelope, 1_000).unwrap();
        assert_eq!(input.id.as_str(), "a\"b\n");
        assert_eq!(input.sequence, outgoing.sequence);
        assert_eq!(input.key, outgoing.key);
        assert_eq!(input.created, outgoing.created);
        assert_eq!(input.payload, outgoing.payload);
    }
}
