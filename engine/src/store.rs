//! The store: where a partition of a line lives. Fourteen verbs, each one atomic step.
//!
//! # The laws
//! Every store keeps these; `tests/contract` holds each of them to the reference, [`conga_core::partition`].
//!
//! 1. **Claim** is one atomic step: first what has expired, was given back or is due again, lowest position first;
//!    then new messages from the input, below head + window. Each gets its lease in that same step. A message is
//!    never outside input, lease, processed, output or dead, not even for an instant.
//! 2. **Complete** is one atomic step: only if the lease is still this owner's and this attempt's, write the record
//!    (if its id has none yet), append to processed, drop the lease. Otherwise nothing, and the answer is
//!    [`Completed::Stale`]. What the record holds is what gets delivered, at the lowest position that has its id.
//! 3. **Emit** is one atomic step: only if the caller's term is the current one and its idea of the head is right,
//!    append to the output, advance the head, remove from processed. Otherwise nothing, and the caller reloads.
//! 4. Each step can be sent again after a lost reply and then changes nothing; the answer says so. Only a `send` without
//!    numbers adds again what it is given again, and there the ids of the messages see to it that each counts once. With
//!    them (a producer's name, and the number of the first message) it adds only what goes beyond the highest number
//!    that it has from that producer, and nothing at all where that would leave a gap; nor under a session of that
//!    producer that is not the latest, so that what one process left behind is not done once another has begun; nor
//!    where more messages would wait to be claimed than the send allows.
//! 5. **Time** is the store's own clock, never a client's.
//! 6. **Leadership** is a lock that expires, and a term that grows with each change of hands. The consumers of a line have
//!    one active among them by the same means, with a lock and a term of their own; only under the latest of these terms
//!    is anything handed out or taken off.
//!
//! 7. **Control** is read by every claim in its own step: once a partition is paused nothing is handed out any more, and
//!    once it drains nothing that was not claimed before. What is in flight is completed and delivered all the same. A
//!    rate counts what is handed out for the first time, by the store's time, over all processors together.
//!
//! # Where later steps fit
//! A store is opened for one partition, so a sharded line is a store for each of them.
//!
//! # Who delivers
//! With [`Delivery::Leader`] a sequencer does, by [`Store::follow`] and [`Store::emit`]. With [`Delivery::Store`] the step
//! that completes the message at the head also delivers it, and all that follow it without a gap, so that no result
//! travels to a sequencer and no failover stands in its way. Both see the same state, and each of them may be used at
//! the same time: an emit of what was delivered meanwhile is [`Emitted::Moved`].
//!
//! # What stays
//! Records, dead letters and outputs stay as long as [`RenewRequest::keep`] says, and what is over goes with the renewals,
//! the oldest first. A record may only go when it is delivered and nothing that waits for its turn asks for it any more
//! ([`conga_core::partition::Grace`]). So an id counts once as long as its record stays.
//!
//! # Cancellation
//! A verb's future may be dropped at any time. The step is then done wholly or not at all, and nobody knows which:
//! the same as [`StoreError::Unknown`].

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use conga_core::lease::OwnerId;
use conga_core::partition::{
    CampaignRequest, Claim, ClaimRequest, Completed, Completion, Control, ControlRequest, Cursor, DeadRequest,
    EmitRequest, Emitted, Followed, Judged, Keep, MergeRequest, Merged, Numbered, Page, ReceiveRequest, Received,
    RenewRequest, Renewed, Sent, Shelf, Status,
};
use conga_core::shape::Shape;
use conga_core::term::Campaign;

use crate::wake::Wakes;

mod error;
pub mod memory;
mod open;
pub mod redis;
pub mod sqlite;

pub use error::StoreError;
pub use open::{BadStoreUrl, OpenOptions, StoreUrl, erase, open, open_with, settle};

/// What a verb answers.
pub type Result<T> = std::result::Result<T, StoreError>;

/// A shared store.
pub type SharedStore = Arc<dyn Store>;

/// Who appends to the output what stands at the head without a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Delivery {
    /// The leading sequencer.
    Leader,
    /// The store itself, in the step that completes the message at the head. What it had to leave, because it would have
    /// been too much for one step, and what others left, is delivered by the next [`Store::complete`] or
    /// [`Store::renew`] of anybody who has the store deliver.
    #[default]
    Store,
}

/// One partition of a line.
#[async_trait]
pub trait Store: Debug + Send + Sync {
    /// Appends entries to the input, in their order, all or none. Wakes [`crate::wake::Topic::Input`]. Of those that are
    /// numbered it appends what is not there yet (law 4); with none of them it opens a session and tells the producer's
    /// last number.
    async fn send(&self, entries: &[Bytes], numbered: Option<&Numbered>) -> Result<Sent>;

    /// Hands out messages, in ascending position (law 1).
    async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Claim>>;

    /// Ends leases (law 2). One answer for each completion, in their order. Wakes [`crate::wake::Topic::Processed`],
    /// and [`crate::wake::Topic::Input`] where something is free again. With [`Delivery::Store`] it delivers too, and wakes
    /// [`crate::wake::Topic::Output`] if it did, and [`crate::wake::Topic::Window`] if a claim had found the window full.
    async fn complete(&self, owner: &OwnerId, completions: &[Completion]) -> Result<Vec<Completed>>;

    /// Keeps an owner and with it all its leases alive, tells it what it holds, or lets it leave. A leave wakes
    /// [`crate::wake::Topic::Input`]. With [`Delivery::Store`] it delivers what is ready, as [`Store::complete`]. Then it lets
    /// go of what is over, in a short step of its own that may fail without harm; the answer tells whether there is more.
    async fn renew(&self, request: &RenewRequest) -> Result<Renewed>;

    /// Takes, renews or gives up the leadership, or the place of the active consumer (law 6). Giving it up wakes [`crate::wake::Topic::Lock`].
    async fn campaign(&self, request: &CampaignRequest) -> Result<Campaign>;

    /// What was processed after `cursor`, at most `max` entries. Changes nothing.
    async fn follow(&self, cursor: Cursor, max: usize) -> Result<Followed>;

    /// Delivers (law 3). Where the outputs are large, a store may deliver only the first of them: the head that it
    /// answers tells. Wakes as a complete that delivers.
    async fn emit(&self, request: &EmitRequest) -> Result<Emitted>;

    /// At the base of a line in total order over several partitions: delivers what has come out of them, in the order of the
    /// sequences, which are its positions (law 3). It counts only under the current term and at the right head. What is said
    /// to be late becomes a dead letter if its place was passed without a result, once. What is missing is given up only after
    /// it was known to be for so long, by the store's time. Wakes [`crate::wake::Topic::Output`] where something comes out.
    async fn merge(&self, request: &MergeRequest) -> Result<Merged>;

    /// The oldest outputs, in ascending position, after the acknowledged ones are gone; or neither, under a reign that is
    /// not the latest (law 6).
    async fn receive(&self, request: &ReceiveRequest) -> Result<Received>;

    /// Pauses, drains, resumes or limits the processors (law 7), and answers the control that is then. Asked for again, it
    /// changes nothing. Wakes [`crate::wake::Topic::Input`].
    async fn control(&self, request: &ControlRequest) -> Result<Control>;

    /// Counts what is where. Changes nothing.
    async fn status(&self) -> Result<Status>;

    /// A page of the system of record or of the dead letters: the first one, or the one that [`Page::next`] named.
    /// Changes nothing.
    async fn browse(&self, shelf: Shelf, from: Option<&str>) -> Result<Page>;

    /// What the line is: as it was set by whoever wished first, or nothing, if nobody did yet and nothing was handed out. A
    /// wish counts only where [`Shape::settle`] lets it, so who wished has to compare.
    async fn shape(&self, wanted: Option<Shape>) -> Result<Option<Shape>>;

    /// Carries out what a person has decided about dead letters that are delivered past, or at which the line is halted; one
    /// answer for each position, in their order. Each position is judged by itself, and what is to be retried goes to the end
    /// of the input, or is free again in its own place where the line is halted at it, in the same step in which its dead
    /// letter goes: it is never in both, nor in neither. Repeated after a lost reply it finds what it has done
    /// [`Judged::Missing`], or [`Judged::Passed`] where the line was told to go on. Wakes [`crate::wake::Topic::Input`] where
    /// something is free again, and what a complete wakes where the line goes on. With [`Delivery::Store`] it then delivers
    /// what is ready.
    async fn dead(&self, request: &DeadRequest) -> Result<Vec<Judged>>;

    /// How much stays where nobody says otherwise: everything, where there is room for it.
    fn keeps(&self) -> Keep {
        Keep::ALL
    }

    /// This store itself, if handlers can write through the transaction in which it completes their messages.
    fn as_sqlite(&self) -> Option<&sqlite::SqliteStore> {
        None
    }

    /// Where this store gives its hints.
    fn wakes(&self) -> &Wakes;
}
