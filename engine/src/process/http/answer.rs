//! What an answer means: a result, or which failure.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use conga_core::message::Payload;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::StatusCode;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, DATE, HeaderMap, HeaderName, LOCATION, RETRY_AFTER};
use hyper::http::response::Parts;

use super::broken;
use crate::process::HandlerError;

/// So much of the body of a failure is read: for its beginning is told, and the connection can be used again.
const TOLD_BYTES: usize = 64 << 10;
const QUOTED_CHARS: usize = 200;

/// Reads the body of a result.
pub(super) async fn read(body: Incoming, limit: usize) -> Result<Bytes, HandlerError> {
    match Limited::new(body, limit).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(HandlerError::permanent(format!(
            "the result has more than {limit} bytes, which is the limit"
        ))),
        Err(error) => Err(broken(&*error)),
    }
}

/// The result that a body is: the JSON that it holds, else its text, else its bytes.
pub(super) fn result(head: &Parts, body: &Bytes) -> Result<Payload, HandlerError> {
    if head.status == StatusCode::NO_CONTENT || body.is_empty() {
        return Ok(Payload::json(&Bytes::from_static(b"null")).unwrap_or_else(|_| Payload::string("")));
    }
    let kind = content_type(&head.headers);
    let is_json = kind == "application/json" || kind.ends_with("+json");
    let is_other = matches!(kind.as_str(), "text/plain" | "application/octet-stream");
    if is_other {
        return Ok(Payload::bytes(body));
    }
    match Payload::json(body) {
        Ok(payload) => Ok(payload),
        Err(error) if is_json => Err(HandlerError::passing(format!(
            "the answer says that it is {kind} and is not: {error}: {}",
            quote(body)
        ))),
        Err(_) => Ok(Payload::bytes(body)),
    }
}

/// The failure that an answer is, from 3xx to 5xx. `now` is for a `Retry-After` by date in an answer without one.
pub(super) async fn failure(head: &Parts, body: Incoming, now: SystemTime) -> HandlerError {
    let body = match Limited::new(body, TOLD_BYTES).collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => Bytes::new(),
    };
    failed(head.status, &head.headers, &body, now)
}

fn failed(status: StatusCode, headers: &HeaderMap, body: &Bytes, now: SystemTime) -> HandlerError {
    let mut reason = format!("HTTP {status}");
    if status.is_redirection() {
        if let Some(to) = text(headers, &LOCATION) {
            // What may be secret in it stands in the query.
            let to = to.split('?').next().unwrap_or_default();
            reason.push_str(&format!(", which is not followed, to {}", quote(to.as_bytes())));
        }
    } else if !body.is_empty() {
        reason.push_str(&format!(": {}", quote(body)));
    }
    let passes = matches!(
        status,
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS
    );
    if status.is_client_error() && !passes {
        return HandlerError::permanent(reason);
    }
    let asks = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
    HandlerError {
        retry_after: asks.then(|| retry_after(headers, now)).flatten(),
        ..HandlerError::passing(reason)
    }
}

/// How long to wait. A date is compared with the server's own, where it tells that. Source: RFC 9110, 10.2.3.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let asked = text(headers, &RETRY_AFTER)?.trim();
    if asked.bytes().all(|byte| byte.is_ascii_digit()) && !asked.is_empty() {
        // So many digits that they are no number are a long time all the same.
        return Some(Duration::from_secs(asked.parse().unwrap_or(u64::MAX)));
    }
    let until = httpdate::parse_http_date(asked).ok()?;
    let here = text(headers, &DATE).and_then(|date| httpdate::parse_http_date(date).ok());
    Some(until.duration_since(here.unwrap_or(now)).unwrap_or_default())
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Without its parameters.
fn content_type(headers: &HeaderMap) -> String {
    let kind = text(headers, &CONTENT_TYPE).unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn quote(body: &[u8]) -> String {
    let start = String::from_utf8_lossy(&body[..body.len().min(4 * QUOTED_CHARS)]).into_owned();
    let short: String = start.trim().chars().take(QUOTED_CHARS).collect();
    let more = if short.len() < body.trim_ascii().len() {
        "…"
    } else {
        ""
    };
    format!("`{}{more}`", short.escape_debug())
}

#[cfg(test)]
mod tests {
    use hyper::Response;
    use hyper::header::HeaderValue;

    use super::*;

    fn read_as(status: u16, kind: &str, body: &'static [u8]) -> Result<Payload, HandlerError> {
        let response = Response::builder().status(status).header(CONTENT_TYPE, kind).body(());
        result(&response.unwrap().into_parts().0, &Bytes::from_static(body))
    }

    #[test]
    fn a_body_is_json_or_text_or_bytes() {
        let read = |kind, body| read_as(200, kind, body).map(|payload| payload.text().to_owned());
        assert_eq!(read("application/json", b" {\"a\": 1.50} ").unwrap(), "{\"a\": 1.50}");
        assert_eq!(read("application/problem+json; charset=utf-8", b"1").unwrap(), "1");
        assert_eq!(read("", b"[1]").unwrap(), "[1]");
        assert_eq!(read("text/html", b"done").unwrap(), "\"done\"");
        assert_eq!(read("text/plain; charset=utf-8", b"12").unwrap(), "\"12\"");
        assert_eq!(read("", b"").unwrap(), "null");
        assert_eq!(read("application/json", b"").unwrap(), "null");
        assert_eq!(read_as(204, "text/plain", b"").unwrap().text(), "null");
        assert!(read_as(200, "image/png", b"\xff").unwrap().is_base64());
        let cut = read("application/json", b"{\"a\":").unwrap_err();
        assert!(!cut.permanent && cut.reason.contains("and is not"), "{cut}");
    }

    fn fails(status: u16, headers: &[(&'static str, &str)], body: &'static [u8]) -> HandlerError {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, HeaderValue::from_str(value).unwrap());
        }
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        failed(
            StatusCode::from_u16(status).unwrap(),
            &map,
            &Bytes::from_static(body),
            now,
        )
    }

    #[test]
    fn which_failures_pass() {
        for (status, permanent) in [
            (301, false),
            (302, false),
            (304, false),
            (400, true),
            (401, true),
            (404, true),
            (408, false),
            (410, true),
            (422, true),
            (425, false),
            (429, false),
            (500, false),
            (501, false),
            (503, false),
            (504, false),
        ] {
            assert_eq!(fails(status, &[], b"").permanent, permanent, "{status}");
        }
        assert_eq!(fails(400, &[], b" no\n").reason, "HTTP 400 Bad Request: `no`");
        let moved = fails(307, &[("location", "http://h/b?token=secret")], b"x");
        assert_eq!(
            moved.reason,
            "HTTP 307 Temporary Redirect, which is not followed, to `http://h/b`"
        );
    }

    #[test]
    fn what_is_asked_for_is_read_in_both_forms() {
        let secs = |secs| Some(Duration::from_secs(secs));
        let asked = |status, headers: &[(&'static str, &str)]| fails(status, headers, b"").retry_after;
        assert_eq!(asked(503, &[]), None);
        assert_eq!(asked(503, &[("retry-after", "3")]), secs(3));
        assert_eq!(asked(429, &[("retry-after", " 120 ")]), secs(120));
        assert_eq!(
            asked(429, &[("retry-after", "99999999999999999999999")]),
            secs(u64::MAX)
        );
        assert_eq!(asked(500, &[("retry-after", "3")]), None);
        assert_eq!(asked(503, &[("retry-after", "soon")]), None);
        assert_eq!(asked(503, &[("retry-after", "-1")]), None);
        let later = ("retry-after", "Sun, 06 Nov 1994 08:50:00 GMT");
        assert_eq!(asked(503, &[later]), secs(23));
        // The server's clock is an hour ahead, and so is its date.
        let there = ("date", "Sun, 06 Nov 1994 08:49:58 GMT");
        assert_eq!(asked(503, &[later, there]), secs(2));
        assert_eq!(asked(503, &[("retry-after", "Sun, 06 Nov 1994 08:00:00 GMT")]), secs(0));
    }
}
