//! A handler behind HTTP: each message goes by POST as a `CloudEvent`, and what comes back is its result.
//!
//! docs/guide/handlers.md has the table of which answer means what.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use conga_core::message::Payload;
use futures_util::future::BoxFuture;
use http_body_util::Full;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use tokio::time::timeout;

use super::within::late;
use super::{BATCH_BYTES, HandlerError, Message};
use crate::line::Line;

mod answer;
mod client;
mod event;
mod url;

pub use url::{BadHttpUrl, HttpUrl};

/// How an event is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HttpMode {
    /// Its attributes as headers, the payload as the body.
    #[default]
    Binary,
    /// All of it as one JSON object, `application/cloudevents+json`.
    Structured,
}

/// Where to send messages, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpOptions {
    /// Where to.
    pub url: HttpUrl,
    /// The event's `source`: the line.
    pub source: String,
    /// The event's `type`.
    pub event_type: String,
    /// How an event is written.
    pub mode: HttpMode,
    /// Whether to speak HTTP/2 without asking. Otherwise it is agreed on where the URL is https, and HTTP/1.1 elsewhere.
    pub http2: bool,
    /// So many connections are kept for the next message: as many as there are messages at once.
    pub connections: usize,
    /// How long a connection may take to be there.
    pub connect_timeout: Duration,
    /// How long all of it may take.
    pub timeout: Duration,
}

impl HttpOptions {
    /// Messages of `line` to `url`, each within a minute.
    pub fn new(url: HttpUrl, line: &Line) -> Self {
        Self {
            url,
            source: line.name().to_owned(),
            event_type: "conga.message".to_owned(),
            mode: HttpMode::Binary,
            http2: false,
            connections: 256,
            connect_timeout: Duration::from_secs(5),
            timeout: Duration::from_mins(1),
        }
    }
}

/// The system's certificates can't be used. The text says why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoTls(pub(crate) String);

/// The handler. Clones share the connections.
///
/// # Cancellation
/// The request is given up; the server may have seen it.
#[derive(Clone)]
pub struct Http(Arc<Shared>);

struct Shared {
    options: HttpOptions,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl Http {
    /// The handler that these options describe. Nothing is connected yet.
    ///
    /// # Errors
    /// [`NoTls`] where the URL is https and the system has no root certificates.
    pub fn new(options: HttpOptions) -> Result<Self, NoTls> {
        let client = client::open(&options)?;
        Ok(Self(Arc::new(Shared { options, client })))
    }

    async fn run(self, message: Message) -> Result<Payload, HandlerError> {
        let limit = self.0.options.timeout;
        let answer = timeout(limit, self.0.exchange(&message)).await;
        answer.unwrap_or_else(|_| Err(late(limit)))
    }
}

impl Shared {
    async fn exchange(&self, message: &Message) -> Result<Payload, HandlerError> {
        let request = event::request(&self.options, message)?;
        let response = self.client.request(request).await;
        let (head, body) = response.map_err(|error| broken(&error))?.into_parts();
        if head.status.is_success() {
            let body = answer::read(body, BATCH_BYTES).await?;
            return answer::result(&head, &body);
        }
        Err(answer::failure(&head, body, SystemTime::now()).await)
    }
}

/// What a connection ran into, with its causes.
fn broken(error: &(dyn std::error::Error + 'static)) -> HandlerError {
    let mut reason = format!("no answer: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        let told = error.to_string();
        if !reason.ends_with(&told) {
            reason.push_str(": ");
            reason.push_str(&told);
        }
        cause = error.source();
    }
    HandlerError::passing(reason)
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Http").field(&self.0.options).finish()
    }
}

impl tower::Service<Message> for Http {
    type Response = Payload;
    type Error = HandlerError;
    type Future = BoxFuture<'static, Result<Payload, HandlerError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), HandlerError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, message: Message) -> Self::Future {
        Box::pin(self.clone().run(message))
    }
}
