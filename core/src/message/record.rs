//! The record of a message, and its text form: the output.

use std::fmt::Write as _;

use super::{Id, Payload, Position};
use crate::lease::Attempt;
use crate::time::{Micros, Plain};

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
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
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
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
        Body::Result(payload) => payload.size(),
        Body::Dead { reason } => reason.len(),
    };
    let mut text = String::with_capacity(size + 384);
    let mut digits = itoa::Buffer::new();
    text.push_str("{\"position\":");
    text.push_str(digits.format(record.position.0));
    text.push_str(",\"id\":");
    write_string(&mut text, record.id.as_str());
    if let Some(sequence) = record.sequence {
        text.push_str(",\"sequence\":");
        text.push_str(digits.format(sequence));
    }
    if let Some(key) = &record.key {
        text.push_str(",\"key\":");
        write_string(&mut text, key);
    }
    match &record.body {
        Body::Result(payload) => {
            text.push_str(",\"");
            text.push_str(payload.field());
            text.push_str("\":");
            text.push_str(payload.text());
        }
        Body::Dead { reason } => {
            text.push_str(",\"dead\":{\"reason\":");
            write_string(&mut text, reason);
            text.push_str(",\"attempts\":");
            text.push_str(digits.format(record.attempts.0));
            text.push('}');
        }
    }
    text.push_str(",\"attempts\":");
    text.push_str(digits.format(record.attempts.0));
    write_datetime(&mut text, "created", record.created);
    write_datetime(&mut text, "processing", record.processing);
    text
}

/// Adds the three later datetimes to what [`write_open`] wrote, and closes it: the output.
pub fn finish(open: &mut String, processed: Micros, sequencing: Micros, sequenced: Micros) {
    write_datetime(open, "processed", processed);
    write_datetime(open, "sequencing", sequencing);
    write_datetime(open, "sequenced", sequenced);
    open.push('}');
}

fn write_datetime(text: &mut String, name: &str, datetime: Micros) {
    text.push_str(",\"");
    text.push_str(name);
    text.push_str("\":\"");
    text.push_str(Plain::of(datetime).as_str());
    text.push('"');
}

/// Writes text as a JSON string.
pub fn write_string(text: &mut String, value: &str) {
    if value.bytes().any(|byte| byte < b' ' || byte == b'"' || byte == b'\\') {
        let _ = write!(text, "{}", serde_json::Value::from(value));
        return;
    }
    text.push('"');
    text.push_str(value);
    text.push('"');
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
