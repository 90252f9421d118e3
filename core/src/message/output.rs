//! Reading outputs.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Body, Id, Payload, Position, Record};
use crate::lease::Attempt;
use crate::time::Micros;

/// One output, read: the record and the later datetimes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Output {
    /// What became of the message.
    pub record: Record,
    /// When its result was recorded.
    pub processed: Micros,
    /// When the leader took it up. Not there in a record that is not delivered yet.
    pub sequencing: Option<Micros>,
    /// When it was delivered. Not there in a record that is not delivered yet.
    pub sequenced: Option<Micros>,
}

/// The text is no output.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an output of Conga: {0}")]
pub struct NotAnOutput(pub String);

#[derive(Deserialize)]
struct Fields<'a> {
    position: u64,
    id: String,
    sequence: Option<u64>,
    key: Option<String>,
    #[serde(borrow, default, deserialize_with = "super::input::even_null")]
    payload: Option<&'a RawValue>,
    payload_base64: Option<String>,
    dead: Option<Dead>,
    attempts: u32,
    created: String,
    processing: String,
    processed: String,
    sequencing: Option<String>,
    sequenced: Option<String>,
}

#[derive(Deserialize)]
struct Dead {
    reason: String,
}

impl Output {
    /// Reads one line of the output, or a row of the record.
    ///
    /// # Errors
    /// [`NotAnOutput`] says what is missing.
    pub fn parse(line: &Bytes) -> Result<Self, NotAnOutput> {
        let fields: Fields<'_> = serde_json::from_slice(line).map_err(refuse)?;
        let body = match (fields.payload, fields.payload_base64, fields.dead) {
            (Some(raw), None, None) => Body::Result(Payload::from_raw(line, raw)),
            (None, Some(text), None) => Body::Result(Payload::from_base64(&text).map_err(refuse)?),
            (None, None, Some(dead)) => Body::Dead { reason: dead.reason },
            _ => return Err(refuse("it needs one of `payload`, `payload_base64` and `dead`")),
        };
        let time = |text: &str| Micros::parse(text).map_err(refuse);
        Ok(Self {
            record: Record {
                position: Position(fields.position),
                id: Id::given(fields.id),
                sequence: fields.sequence,
                key: fields.key,
                body,
                attempts: Attempt(fields.attempts),
                created: time(&fields.created)?,
                processing: time(&fields.processing)?,
            },
            processed: time(&fields.processed)?,
            sequencing: fields.sequencing.as_deref().map(time).transpose()?,
            sequenced: fields.sequenced.as_deref().map(time).transpose()?,
        })
    }
}

fn refuse(why: impl ToString) -> NotAnOutput {
    NotAnOutput(why.to_string())
}

#[cfg(test)]
mod tests {
    use super::super::{finish, write_open};
    use super::*;

    #[test]
    fn what_is_written_is_what_is_read() {
        for body in [
            Body::Result(Payload::string("x\n\"")),
            Body::Result(Payload::json(&Bytes::from_static(b"null")).unwrap()),
            Body::Result(Payload::bytes(b"\xff")),
            Body::Dead {
                reason: "no \"way\"".to_owned(),
            },
        ] {
            let record = Record {
                position: Position(3),
                id: Id::given("a\u{e9}"),
                sequence: Some(u64::MAX),
                key: Some("k".to_owned()),
                body,
                attempts: Attempt(2),
                created: Micros(1),
                processing: Micros(2),
            };
            let mut text = write_open(&record);
            finish(&mut text, Micros(3), Micros(4), Micros(5));
            let output = Output::parse(&text.into()).unwrap();
            assert_eq!(output.record, record);
            assert_eq!(output.sequenced, Some(Micros(5)));
        }
    }

    #[test]
    fn what_is_none_is_refused() {
        for text in ["", "{}", "[]", "{\"position\":1,\"id\":\"1\"}"] {
            assert!(Output::parse(&Bytes::from(text)).is_err(), "{text}");
        }
    }
}
