//! The record of a message, and its text form: the output.

use std::fmt::Write as _;

use super::{Id, Payload, Position};
use crate::lease::Attempt;
use crate::time::Micros;

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// The handler's result.
    Result(Payload),
    /// It failed for good: this is a tombstone.
    Dead {
        /// Why.
        reason: String,
    },
}

/// One row of the system of record, and one output: the same thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its place in the order.
    pub position: Position,
    /// Its identity.
    pub id: Id,
    /// The producer's own number, if it gave one.
    pub sequence: Option<u64>,
    /// The key, if the producer gave one.
    pub key: Option<String>,
    /// The result, or the reason why there is none.
    pub body: Body,
    /// How often it was claimed, this time included.
    pub attempts: Attempt,
    /// When the producer made it; where it did not say, when it was claimed.
    pub created: Micros,
    /// When the claim was made that led to this result.
    pub processing: Micros,
}

/// Writes a record up to and without its later datetimes and the closing brace. The position stands first.
pub fn write_open(record: &Record) -> String {
    let size = match &record.body {
        Body::Result(payload) => payload.text().len(),
        Body::Dead { reason } => reason.len(),
    };
    let mut text = String::with_capacity(size + 256);
    // Writing to a String never fails.
    let _ = write!(text, "{{\"position\":{},\"id\":", record.position);
    write_string(&mut text, record.id.as_str());
    if let Some(sequence) = record.sequence {
        let _ = write!(text, ",\"sequence\":{sequence}");
    }
    if let Some(key) = &record.key {
        text.push_str(",\"key\":");
        write_string(&mut text, key);
    }
    match &record.body {
        Body::Result(payload) => {
            let _ = write!(text, ",\"{}\":{}", payload.field(), payload.text());
        }
        Body::Dead { reason } => {
            text.push_str(",\"dead\":{\"reason\":");
            write_string(&mut text, reason);
            let _ = write!(text, ",\"attempts\":{}}}", record.attempts);
        }
    }
    let _ = write!(
        text,
        ",\"attempts\":{},\"created\":\"{}\",\"processing\":\"{}\"",
        record.attempts, record.created, record.processing
    );
    text
}

/// Adds the three later datetimes to what [`write_open`] wrote, and closes it: the output.
pub fn finish(open: &mut String, processed: Micros, sequencing: Micros, sequenced: Micros) {
    let _ = write!(
        open,
        ",\"processed\":\"{processed}\",\"sequencing\":\"{sequencing}\",\"sequenced\":\"{sequenced}\"}}"
    );
}

fn write_string(text: &mut String, value: &str) {
    let _ = write!(text, "{}", serde_json::Value::from(value));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            position: Position(3),
            id: Id::given("a\"b"),
            sequence: Some(9),
            key: None,
            body: Body::Result(Payload::string("x")),
            attempts: Attempt(1),
            created: Micros(1),
            processing: Micros(2),
        }
    }

    #[test]
    fn an_output_is_one_line_of_json_with_the_position_first() {
        let mut text = write_open(&record());
        finish(&mut text, Micros(3), Micros(4), Micros(5));
        assert_eq!(
            text,
            "{\"position\":3,\"id\":\"a\\\"b\",\"sequence\":9,\"payload\":\"x\",\"attempts\":1,\
             \"created\":\"1970-01-01T00:00:00.000001Z\",\"processing\":\"1970-01-01T00:00:00.000002Z\",\
             \"processed\":\"1970-01-01T00:00:00.000003Z\",\"sequencing\":\"1970-01-01T00:00:00.000004Z\",\
             \"sequenced\":\"1970-01-01T00:00:00.000005Z\"}"
        );
        assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok());
    }

    #[test]
    fn a_tombstone_tells_its_reason_in_place_of_the_payload() {
        let mut text = write_open(&Record {
            body: Body::Dead {
                reason: "no\nway".to_owned(),
            },
            ..record()
        });
        finish(&mut text, Micros(3), Micros(4), Micros(5));
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["dead"]["reason"], "no\nway");
        assert_eq!(value["dead"]["attempts"], 1);
        assert!(value.get("payload").is_none());
    }
}
