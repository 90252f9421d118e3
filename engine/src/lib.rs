//! Conga: messages processed in parallel across processes, delivered in total order, each exactly once.
//!
//! The modules stand in the order in which data flows: [`send`] → [`claim`] → [`process`] → [`record`] →
//! [`sequence`] → [`deliver`]. A line lives in a [`store::Store`]; the services ask it for one atomic step at a time.
//!
//! ```
//! use std::convert::Infallible;
//! use std::sync::Arc;
//!
//! use conga::core::message::Payload;
//! use conga::deliver::Consumer;
//! use conga::process::{Message, Processor, ProcessorOptions};
//! use conga::send::{Outgoing, Producer};
//! use conga::sequence::{Sequencer, SequencerOptions};
//! use conga::store::{SharedStore, memory::MemoryStore};
//! use tokio_util::sync::CancellationToken;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), conga::store::StoreError> {
//! // Or conga::store::open(&"sqlite:conga.db".parse()?, &"orders".parse()?).await?
//! let store: SharedStore = Arc::new(MemoryStore::default());
//! let stop = CancellationToken::new();
//! let handler = tower::service_fn(|message: Message| async move {
//!     Ok::<_, Infallible>(Payload::string(&format!("{} done", message.id)))
//! });
//! // Any number of each, in any number of processes.
//! let processor = Processor::new(store.clone(), handler, ProcessorOptions::default());
//! let sequencer = Sequencer::new(store.clone(), SequencerOptions::default());
//! tokio::spawn(processor.run(stop.clone()));
//! tokio::spawn(sequencer.run(stop.clone()));
//!
//! let message = Outgoing { id: Some("a".to_owned()), ..Outgoing::new(Payload::string("x")) };
//! Producer::new(store.clone()).send(&[message]).await?;
//!
//! let mut consumer = Consumer::new(store);
//! let batch = consumer.next(100).await?;
//! assert!(batch.outputs[0].starts_with(br#"{"position":1,"id":"a","payload":"a done""#));
//! consumer.acknowledge(&batch);
//! consumer.finish().await?;
//! stop.cancel();
//! # Ok(())
//! # }
//! ```

pub use conga_core as core;

pub mod send;

pub mod claim;
pub mod process;

pub mod dead;
pub mod ledger;
pub mod record;

pub mod lead;
pub mod sequence;

pub mod deliver;

pub mod shards;

pub mod clock;
pub mod line;
pub mod random;
pub mod store;
pub mod wake;

mod fits;
mod pace;
mod persist;
