//! The verdict on a run: lost, duplicated, reordered, counted from what came out and from the record.

use std::collections::HashMap;

use bytes::Bytes;
use conga::core::invariant::{Event, Violation, duplicate, loss, order};
use conga::core::message::{Body, Id, Output};
use conga::core::partition::Shelf;
use conga::core::time::Micros;
use conga::record::Rows;
use conga::store::SharedStore;
use serde::Serialize;

/// How many violations are told in words.
const TOLD: usize = 20;

/// What was found.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Verdict {
    pub(crate) sent: u64,
    pub(crate) delivered: u64,
    pub(crate) dead: u64,
    pub(crate) lost: u64,
    pub(crate) duplicated: u64,
    pub(crate) reordered: u64,
    /// Rows in the system of record; `None` where only an output was looked at.
    pub(crate) records: Option<u64>,
    /// Outputs that are not, byte for byte, what the record holds for their id.
    pub(crate) differing: u64,
    /// The first violations, in words.
    pub(crate) violations: Vec<String>,
}

impl Verdict {
    /// Whether all that was sent came out, once, in order and as it is recorded, and something was sent at all.
    pub(crate) fn passed(&self) -> bool {
        self.sent > 0 && self.lost + self.duplicated + self.reordered + self.differing == 0
    }

    fn add(&mut self, violations: &[Violation]) {
        let room = TOLD.saturating_sub(self.violations.len());
        self.violations
            .extend(violations.iter().take(room).map(ToString::to_string));
    }
}

/// The history that outputs tell.
pub(crate) fn delivered(outputs: &[Output]) -> impl Iterator<Item = Event> {
    outputs.iter().map(|output| Event::Delivered {
        position: output.record.position,
        id: output.record.id.clone(),
        at: output.sequenced.unwrap_or_default(),
        dead: matches!(output.record.body, Body::Dead { .. }),
    })
}

/// The history that a producer tells.
pub(crate) fn sent(ids: &[String]) -> impl Iterator<Item = Event> {
    ids.iter().map(|id| Event::Sent {
        id: Id::given(id.as_str()),
        at: Micros::default(),
    })
}

/// Judges a history of what was sent, recorded and delivered.
pub(crate) fn judge(history: &[Event]) -> Verdict {
    let mut verdict = Verdict::default();
    for event in history {
        match event {
            Event::Delivered { dead, .. } => {
                verdict.delivered += 1;
                verdict.dead += u64::from(*dead);
            }
            Event::Recorded { .. } => *verdict.records.get_or_insert(0) += 1,
            _ => {}
        }
    }
    let count = loss::count(history);
    verdict.sent = count.sent;
    verdict.lost = count.lost;
    let (reordered, duplicated) = (order::check(history), duplicate::check(history));
    verdict.reordered = reordered.len() as u64;
    verdict.duplicated = duplicated.len() as u64;
    for violations in [&reordered, &duplicated, &loss::check(history)] {
        verdict.add(violations);
    }
    verdict
}

/// Judges a run by its producer, its output and the record of its line.
pub(crate) async fn judge_run(
    store: &SharedStore,
    ids: &[String],
    lines: &[Bytes],
    outputs: &[Output],
) -> anyhow::Result<Verdict> {
    let mut history: Vec<Event> = sent(ids).chain(delivered(outputs)).collect();
    // The last word on each id; pages of a line at rest repeat nothing, but a store need not promise that.
    let mut records: HashMap<Id, Bytes> = HashMap::new();
    let mut rows = Rows::new(store.clone(), Shelf::Record);
    while let Some(page) = rows.next().await? {
        records.extend(page.into_iter().map(|row| (row.id, row.json)));
    }
    for row in records.values() {
        let row = Output::parse(row)?;
        history.push(Event::Recorded {
            id: row.record.id,
            position: row.record.position,
        });
    }
    let mut verdict = judge(&history);
    verdict.records.get_or_insert(0);
    for (line, output) in lines.iter().zip(outputs) {
        let is_dead = matches!(output.record.body, Body::Dead { .. });
        if !is_dead && records.get(&output.record.id) != Some(line) {
            verdict.differing += 1;
            verdict.add(&[Violation {
                invariant: "record",
                position: Some(output.record.position),
                id: Some(output.record.id.clone()),
                what: "the output is not what the record holds".to_owned(),
            }]);
        }
    }
    Ok(verdict)
}

#[cfg(test)]
mod tests {
    use conga::core::message::Position;

    use super::*;

    fn came(position: u64, id: &str) -> Event {
        Event::Delivered {
            position: Position(position),
            id: Id::given(id),
            at: Micros(0),
            dead: false,
        }
    }

    fn run(events: &[Event]) -> Verdict {
        let ids: Vec<String> = ["a", "b", "c"].map(str::to_owned).into();
        judge(&sent(&ids).chain(events.iter().cloned()).collect::<Vec<_>>())
    }

    #[test]
    fn a_good_run_passes_and_each_fault_does_not() {
        let good = run(&[came(1, "a"), came(2, "b"), came(3, "c")]);
        assert!(good.passed(), "{good:?}");
        let lost = run(&[came(1, "a"), came(3, "c")]);
        assert_eq!((lost.lost, lost.passed()), (1, false));
        let doubled = run(&[came(1, "a"), came(2, "b"), came(3, "c"), came(4, "a")]);
        assert_eq!((doubled.duplicated, doubled.passed()), (1, false));
        let reordered = run(&[came(2, "b"), came(1, "a"), came(3, "c")]);
        assert_eq!((reordered.reordered, reordered.passed()), (1, false));
        assert!(!judge(&[]).passed(), "nothing was sent, so nothing was shown");
    }
}
