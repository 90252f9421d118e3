//! A subscription: a connection of its own on which a server says what it hears on some channels.
//!
//! What is said on a plain channel a cluster passes on to each of its nodes, what is said on a sharded one to the replicas
//! of the node that has the channel's slot, and to nobody else. All channels of a partition have the tag of its keys, and so
//! are in their slot.
//!
//! Sharded channels the crate only has in its client for clusters, which has a mind of its own about where it is connected
//! to. So here their commands are sent as any other, on a connection that speaks RESP3, by which what is heard comes
//! beside the answers. Plain channels go on by RESP2, which every server and proxy speaks.

use std::time::Duration;

use ::redis::aio::{MultiplexedConnection, PubSubSink, PubSubStream};
use ::redis::{AsyncConnectionConfig, Client, ProtocolVersion, PushInfo, PushKind, RedisResult, Value};
use futures_util::StreamExt as _;
use tokio::sync::mpsc::{self, UnboundedReceiver};

use super::connection::Connection;
use super::failure::Failure;
use super::node::Node;
use super::reply::{self, Items};
use crate::store::{Result, StoreError};

/// By which channels hints go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Channels {
    Plain,
    Sharded,
}

impl Channels {
    /// The command that says something on a channel.
    pub(super) fn publish(self) -> &'static str {
        match self {
            Self::Plain => "PUBLISH",
            Self::Sharded => "SPUBLISH",
        }
    }

    /// Whether somebody listens to this channel at the server where the commands go, if that is `node` still.
    ///
    /// # Errors
    /// [`StoreError::Broken`], if nobody can say anything on such a channel there.
    pub(super) async fn are_heard(self, connection: &Connection, node: &Node, channel: &str) -> Result<bool> {
        let mut ask = match self {
            Self::Plain => ::redis::cmd("PUBSUB"),
            // Its answer is how many hear it, and it shows whether this user may.
            Self::Sharded => ::redis::cmd(self.publish()),
        };
        match self {
            Self::Plain => ask.arg("NUMSUB").arg(channel),
            Self::Sharded => ask.arg(channel).arg(""),
        };
        let (answer, asked) = match connection.send_to_primary(&ask).await {
            Ok(answered) => answered,
            Err(Failure::Store(error @ StoreError::Broken(_))) if self == Self::Sharded => return Err(error),
            Err(_) => return Ok(false),
        };
        let listeners = match self {
            Self::Plain => Items::of(answer).and_then(|mut counts| {
                counts.value()?;
                counts.number::<u64>()
            }),
            Self::Sharded => reply::number(&answer),
        };
        Ok(asked.number == node.number && listeners.is_ok_and(|listeners| listeners > 0))
    }
}

/// A subscription. It ends when this is dropped.
pub(super) enum Subscription {
    Plain {
        sink: PubSubSink,
        stream: PubSubStream,
    },
    Sharded {
        connection: MultiplexedConnection,
        pushes: UnboundedReceiver<PushInfo>,
        /// The channel that was given up on purpose.
        left: String,
    },
}

impl Subscription {
    /// Connects. Each answer may take as long as `limit`.
    pub(super) async fn open(client: &Client, channels: Channels, limit: Duration) -> RedisResult<Self> {
        match channels {
            Channels::Plain => {
                let (sink, stream) = client.get_async_pubsub().await?.split();
                Ok(Self::Plain { sink, stream })
            }
            Channels::Sharded => {
                let info = client.get_connection_info().clone();
                let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
                let client = Client::open(info.set_redis_settings(settings))?;
                let (sender, pushes) = mpsc::unbounded_channel();
                let config = AsyncConnectionConfig::new()
                    .set_connection_timeout(Some(limit))
                    .set_response_timeout(Some(limit))
                    .set_push_sender(sender);
                let connection = client.get_multiplexed_async_connection_with_config(&config).await?;
                let left = String::new();
                Ok(Self::Sharded {
                    connection,
                    pushes,
                    left,
                })
            }
        }
    }

    /// Subscribes to channels on which others give hints. By whatever they give them: a foreign producer, or a process of
    /// another version or another user, may do it by plain channels where this one has sharded ones.
    pub(super) async fn hear(&mut self, hints: &[&str]) -> RedisResult<()> {
        self.subscribe(hints, &["SSUBSCRIBE", "SUBSCRIBE"]).await
    }

    /// Subscribes to channels on which nobody says anything: that somebody listens is what counts.
    pub(super) async fn show(&mut self, channels: &[&str]) -> RedisResult<()> {
        self.subscribe(channels, &["SSUBSCRIBE"]).await
    }

    /// Subscribes to channels; where they are sharded ones, by these commands.
    async fn subscribe(&mut self, channels: &[&str], by: &[&str]) -> RedisResult<()> {
        match self {
            Self::Plain { sink, .. } => sink.subscribe(channels).await,
            Self::Sharded { connection, .. } => {
                let mut all = ::redis::pipe();
                for channel in channels {
                    // One for each, as each has an answer of its own.
                    for command in by {
                        all.cmd(command).arg(channel).ignore();
                    }
                }
                all.exec_async(connection).await
            }
        }
    }

    /// Gives up one channel.
    pub(super) async fn leave(&mut self, channel: &str) -> RedisResult<()> {
        match self {
            Self::Plain { sink, .. } => sink.unsubscribe(channel).await,
            Self::Sharded { connection, left, .. } => {
                channel.clone_into(left);
                let mut leave = ::redis::cmd("SUNSUBSCRIBE");
                leave.arg(channel).exec_async(connection).await
            }
        }
    }

    /// The channel on which something is heard next; nothing, when all or a part of the subscription is lost. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<String> {
        match self {
            Self::Plain { stream, .. } => stream.next().await.map(|heard| heard.get_channel_name().to_owned()),
            Self::Sharded { pushes, left, .. } => loop {
                let push = pushes.recv().await?;
                let channel = push.data.into_iter().next().map(reply::text);
                let channel = channel.and_then(Result::ok).unwrap_or_default();
                match push.kind {
                    PushKind::SMessage | PushKind::Message => return Some(channel),
                    // The slot went to another node, and the server gave up its channels.
                    PushKind::SUnsubscribe if channel != *left => return None,
                    PushKind::Disconnection => return None,
                    _ => {}
                }
            },
        }
    }

    /// Asks whether the server is still there.
    pub(super) async fn ping(&mut self) -> RedisResult<()> {
        match self {
            Self::Plain { sink, .. } => sink.ping::<Value>().await.map(drop),
            Self::Sharded { connection, .. } => ::redis::cmd("PING").exec_async(connection).await,
        }
    }
}
