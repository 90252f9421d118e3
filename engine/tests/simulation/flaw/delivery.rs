//! What a store does wrong where it delivers by itself.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use conga::core::message::{Record, finish, write_open};
use conga::core::partition::{Completed, Completion};
use conga::deliver::position_of;
use conga::store::memory::MemoryStore;
use conga::store::{Delivery, Result, Store as _};

use super::{Flaw, Flawed};

impl Flawed {
    /// The same store, for those who have it deliver.
    pub(crate) fn delivering(&self) -> Self {
        Self {
            inner: self.inner.delivering(Delivery::Store),
            delivers: true,
            flaw: self.flaw,
            leases: self.leases.clone(),
            again: self.again.clone(),
            out: self.out.clone(),
            completes: self.completes.clone(),
            latest: self.latest.clone(),
            trimmed: self.trimmed.clone(),
            beliefs: self.beliefs.clone(),
            beside: self.beside.clone(),
            handed_out: self.handed_out.clone(),
        }
    }

    /// The store without its delivery.
    fn half(&self) -> MemoryStore {
        self.inner.delivering(Delivery::Leader)
    }

    pub(super) fn for_complete(&self) -> MemoryStore {
        let count = self.completes.fetch_add(1, Ordering::Relaxed);
        let is_lost = self.has(Flaw::LosesDeliveries) && count % 3 == 2;
        if is_lost || self.has(Flaw::NeverDelivers) || !self.delivers {
            return self.half();
        }
        self.inner.delivering(Delivery::Store)
    }

    pub(super) fn for_renewal(&self) -> MemoryStore {
        let renewals_too = [Flaw::NeverDelivers, Flaw::RenewsWithoutDelivering];
        if renewals_too.contains(&self.flaw) || !self.delivers {
            return self.half();
        }
        self.inner.delivering(Delivery::Store)
    }

    /// Delivers, after a complete, what it must not.
    pub(super) async fn deliver_wrongly(&self, completions: &[Completion], answers: &[Completed]) -> Result<()> {
        if !self.delivers {
            return Ok(());
        }
        let head = self.inner.status().await?.head;
        let outputs = self.outputs().await?;
        let mut out = self.out.lock().unwrap();
        let placed = |output: Bytes| position_of(&output).map(|position| (position, output));
        out.extend(outputs.into_iter().filter_map(placed));
        for (completion, answer) in completions.iter().zip(answers) {
            let Completion::Done(record) = completion else { continue };
            let position = record.position;
            let wrong = match (self.flaw, answer) {
                (Flaw::DeliversPastAGap, Completed::Accepted) if position > head => Some(output(record)),
                (Flaw::DeliversStale, Completed::Stale) if position == head => Some(output(record)),
                (Flaw::DeliversTwice, Completed::Stale) => out.get(&position).cloned(),
                _ => None,
            };
            self.again.lock().unwrap().extend(wrong);
        }
        Ok(())
    }
}

fn output(record: &Record) -> Bytes {
    let mut text = write_open(record);
    let at = record.processing;
    finish(&mut text, at, at, at);
    text.into()
}
