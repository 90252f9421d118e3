//! Delivery by the store: the half of a step that delivers what is ready, and the flaws around it.
//!
//! The core's step delivers only what stands at the head without a gap. What a flaw delivers beside that goes straight
//! to the consumer.

use conga_core::lease::Held;
use conga_core::lifecycle::State as Place;
use conga_core::message::{Output, Record};
use conga_core::partition::{Completed, Completion, Shelf};

use crate::NOW;
use crate::line::Flaw;
use crate::step::Step;

impl Step<'_> {
    pub(crate) fn deliver_with_complete(&mut self, held: Held, answer: Completed) {
        if !self.line.has(Flaw::HalfComplete) {
            self.deliver();
        }
        if self.line.has(Flaw::DeliversStale) && answer == Completed::Stale {
            self.deliver_stale(held);
        }
        if self.line.has(Flaw::PastAGap) {
            self.deliver_past_a_gap();
        }
        self.judge_what_is_out();
    }

    pub(crate) fn deliver_with_renewal(&mut self) {
        if !self.line.has(Flaw::HalfRenewal) {
            self.deliver();
        }
        self.judge_what_is_out();
    }

    fn deliver(&mut self) {
        let before = self.state.store.clone();
        let last = self.state.outputs.last().cloned();
        let said = self.state.store.edit(|store| store.deliver_ready(NOW));
        if self.judges {
            self.judge_delivered(&before, said);
        }
        if self.line.has(Flaw::KeepsDelivered) && said {
            self.comes_out(last);
        }
        self.receive();
    }

    fn judge_what_is_out(&mut self) {
        if self.judges {
            self.judge_records();
        }
    }

    /// What a store does that does not ask who has the lease.
    fn deliver_stale(&mut self, held: Held) {
        let is_next = held.position == self.state.head(self.line);
        if let (Completion::Done(record), true) = (self.line.completion(held), is_next) {
            self.comes_out([delivered(record)]);
        }
    }

    /// What a store does that does not look for gaps.
    fn deliver_past_a_gap(&mut self) {
        let rows = self.state.store.browse(Shelf::Record).rows;
        let records = rows.iter().map(|row| Output::parse(&row.json).expect("a row").record);
        let waits = |record: &Record| self.state.store.state(record.position) == Some(Place::Processed);
        let waiting: Vec<_> = records.filter(waits).map(delivered).collect();
        self.comes_out(waiting);
    }

    fn comes_out(&mut self, more: impl IntoIterator<Item = Output>) {
        self.state.outputs.edit(|outputs| outputs.extend(more));
    }
}

fn delivered(record: Record) -> Output {
    Output {
        record,
        processed: NOW,
        sequencing: Some(NOW),
        sequenced: Some(NOW),
    }
}
