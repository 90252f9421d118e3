//! The verdict on a run: lost, duplicated, reordered, counted from what came out and from the record.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hash, RandomState};

use bytes::Bytes;
use conga::core::invariant::{Event, Violation, duplicate, loss, order, serial};
use conga::core::lease::Attempt;
use conga::core::message::{Body, Id, NotAnOutput, Output, Payload, Position, Record, write_open};
use conga::core::partition::Shelf;
use conga::core::shape::Order;
use conga::core::time::Micros;
use conga::ledger::SharedLedger;
use conga::record::Rows;
use conga::shards::Shards;
use conga::store::SharedStore;
use serde::{Deserialize, Serialize};

use super::table::{self, Places};

/// How many violations are told in words.
pub(crate) const TOLD: usize = 20;

/// Of several partitions the positions of the second begin here, and so on: what is told of them shows both.
pub(crate) const PLACES: u64 = 1_000_000_000_000;

/// A position that no other partition has.
pub(crate) fn placed(partition: u32, position: Position) -> Position {
    position.plus(u64::from(partition) * PLACES)
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Verdict {
    pub(crate) sent: u64,
    pub(crate) delivered: u64,
    pub(crate) dead: u64,
    pub(crate) lost: u64,
    pub(crate) duplicated: u64,
    pub(crate) reordered: u64,
    /// Rows in the system of record; `None` where only an output was looked at.
    pub(crate) records: Option<u64>,
    /// Rows in a system of record apart from the store.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) rows: Option<u64>,
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

    pub(crate) fn add(&mut self, violations: &[Violation]) {
        let room = TOLD.saturating_sub(self.violations.len());
        self.violations
            .extend(violations.iter().take(room).map(ToString::to_string));
    }
}

/// One output, as far as a judge needs it: a long run has many.
#[derive(Debug, Clone)]
pub(crate) struct Came {
    pub(crate) position: Position,
    pub(crate) id: Id,
    pub(crate) attempts: u32,
    pub(crate) dead: bool,
    key: Option<u64>,
    /// From when to when it was worked on.
    work: (Micros, Micros),
    at: Micros,
    /// All of it.
    line: u64,
    /// All but its position and the times of its delivery: in a merged line it has others than in its partition.
    open: u64,
    payload: u64,
    /// All that a record apart from the store holds too; but the position, which may differ.
    pub(crate) told: u64,
}

impl Came {
    /// The same, of this partition.
    pub(crate) fn placed(self, partition: u32) -> Self {
        Self {
            position: placed(partition, self.position),
            ..self
        }
    }
}

/// What makes outputs comparable without keeping them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Digest(RandomState);

impl Digest {
    fn of(&self, bytes: &[u8]) -> u64 {
        self.0.hash_one(bytes)
    }

    pub(crate) fn came(&self, line: &Bytes) -> Result<Came, NotAnOutput> {
        Ok(self.output(line, &Output::parse(line)?))
    }

    pub(crate) fn output(&self, line: &Bytes, output: &Output) -> Came {
        let (dead, payload) = match &output.record.body {
            Body::Result(payload) => (false, self.of(payload.text().as_bytes())),
            Body::Dead { .. } => (true, 0),
        };
        Came {
            position: output.record.position,
            id: output.record.id.clone(),
            attempts: output.record.attempts.0,
            dead,
            key: output.record.key.as_ref().map(|key| self.of(key.as_bytes())),
            work: (output.record.processing, output.processed),
            at: output.sequenced.unwrap_or_default(),
            line: self.of(line),
            open: self.of(open(line)),
            payload,
            told: self.of(told(&output.record).as_bytes()),
        }
    }

    /// Whether the output carries this payload.
    pub(crate) fn is_payload(&self, came: &Came, payload: &Payload) -> bool {
        !came.dead && came.payload == self.of(payload.text().as_bytes())
    }
}

/// An output from its position to the times of its delivery.
fn open(line: &[u8]) -> &[u8] {
    const DELIVERY: &[u8] = b",\"sequencing\":";
    let end = line.windows(DELIVERY.len()).rposition(|part| part == DELIVERY);
    let line = &line[..end.unwrap_or(line.len())];
    let begin = line.iter().position(|byte| *byte == b',');
    &line[begin.unwrap_or(0)..]
}

/// What a record says of a message, by whichever attempt, and of several with one id by whichever.
fn told(record: &Record) -> String {
    write_open(&Record {
        position: Position(0),
        attempts: Attempt(0),
        processing: Micros(0),
        ..record.clone()
    })
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

/// Judges a history of what was sent, recorded and delivered, by the order that its line keeps; `key_of` tells the key of a
/// position.
pub(crate) fn judge<K: Eq + Hash>(history: &[Event], order: Order, key_of: impl Fn(Position) -> Option<K>) -> Verdict {
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
    let reordered = match order {
        Order::Total => order::check(history),
        Order::Key { .. } => order::check_by(history, |position, _| key_of(position)),
        Order::None => Vec::new(),
    };
    let duplicated = duplicate::check(history);
    verdict.reordered = reordered.len() as u64;
    verdict.duplicated = duplicated.len() as u64;
    for violations in [&reordered, &duplicated, &loss::check(history)] {
        verdict.add(violations);
    }
    verdict
}

/// As [`judge`], by the keys and the times that the outputs tell.
pub(crate) fn judge_history(history: &[Event], order: Order, came: &[Came]) -> Verdict {
    let keyed = || came.iter().filter_map(|came| Some((came.key?, came)));
    let keys: HashMap<Position, u64> = keyed().map(|(key, came)| (came.position, key)).collect();
    let mut verdict = judge(history, order, |position| keys.get(&position).copied());
    if order == (Order::Key { serial: true }) {
        let spans = keyed().map(|(key, came)| {
            let (from, to) = came.work;
            let span = serial::Span {
                position: came.position,
                id: &came.id,
                from,
                to,
            };
            (key, span)
        });
        let violations = serial::check(spans);
        verdict.reordered += violations.len() as u64;
        verdict.add(&violations);
    }
    verdict
}

/// Judges a run by its producer, its output and the record of its line.
pub(crate) async fn judge_run(
    store: &SharedStore,
    ledger: &SharedLedger,
    ids: &[String],
    lines: &[Bytes],
    outputs: &[Output],
) -> anyhow::Result<Verdict> {
    let digest = Digest::default();
    let came: Vec<Came> = lines
        .iter()
        .zip(outputs)
        .map(|(line, output)| digest.output(line, output))
        .collect();
    judge_came(&Shards::one(store.clone()), ledger, ids, &came, &digest).await
}

/// As [`judge_run`], of a run whose outputs were not kept, on a line of these partitions: what came is [`placed`], or merged.
pub(crate) async fn judge_came(
    shards: &Shards,
    ledger: &SharedLedger,
    ids: &[String],
    came: &[Came],
    digest: &Digest,
) -> anyhow::Result<Verdict> {
    let delivered = came.iter().map(|came| Event::Delivered {
        position: came.position,
        id: came.id.clone(),
        at: came.at,
        dead: came.dead,
    });
    let mut history: Vec<Event> = sent(ids).chain(delivered).collect();
    // The last word on each id; pages of a line at rest repeat nothing, but a store need not promise that.
    let mut records: HashMap<Id, (Position, u64)> = HashMap::new();
    let (merged, order) = (shards.are_merged(), shards.base().shape(None).await?);
    let order = order.unwrap_or_default().order;
    // What has to be the same in a record.
    let text = |came: &Came| if merged { came.open } else { came.line };
    for (partition, store) in (0..).zip(shards.partitions()) {
        let mut of = HashMap::new();
        let mut rows = Rows::new(store.clone(), Shelf::Record);
        while let Some(page) = rows.next().await? {
            for row in page {
                let came = digest.came(&row.json)?;
                of.insert(row.id, (placed(partition, came.position), text(&came)));
            }
        }
        history.extend(of.iter().map(|(id, (position, _))| Event::Recorded {
            id: id.clone(),
            position: *position,
        }));
        records.extend(of);
    }
    let mut verdict = judge_history(&history, order, came);
    verdict.records.get_or_insert(0);
    for came in came.iter().filter(|came| !came.dead) {
        if records.get(&came.id).map(|(_, line)| *line) != Some(text(came)) {
            verdict.differing += 1;
            verdict.add(&[Violation {
                invariant: "record",
                position: Some(came.position),
                id: Some(came.id.clone()),
                what: "the output is not what the record holds".to_owned(),
            }]);
        }
    }
    if merged {
        out_of_place(&mut verdict, came);
    }
    let places = if merged { Places::Merged } else { Places::Own };
    table::compare(&mut verdict, ledger, came, digest, places, false).await?;
    Ok(verdict)
}

/// In a merged line the sequence is the identity, and the place.
fn out_of_place(verdict: &mut Verdict, came: &[Came]) {
    for came in came.iter().filter(|came| came.id.as_str() != came.position.to_string()) {
        verdict.reordered += 1;
        verdict.add(&[Violation {
            invariant: "order",
            position: Some(came.position),
            id: Some(came.id.clone()),
            what: "came out at another place than its sequence".to_owned(),
        }]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn came(position: u64, id: &str) -> Event {
        Event::Delivered {
            position: Position(position),
            id: Id::given(id),
            at: Micros(0),
            dead: false,
        }
    }

    fn run_in(order: Order, events: &[Event]) -> Verdict {
        let ids: Vec<String> = ["a", "b", "c"].map(str::to_owned).into();
        let history: Vec<_> = sent(&ids).chain(events.iter().cloned()).collect();
        // Positions 1 and 3 have a key in common.
        judge(&history, order, |position| (position.0 != 2).then_some("k"))
    }

    fn run(events: &[Event]) -> Verdict {
        run_in(Order::Total, events)
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
        let nothing = judge(&[], Order::Total, |_| None::<u64>);
        assert!(!nothing.passed(), "nothing was sent, so nothing was shown");
    }

    #[test]
    fn in_a_merged_line_an_output_has_another_place_and_other_times_and_else_is_what_is_recorded() {
        let line = |position: u64, payload: &str, at: &str| {
            let open =
                format!("{{\"position\":{position},\"id\":\"7\",\"sequence\":7,\"payload\":{payload},\"attempts\":1");
            let text = format!("{open},\"processed\":\"p\",\"sequencing\":\"{at}\",\"sequenced\":\"{at}\"}}");
            Bytes::from(text)
        };
        let payload = "\",\\\"sequencing\\\":\"";
        let merged = line(7, payload, "b");
        assert_eq!(open(&line(3, payload, "a")), open(&merged));
        assert_ne!(open(&line(3, "1", "a")), open(&merged));
        let digest = Digest::default();
        let text = r#"{"position":7,"id":"7","sequence":7,"payload":1,"attempts":1,"created":"2026-01-02T03:04:05Z","processing":"2026-01-02T03:04:05Z","processed":"2026-01-02T03:04:05Z"}"#;
        let came = digest.came(&Bytes::from_static(text.as_bytes())).expect("an output");
        let mut verdict = Verdict::default();
        out_of_place(&mut verdict, std::slice::from_ref(&came));
        assert_eq!(verdict.reordered, 0);
        out_of_place(&mut verdict, &[came.placed(1)]);
        assert_eq!(verdict.reordered, 1);
    }

    #[test]
    fn a_run_is_judged_by_the_order_of_its_line() {
        let (key, none) = (Order::Key { serial: true }, Order::None);
        let passed = |order, positions: [(u64, &str); 3]| {
            run_in(order, &positions.map(|(position, id)| came(position, id))).passed()
        };
        let between_keys = [(2, "b"), (1, "a"), (3, "c")];
        let within_a_key = [(3, "c"), (1, "a"), (2, "b")];
        assert!(passed(key, between_keys) && !passed(key, within_a_key));
        assert!(passed(none, between_keys) && passed(none, within_a_key));
        assert!(!passed(none, [(3, "c"), (3, "c"), (2, "b")]), "lost and doubled");
    }
}
