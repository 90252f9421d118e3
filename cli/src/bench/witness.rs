//! The judge of what one producer sent without ever repeating itself: then all that comes out is known beforehand,
//! byte for byte, but for the datetimes. So each output is compared as it comes and need not be kept, however many
//! there are; what is not as expected is looked at more closely.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use conga::core::message::{Body, Output, Position};
use conga::core::partition::Shelf;
use conga::core::shape::Order;
use conga::deliver::position_of;
use conga::ledger::SharedLedger;
use conga::record::{LedgerRows, Rows};
use conga::store::SharedStore;
use serde::{Deserialize, Serialize};

use super::judge::{TOLD, Verdict};
use super::load::Load;

/// Sees all outputs of a line, in the order in which they come.
#[derive(Debug)]
pub(crate) struct Witness {
    load: Load,
    seen: Numbers,
    /// The number that should come next.
    next: u64,
    last: Position,
    digest: Sum,
    told: Sum,
    verdict: Verdict,
    expected: Vec<u8>,
    order: Order,
    /// Where order is by key, the last number of each.
    last_of: HashMap<String, u64>,
}

/// What a witness has to say, once all has come.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Testimony {
    pub(crate) verdict: Verdict,
    digest: Sum,
    /// Of what a record apart from the store holds too.
    told: Sum,
}

impl Witness {
    /// One who expects the messages 1 to `messages` of a load.
    pub(crate) fn new(load: Load, messages: u64) -> Self {
        Self {
            load,
            seen: Numbers::new(messages),
            next: 1,
            last: Position(0),
            digest: Sum::default(),
            told: Sum::default(),
            verdict: Verdict {
                sent: messages,
                ..Verdict::default()
            },
            expected: Vec::new(),
            order: Order::Total,
            last_of: HashMap::new(),
        }
    }

    /// The same, of a line that keeps this order.
    pub(crate) fn by(self, order: Order) -> Self {
        Self { order, ..self }
    }

    /// An output where not all messages keep their order: which one it is tells its position.
    fn output_of_any(&mut self, line: &[u8]) {
        let number = position_of(line).map_or(0, |position| position.0);
        self.digest.add(line);
        self.told.add(told(line));
        if number == 0 || number > self.seen.count {
            return self.differs("is at a position where nothing was sent", line);
        }
        self.expect(&format!("{{\"position\":{number},"), number);
        if !line.starts_with(&self.expected) {
            return self.differs("is not what was sent there", line);
        }
        if self.seen.has(number) {
            self.verdict.delivered += 1;
            self.verdict.duplicated += 1;
            return self.tell(|| format!("duplicate: message {number} came again"));
        }
        if let (Order::Key { .. }, Some(key)) = (self.order, self.load.key(number)) {
            let last = self.last_of.entry(key).or_default();
            let before = *last;
            *last = before.max(number);
            if before > number {
                self.verdict.reordered += 1;
                self.tell(|| format!("order: message {number} came after {before} of its key"));
            }
        }
        self.came(number);
    }

    /// An output of Conga.
    pub(crate) fn output(&mut self, line: &[u8]) {
        if self.order != Order::Total {
            return self.output_of_any(line);
        }
        let number = self.next;
        let opening = format!("{{\"position\":{number},");
        self.expect(&opening, number);
        self.digest.add(line);
        self.told.add(told(line));
        if number <= self.seen.count && line.starts_with(&self.expected) {
            self.came(number);
            self.last = Position(number);
        } else {
            self.look_closer(line);
        }
    }

    /// An output of the yardstick: the entry as it was sent, or at least its id and its payload.
    pub(crate) fn entry(&mut self, line: &[u8]) {
        let number = self.next;
        let message = self.load.message(number, conga::core::time::Micros::default());
        let id = format!("{{\"id\":\"{}\",\"created\":\"", message.id.unwrap_or_default());
        let end = format!("\"payload\":{}}}", message.payload.text());
        let fits = line.starts_with(id.as_bytes()) && line.ends_with(end.as_bytes());
        if number <= self.seen.count && fits {
            self.came(number);
            return;
        }
        let entry: Entry = serde_json::from_slice(line).unwrap_or_default();
        match self.load.number(&entry.id).filter(|number| *number <= self.seen.count) {
            Some(number) => self.out_of_place(number),
            None => self.differs("is none of the messages that were sent", line),
        }
    }

    /// After the last one: what did not come is lost.
    pub(crate) fn end(mut self) -> Testimony {
        self.verdict.lost = self.verdict.sent - self.seen.set;
        if let Some(number) = self.seen.first_missing() {
            let lost = self.verdict.lost;
            self.tell(|| format!("loss: {lost} did not come out, first message {number}"));
        }
        Testimony {
            verdict: self.verdict,
            digest: self.digest,
            told: self.told,
        }
    }

    /// How an output begins, up to the end of its payload.
    fn expect(&mut self, opening: &str, number: u64) {
        let payload = self.load.payload_of(number);
        self.expected.clear();
        let key = self.load.key(number).map(|key| format!(",\"key\":\"{key}\""));
        for part in [
            opening,
            "\"id\":\"",
            &self.load.id(number),
            "\"",
            key.as_deref().unwrap_or_default(),
            ",\"payload\":",
            payload.text(),
            ",",
        ] {
            self.expected.extend_from_slice(part.as_bytes());
        }
    }

    fn look_closer(&mut self, line: &[u8]) {
        let output = match Output::parse(&bytes::Bytes::copy_from_slice(line)) {
            Ok(output) => output,
            Err(error) => return self.differs(&format!("is no output: {error}"), line),
        };
        let position = output.record.position;
        let number = self.load.number(output.record.id.as_str());
        let Some(number) = number.filter(|number| *number <= self.seen.count) else {
            return self.differs("has an id that was not sent", line);
        };
        let as_sent = match &output.record.body {
            Body::Result(payload) => *payload == self.load.payload_of(number),
            Body::Dead { .. } => {
                self.verdict.dead += 1;
                false
            }
        };
        // The number that should have come is at its place, only what it carries is not.
        let in_place = number == self.next && position > self.last && position.0 == number;
        if in_place {
            self.came(number);
        } else {
            self.out_of_place(number);
        }
        self.last = self.last.max(position);
        if !as_sent {
            self.verdict.differing += 1;
            self.tell(|| format!("record: message {number} did not come out as it was sent"));
        }
    }

    fn out_of_place(&mut self, number: u64) {
        let next = self.next;
        if self.seen.has(number) {
            self.verdict.delivered += 1;
            self.verdict.duplicated += 1;
            self.tell(|| format!("duplicate: message {number} came again where {next} should have come"));
            return;
        }
        // One that is missing is lost, not out of place; one that comes after a later one is.
        if number <= next {
            self.verdict.reordered += 1;
            self.tell(|| format!("order: message {number} came where {next} should have come"));
        }
        self.came(number);
    }

    fn came(&mut self, number: u64) {
        self.seen.add(number);
        self.verdict.delivered += 1;
        self.next = self.next.max(number + 1);
    }

    fn differs(&mut self, how: &str, line: &[u8]) {
        self.verdict.delivered += 1;
        self.verdict.differing += 1;
        let shown = String::from_utf8_lossy(&line[..line.len().min(120)]).into_owned();
        self.tell(|| format!("output: {shown} {how}"));
    }

    fn tell(&mut self, what: impl FnOnce() -> String) {
        if self.verdict.violations.len() < TOLD {
            self.verdict.violations.push(what());
        }
    }
}

#[derive(Debug, Default, Deserialize)]
struct Entry {
    id: String,
}

impl Testimony {
    /// Compares what came out with the record: as many rows, and the same bytes.
    pub(crate) async fn against_record(
        self,
        store: &SharedStore,
        ledger: &SharedLedger,
        load: &Load,
    ) -> anyhow::Result<Verdict> {
        let mut verdict = self.verdict;
        let (mut seen, mut digest, mut strange) = (Numbers::new(verdict.sent), Sum::default(), 0);
        let mut rows = Rows::new(store.clone(), Shelf::Record);
        while let Some(page) = rows.next().await? {
            for row in page {
                match load.number(row.id.as_str()).filter(|number| *number <= seen.count) {
                    // A page may repeat what another had.
                    Some(number) if !seen.add(number) => {}
                    Some(_) => digest.add(&row.json),
                    None => strange += 1,
                }
            }
        }
        verdict.records = Some(seen.set + strange);
        let missing = verdict.delivered.abs_diff(seen.set + strange);
        let altered = u64::from(missing == 0 && digest != self.digest);
        if missing + altered > 0 {
            verdict.differing += missing + altered;
            verdict
                .violations
                .push("record: the outputs, taken together, are not byte for byte what the record holds".to_owned());
        }
        if ledger.is_apart() {
            against_table(&mut verdict, self.told, ledger).await?;
        }
        Ok(verdict)
    }

    /// Compares how many came out with how many rows a record has.
    pub(crate) fn against_count(self, records: u64) -> Verdict {
        let mut verdict = self.verdict;
        verdict.records = Some(records);
        let missing = verdict.sent.abs_diff(records);
        if missing > 0 {
            verdict.differing += missing;
            let sent = verdict.sent;
            verdict
                .violations
                .push(format!("record: {records} rows for {sent} messages"));
        }
        verdict
    }
}

/// As many rows, and the same in them.
async fn against_table(verdict: &mut Verdict, told_by_outputs: Sum, ledger: &SharedLedger) -> anyhow::Result<()> {
    let (mut sum, mut count) = (Sum::default(), 0);
    let mut rows = LedgerRows::new(ledger.clone());
    while let Some(page) = rows.next().await? {
        for row in page {
            count += 1;
            sum.add(told(&row.json));
        }
    }
    verdict.rows = Some(count);
    let missing = verdict.delivered.abs_diff(count);
    let altered = u64::from(missing == 0 && sum != told_by_outputs);
    if missing + altered > 0 {
        verdict.differing += missing + altered;
        verdict
            .violations
            .push("record: the outputs, taken together, are not what the table holds".to_owned());
    }
    Ok(())
}

/// What an output and its row have in common, whichever attempt it was: all up to the attempts, which no payload hides.
fn told(line: &[u8]) -> &[u8] {
    const ATTEMPTS: &[u8] = b",\"attempts\":";
    // Behind it are five datetimes at most, so it is found at once.
    let end = line.windows(ATTEMPTS.len()).rposition(|part| part == ATTEMPTS);
    &line[..end.unwrap_or(line.len())]
}

/// A digest of many lines in any order. Two processes of one program come to the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
struct Sum(u64);

impl Sum {
    fn add(&mut self, line: &[u8]) {
        let mut hasher = DefaultHasher::new();
        line.hash(&mut hasher);
        self.0 = self.0.wrapping_add(hasher.finish());
    }
}

/// A set of the numbers 1 to `count`, a bit each.
#[derive(Debug)]
struct Numbers {
    count: u64,
    set: u64,
    bits: Vec<u64>,
}

impl Numbers {
    fn new(count: u64) -> Self {
        let words = usize::try_from(count / 64 + 1).unwrap_or(usize::MAX);
        Self {
            count,
            set: 0,
            bits: vec![0; words],
        }
    }

    fn place(number: u64) -> (usize, u64) {
        (usize::try_from(number / 64).unwrap_or(usize::MAX), 1 << (number % 64))
    }

    fn has(&self, number: u64) -> bool {
        let (word, bit) = Self::place(number);
        self.bits.get(word).is_some_and(|word| word & bit != 0)
    }

    /// Whether it is new.
    fn add(&mut self, number: u64) -> bool {
        let (word, bit) = Self::place(number);
        let is_new = !self.has(number);
        if let Some(word) = self.bits.get_mut(word)
            && is_new
        {
            *word |= bit;
            self.set += 1;
        }
        is_new
    }

    fn first_missing(&self) -> Option<u64> {
        (1..=self.count).find(|number| !self.has(*number))
    }
}

#[cfg(test)]
mod order;
#[cfg(test)]
mod tests;
