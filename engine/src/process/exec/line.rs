//! What is said to a child and what it answers: a JSON object a line.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use conga_core::message::{Payload, Position};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::process::{HandlerError, Message};

/// So much of a line that is no answer is told.
const QUOTED_CHARS: usize = 100;
/// So much is read at once.
const READ_BYTES: usize = 8 << 10;

#[derive(Serialize)]
struct Question<'a> {
    position: u64,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<&'a RawValue>,
    attempt: u32,
    created: String,
    processing: String,
}

/// The line that asks for the result of a message, with its end.
pub(super) fn question(message: &Message) -> Result<Vec<u8>, HandlerError> {
    let broken = |error: serde_json::Error| HandlerError::permanent(format!("can't be written as a line: {error}"));
    // Line ends within JSON are white space between its parts, and would end the line too soon.
    let text = message.payload.text().replace(['\n', '\r'], " ");
    let raw: &RawValue = serde_json::from_str(&text).map_err(broken)?;
    let is_base64 = message.payload.is_base64();
    let question = Question {
        position: message.position.0,
        id: message.id.as_str(),
        sequence: message.sequence,
        key: message.key.as_deref(),
        payload: (!is_base64).then_some(raw),
        payload_base64: is_base64.then_some(raw),
        attempt: message.attempt.0,
        created: message.created.to_string(),
        processing: message.processing.to_string(),
    };
    let mut line = serde_json::to_vec(&question).map_err(broken)?;
    line.push(b'\n');
    Ok(line)
}

/// An answer, and which message it names.
#[derive(Debug, PartialEq)]
pub(super) struct Answer {
    pub(super) position: Option<Position>,
    pub(super) id: Option<String>,
    pub(super) result: Result<Payload, HandlerError>,
}

#[derive(Deserialize)]
struct Fields<'a> {
    position: Option<u64>,
    id: Option<String>,
    #[serde(borrow, default, deserialize_with = "even_null")]
    payload: Option<&'a RawValue>,
    #[serde(borrow)]
    payload_base64: Option<&'a RawValue>,
    error: Option<String>,
    #[serde(default)]
    permanent: bool,
    retry_after_ms: Option<u64>,
}

fn even_null<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    Deserialize::deserialize(deserializer).map(Some)
}

/// Reads a line. What an answer need not have is passed over, so that a message with another payload is one too.
///
/// # Errors
/// What is wrong with it, to be followed by the line's beginning.
pub(super) fn answer(line: &Bytes) -> Result<Answer, String> {
    let fields: Fields<'_> = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let result = match (fields.error, fields.payload, fields.payload_base64) {
        (Some(reason), ..) => Err(HandlerError {
            reason,
            permanent: fields.permanent,
            retry_after: fields.retry_after_ms.map(Duration::from_millis),
        }),
        (None, Some(raw), None) => {
            let text = line.slice_ref(raw.get().as_bytes());
            Ok(Payload::json(&text).map_err(|error| error.to_string())?)
        }
        (None, None, Some(raw)) => Ok(from_base64(raw.get())?),
        (None, Some(_), Some(_)) => return Err("it has both `payload` and `payload_base64`".to_owned()),
        (None, None, None) => return Err("it has none of `payload`, `payload_base64` and `error`".to_owned()),
    };
    Ok(Answer {
        position: fields.position.map(Position),
        id: fields.id,
        result,
    })
}

/// Whether a child says that it is ready for messages.
pub(super) fn is_ready(line: &[u8]) -> bool {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Ready {
        ready: bool,
    }
    serde_json::from_slice(line).is_ok_and(|Ready { ready }| ready)
}

fn from_base64(raw: &str) -> Result<Payload, String> {
    use base64::Engine as _;
    let text: String = serde_json::from_str(raw).map_err(|_| "`payload_base64` is no string".to_owned())?;
    let bytes = base64::engine::general_purpose::STANDARD.decode(text);
    Ok(Payload::bytes(
        &bytes.map_err(|error| format!("`payload_base64`: {error}"))?,
    ))
}

/// What was read, by lines.
#[derive(Default)]
pub(super) struct Lines {
    bytes: BytesMut,
    /// So far there is no line's end.
    searched: usize,
}

impl Lines {
    /// Where to read to.
    pub(super) fn room(&mut self) -> &mut BytesMut {
        self.bytes.reserve(READ_BYTES);
        &mut self.bytes
    }

    /// The next whole line, without its end.
    pub(super) fn next(&mut self) -> Option<Bytes> {
        let Some(at) = self.bytes[self.searched..].iter().position(|byte| *byte == b'\n') else {
            self.searched = self.bytes.len();
            return None;
        };
        let end = self.searched + at;
        self.searched = 0;
        Some(self.bytes.split_to(end + 1).freeze().slice(..end))
    }

    /// The beginning of a line whose end was not read yet.
    pub(super) fn rest(&self) -> &[u8] {
        &self.bytes
    }
}

/// The beginning of a line, as it can be printed.
pub(super) fn quote(line: &[u8]) -> String {
    let start = &line[..line.len().min(4 * QUOTED_CHARS)];
    let text = String::from_utf8_lossy(start);
    let short: String = text.chars().take(QUOTED_CHARS).collect();
    let more = if short.len() < line.len() { "…" } else { "" };
    format!("`{}{more}`", short.escape_debug())
}

#[cfg(test)]
mod tests {
    use conga_core::lease::Attempt;
    use conga_core::message::Id;
    use conga_core::time::Micros;

    use super::*;

    fn message(payload: Payload) -> Message {
        Message {
            position: Position(7),
            id: Id::given("a\n"),
            sequence: Some(u64::MAX),
            key: None,
            payload,
            attempt: Attempt(2),
            created: Micros(1),
            processing: Micros(2),
        }
    }

    #[test]
    fn a_message_is_one_line_whatever_is_in_it() {
        let payload = Payload::json(&Bytes::from_static(b"{\n\"a\":\r\n1.50}")).unwrap();
        let line = String::from_utf8(question(&message(payload)).unwrap()).unwrap();
        assert_eq!(
            line,
            "{\"position\":7,\"id\":\"a\\n\",\"sequence\":18446744073709551615,\"payload\":{ \"a\":  1.50},\"attempt\":2,\
             \"created\":\"1970-01-01T00:00:00.000001Z\",\"processing\":\"1970-01-01T00:00:00.000002Z\"}\n"
        );
        let line = String::from_utf8(question(&message(Payload::bytes(b"\xff"))).unwrap()).unwrap();
        assert!(line.contains("\"payload_base64\":\"/w==\""), "{line}");
    }

    #[test]
    fn an_answer_is_a_result_or_an_error() {
        let read = |text: &'static str| answer(&Bytes::from_static(text.as_bytes()));
        let result = |text| read(text).unwrap().result;
        assert_eq!(result("{\"payload\": 1.50 }").unwrap().text(), "1.50");
        assert_eq!(result("{\"payload\":null}").unwrap().text(), "null");
        assert_eq!(
            result("{\"payload_base64\":\"/w==\"}").unwrap().to_bytes(),
            &b"\xff"[..]
        );
        assert_eq!(result("{\"error\":\"no\"}"), Err(HandlerError::passing("no")));
        assert_eq!(
            result("{\"error\":\"no\",\"payload\":1,\"permanent\":true}"),
            Err(HandlerError::permanent("no"))
        );
        assert_eq!(
            result("{\"error\":\"no\",\"retry_after_ms\":1500}"),
            Err(HandlerError::passing("no").after(Duration::from_millis(1_500)))
        );
        // What `cat` answers.
        let line = question(&message(Payload::string("x"))).unwrap();
        let echo = answer(&Bytes::from(line)).unwrap();
        assert_eq!(
            (echo.position, echo.result.unwrap().text()),
            (Some(Position(7)), "\"x\"")
        );
        for bad in [
            "",
            "x",
            "1",
            "{}",
            "{\"payload\":1",
            "{\"payload_base64\":\"?\"}",
            "{\"error\":5}",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_no_answer_is_quoted_in_short() {
        assert_eq!(quote(b"hello\t\xff"), "`hello\\t\u{fffd}`");
        assert!(quote(&[b'x'; 10_000]).len() < 120);
    }
}
