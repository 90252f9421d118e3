//! The arguments of handlers that are programs or servers.

use std::time::Duration;

use clap::ValueEnum;

use super::{at_least_one, duration};

/// How a handler is asked.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Handling {
    /// How long one attempt may take; then it has failed, and a child of exec:CMD is killed [default: 1m with http, else no
    /// limit]
    #[arg(long, value_name = "DURATION", value_parser = limit)]
    pub(crate) timeout: Option<Duration>,
    /// With exec:CMD, how many children there are; they are started before any message is taken [default: at most so many that
    /// all of --concurrency are with one, each started when it is needed]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub(crate) workers: Option<usize>,
    /// With exec:CMD, how many messages a child has at once; with more than one its answers have to name the position
    /// [default: 1]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub(crate) exec_at_once: Option<usize>,
    /// With exec:CMD, children say {"ready":true} when they can take messages, and get none before; one that has not said so
    /// after this time is replaced. The first ones are waited for before any message is taken
    #[arg(long, value_name = "DURATION", value_parser = limit)]
    pub(crate) exec_ready: Option<Duration>,
    /// With http, how an event is written [default: binary]
    #[arg(long, value_name = "MODE", value_enum)]
    pub(crate) http_mode: Option<HttpMode>,
    /// With http://, speak HTTP/2 without asking; with https:// it is agreed on anyway
    #[arg(long)]
    pub(crate) http2: bool,
}

impl Handling {
    /// As it is typed, for another process.
    pub(crate) fn typed(&self) -> Vec<String> {
        let mut typed = Vec::new();
        let mut put = |name: &str, value: Option<String>| {
            typed.extend(value.map(|value| format!("--{name}={value}")));
        };
        let time = |limit: Duration| format!("{}us", limit.as_micros());
        put("timeout", self.timeout.map(time));
        put("workers", self.workers.map(|count| count.to_string()));
        put("exec-at-once", self.exec_at_once.map(|count| count.to_string()));
        put("exec-ready", self.exec_ready.map(time));
        let mode = self.http_mode.and_then(|mode| mode.to_possible_value());
        put("http-mode", mode.map(|mode| mode.get_name().to_owned()));
        if self.http2 {
            typed.push("--http2".to_owned());
        }
        typed
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum HttpMode {
    /// Its attributes as headers, the payload as the body
    Binary,
    /// All of it as one JSON object
    Structured,
}

pub(crate) fn limit(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("must be more than 0: leave it out for no limit".to_owned()),
        limit => Ok(limit),
    }
}
