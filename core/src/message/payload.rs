//! A payload: JSON text that stays opaque, or bytes that are no text.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::value::RawValue;

/// What a message carries: any JSON value, kept as the text that it came as, or bytes that are not UTF-8.
/// Cloning shares the bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Payload {
    /// JSON text. For bytes that are no UTF-8, a JSON string of their base64.
    text: Bytes,
    base64: bool,
}

/// The text is not one JSON value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not JSON: {0}")]
pub struct NotJson(pub String);

impl Payload {
    /// Takes JSON text as it is, without white space around it.
    ///
    /// # Errors
    /// [`NotJson`] when the text is not exactly one JSON value.
    pub fn json(text: &Bytes) -> Result<Self, NotJson> {
        let raw: &RawValue = serde_json::from_slice(text).map_err(|error| NotJson(error.to_string()))?;
        Ok(Self::from_raw(text, raw))
    }

    /// Takes a JSON value that was read out of `source`, sharing its bytes.
    pub(super) fn from_raw(source: &Bytes, raw: &RawValue) -> Self {
        Self {
            text: source.slice_ref(raw.get().as_bytes()),
            base64: false,
        }
    }

    /// Takes a base64 string that was read out of an envelope.
    pub(super) fn from_base64(text: &str) -> Result<Self, NotJson> {
        match STANDARD.decode(text) {
            Ok(bytes) => Ok(Self::bytes(&bytes)),
            Err(error) => Err(NotJson(error.to_string())),
        }
    }

    /// Takes text, as a JSON string.
    pub fn string(text: &str) -> Self {
        Self {
            text: serde_json::Value::from(text).to_string().into(),
            base64: false,
        }
    }

    /// Takes any bytes: as a JSON string if they are UTF-8, else by their base64.
    pub fn bytes(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::string(text),
            Err(_) => Self {
                text: format!("\"{}\"", STANDARD.encode(bytes)).into(),
                base64: true,
            },
        }
    }

    /// How many bytes the text has.
    pub fn size(&self) -> usize {
        self.text.len()
    }

    /// The value as JSON text; for bytes that are no UTF-8, the JSON string of their base64.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.text).unwrap_or("null")
    }

    /// Whether this carries bytes that are not UTF-8.
    pub fn is_base64(&self) -> bool {
        self.base64
    }

    /// The name of its field in an envelope: `payload` or `payload_base64`.
    pub fn field(&self) -> &'static str {
        if self.base64 { "payload_base64" } else { "payload" }
    }

    /// The bytes as a person would see them: a string's own text, the bytes behind the base64, any other value's
    /// JSON text. It is the inverse of [`Payload::bytes`].
    pub fn to_bytes(&self) -> Bytes {
        if !self.text.starts_with(b"\"") {
            return self.text.clone();
        }
        let text: String = serde_json::from_slice(&self.text).unwrap_or_default();
        if self.base64 {
            STANDARD.decode(text).unwrap_or_default().into()
        } else {
            text.into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_stays_as_it_was_written() {
        let text = Bytes::from_static(b" {\"b\": 1.50,\"a\":[ ]} ");
        let payload = Payload::json(&text).unwrap();
        assert_eq!(payload.text(), "{\"b\": 1.50,\"a\":[ ]}");
        assert!(Payload::json(&Bytes::from_static(b"{} {}")).is_err());
    }

    #[test]
    fn any_bytes_come_back() {
        for bytes in [
            &b"plain"[..],
            b"",
            b"\"quoted\" \\ \n",
            "\u{1F483}".as_bytes(),
            b"\xff\x00\xfe",
        ] {
            assert_eq!(Payload::bytes(bytes).to_bytes(), bytes);
        }
        assert!(Payload::bytes(b"\xff").is_base64());
    }
}
