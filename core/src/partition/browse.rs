//! Browse: the system of record and the dead letters, a page at a time.

use bytes::Bytes;

use super::{DeadLetter, Partition, Stored};
use crate::lease::Attempt;
use crate::message::{Id, Payload, Position, finish, write_open};
use crate::time::Micros;

/// What to browse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shelf {
    /// The system of record: each row as its output, without the datetimes that are still to come.
    Record,
    /// The dead letters, as [`write_dead_letter`] writes them.
    Dead,
}

/// One row: its identity, and JSON text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The message's id.
    pub id: Id,
    /// A JSON object.
    pub json: Bytes,
}

/// Some rows. A row may come on more than one page while the line runs, but none that stays is left out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// The rows, in no promised order.
    pub rows: Vec<Row>,
    /// How to ask for the page after this one; `None` after the last.
    pub next: Option<String>,
}

/// Closes what [`write_open`] began for a record that is processed and not yet delivered.
pub fn finish_processed(open: &mut String, processed: Micros) {
    open.push_str(",\"processed\":\"");
    open.push_str(&processed.to_string());
    open.push_str("\"}");
}

/// A dead letter as text: why, when, and the entry as it came in; and that the line is halted at it, where it is.
pub fn write_dead_letter(
    position: Position,
    id: &Id,
    reason: &str,
    attempts: Attempt,
    died: Micros,
    entry: &[u8],
    is_halted: bool,
) -> String {
    let entry = Payload::bytes(entry);
    let field = if entry.is_base64() { "entry_base64" } else { "entry" };
    let quote = |text: &str| serde_json::Value::from(text).to_string();
    let halted = if is_halted { "\"halted\":true," } else { "" };
    format!(
        "{{\"position\":{position},\"id\":{},\"reason\":{},\"attempts\":{attempts},\"died\":\"{died}\",{halted}\"{field}\":{}}}",
        quote(id.as_str()),
        quote(reason),
        entry.text(),
    )
}

impl Partition {
    /// All rows of a shelf as one page. Changes nothing.
    pub fn browse(&self, shelf: Shelf) -> Page {
        let rows = match shelf {
            Shelf::Record => self.records.iter().map(|(id, stored)| stored.row(id)).collect(),
            Shelf::Dead => self.dead.iter().map(DeadLetter::row).collect(),
        };
        Page { rows, next: None }
    }
}

impl Stored {
    fn row(&self, id: &Id) -> Row {
        let mut text = write_open(&self.record);
        match self.delivered {
            Some((sequencing, sequenced)) => finish(&mut text, self.processed, sequencing, sequenced),
            None => finish_processed(&mut text, self.processed),
        }
        Row {
            id: id.clone(),
            json: text.into(),
        }
    }
}

impl DeadLetter {
    fn row(&self) -> Row {
        let text = write_dead_letter(
            self.position,
            &self.id,
            &self.reason,
            self.attempts,
            self.died,
            &self.entry,
            self.open.is_some(),
        );
        Row {
            id: self.id.clone(),
            json: text.into(),
        }
    }
}
