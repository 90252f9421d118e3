//! A message as a `CloudEvent` 1.0 over HTTP.
//!
//! Sources: `CloudEvents` 1.0.2, its JSON event format, and its HTTP protocol binding (3.1 binary, 3.2 structured mode).

use bytes::Bytes;
use conga_core::message::Payload;
use http_body_util::Full;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Method, Request};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{HttpMode, HttpOptions};
use crate::process::{HandlerError, Message};

const JSON: &str = "application/json";
const BYTES: &str = "application/octet-stream";
const EVENT: &str = "application/cloudevents+json; charset=utf-8";
const AGENT: &str = concat!("conga/", env!("CARGO_PKG_VERSION"));

/// The attributes of an event. Positions and sequences go beyond the 32 bits of `CloudEvents`' integers, so they are strings.
#[derive(Serialize)]
struct Event<'a> {
    specversion: &'static str,
    id: &'a str,
    source: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a str>,
    congaposition: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    congasequence: Option<String>,
    congaattempt: String,
}

#[derive(Serialize)]
struct Structured<'a> {
    #[serde(flatten)]
    event: Event<'a>,
    datacontenttype: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_base64: Option<&'a RawValue>,
}

/// The request that carries a message.
pub(super) fn request(options: &HttpOptions, message: &Message) -> Result<Request<Full<Bytes>>, HandlerError> {
    let event = Event {
        specversion: "1.0",
        id: message.id.as_str(),
        source: &options.source,
        kind: &options.event_type,
        time: message.created.to_string(),
        // An attribute can't be empty.
        subject: message.key.as_deref().filter(|key| !key.is_empty()),
        congaposition: message.position.0.to_string(),
        congasequence: message.sequence.map(|sequence| sequence.to_string()),
        congaattempt: message.attempt.0.to_string(),
    };
    let mut request = Request::new(Full::default());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = options.url.uri().clone();
    let headers = request.headers_mut();
    headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    if let Some(login) = options.url.login() {
        let mut login = HeaderValue::from_str(login).map_err(unfit)?;
        login.set_sensitive(true);
        headers.insert(AUTHORIZATION, login);
    }
    let body = match options.mode {
        HttpMode::Binary => {
            event.write(headers)?;
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type(&message.payload)));
            body(&message.payload)
        }
        HttpMode::Structured => {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(EVENT));
            structured(event, &message.payload)?
        }
    };
    *request.body_mut() = Full::new(body);
    Ok(request)
}

impl Event<'_> {
    /// Its attributes as headers.
    fn write(&self, headers: &mut HeaderMap) -> Result<(), HandlerError> {
        let mut put = |name: &'static str, value: &str| -> Result<(), HandlerError> {
            let value = HeaderValue::from_str(&encode(value)).map_err(unfit)?;
            headers.insert(HeaderName::from_static(name), value);
            Ok(())
        };
        put("ce-specversion", self.specversion)?;
        put("ce-id", self.id)?;
        put("ce-source", self.source)?;
        put("ce-type", self.kind)?;
        put("ce-time", &self.time)?;
        put("ce-congaposition", &self.congaposition)?;
        put("ce-congaattempt", &self.congaattempt)?;
        if let Some(subject) = self.subject {
            put("ce-subject", subject)?;
        }
        if let Some(sequence) = &self.congasequence {
            put("ce-congasequence", sequence)?;
        }
        Ok(())
    }
}

fn structured(event: Event<'_>, payload: &Payload) -> Result<Bytes, HandlerError> {
    let raw: &RawValue = serde_json::from_str(payload.text()).map_err(unfit)?;
    let is_base64 = payload.is_base64();
    let all = Structured {
        event,
        datacontenttype: content_type(payload),
        data: (!is_base64).then_some(raw),
        data_base64: is_base64.then_some(raw),
    };
    Ok(serde_json::to_vec(&all).map_err(unfit)?.into())
}

/// JSON goes as its text, a string with its quotes; bytes that are no text go as they are.
fn body(payload: &Payload) -> Bytes {
    if payload.is_base64() {
        payload.to_bytes()
    } else {
        Bytes::from(payload.text().to_owned())
    }
}

fn content_type(payload: &Payload) -> &'static str {
    if payload.is_base64() { BYTES } else { JSON }
}

fn unfit(error: impl std::fmt::Display) -> HandlerError {
    HandlerError::permanent(format!("can't be written as an event: {error}"))
}

/// A header's value: what is not printable ASCII, and the space, the quotation mark and the percent sign, are percent-encoded.
/// Source: `CloudEvents` 1.0.2, HTTP protocol binding, 3.1.3.2.
fn encode(value: &str) -> String {
    let mut encoded = String::with_capacity(value.len());
    for byte in value.bytes() {
        match byte {
            b'"' | b'%' => encoded.push_str(&format!("%{byte:02X}")),
            b'!'..=b'~' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use conga_core::lease::Attempt;
    use conga_core::message::{Id, Position};
    use conga_core::time::Micros;
    use http_body_util::BodyExt as _;

    use super::*;

    fn message(payload: Payload) -> Message {
        Message {
            position: Position(u64::MAX),
            id: Id::given("a \"b\" 100%"),
            sequence: Some(3),
            key: Some("Euro \u{20ac} \u{1F600}".to_owned()),
            payload,
            attempt: Attempt(2),
            created: Micros(1),
            processing: Micros(2),
        }
    }

    async fn sent(mode: HttpMode, payload: Payload) -> (HeaderMap, String) {
        let mut options = HttpOptions::new("http://u:p@h/x".parse().unwrap(), &"orders".parse().unwrap());
        options.mode = mode;
        let (head, body) = request(&options, &message(payload)).unwrap().into_parts();
        assert_eq!(
            (head.method.as_str(), head.uri.to_string().as_str()),
            ("POST", "http://h/x")
        );
        let body = body.collect().await.unwrap().to_bytes();
        (head.headers, String::from_utf8_lossy(&body).into_owned())
    }

    #[tokio::test]
    async fn in_binary_mode_attributes_are_headers() {
        let payload = Payload::json(&Bytes::from_static(b"{\"a\":1.50}")).unwrap();
        let (headers, body) = sent(HttpMode::Binary, payload).await;
        assert_eq!(body, "{\"a\":1.50}");
        for (name, value) in [
            ("content-type", "application/json"),
            ("authorization", "Basic dTpw"),
            ("ce-specversion", "1.0"),
            ("ce-id", "a%20%22b%22%20100%25"),
            ("ce-source", "orders"),
            ("ce-type", "conga.message"),
            ("ce-time", "1970-01-01T00:00:00.000001Z"),
            // The example of the specification.
            ("ce-subject", "Euro%20%E2%82%AC%20%F0%9F%98%80"),
            ("ce-congaposition", "18446744073709551615"),
            ("ce-congasequence", "3"),
            ("ce-congaattempt", "2"),
        ] {
            assert_eq!(headers.get(name).unwrap(), value, "{name}");
        }
        let (headers, body) = sent(HttpMode::Binary, Payload::bytes(b"\xffx")).await;
        assert_eq!(headers.get("content-type").unwrap(), "application/octet-stream");
        assert_eq!(body, "\u{fffd}x");
    }

    #[tokio::test]
    async fn in_structured_mode_all_is_in_the_body() {
        let (headers, body) = sent(HttpMode::Structured, Payload::string("x")).await;
        assert_eq!(headers.get("content-type").unwrap(), EVENT);
        assert!(headers.get("ce-id").is_none());
        let event: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(event["id"], "a \"b\" 100%");
        assert_eq!(event["source"], "orders");
        assert_eq!(event["subject"], "Euro \u{20ac} \u{1F600}");
        assert_eq!(event["congaposition"], "18446744073709551615");
        assert_eq!(event["datacontenttype"], "application/json");
        assert_eq!(event["data"], "x");
        let (_, body) = sent(HttpMode::Structured, Payload::bytes(b"\xff")).await;
        assert!(
            body.contains("\"data_base64\":\"/w==\"") && !body.contains("\"data\":"),
            "{body}"
        );
    }
}
