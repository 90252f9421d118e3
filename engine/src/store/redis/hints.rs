//! Hints from everybody: a subscriber that forwards the line's channels to this store's [`Wakes`].
//!
//! It follows the commands: each time they get a new connection, it subscribes anew at the same server. So hints are
//! heard where they are given, and that somebody listens is seen where it is asked. Now and then it looks whether the
//! primary is still where the commands go.
//!
//! Of the line's channels it hears those that somebody here listens for, from the first time on: each other one would wake
//! this process, and cost the server a write, for nothing.
//!
//! Plain channels in a cluster too, though their hints go to every node of it: the crate subscribes to sharded ones
//! only by its client for clusters, which has a server of its own mind about where it is connected to.

use std::future::pending;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ::redis::aio::{PubSub, PubSubSink, PubSubStream};
use ::redis::{RedisResult, Value};
use futures_util::StreamExt as _;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::connection::Connection;
use super::keys::Keys;
use super::node::Node;
use super::reply::Items;
use crate::wake::{Topic, Wakes};

const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// After this long without a hint the connection is asked whether it is still there: a dead one says nothing either.
const QUIET: Duration = Duration::from_secs(1);
/// So often it is looked whether the primary is another one, whose predecessor does not know it.
const LOOK: Duration = Duration::from_secs(1);

/// What stands: the subscription, and the channel of this process's own in it.
#[derive(Debug, Clone)]
struct Standing {
    /// Of the connection for commands for which it was made.
    number: u64,
    life: String,
}

/// The running subscriber. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Hints {
    task: JoinHandle<()>,
    standing: Arc<Mutex<Option<Standing>>>,
    nodes: watch::Receiver<Option<Arc<Node>>>,
}

impl Drop for Hints {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Hints {
    /// Subscribes, and from then on stays subscribed as well as it can. It is no error if that does not work now or
    /// ever: without hints everybody looks every [`crate::wake::FALLBACK`].
    ///
    /// The subscription includes a channel of this process's own, for `process`, on which nobody ever says anything:
    /// that somebody listens to it tells the others that this process is there.
    pub(super) async fn start(
        connection: Arc<Connection>,
        keys: &Keys,
        process: String,
        wakes: Wakes,
        limit: Duration,
    ) -> Self {
        let standing = Arc::new(Mutex::new(None));
        let nodes = connection.node();
        let mut subscriber = Subscriber {
            connection,
            keys: keys.clone(),
            process,
            standing: standing.clone(),
            nodes: nodes.clone(),
            wanted: wakes.wanted(),
            wakes,
            limit,
        };
        let first = match subscriber.node() {
            Some(node) => subscriber.subscribe(&node).await,
            None => None,
        };
        Self {
            task: tokio::spawn(subscriber.run(first)),
            standing,
            nodes,
        }
    }

    /// The channel of this process's own; none, while there is no subscription to it where the commands go.
    pub(super) fn life(&self) -> String {
        let number = self.nodes.borrow().as_ref().map(|node| node.number);
        let standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        let standing = standing.as_ref().filter(|standing| Some(standing.number) == number);
        standing.map(|standing| standing.life.clone()).unwrap_or_default()
    }
}

struct Subscriber {
    connection: Arc<Connection>,
    keys: Keys,
    process: String,
    standing: Arc<Mutex<Option<Standing>>>,
    nodes: watch::Receiver<Option<Arc<Node>>>,
    wanted: watch::Receiver<[bool; Topic::ALL.len()]>,
    wakes: Wakes,
    /// How long the server may take to answer.
    limit: Duration,
}

/// A subscription, and the number of the connection for commands for which it was made.
struct Subscription {
    number: u64,
    sink: PubSubSink,
    stream: PubSubStream,
    topics: [bool; Topic::ALL.len()],
}

impl Subscriber {
    async fn run(mut self, mut subscription: Option<Subscription>) {
        let mut pause = SHORTEST_PAUSE;
        loop {
            if let Some(subscribed) = &mut subscription {
                pause = SHORTEST_PAUSE;
                // Whatever was said while nobody listened.
                self.wakes.wake_all();
                if self.forward(subscribed).await == Ended::Lost {
                    self.stand(None);
                    subscription = None;
                    sleep(pause).await;
                }
            } else {
                tokio::select! {
                    () = sleep(pause) => pause = LONGEST_PAUSE.min(pause * 2),
                    () = changed(&mut self.nodes) => pause = SHORTEST_PAUSE,
                }
            }
            // The old one stands until the new one does: where it is the same server, nobody is missed meanwhile.
            let Some(node) = self.node() else { continue };
            if subscription
                .as_ref()
                .is_none_or(|subscription| subscription.number != node.number)
            {
                subscription = self.subscribe(&node).await;
            }
        }
    }

    /// Where the commands go now.
    fn node(&mut self) -> Option<Arc<Node>> {
        self.nodes.borrow_and_update().clone()
    }

    fn stand(&self, standing: Option<Standing>) {
        *self.standing.lock().unwrap_or_else(PoisonError::into_inner) = standing;
    }

    async fn subscribe(&self, node: &Node) -> Option<Subscription> {
        let life = self.keys.life(&node.run, &self.process);
        let topics = *self.wanted.borrow();
        let subscribed = tokio::select! {
            subscribed = timeout(self.limit, self.try_subscribe(node, &life, topics)) => subscribed,
            () = node.gone.cancelled() => return None,
        };
        match subscribed {
            Ok(Ok((subscription, is_there))) => {
                self.stand((is_there && !node.run.is_empty()).then_some(Standing {
                    number: node.number,
                    life,
                }));
                let (sink, stream) = subscription.split();
                Some(Subscription {
                    number: node.number,
                    sink,
                    stream,
                    topics,
                })
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, "no subscription to the line's hints");
                None
            }
            Err(_) => {
                tracing::debug!("no subscription to the line's hints: the server does not answer");
                None
            }
        }
    }

    /// The subscription, and whether it is where the commands go: the name is resolved anew for it, and another server
    /// may stand behind it. Who is asked whether somebody is alive would not see it there.
    async fn try_subscribe(
        &self,
        node: &Node,
        life: &str,
        topics: [bool; Topic::ALL.len()],
    ) -> RedisResult<(PubSub, bool)> {
        let mut subscription = node.client.get_async_pubsub().await?;
        let mut channels: Vec<&str> = chosen(topics).map(|topic| self.keys.wake(topic)).collect();
        channels.push(life);
        // The old subscription may still be at the right server, and has the other channels too.
        let proof = format!("{life}:{}", uuid::Uuid::new_v4().simple());
        channels.push(&proof);
        subscription.subscribe(&channels).await?;
        let is_there = self.is_heard(node, &proof).await;
        subscription.unsubscribe(&proof).await?;
        Ok((subscription, is_there))
    }

    /// Whether somebody listens to `channel` at the server where the commands go, if that is `node` still.
    async fn is_heard(&self, node: &Node, channel: &str) -> bool {
        let mut ask = ::redis::pipe();
        ask.cmd("PUBSUB").arg("NUMSUB").arg(channel);
        let Ok((replies, asked)) = self.connection.send_all(&ask).await else {
            return false;
        };
        let heard = Items::of(Value::Array(replies)).and_then(|mut replies| {
            let mut counts = replies.items()?;
            counts.value()?;
            counts.number::<u64>()
        });
        asked.number == node.number && heard.is_ok_and(|listeners| listeners > 0)
    }

    /// Subscribes to what somebody listens for since.
    async fn subscribe_more(&self, subscription: &mut Subscription) -> Result<(), Ended> {
        let wanted = *self.wanted.borrow();
        let new: Vec<Topic> = chosen(wanted)
            .filter(|topic| !subscription.topics[*topic as usize])
            .collect();
        let channels: Vec<&str> = new.iter().map(|topic| self.keys.wake(*topic)).collect();
        match timeout(self.limit, subscription.sink.subscribe(&channels)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return Err(Ended::Lost),
        }
        subscription.topics = wanted;
        // Whatever was said while nobody listened.
        new.iter().for_each(|topic| self.wakes.wake(*topic));
        Ok(())
    }

    /// Forwards hints until the connection is gone or the commands go elsewhere.
    async fn forward(&mut self, subscription: &mut Subscription) -> Ended {
        let mut look_at = Instant::now() + LOOK;
        loop {
            if *self.wanted.borrow_and_update() != subscription.topics
                && self.subscribe_more(subscription).await.is_err()
            {
                return Ended::Lost;
            }
            let heard = tokio::select! {
                biased;
                () = sleep_until(look_at) => {
                    let node = self.nodes.borrow().clone();
                    if let Some(node) = node {
                        self.connection.glance(&node).await;
                    }
                    // From now: a glance that took longer than that would be due again before anything is heard.
                    look_at = Instant::now() + LOOK;
                    continue;
                }
                heard = timeout(QUIET, subscription.stream.next()) => heard,
                () = changed(&mut self.nodes) => {
                    match self.nodes.borrow().as_ref() {
                        Some(node) if node.number != subscription.number => return Ended::Moved,
                        _ => continue,
                    }
                }
                Ok(()) = self.wanted.changed() => continue,
            };
            match heard {
                Ok(Some(message)) => {
                    let name = message.get_channel_name();
                    if let Some(topic) = Topic::ALL.into_iter().find(|topic| self.keys.wake(*topic) == name) {
                        self.wakes.wake(topic);
                    }
                }
                Ok(None) => return Ended::Lost,
                Err(_) => match timeout(self.limit, subscription.sink.ping::<::redis::Value>()).await {
                    Ok(Ok(_)) => {}
                    Ok(Err(_)) | Err(_) => return Ended::Lost,
                },
            }
        }
    }
}

fn chosen(topics: [bool; Topic::ALL.len()]) -> impl Iterator<Item = Topic> {
    Topic::ALL.into_iter().filter(move |topic| topics[*topic as usize])
}

/// Why a subscription is of no use any more.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    Lost,
    Moved,
}

/// Returns when the commands go elsewhere, or nowhere.
async fn changed(nodes: &mut watch::Receiver<Option<Arc<Node>>>) {
    if nodes.changed().await.is_err() {
        // The store is gone, and this with it in a moment.
        pending::<()>().await;
    }
}
