//! Reading what producers send.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Entry, Id, Payload, Position, is_of_position};
use crate::time::Micros;

/// What an entry of the input may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// A JSON object with `payload`, or any other bytes, which then are the payload as a whole.
    #[default]
    Any,
    /// A JSON object with `payload` and nothing else: other bytes become dead letters.
    Envelope,
}

/// A message as its producer meant it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// The producer's id, else its sequence, else the position.
    pub id: Id,
    /// The producer's own number.
    pub sequence: Option<u64>,
    /// What messages have in common that must keep their order among them.
    pub key: Option<String>,
    /// When the producer made it, by the producer's clock.
    pub created: Option<Micros>,
    /// What is to be processed.
    pub payload: Payload,
}

/// Why an entry can't be a message: the reason of its dead letter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reject {
    /// [`Format::Envelope`] was asked for and this is none.
    #[error("not an envelope (a JSON object with `payload`): {0}")]
    NotAnEnvelope(String),
    /// An envelope with a field that means nothing.
    #[error("bad `{field}` in the envelope: {reason}")]
    BadField {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The limit on the size of an entry.
    #[error("too large: {bytes} bytes, the limit is {limit}")]
    TooLarge {
        /// How large it is.
        bytes: u64,
        /// How large it may be.
        limit: u64,
    },
}

/// The fields as they stand, each read further only once it is clear that this is an envelope.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default, deserialize_with = "even_null")]
    payload: Option<&'a RawValue>,
    #[serde(borrow)]
    payload_base64: Option<&'a RawValue>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    sequence: Option<&'a RawValue>,
    #[serde(borrow)]
    key: Option<&'a RawValue>,
    #[serde(borrow)]
    created: Option<&'a RawValue>,
}

/// For a payload, `null` is a value; for the other fields it says that there is none.
pub(super) fn even_null<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    Deserialize::deserialize(deserializer).map(Some)
}

/// Reads the entry at `position`. Fields that an envelope does not know are passed over.
///
/// # Errors
/// [`Reject`] says why the entry can only become a dead letter.
pub fn parse(entry: &Entry, position: Position, format: Format, limit: u64) -> Result<Input, Reject> {
    let bytes = match entry {
        Entry::Whole(bytes) if bytes.len() as u64 <= limit => bytes,
        Entry::Whole(bytes) => {
            let bytes = bytes.len() as u64;
            return Err(Reject::TooLarge { bytes, limit });
        }
        Entry::Oversize { bytes } => return Err(Reject::TooLarge { bytes: *bytes, limit }),
    };
    match serde_json::from_slice::<Envelope<'_>>(bytes) {
        Ok(envelope) if bytes.trim_ascii_start().starts_with(b"{") && envelope.has_payload() => {
            envelope.read(bytes, position)
        }
        _ if format == Format::Any => Ok(whole(bytes, position)),
        Ok(_) => Err(Reject::NotAnEnvelope("there is no `payload`".to_owned())),
        Err(error) => Err(Reject::NotAnEnvelope(error.to_string())),
    }
}

/// The identity of what [`parse`] rejects: its id or its sequence as far as they can be read, else the position.
pub fn identify(entry: &Entry, position: Position) -> Id {
    let Entry::Whole(bytes) = entry else {
        return Id::of_position(position);
    };
    let envelope: Option<Envelope<'_>> = serde_json::from_slice(bytes).ok();
    let id = envelope.and_then(|envelope| match (envelope.id, envelope.sequence) {
        (Some(id), _) => read_id(id).ok(),
        (None, Some(sequence)) => Some(Id::given(read_sequence(sequence).ok()?.to_string())),
        (None, None) => None,
    });
    id.unwrap_or_else(|| Id::of_position(position))
}

/// A message that is payload from end to end: JSON if it is JSON, else a string, else base64.
fn whole(bytes: &Bytes, position: Position) -> Input {
    Input {
        id: Id::of_position(position),
        sequence: None,
        key: None,
        created: None,
        payload: Payload::json(bytes).unwrap_or_else(|_| Payload::bytes(bytes)),
    }
}

impl Envelope<'_> {
    fn has_payload(&self) -> bool {
        self.payload.is_some() || self.payload_base64.is_some()
    }

    fn read(&self, source: &Bytes, position: Position) -> Result<Input, Reject> {
        let sequence = self.sequence.map(read_sequence).transpose()?;
        let id = match (self.id, sequence) {
            (Some(id), _) => read_id(id)?,
            (None, Some(sequence)) => Id::given(sequence.to_string()),
            (None, None) => Id::of_position(position),
        };
        let payload = match (self.payload, self.payload_base64) {
            (Some(_), Some(_)) => return Err(bad("payload", "given together with `payload_base64`")),
            (None, Some(raw)) => {
                let text: String = read(raw, "payload_base64", "a string")?;
                Payload::from_base64(&text).map_err(|error| bad("payload_base64", error))?
            }
            (Some(raw), None) => Payload::from_raw(source, raw),
            (None, None) => return Err(bad("payload", "missing")),
        };
        let created = match self.created {
            Some(raw) => {
                let text: String = read(raw, "created", "a string")?;
                Some(Micros::parse(&text).map_err(|error| bad("created", error))?)
            }
            None => None,
        };
        Ok(Input {
            id,
            sequence,
            key: self.key.map(|raw| read(raw, "key", "a string")).transpose()?,
            created,
            payload,
        })
    }
}

fn bad(field: &'static str, reason: impl ToString) -> Reject {
    Reject::BadField {
        field,
        reason: reason.to_string(),
    }
}

fn read<'a, T: Deserialize<'a>>(raw: &'a RawValue, field: &'static str, wanted: &str) -> Result<T, Reject> {
    serde_json::from_str(raw.get()).map_err(|_| bad(field, format!("{} is not {wanted}", brief(raw))))
}

/// JSON has one kind of number, ours has no sign and no fraction.
fn read_sequence(raw: &RawValue) -> Result<u64, Reject> {
    read(raw, "sequence", "a whole number from 0 to 18446744073709551615")
}

/// A string, or a whole number by its digits.
fn read_id(raw: &RawValue) -> Result<Id, Reject> {
    let text = match serde_json::from_str::<serde_json::Value>(raw.get()) {
        Ok(serde_json::Value::String(text)) => text,
        Ok(serde_json::Value::Number(number)) if number.is_u64() || number.is_i64() => number.to_string(),
        _ => {
            return Err(bad(
                "id",
                format!("{} is neither a string nor a whole number", brief(raw)),
            ));
        }
    };
    if text.is_empty() {
        return Err(bad("id", "empty"));
    }
    if text.len() > 512 {
        return Err(bad("id", format!("{} bytes long, the limit is 512", text.len())));
    }
    if is_of_position(&text) {
        return Err(bad(
            "id",
            "`@` and digits stand for a message without an id; choose another form",
        ));
    }
    Ok(Id::given(text))
}

/// The beginning of a value, to show in a reason.
fn brief(raw: &RawValue) -> String {
    let mut text: String = raw.get().chars().take(40).collect();
    if text.len() < raw.get().len() {
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &'static str, format: Format) -> Result<Input, Reject> {
        let entry = Entry::Whole(Bytes::from_static(text.as_bytes()));
        parse(&entry, Position(7), format, 1_000)
    }

    #[test]
    fn an_envelope_gives_its_fields() {
        let input = read(
            r#"{"sequence":18446744073709551615,"key":"k","created":"2026-01-02T03:04:05Z","payload":{"a": 1},"x":0}"#,
            Format::Any,
        )
        .unwrap();
        assert_eq!(input.id.as_str(), "18446744073709551615");
        assert_eq!(input.sequence, Some(u64::MAX));
        assert_eq!(input.key.as_deref(), Some("k"));
        assert_eq!(input.created, Some(Micros(1_767_323_045_000_000)));
        assert_eq!(input.payload.text(), r#"{"a": 1}"#);
    }

    #[test]
    fn an_id_goes_before_the_sequence_and_both_before_the_position() {
        let id = |text| read(text, Format::Any).unwrap().id.to_string();
        assert_eq!(id(r#"{"id":"x","sequence":3,"payload":0}"#), "x");
        assert_eq!(id(r#"{"id":17,"payload":0}"#), "17");
        assert_eq!(id(r#"{"sequence":3,"payload":0}"#), "3");
        assert_eq!(id(r#"{"payload":null}"#), "@7");
        assert_eq!(id(r#"{"id":null,"sequence":null,"payload":0}"#), "@7");
        assert_eq!(id("plain"), "@7");
    }

    #[test]
    fn null_is_a_payload() {
        assert_eq!(
            read(r#"{"payload":null}"#, Format::Envelope).unwrap().payload.text(),
            "null"
        );
    }

    #[test]
    fn any_other_bytes_are_the_payload_as_a_whole() {
        let payload = |text| read(text, Format::Any).unwrap().payload;
        assert_eq!(payload("plain text"), Payload::string("plain text"));
        assert_eq!(payload(""), Payload::string(""));
        assert_eq!(payload(r#"{"a":1}"#).text(), r#"{"a":1}"#);
        assert_eq!(payload(r#"{"payload":1"#).text(), r#""{\"payload\":1""#);
        assert_eq!(payload(r"[1,2,3,4,5,6]").text(), "[1,2,3,4,5,6]");
    }

    #[test]
    fn in_envelope_format_they_are_refused() {
        for text in [
            "plain",
            "",
            r#"{"a":1}"#,
            r#"{"payload":1"#,
            "[1,2,3,4,5,6]",
            r#"{"payload":1,"payload":2}"#,
        ] {
            let refused = read(text, Format::Envelope);
            assert!(matches!(refused, Err(Reject::NotAnEnvelope(_))), "{text}: {refused:?}");
        }
        assert!(read(r#"{"payload":1}"#, Format::Envelope).is_ok());
    }

    #[test]
    fn a_field_that_means_nothing_is_refused_in_any_format() {
        for text in [
            r#"{"sequence":-1,"payload":0}"#,
            r#"{"sequence":1.5,"payload":0}"#,
            r#"{"sequence":"1","payload":0}"#,
            r#"{"id":"","payload":0}"#,
            r#"{"id":[],"payload":0}"#,
            r#"{"id":"@12","payload":0}"#,
            r#"{"key":1,"payload":0}"#,
            r#"{"created":"noon","payload":0}"#,
            r#"{"payload":0,"payload_base64":"AA=="}"#,
            r#"{"payload_base64":"?"}"#,
        ] {
            let refused = read(text, Format::Any);
            assert!(matches!(refused, Err(Reject::BadField { .. })), "{text}: {refused:?}");
        }
    }

    #[test]
    fn what_is_rejected_keeps_the_identity_that_can_be_read() {
        let id =
            |text: &'static str| identify(&Entry::Whole(Bytes::from_static(text.as_bytes())), Position(7)).to_string();
        assert_eq!(id(r#"{"id":"x","created":"noon","payload":0}"#), "x");
        assert_eq!(id(r#"{"sequence":3,"created":"noon","payload":0}"#), "3");
        assert_eq!(id(r#"{"id":[],"sequence":3,"payload":0}"#), "@7");
        assert_eq!(id("plain"), "@7");
        assert_eq!(identify(&Entry::Oversize { bytes: 9 }, Position(7)).to_string(), "@7");
    }

    #[test]
    fn the_limit_counts_bytes() {
        let entry = Entry::Whole(Bytes::from(vec![b'x'; 11]));
        let at = |limit| parse(&entry, Position(1), Format::Any, limit);
        assert!(at(11).is_ok());
        assert_eq!(at(10), Err(Reject::TooLarge { bytes: 11, limit: 10 }));
    }

    #[test]
    fn bytes_that_are_no_text_travel_as_base64() {
        let entry = Entry::Whole(Bytes::from_static(b"\xff\xfe"));
        let input = parse(&entry, Position(1), Format::Any, 10).unwrap();
        assert!(input.payload.is_base64());
        let input = read(r#"{"payload_base64":"//4="}"#, Format::Envelope).unwrap();
        assert_eq!(&input.payload.to_bytes()[..], b"\xff\xfe");
    }
}
