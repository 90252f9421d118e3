//! What retention may do, and no more: the last records stay, and an id counts again only when its record is gone.

use std::collections::BTreeSet;
use std::ops::Bound;

use bytes::Bytes;
use conga::core::message::{Body, Id, Output, Position};
use conga::deliver::position_of;

use super::Judge;
use crate::history::{Happened, History};

impl Judge {
    /// How many records stay at least, if not all.
    fn most(&self) -> Option<u64> {
        self.plan.keep.records.count
    }

    /// Notes a result that is handed out. A consumer may know it for one that it has acknowledged, and not write it down.
    pub(super) fn hand_out(&mut self, output: &Bytes) {
        let Ok(Output { record, .. }) = Output::parse(output) else {
            return;
        };
        if matches!(record.body, Body::Result(_)) {
            self.results.insert(record.position, (record.id, output.clone()));
        }
    }

    /// Whether what came out here has come out before, and may all the same: so many results stand in between that its
    /// record was let go.
    pub(super) fn counts_again(&self, id: &Id, position: Position) -> bool {
        let mut before = self.results.range(..position).rev();
        let since = before.position(|(_, (of, _))| of == id);
        let most = self.most().and_then(|most| usize::try_from(most).ok());
        since.zip(most).is_some_and(|(since, most)| since >= most)
    }

    /// The last position that a consumer has written down, or knew and so did not.
    pub(super) fn last_written(&self) -> Option<Position> {
        let written = self.written.last_key_value().map(|(position, _)| *position);
        let known = |(position, (id, _)): &(&Position, &(Id, Bytes))| self.counts_again(id, **position);
        let known = self.results.iter().rev().find(known).map(|(position, _)| *position);
        written.max(known)
    }

    /// What was written down, or was known and so was not.
    pub(super) fn written_or_known(&self, position: Position) -> Option<Bytes> {
        let known = self.results.get(&position);
        let known = known.filter(|(id, _)| self.counts_again(id, position));
        self.written.get(&position).or(known.map(|(_, output)| output)).cloned()
    }

    pub(super) fn all_written(&mut self) {
        let is_missing = |position: &&Position| self.written_or_known(**position).is_none();
        let missing: Vec<_> = self.results.keys().filter(is_missing).copied().collect();
        self.expect(missing.is_empty(), || {
            format!("handed out, and not written down: {missing:?}")
        });
    }

    /// Whether the id came out at this position, or before it.
    pub(super) fn came_out(&self, id: &Id, position: Position) -> bool {
        let until = (Bound::Unbounded, Bound::Included(position));
        self.plan.keep.is_set() && self.results.range(until).any(|(_, (of, _))| of == id)
    }

    /// The record has the last results, and so many of them as stay.
    pub(super) fn last_stay(&mut self, records: &[Position]) {
        let all = self.results.len() as u64;
        let least = self.most().map_or(all, |most| most.min(all));
        let last: Vec<_> = self.results.keys().rev().take(records.len()).copied().collect();
        let (count, mut is) = (records.len() as u64, records.to_vec());
        is.sort_unstable_by(|a, b| b.cmp(a));
        self.expect(count >= least && is == last, || {
            format!("the record has {is:?}, the last results are {last:?}, and {least} stay at least")
        });
    }
}

/// How many of the results that came out have no record any more.
pub(crate) fn records_gone(history: &History) -> u64 {
    let wrote = history.happened.iter().filter_map(|noted| match &noted.what {
        Happened::Wrote { outputs } => Some(outputs),
        _ => None,
    });
    let results = wrote
        .flatten()
        .filter(|output| !output.windows(7).any(|part| part == b"\"dead\":"));
    let results: BTreeSet<_> = results.filter_map(|output| position_of(output)).collect();
    let left = history.rest.first().map_or(0, |rest| rest.record.len());
    results.len().saturating_sub(left) as u64
}
