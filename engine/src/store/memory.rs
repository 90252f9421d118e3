//! The memory store: the reference itself, behind a mutex and a clock. For tests, simulation and one process.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use conga_core::lease::OwnerId;
use conga_core::partition::{
    CampaignRequest, Claim, ClaimRequest, Completed, Completion, Control, ControlRequest, Cursor, DeadRequest,
    EmitRequest, Emitted, Followed, Judged, MergeRequest, Merged, Numbered, Page, Partition, ReceiveRequest, Received,
    RenewRequest, Renewed, Sent, Shelf, Status, Verdict,
};
use conga_core::shape::Shape;
use conga_core::term::Campaign;

use super::{Delivery, Result, Store};
use crate::clock::Clock;
use crate::wake::{Topic, Wakes};

/// A partition in this process's memory. It ends with the process.
#[derive(Debug, Default)]
pub struct MemoryStore {
    partition: Arc<Mutex<Partition>>,
    clock: Clock,
    wakes: Wakes,
    delivery: Delivery,
}

impl MemoryStore {
    /// An empty partition.
    pub fn new(clock: Clock) -> Self {
        Self {
            clock,
            ..Self::default()
        }
    }

    /// The same partition, seen by somebody who has it deliver in another way.
    pub fn delivering(&self, delivery: Delivery) -> Self {
        Self {
            partition: self.partition.clone(),
            clock: self.clock.clone(),
            wakes: self.wakes.clone(),
            delivery,
        }
    }

    /// Delivers what is ready, where that is the store's to do.
    fn deliver(&self, partition: &mut Partition) {
        if self.delivery == Delivery::Store && partition.deliver_ready(self.clock.now()) {
            self.wake_of_head();
        }
    }

    /// The head has moved, or may have.
    fn wake_of_head(&self) {
        self.wakes.wake(Topic::Output);
        self.wakes.wake(Topic::Window);
    }

    fn partition(&self) -> MutexGuard<'_, Partition> {
        // A step that panicked has changed nothing that the next could trip over: they panic before they write.
        self.partition.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn send(&self, entries: &[Bytes], numbered: Option<&Numbered>) -> Result<Sent> {
        let mut partition = self.partition();
        let sent = if let Some(numbered) = numbered {
            partition.send_numbered(self.clock.now(), numbered, entries)
        } else {
            partition.send(entries);
            Sent::UNNUMBERED
        };
        drop(partition);
        self.wakes.wake(Topic::Input);
        Ok(sent)
    }

    async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Claim>> {
        Ok(self.partition().claim(self.clock.now(), request))
    }

    async fn complete(&self, owner: &OwnerId, completions: &[Completion]) -> Result<Vec<Completed>> {
        let mut partition = self.partition();
        let answers = partition.complete(self.clock.now(), owner, completions);
        self.deliver(&mut partition);
        let in_place = !partition.is_total();
        drop(partition);
        self.wakes.wake(Topic::Processed);
        if in_place {
            self.wake_of_head();
        }
        let is_retry = |completion: &Completion| matches!(completion, Completion::Retry { .. });
        // What is done may free what was held back behind it.
        if in_place || completions.iter().any(is_retry) {
            self.wakes.wake(Topic::Input);
        }
        Ok(answers)
    }

    async fn renew(&self, request: &RenewRequest) -> Result<Renewed> {
        let mut partition = self.partition();
        let mut renewed = partition.renew(self.clock.now(), request);
        self.deliver(&mut partition);
        if let Some(keep) = request.keep.filter(|_| request.lease_us > 0) {
            renewed.is_overfull = partition.trim(self.clock.now(), &keep);
        }
        drop(partition);
        if request.lease_us == 0 {
            self.wakes.wake(Topic::Input);
        }
        Ok(renewed)
    }

    async fn campaign(&self, request: &CampaignRequest) -> Result<Campaign> {
        let campaign = self.partition().campaign(self.clock.now(), request);
        if request.lock_us == 0 {
            self.wakes.wake(Topic::Lock);
        }
        Ok(campaign)
    }

    async fn follow(&self, cursor: Cursor, max: usize) -> Result<Followed> {
        Ok(self.partition().follow(self.clock.now(), cursor, max))
    }

    async fn emit(&self, request: &EmitRequest) -> Result<Emitted> {
        let emitted = self.partition().emit(self.clock.now(), request);
        self.wake_of_head();
        Ok(emitted)
    }

    async fn merge(&self, request: &MergeRequest) -> Result<Merged> {
        let merged = self.partition().merge(self.clock.now(), request);
        self.wake_of_head();
        Ok(merged)
    }

    async fn receive(&self, request: &ReceiveRequest) -> Result<Received> {
        Ok(self.partition().receive(request))
    }

    async fn control(&self, request: &ControlRequest) -> Result<Control> {
        let control = self.partition().control(self.clock.now(), request);
        self.wakes.wake(Topic::Input);
        Ok(control)
    }

    async fn status(&self) -> Result<Status> {
        Ok(self.partition().status(self.clock.now()))
    }

    async fn browse(&self, shelf: Shelf, _from: Option<&str>) -> Result<Page> {
        Ok(self.partition().browse(shelf))
    }

    async fn shape(&self, wanted: Option<Shape>) -> Result<Option<Shape>> {
        Ok(self.partition().shape(wanted))
    }

    async fn dead(&self, request: &DeadRequest) -> Result<Vec<Judged>> {
        let mut partition = self.partition();
        let answers = partition.dead(self.clock.now(), request);
        match request.verdict {
            Verdict::Retry => self.wakes.wake(Topic::Input),
            Verdict::Skip | Verdict::Mark => {
                self.deliver(&mut partition);
                self.wakes.wake(Topic::Processed);
                // What was held back behind it goes on.
                self.wakes.wake(Topic::Input);
                if !partition.is_total() {
                    self.wake_of_head();
                }
            }
            Verdict::Purge => {}
        }
        Ok(answers)
    }

    fn wakes(&self) -> &Wakes {
        &self.wakes
    }
}
