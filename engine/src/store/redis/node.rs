//! One server as it was found: where it is, which process, and which history of the data.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{AsyncConnectionConfig, Client, Value};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::failure;
use super::subscription::Channels;
use super::target::Address;
use crate::store::StoreError;

/// A server that the commands go, or went, to.
#[derive(Debug)]
pub(super) struct Node {
    /// The how manieth connection of this process led there.
    pub(super) number: u64,
    pub(super) address: Address,
    pub(super) client: Client,
    /// The server's process, by the name that it gives itself at its start. Empty where it does not tell.
    pub(super) run: String,
    /// The history that the server writes as a primary: it gets a new name each time it becomes one. So as long as the
    /// name is the same nothing that was written under it has been taken back. Empty where the server does not tell.
    pub(super) history: String,
    /// Whether hints go by sharded channels here: it is a node of a cluster, has them, and has not refused them.
    sharded: AtomicBool,
    /// Cancelled when the primary is known to be elsewhere: then no answer from here is waited for.
    pub(super) gone: CancellationToken,
}

impl Node {
    /// By which channels hints go here, as far as is known.
    pub(super) fn channels(&self) -> Channels {
        if self.sharded.load(Ordering::Relaxed) {
            Channels::Sharded
        } else {
            Channels::Plain
        }
    }

    /// This user may not use sharded channels here.
    pub(super) fn refuses_sharded(&self) {
        self.sharded.store(false, Ordering::Relaxed);
    }
}

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) connection: Duration,
    pub(super) response: Duration,
}

/// Connects, and asks who answers. Where `primary` is asked for, anything else is refused.
pub(super) async fn connect(
    (client, address): (Client, &Address),
    number: u64,
    limits: Limits,
    primary: bool,
) -> Result<(Arc<Node>, MultiplexedConnection), StoreError> {
    let mut connection = open(&client, limits).await?;
    let mut questions = ::redis::pipe();
    questions.cmd("ROLE");
    questions.cmd("INFO").arg("server");
    questions.cmd("INFO").arg("replication");
    questions.cmd("INFO").arg("cluster");
    questions.ignore_errors();
    let answers: Vec<Value> = questions
        .query_async(&mut connection)
        .await
        .map_err(|error| failure::of_connecting(&error))?;
    let mut answers = answers.into_iter().map(told);
    let mut answer = || answers.next().unwrap_or(Ok(None));
    let role = answer()?;
    if primary && role.as_deref().is_some_and(|role| role != "master") {
        return Err(StoreError::Unavailable(format!("{address} is no primary")));
    }
    let server = answer()?;
    let node = Node {
        number,
        address: address.clone(),
        client,
        run: field(server.as_deref(), "run_id"),
        history: field(answer()?.as_deref(), "master_replid"),
        sharded: AtomicBool::new(has_sharded(server.as_deref(), answer()?.as_deref())),
        gone: CancellationToken::new(),
    };
    Ok((Arc::new(node), connection))
}

/// A connection, and nothing more.
pub(super) async fn open(client: &Client, limits: Limits) -> Result<MultiplexedConnection, StoreError> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(limits.connection))
        .set_response_timeout(Some(limits.response));
    client
        .get_multiplexed_async_connection_with_config(&config)
        .await
        .map_err(|error| failure::of_connecting(&error))
}

/// As [`connect`] for a primary, and all of it within `limit`.
pub(super) async fn connect_within(
    limit: Duration,
    found: (Client, &Address),
    number: u64,
    limits: Limits,
) -> Result<(Arc<Node>, MultiplexedConnection), StoreError> {
    let address = found.1;
    match timeout(limit, connect(found, number, limits, true)).await {
        Ok(connected) => connected,
        Err(_) => Err(StoreError::Unavailable(format!("{address} does not answer"))),
    }
}

/// The text, or the first one of a list. Nothing, where the server refuses to tell; an error, where it does for now.
fn told(answer: Value) -> Result<Option<String>, StoreError> {
    match answer {
        Value::Array(items) => items.into_iter().next().map_or(Ok(None), told),
        Value::BulkString(bytes) => Ok(String::from_utf8(bytes).ok()),
        Value::SimpleString(text) => Ok(Some(text)),
        Value::ServerError(error) if failure::is_passing(error.code()) => {
            Err(StoreError::Unavailable(::redis::RedisError::from(error).to_string()))
        }
        _ => Ok(None),
    }
}

/// Whether a server has sharded channels, and is in a cluster, where alone they are of use.
fn has_sharded(server: Option<&str>, cluster: Option<&str>) -> bool {
    // Valkey says as which version of Redis it behaves.
    let version = field(server, "redis_version");
    let major = version.split('.').next().and_then(|major| major.parse().ok());
    field(cluster, "cluster_enabled") == "1" && major.unwrap_or(0) >= 7
}

/// The value of `name` in the answer to INFO.
pub(super) fn field(info: Option<&str>, name: &str) -> String {
    let value = info
        .unwrap_or_default()
        .lines()
        .find_map(|line| line.split_once(':').filter(|(field, _)| *field == name));
    value.map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let info = "# Server\r\nmy_run_id:1\r\nrun_id:abc\r\n";
        assert_eq!(field(Some(info), "run_id"), "abc");
        assert_eq!(field(Some(info), "master_replid"), "");
        assert_eq!(field(None, "run_id"), "");
    }

    #[test]
    fn sharded_channels_are_for_clusters_from_version_7_on() {
        let cluster = Some("# Cluster\r\ncluster_enabled:1\r\n");
        for version in ["7.0.15", "7.2.4", "8.0.0", "10.1"] {
            let server = format!("redis_version:{version}\r\n");
            assert!(has_sharded(Some(&server), cluster), "{version}");
            assert!(!has_sharded(Some(&server), Some("cluster_enabled:0")), "{version}");
            assert!(!has_sharded(Some(&server), None), "{version}");
        }
        assert!(!has_sharded(Some("redis_version:6.2.14\r\n"), cluster));
        assert!(!has_sharded(Some("redis_version:new\r\n"), cluster));
        assert!(!has_sharded(None, cluster));
    }
}
