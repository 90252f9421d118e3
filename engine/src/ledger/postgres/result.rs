//! A result as columns. `jsonb` is what a person can query, but it is no text: white space goes, keys are put in an order of
//! its own, the last of several alike wins, numbers and escapes are written in one way, and some it refuses. So the text
//! is kept beside it, wherever it could not be had back from the `jsonb` byte for byte.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use conga_core::message::Payload;

/// How a payload is kept. The numbers go into the statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// As `jsonb` alone: its text, without white space, is the payload.
    Json = 0,
    /// As `jsonb`, and as text.
    Both = 1,
    /// As text alone, since `jsonb` can't hold it.
    Text = 2,
    /// As bytes, since it is no text.
    Bytes = 3,
}

/// Deeper than this, and longer than this, nobody relies on a database to take it.
const DEPTH: usize = 200;
const DIGITS: usize = 1_000;

/// How a payload is best kept. When in doubt as text too: that is always right, and costs only room.
pub(super) fn form_of(payload: &Payload) -> Form {
    if payload.is_base64() {
        return Form::Bytes;
    }
    Scan {
        text: payload.text().as_bytes(),
        at: 0,
        form: Form::Json,
    }
    .run()
}

/// The payload that was kept in these columns.
pub(super) fn payload_of(json: Option<&str>, text: Option<&str>, bytes: Option<&[u8]>) -> Option<Payload> {
    if let Some(bytes) = bytes {
        return Some(raw(bytes));
    }
    let text = match (text, json) {
        (Some(text), _) => text.to_owned(),
        (None, Some(json)) => compact(json),
        (None, None) => return None,
    };
    Payload::json(&Bytes::from(text)).ok()
}

/// Bytes, which are no text: otherwise they would have been kept as one.
fn raw(bytes: &[u8]) -> Payload {
    Payload::bytes(bytes)
}

/// The bytes behind a payload's base64.
pub(super) fn bytes_of(payload: &Payload) -> Vec<u8> {
    let text = payload.text().trim_matches('"');
    STANDARD.decode(text).unwrap_or_default()
}

/// JSON text without white space between its parts.
pub(super) fn compact(json: &str) -> String {
    let (mut text, mut inside, mut escaped) = (String::with_capacity(json.len()), false, false);
    for letter in json.chars() {
        if !inside && letter == ' ' {
            continue;
        }
        if letter == '"' && !escaped {
            inside = !inside;
        }
        escaped = inside && letter == '\\' && !escaped;
        text.push(letter);
    }
    text
}

/// Walks through JSON text that is known to be valid.
struct Scan<'a> {
    text: &'a [u8],
    at: usize,
    form: Form,
}

/// What is open: an array, or an object with the key before.
enum Open<'a> {
    Array,
    Object { last: Option<&'a [u8]>, wants_key: bool },
}

impl<'a> Scan<'a> {
    fn run(mut self) -> Form {
        let mut open: Vec<Open<'a>> = Vec::new();
        while let Some(&byte) = self.text.get(self.at) {
            match byte {
                b'{' | b'[' => {
                    open.push(if byte == b'[' {
                        Open::Array
                    } else {
                        Open::Object {
                            last: None,
                            wants_key: true,
                        }
                    });
                    if open.len() > DEPTH {
                        return Form::Text;
                    }
                    self.at += 1;
                }
                b'}' | b']' => {
                    open.pop();
                    self.at += 1;
                }
                b',' | b':' => {
                    if let Some(Open::Object { wants_key, .. }) = open.last_mut() {
                        *wants_key = byte == b',';
                    }
                    self.at += 1;
                }
                b'"' => {
                    let string = self.string();
                    if let Some(Open::Object { last, wants_key: true }) = open.last_mut() {
                        // Its order: the shorter first, then by bytes. One that has escapes is not looked into.
                        let before = last.is_some_and(|last| (last.len(), last) >= (string.len(), string));
                        if before || string.contains(&b'\\') {
                            self.keep_text();
                        }
                        *last = Some(string);
                    }
                }
                b'-' | b'0'..=b'9' => self.number(),
                b' ' | b'\t' | b'\n' | b'\r' => {
                    self.keep_text();
                    self.at += 1;
                }
                // true, false, null
                _ => self.at += 1,
            }
            if self.form == Form::Text {
                break;
            }
        }
        self.form
    }

    fn keep_text(&mut self) {
        if self.form == Form::Json {
            self.form = Form::Both;
        }
    }

    /// Steps over a string; what is between its quotes.
    fn string(&mut self) -> &'a [u8] {
        self.at += 1;
        let start = self.at;
        while let Some(&byte) = self.text.get(self.at) {
            match byte {
                b'"' => break,
                b'\\' => self.escape(),
                _ => self.at += 1,
            }
        }
        let string = &self.text[start..self.at.min(self.text.len())];
        self.at += 1;
        string
    }

    /// Only some are written as they came: those for which there is no other way.
    fn escape(&mut self) {
        let next = self.text.get(self.at + 1).copied().unwrap_or_default();
        if next != b'u' {
            if next == b'/' {
                self.keep_text();
            }
            self.at += 2;
            return;
        }
        let Some(unit) = self.unit(self.at) else {
            self.form = Form::Text;
            self.at += 2;
            return;
        };
        self.keep_text();
        self.at += 6;
        match unit {
            // It has no NUL, and no half of a pair.
            0 | 0xDC00..=0xDFFF => self.form = Form::Text,
            0xD800..=0xDBFF => match self.unit(self.at) {
                Some(0xDC00..=0xDFFF) => self.at += 6,
                _ => self.form = Form::Text,
            },
            _ => {}
        }
    }

    /// The number of a `\uXXXX` that stands at `at`.
    fn unit(&self, at: usize) -> Option<u32> {
        let digits = self.text.get(at..at + 6)?.strip_prefix(b"\\u")?;
        u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    }

    fn number(&mut self) {
        let rest = &self.text[self.at..];
        let length = rest
            .iter()
            .position(|byte| !matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E'))
            .unwrap_or(rest.len());
        let number = &rest[..length];
        self.at += length;
        if length > DIGITS {
            self.form = Form::Text;
            return;
        }
        if let Some(exponent) = number.iter().position(|byte| matches!(byte, b'e' | b'E')) {
            let digits: Vec<u8> = number[exponent + 1..]
                .iter()
                .copied()
                .filter(u8::is_ascii_digit)
                .collect();
            let digits = std::str::from_utf8(&digits).ok().and_then(|digits| digits.parse().ok());
            // It would be written out in full.
            if digits.is_none_or(|exponent: usize| exponent > DIGITS) {
                self.form = Form::Text;
            } else {
                self.keep_text();
            }
        } else if number.starts_with(b"-") && number.iter().all(|byte| matches!(byte, b'-' | b'0' | b'.')) {
            // It has no negative zero.
            self.keep_text();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(text: &str) -> Form {
        form_of(&Payload::json(&Bytes::from(text.to_owned())).unwrap())
    }

    #[test]
    fn what_jsonb_gives_back_is_kept_once() {
        for text in [
            "null",
            "true",
            "5",
            "-5",
            "1.0",
            "1.50",
            "\"a b\"",
            "\"\"",
            "{}",
            "[]",
            "[1,[2,\"x, y\"],{}]",
            "{\"id\":1,\"amount\":{\"a\":[],\"b\":\" : \"}}",
            "\"\\\"\\\\\\n\"",
            "\"é\"",
        ] {
            assert_eq!(form(text), Form::Json, "{text}");
        }
    }

    #[test]
    fn what_it_would_write_otherwise_is_kept_as_text_too() {
        for text in [
            "[1, 2]",
            "{\"amount\":1,\"id\":2}",
            "{\"a\":1,\"a\":1}",
            "1e400",
            "1E5",
            "-0",
            "-0.00",
            "\"\\/\"",
            "\"\\u00e9\"",
            "\"\\ud83d\\ude00\"",
            "{\"\\n\":1}",
            "{\"a\":1,\"b\":{\"b\":1,\"a\":1}}",
        ] {
            assert_eq!(form(text), Form::Both, "{text}");
        }
    }

    #[test]
    fn what_it_refuses_is_kept_as_text_alone() {
        let (deep, long) = ("[".repeat(300) + &"]".repeat(300), "9".repeat(2_000));
        for text in [
            "\"\\u0000\"",
            "\"\\ud800\"",
            "\"\\udc00x\"",
            "{\"\\u0000\":1}",
            "1e200000",
            "1e-20000",
            &deep,
            &long,
        ] {
            assert_eq!(form(text), Form::Text, "{}", &text[..text.len().min(20)]);
        }
    }

    #[test]
    fn bytes_come_back_as_bytes() {
        let payload = Payload::bytes(b"\xff\x00");
        assert_eq!(form_of(&payload), Form::Bytes);
        assert_eq!(payload_of(None, None, Some(&bytes_of(&payload))), Some(payload));
    }

    #[test]
    fn white_space_goes_only_between_the_parts() {
        assert_eq!(compact("{\"a b\": [1, \"x\\\" , y\"]}"), "{\"a b\":[1,\"x\\\" , y\"]}");
    }
}
