//! What consumers are handed out, acknowledge and write down.

use bytes::Bytes;
use conga::core::invariant::Event;
use conga::core::lease::OwnerId;
use conga::core::message::{Body, Output, Position};
use conga::core::term::{Reign, Term};
use conga::core::time::Micros;
use conga::deliver::position_of;

use super::Judge;

impl Judge {
    /// Law 6, for consumers: a term is one owner's, and only grows.
    pub(super) fn activated(&mut self, owner: &OwnerId, term: Term) {
        let reign = Reign {
            owner: owner.clone(),
            term,
        };
        let before = self.active.replace(reign.clone());
        let is_right = match &before {
            Some(before) => before.term < term || *before == reign,
            None => true,
        };
        self.expect(is_right, || format!("{reign:?} comes after {before:?}"));
    }

    pub(super) fn received(&mut self, acknowledged: Option<Position>, outputs: &[Bytes]) {
        let last_written = self.last_written();
        outputs.iter().for_each(|output| self.hand_out(output));
        if !self.is_total() {
            return self.received_in_place(acknowledged, outputs);
        }
        let outputs: Vec<_> = outputs.iter().filter_map(|output| position_of(output)).collect();
        self.expect(acknowledged <= last_written, || {
            format!("{acknowledged:?} is acknowledged, but only {last_written:?} is written")
        });
        self.expect(outputs.is_sorted_by(|a, b| a < b), || {
            format!("handed out at once, and not in ascending order: {outputs:?}")
        });
        self.acknowledged = self.acknowledged.max(acknowledged);
        let after = self.acknowledged;
        self.expect(outputs.iter().all(|position| Some(*position) > after), || {
            format!("{outputs:?} are handed out though all up to {after:?} was acknowledged")
        });
    }

    pub(super) fn write(&mut self, at: Micros, output: &Bytes) {
        let Some(position) = position_of(output) else {
            return self.wrong(format!("no output: {output:?}"));
        };
        if let Some(before) = self.written.insert(position, output.clone()) {
            return self.expect(before == *output, || format!("{before:?} has become {output:?}"));
        }
        match Output::parse(output) {
            Ok(Output { record, .. }) => {
                let dead = matches!(record.body, Body::Dead { .. });
                if dead || !self.counts_again(&record.id, position) {
                    let id = record.id;
                    self.events.push(Event::Delivered { position, id, at, dead });
                }
            }
            Err(error) => self.wrong(error.to_string()),
        }
    }
}
